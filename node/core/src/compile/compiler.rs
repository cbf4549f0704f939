//! Keeps all objects and what they compile to, and compiles no more than a change demands.

use std::collections::{BTreeMap, BTreeSet};

use super::codes;
use super::gateways::{self, Gateways};
use super::regexes::Regexes;
use super::routes::{self, Unit};
use super::store::Objects;
use super::{
    Allocations, Change, Compiled, ObjectStatus, Settings, addresses, endpoints, ingress, ingress_tls, listener_refs,
    shadows,
};
use crate::intent::{Finding, Object, ObjectKind, ObjectRef, Spec};
use crate::snapshot::{Gateway, GatewayAddress, Key, Kind, Resource};

/// Holds all objects and what they compile to.
#[derive(Debug)]
pub struct Compiler {
    settings: Settings,
    objects: Objects,
    allocations: Allocations,
    resources: BTreeMap<Key, Resource>,
    gateways: Gateways,
    /// Of HTTPRoutes and Ingresses.
    units: BTreeMap<Key, Unit>,
    /// Of Gateways and classes.
    findings: Vec<Finding>,
    statuses: Vec<ObjectStatus>,
    /// Between routes.
    shadows: Vec<Finding>,
    regexes: Regexes,
}

/// What has to be compiled again. A Service or EndpointSlice is a resource by itself; an
/// HTTPRoute depends on others, but none on it; everything else may change what any route means,
/// and so may a Service that appears, goes, or changes its ports.
#[derive(Debug, Default)]
struct Dirty {
    alone: BTreeSet<ObjectRef>,
    routes: BTreeSet<ObjectRef>,
    all: bool,
}

/// Resources that changed.
type Delta = BTreeMap<Key, Option<Resource>>;

impl Dirty {
    fn note(&mut self, name: ObjectRef, old: Option<&Object>, new: Option<&Object>) {
        if old == new {
            return;
        }
        match name.kind {
            ObjectKind::EndpointSlice => {
                self.alone.insert(name);
            }
            ObjectKind::HttpRoute => {
                self.routes.insert(name);
            }
            ObjectKind::Service => {
                self.all |= match (old.map(|object| &object.spec), new.map(|object| &object.spec)) {
                    (Some(Spec::Service(old)), Some(Spec::Service(new))) => !endpoints::same_shape(old, new),
                    _ => true,
                };
                self.alone.insert(name);
            }
            _ => self.all = true,
        }
    }
}

impl Compiler {
    /// A compiler without objects. `allocations` come from the last snapshot.
    pub fn new(settings: Settings, allocations: Allocations) -> Self {
        Compiler {
            settings,
            objects: Objects::default(),
            allocations,
            resources: BTreeMap::new(),
            gateways: Gateways::default(),
            units: BTreeMap::new(),
            findings: Vec::new(),
            statuses: Vec::new(),
            shadows: Vec::new(),
            regexes: Regexes::default(),
        }
    }

    /// Applies changes and returns what they change.
    pub fn apply(&mut self, changes: Vec<Change>) -> Compiled {
        let mut dirty = Dirty::default();
        for (name, object) in changes {
            let old = self.objects.set(&name, object);
            let new = self.objects.get(name.kind, &name.namespace, &name.name);
            dirty.note(name, old.as_ref(), new);
        }
        let mut delta = Delta::new();
        for name in &dirty.alone {
            self.compile_alone(name, &mut delta);
        }
        if dirty.all {
            self.compile_all(&mut delta);
        } else {
            for name in &dirty.routes {
                self.compile_route(name, &mut delta);
            }
        }
        if dirty.all || !dirty.routes.is_empty() {
            self.shadows = shadows::find(&self.resources, &self.units);
        }
        Compiled {
            resources: delta.into_iter().collect(),
            findings: self.all_findings(),
            statuses: self.all_statuses(),
        }
    }

    /// Everything compiled, by key.
    pub fn resources(&self) -> &BTreeMap<Key, Resource> {
        &self.resources
    }

    /// The addresses that Gateways have now; what the next compiler is to be given.
    pub fn allocations(&self) -> &Allocations {
        &self.allocations
    }

    /// A Service or EndpointSlice.
    fn compile_alone(&mut self, name: &ObjectRef, delta: &mut Delta) {
        let kind = if name.kind == ObjectKind::Service { Kind::Service } else { Kind::Endpoints };
        let key = Key { kind, namespace: name.namespace.clone(), name: name.name.clone() };
        let object = self.objects.get(name.kind, &name.namespace, &name.name);
        let resource = object.and_then(|object| match &object.spec {
            Spec::Service(service) => Some(endpoints::service(service)),
            Spec::EndpointSlice(slice) => endpoints::slice(&object.meta, slice),
            _ => None,
        });
        put(&mut self.resources, delta, key, resource);
    }

    /// One HTTPRoute.
    fn compile_route(&mut self, name: &ObjectRef, delta: &mut Delta) {
        let key = Key { kind: Kind::HttpRoute, namespace: name.namespace.clone(), name: name.name.clone() };
        let resource = match self.objects.get(name.kind, &name.namespace, &name.name) {
            Some(Object { meta, spec: Spec::HttpRoute(route) }) => {
                let (resource, unit) = routes::compile(&self.objects, &self.gateways, &mut self.regexes, meta, route);
                self.units.insert(key.clone(), unit);
                resource
            }
            _ => {
                self.units.remove(&key);
                None
            }
        };
        put(&mut self.resources, delta, key, resource);
    }

    /// Everything but Services and EndpointSlices.
    fn compile_all(&mut self, delta: &mut Delta) {
        self.regexes.renew();
        self.units.clear();
        let mut next: BTreeMap<Key, Resource> = BTreeMap::new();
        self.compile_gateways(&mut next);
        for object in self.objects.of(ObjectKind::HttpRoute) {
            if let Spec::HttpRoute(route) = &object.spec {
                let (resource, unit) =
                    routes::compile(&self.objects, &self.gateways, &mut self.regexes, &object.meta, route);
                let key = routes::key(&object.meta);
                next.extend(resource.map(|resource| (key.clone(), resource)));
                self.units.insert(key, unit);
            }
        }
        self.add_certificates(&mut next);
        let made_here = |kind| !matches!(kind, Kind::Service | Kind::Endpoints);
        let gone: Vec<Key> =
            self.resources.keys().filter(|key| made_here(key.kind) && !next.contains_key(*key)).cloned().collect();
        for (key, resource) in next.into_iter().map(|(key, resource)| (key, Some(resource))) {
            put(&mut self.resources, delta, key, resource);
        }
        for key in gone {
            put(&mut self.resources, delta, key, None);
        }
    }

    /// Gateways, and IngressClasses with their Ingresses.
    fn compile_gateways(&mut self, next: &mut BTreeMap<Key, Resource>) {
        let objects = &self.objects;
        let (classes, findings) = ingress::classes(objects, &self.settings.ingress_controller);
        let declared = gateways::ours(objects, &self.settings.controller_name);
        let wanted: BTreeSet<&Key> = classes.keys().chain(&declared).collect();
        self.allocations = addresses::allocate(wanted.iter().copied(), &self.allocations);

        let output = gateways::compile(objects, &self.settings.controller_name, &self.allocations);
        next.extend(output.resources);
        self.gateways = output.gateways;
        self.statuses = output.statuses;
        self.findings = output.findings;
        self.findings.extend(findings);
        for (key, class) in &classes {
            let (listeners, findings) = ingress_tls::listeners(objects, class);
            self.findings.extend(findings);
            let number = self.allocations.get(key);
            let served = if number.is_some() { listeners.as_slice() } else { &[] };
            for (meta, ingress) in &class.ingresses {
                let (resource, unit) = ingress::compile(objects, class, served, &mut self.regexes, (meta, ingress));
                let key = ingress::key(meta);
                next.extend(resource.map(|resource| (key.clone(), resource)));
                self.units.insert(key, unit);
            }
            if let Some(&number) = number {
                let address = GatewayAddress::Loopback(number);
                let gateway = Gateway { generation: class.meta.generation, address, listeners };
                next.insert(key.clone(), Resource::Gateway(gateway));
            } else {
                let finding = codes::ADDRESSES_EXHAUSTED.at(&class.meta.object, "", gateways::no_address());
                self.findings.push(finding);
            }
        }
    }

    /// The certificates that a served listener refers to.
    fn add_certificates(&self, next: &mut BTreeMap<Key, Resource>) {
        let referenced: BTreeSet<Key> = next
            .values()
            .filter_map(|resource| match resource {
                Resource::Gateway(gateway) => Some(gateway),
                _ => None,
            })
            .flat_map(|gateway| gateway.listeners.iter().flat_map(listener_refs::of).cloned())
            .collect();
        for key in referenced {
            let resource = listener_refs::resource(&self.objects, &key);
            next.extend(resource.map(|resource| (key, resource)));
        }
    }

    fn all_findings(&self) -> Vec<Finding> {
        let of_units = self.units.values().flat_map(|unit| &unit.findings);
        let mut findings: Vec<Finding> = self.findings.iter().chain(of_units).chain(&self.shadows).cloned().collect();
        findings.sort();
        findings.dedup();
        findings
    }

    fn all_statuses(&self) -> Vec<ObjectStatus> {
        let of_units = self.units.values().filter_map(|unit| unit.status.as_ref());
        let mut statuses: Vec<ObjectStatus> = self.statuses.iter().chain(of_units).cloned().collect();
        statuses.sort_by(|a, b| a.object.cmp(&b.object));
        statuses
    }
}

/// Puts or removes a resource; only what differs is a change.
fn put(resources: &mut BTreeMap<Key, Resource>, delta: &mut Delta, key: Key, resource: Option<Resource>) {
    match resource {
        Some(resource) if resources.get(&key) == Some(&resource) => {}
        Some(resource) => {
            delta.insert(key.clone(), Some(resource.clone()));
            resources.insert(key, resource);
        }
        None => {
            if resources.remove(&key).is_some() {
                delta.insert(key, None);
            }
        }
    }
}
