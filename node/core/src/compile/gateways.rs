//! Gateways of our classes: listeners, address, conditions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::listeners::{self, Section};
use super::status::{ACCEPTED, PROGRAMMED, but, no, status, yes};
use super::store::Objects;
use super::{Allocations, Finding, ObjectStatus, codes};
use crate::intent::{Meta, ObjectKind, Spec};
use crate::snapshot::{Gateway, GatewayAddress, Key, Kind, Resource};

/// The Gateways that are ours, by namespace and name.
#[derive(Debug, Default)]
pub(crate) struct Gateways(BTreeMap<Arc<str>, BTreeMap<Arc<str>, Parent>>);

/// A Gateway as routes see it.
#[derive(Debug)]
pub(crate) struct Parent {
    /// Its key.
    pub(crate) key: Key,
    /// Its listeners, in declared order.
    pub(crate) sections: Vec<Section>,
}

impl Gateways {
    /// One that is ours.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&Parent> {
        self.0.get(namespace)?.get(name)
    }
}

/// Everything that was made from Gateways.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// For routes.
    pub(crate) gateways: Gateways,
    /// For the snapshot.
    pub(crate) resources: Vec<(Key, Resource)>,
    /// What is wrong.
    pub(crate) findings: Vec<Finding>,
    /// Their conditions.
    pub(crate) statuses: Vec<ObjectStatus>,
}

/// The key of a Gateway's resource.
pub(crate) fn key(meta: &Meta) -> Key {
    Key { kind: Kind::Gateway, namespace: meta.object.namespace.clone(), name: meta.object.name.clone() }
}

/// Our GatewayClasses, by name.
fn classes<'a>(objects: &'a Objects, controller: &str) -> BTreeSet<&'a str> {
    let ours = objects
        .of(ObjectKind::GatewayClass)
        .filter(|object| matches!(&object.spec, Spec::GatewayClass(class) if class.controller_name == controller));
    ours.map(|object| &*object.meta.object.name).collect()
}

/// The keys of all Gateways that are ours.
pub(crate) fn ours(objects: &Objects, controller: &str) -> Vec<Key> {
    let classes = classes(objects, controller);
    objects
        .gateways()
        .filter(|(_, gateway)| classes.contains(gateway.class.as_str()))
        .map(|(meta, _)| key(meta))
        .collect()
}

/// Compiles all Gateways that are ours.
pub(crate) fn compile(objects: &Objects, controller: &str, allocations: &Allocations) -> Output {
    let classes = classes(objects, controller);
    let mut output = Output::default();
    for (meta, gateway) in objects.gateways() {
        if classes.contains(gateway.class.as_str()) {
            output.add(objects, meta, gateway, allocations);
        } else if objects.get(ObjectKind::GatewayClass, "", &gateway.class).is_none() {
            let message = format!("GatewayClass {} does not exist, so nothing serves this Gateway", gateway.class);
            output.findings.push(codes::CLASS_NOT_FOUND.at(&meta.object, "spec.gatewayClassName", message));
        }
    }
    output
}

impl Output {
    fn add(&mut self, objects: &Objects, meta: &Meta, gateway: &crate::intent::Gateway, allocations: &Allocations) {
        let key = key(meta);
        let number = allocations.get(&key).copied();
        let mut checked = listeners::check(objects, meta, gateway);
        checked.conditions.push(accepted(checked.accepted, gateway.listeners.len()));
        self.findings.append(&mut checked.findings);
        match number {
            Some(number) => {
                let address = GatewayAddress::Loopback(number);
                let resource = Gateway { generation: meta.generation, address, listeners: checked.listeners };
                self.resources.push((key.clone(), Resource::Gateway(resource)));
            }
            None => {
                let message = no_address();
                self.findings.push(codes::ADDRESSES_EXHAUSTED.at(&meta.object, "", message.clone()));
                checked.conditions.push(no("", PROGRAMMED, "AddressNotAssigned", message));
                checked.sections.iter_mut().for_each(|section| section.served = false);
            }
        }
        self.statuses.push(status(meta, number.map(|_| key.clone()), checked.conditions));
        let (namespace, name) = (key.namespace.clone(), key.name.clone());
        self.gateways.0.entry(namespace).or_default().insert(name, Parent { key, sections: checked.sections });
    }
}

/// Words for a Gateway that found no address.
pub(crate) fn no_address() -> String {
    "all 254 loopback addresses are taken; remove a Gateway that is not needed".to_owned()
}

fn accepted(accepted: usize, declared: usize) -> super::Condition {
    match declared - accepted {
        0 => yes("", ACCEPTED, "Accepted"),
        bad if accepted == 0 => no("", ACCEPTED, "ListenersNotValid", format!("none of {bad} listeners is valid")),
        bad => but("", ACCEPTED, "ListenersNotValid", format!("{bad} of {declared} listeners are not valid")),
    }
}
