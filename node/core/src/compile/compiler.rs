//! Keeps all objects and what they compile to, and compiles no more than a change demands.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::codes;
use super::gateways::{self, Gateways};
use super::regexes::Regexes;
use super::routes::{self, Unit};
use super::shadows::Shadows;
use super::store::Objects;
use super::verdicts::Verdicts;
use super::{
    Allocations, Change, Compiled, ObjectStatus, Settings, addresses, endpoints, ingress, ingress_tls, listener_refs,
};
use crate::intent::{Finding, Object, ObjectKind, ObjectRef, Spec};
use crate::snapshot::{Gateway, GatewayAddress, Key, Kind, Resource, Route};

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
    /// Of Gateways and classes, by object.
    findings: HashMap<ObjectRef, Vec<Finding>>,
    /// Between routes.
    shadows: Shadows,
    verdicts: Verdicts,
    regexes: Regexes,
    effort: usize,
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

/// What changed.
#[derive(Debug, Default)]
struct Delta {
    resources: BTreeMap<Key, Option<Resource>>,
    /// Routes about which something else may be found now.
    affected: BTreeSet<Key>,
}

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
            findings: HashMap::new(),
            shadows: Shadows::default(),
            verdicts: Verdicts::default(),
            regexes: Regexes::default(),
            effort: 0,
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
        let mut delta = Delta::default();
        for name in &dirty.alone {
            self.compile_alone(name, &mut delta);
        }
        if dirty.all {
            self.compile_all(&mut delta);
        } else {
            for name in &dirty.routes {
                self.compile_route(name, &mut delta);
            }
            for key in std::mem::take(&mut delta.affected) {
                self.judge(&key);
            }
        }
        let news = self.verdicts.news();
        Compiled {
            resources: delta.resources.into_iter().collect(),
            findings: news.findings.into_iter().collect(),
            statuses: news.statuses.into_iter().collect(),
        }
    }

    /// How many objects and matches were looked at since the beginning. For tests: a change of one
    /// object must not look at all others.
    pub fn effort(&self) -> usize {
        self.effort
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
        self.put(delta, key, resource);
    }

    /// One HTTPRoute.
    fn compile_route(&mut self, name: &ObjectRef, delta: &mut Delta) {
        let key = Key { kind: Kind::HttpRoute, namespace: name.namespace.clone(), name: name.name.clone() };
        let resource = match self.objects.get(name.kind, &name.namespace, &name.name) {
            Some(Object { meta, spec: Spec::HttpRoute(route) }) => {
                let (resource, mut unit) =
                    routes::compile(&self.objects, &self.gateways, &mut self.regexes, meta, route);
                self.verdicts.set_status(name, unit.status.take());
                self.units.insert(key.clone(), unit);
                resource
            }
            _ => {
                self.verdicts.set_status(name, None);
                self.units.remove(&key);
                None
            }
        };
        delta.affected.insert(key.clone());
        self.put(delta, key, resource);
    }

    /// Everything but Services and EndpointSlices.
    fn compile_all(&mut self, delta: &mut Delta) {
        self.regexes.renew();
        self.units.clear();
        self.findings.clear();
        let mut next: BTreeMap<Key, Resource> = BTreeMap::new();
        let mut statuses = self.compile_gateways(&mut next);
        for object in self.objects.of(ObjectKind::HttpRoute) {
            if let Spec::HttpRoute(route) = &object.spec {
                let (resource, unit) =
                    routes::compile(&self.objects, &self.gateways, &mut self.regexes, &object.meta, route);
                let key = routes::key(&object.meta);
                next.extend(resource.map(|resource| (key.clone(), resource)));
                self.units.insert(key, unit);
            }
        }
        statuses.extend(self.units.values_mut().filter_map(|unit| unit.status.take()));
        self.add_certificates(&mut next);
        let made_here = |kind| !matches!(kind, Kind::Service | Kind::Endpoints);
        let gone: Vec<Key> =
            self.resources.keys().filter(|key| made_here(key.kind) && !next.contains_key(*key)).cloned().collect();
        for (key, resource) in next.into_iter().map(|(key, resource)| (key, Some(resource))) {
            self.put(delta, key, resource);
        }
        for key in gone {
            self.put(delta, key, None);
        }
        self.judge_all(statuses);
    }

    /// Gateways, and IngressClasses with their Ingresses.
    fn compile_gateways(&mut self, next: &mut BTreeMap<Key, Resource>) -> Vec<ObjectStatus> {
        let objects = &self.objects;
        let (classes, findings) = ingress::classes(objects, &self.settings.ingress_controller);
        let declared = gateways::ours(objects, &self.settings.controller_name);
        let wanted: BTreeSet<&Key> = classes.keys().chain(&declared).collect();
        self.allocations = addresses::allocate(wanted.iter().copied(), &self.allocations);

        let output = gateways::compile(objects, &self.settings.controller_name, &self.allocations);
        next.extend(output.resources);
        self.gateways = output.gateways;
        let mut all_findings = output.findings;
        all_findings.extend(findings);
        for (key, class) in &classes {
            let (listeners, findings) = ingress_tls::listeners(objects, class);
            all_findings.extend(findings);
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
                all_findings.push(finding);
            }
        }
        for finding in all_findings {
            // Whatever compile finds, it finds about an object.
            let Some(object) = finding.object.clone() else { continue };
            self.findings.entry(object).or_default().push(finding);
        }
        output.statuses
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

    /// Puts or removes a resource; only what differs is a change.
    fn put(&mut self, delta: &mut Delta, key: Key, resource: Option<Resource>) {
        self.effort += 1;
        if self.resources.get(&key) == resource.as_ref() {
            return;
        }
        let old = match &resource {
            Some(resource) => self.resources.insert(key.clone(), resource.clone()),
            None => self.resources.remove(&key),
        };
        let (before, after) = (old.as_ref().and_then(route), resource.as_ref().and_then(route));
        self.effort += self.shadows.change(&key, before, after, &mut delta.affected);
        delta.resources.insert(key, resource);
    }

    /// Notes all that is wrong with what a route or an Ingress was made from.
    fn judge(&mut self, key: &Key) {
        self.effort += 1;
        let Some(object) = made_from(key) else { return };
        let unit = self.units.get(key);
        let mut findings = self.findings.get(&object).cloned().unwrap_or_default();
        findings.extend(unit.into_iter().flat_map(|unit| &unit.findings).cloned());
        if let Some(route) = self.resources.get(key).and_then(route) {
            findings.extend(self.shadows.findings(key, route, unit));
        }
        self.verdicts.find(&object, findings);
    }

    /// Notes all that is known of every object.
    fn judge_all(&mut self, statuses: Vec<ObjectStatus>) {
        let units: BTreeSet<Key> = self.units.keys().cloned().collect();
        let of_units: BTreeSet<ObjectRef> = units.iter().filter_map(made_from).collect();
        let known = self.verdicts.objects().chain(self.findings.keys());
        let others: BTreeSet<ObjectRef> = known.filter(|object| !of_units.contains(*object)).cloned().collect();
        units.iter().for_each(|key| self.judge(key));
        for object in &others {
            self.verdicts.find(object, self.findings.get(object).cloned().unwrap_or_default());
        }
        let mut statuses: HashMap<ObjectRef, ObjectStatus> =
            statuses.into_iter().map(|status| (status.object.clone(), status)).collect();
        let without: BTreeSet<ObjectRef> =
            self.verdicts.objects().filter(|object| !statuses.contains_key(*object)).cloned().collect();
        without.iter().for_each(|object| self.verdicts.set_status(object, None));
        statuses.drain().for_each(|(object, status)| self.verdicts.set_status(&object, Some(status)));
    }
}

fn route(resource: &Resource) -> Option<&Route> {
    match resource {
        Resource::Route(route) => Some(route),
        _ => None,
    }
}

/// The object that a route's resource was made from.
fn made_from(key: &Key) -> Option<ObjectRef> {
    let kind = match key.kind {
        Kind::HttpRoute => ObjectKind::HttpRoute,
        Kind::Ingress => ObjectKind::Ingress,
        _ => return None,
    };
    Some(ObjectRef { kind, namespace: key.namespace.clone(), name: key.name.clone() })
}
