//! Services with their endpoints merged from slices, and the same endpoints by node.
//!
//! Which endpoints may be picked follows kube-proxy: the ready ones; if there is none, those that
//! still serve while they terminate.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::topology::{Place, Wish};
use super::{Endpoint, Hosted, ServicePort};
use crate::balance::EndpointState;
use crate::snapshot::{self, AppProtocol, Key, Resource, SessionAffinity};

/// All Services, and all endpoints by node.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    entries: HashMap<Key, Arc<Entry>>,
    /// Which Service a slice belongs to; rarely changes, so it is shared on its own.
    owners: Arc<HashMap<Key, Key>>,
    /// Endpoints by node; those without one are under the empty name.
    nodes: HashMap<Arc<str>, Arc<Addresses>>,
    /// Where this peer is said to be.
    place: Arc<Place>,
    /// Where it is, with what the endpoints of its node say.
    found: Arc<Place>,
}

type Addresses = HashMap<SocketAddr, Address>;

/// An address on a node: its live state, and what each Service that lists it says about it.
#[derive(Clone, Debug)]
struct Address {
    state: Arc<EndpointState>,
    listed: BTreeMap<Key, Listed>,
}

/// What a Service says about an address.
#[derive(Clone, Debug)]
struct Listed {
    hosted: Hosted,
    zone: Option<Arc<str>>,
}

/// A Service: what it was made from and what it offers.
#[derive(Clone, Debug, Default)]
struct Entry {
    service: Option<Arc<Resource>>,
    slices: BTreeMap<Key, Arc<Resource>>,
    ports: Vec<(u16, ServicePort)>,
    listed: Vec<(Arc<str>, SocketAddr)>,
}

/// Endpoints of one port name, merged from all slices: first come first, each address once.
type Merged<'r> = BTreeMap<&'r str, Vec<(SocketAddr, &'r snapshot::Endpoint)>>;

impl Services {
    /// No Services, seen from `place`.
    pub(super) fn at(place: Place) -> Self {
        let place = Arc::new(place);
        Services { found: Arc::clone(&place), place, ..Services::default() }
    }

    /// A Service's port.
    pub(super) fn port(&self, service: &Key, port: u16) -> Option<&ServicePort> {
        self.entries.get(service)?.ports.iter().find(|(number, _)| *number == port).map(|(_, port)| port)
    }

    /// What is known of an address on a node: usable if any Service says so.
    pub(super) fn hosted(&self, node: &str, address: SocketAddr) -> Hosted {
        let Some(found) = self.nodes.get(node).and_then(|addresses| addresses.get(&address)) else {
            return Hosted::NotHere;
        };
        let here = found.listed.values().find(|listed| matches!(listed.hosted, Hosted::Here(_)));
        here.map_or(Hosted::Terminating, |listed| listed.hosted)
    }

    /// The next state: Services and slices changed (`Some`) or went (`None`).
    pub(super) fn update<'a>(&self, changes: impl Iterator<Item = (&'a Key, Option<&'a Arc<Resource>>)>) -> Self {
        let mut next = self.clone();
        let mut dirty: BTreeSet<Key> = BTreeSet::new();
        for (key, resource) in changes {
            match resource.map(|resource| (&**resource, resource)) {
                Some((Resource::Endpoints(slice), resource)) => {
                    if next.owners.get(key) != Some(&slice.service) {
                        dirty.extend(next.disown(key));
                        Arc::make_mut(&mut next.owners).insert(key.clone(), slice.service.clone());
                    }
                    next.entry(&slice.service).slices.insert(key.clone(), Arc::clone(resource));
                    dirty.insert(slice.service.clone());
                }
                Some((_, resource)) => {
                    next.entry(key).service = Some(Arc::clone(resource));
                    dirty.insert(key.clone());
                }
                None if key.kind == snapshot::Kind::Endpoints => dirty.extend(next.disown(key)),
                None => {
                    next.entry(key).service = None;
                    dirty.insert(key.clone());
                }
            }
        }
        dirty.iter().for_each(|key| next.unlist(key));
        dirty.iter().for_each(|key| next.rebuild(key, self));
        next.find_place();
        next
    }

    /// Learns the zone, where it was not said, from the endpoints of the peer's own node. All
    /// Services are sorted anew when it changes, which it hardly ever does.
    fn find_place(&mut self) {
        let Some(node) = self.place.node.as_deref().filter(|_| self.place.zone.is_none()) else { return };
        let listed = self.nodes.get(node).into_iter().flat_map(|addresses| addresses.values());
        let zone = listed.flat_map(|address| address.listed.values()).filter_map(|listed| listed.zone.as_ref()).min();
        if zone == self.found.zone.as_ref() {
            return;
        }
        self.found = Arc::new(Place { node: self.place.node.clone(), zone: zone.cloned() });
        let old = self.clone();
        let all: Vec<Key> = self.entries.keys().cloned().collect();
        all.iter().for_each(|key| self.unlist(key));
        all.iter().for_each(|key| self.rebuild(key, &old));
    }

    /// Takes a slice from the Service that has it, which is returned.
    fn disown(&mut self, slice: &Key) -> Option<Key> {
        self.owners.get(slice)?;
        let owner = Arc::make_mut(&mut self.owners).remove(slice)?;
        self.entry(&owner).slices.remove(slice);
        Some(owner)
    }

    fn entry(&mut self, service: &Key) -> &mut Entry {
        Arc::make_mut(self.entries.entry(service.clone()).or_default())
    }

    /// Removes what a Service says of addresses; addresses nobody lists any more go.
    fn unlist(&mut self, service: &Key) {
        let listed = std::mem::take(&mut self.entry(service).listed);
        for (node, address) in listed {
            let Some(addresses) = self.nodes.get_mut(&node) else { continue };
            let addresses = Arc::make_mut(addresses);
            if let Some(found) = addresses.get_mut(&address) {
                found.listed.remove(service);
                if found.listed.is_empty() {
                    addresses.remove(&address);
                }
            }
            if addresses.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }

    /// Merges a Service anew. Live state comes from here or from `old`, so that it survives.
    fn rebuild(&mut self, key: &Key, old: &Services) {
        let Some(mut entry) = self.entries.remove(key).map(|entry| Entry::clone(&entry)) else { return };
        if entry.service.is_none() && entry.slices.is_empty() {
            return;
        }
        let (service, slices) = (entry.service.clone(), entry.slices.clone());
        let declared = match service.as_deref() {
            Some(Resource::Service(service)) => Some(service),
            _ => None,
        };
        let merged = merge(slices.values());
        for (name, endpoints) in &merged {
            let app = declared.and_then(|service| service.ports.iter().find(|port| port.name == *name));
            let app = app.map_or(AppProtocol::default(), |port| port.app);
            let any_ready = endpoints.iter().any(|(_, endpoint)| endpoint.ready);
            for (address, endpoint) in endpoints {
                let leaving = endpoint.terminating && !endpoint.ready && any_ready;
                let hosted = if leaving { Hosted::Terminating } else { Hosted::Here(app) };
                entry.listed.push(self.list(key, endpoint, *address, hosted, old));
            }
        }
        let ports = declared.map(|service| service.ports.as_slice()).unwrap_or_default();
        let affinity = declared.map_or(SessionAffinity::default(), |service| service.affinity);
        let wish = declared.map_or(Wish::default(), Wish::of);
        let of = |port: &snapshot::ServicePort| {
            let all = merged.get(port.name.as_str()).map(Vec::as_slice).unwrap_or_default();
            let (near, far) = wish.split(&self.found, eligible(all));
            let made = |listed: &[&(SocketAddr, &snapshot::Endpoint)]| -> Vec<Endpoint> {
                listed.iter().filter_map(|(address, endpoint)| self.endpoint(*address, endpoint)).collect()
            };
            let mut endpoints = made(&near);
            let preferred = endpoints.len();
            endpoints.extend(made(&far));
            let known = old.port(key, port.port);
            let retries = known.map_or_else(Arc::default, |known| Arc::clone(&known.retries));
            (port.port, ServicePort { app: port.app, affinity, endpoints, preferred, retries })
        };
        entry.ports = ports.iter().map(of).collect();
        self.entries.insert(key.clone(), Arc::new(entry));
    }

    /// Notes what a Service says of an address.
    fn list(
        &mut self,
        service: &Key,
        endpoint: &snapshot::Endpoint,
        address: SocketAddr,
        hosted: Hosted,
        old: &Services,
    ) -> (Arc<str>, SocketAddr) {
        let node = endpoint.node.as_deref().unwrap_or_default();
        let node: Arc<str> = self.nodes.get_key_value(node).map_or_else(|| node.into(), |(node, _)| Arc::clone(node));
        let is_own = self.place.node.as_deref() == Some(&*node);
        let addresses = Arc::make_mut(self.nodes.entry(Arc::clone(&node)).or_default());
        let found = addresses.entry(address).or_insert_with(|| {
            let known = old.nodes.get(&node).and_then(|addresses| addresses.get(&address));
            let state = known.map_or_else(Arc::default, |known| Arc::clone(&known.state));
            Address { state, listed: BTreeMap::new() }
        });
        // One address under two port names: usable if either says so.
        let zone = || endpoint.zone.as_deref().filter(|_| is_own).map(Arc::from);
        let said = found.listed.entry(service.clone()).or_insert_with(|| Listed { hosted, zone: zone() });
        if matches!(said.hosted, Hosted::Terminating) {
            said.hosted = hosted;
        }
        (node, address)
    }

    /// An endpoint with the state that was noted for it.
    fn endpoint(&self, address: SocketAddr, endpoint: &snapshot::Endpoint) -> Option<Endpoint> {
        let (node, addresses) = self.nodes.get_key_value(endpoint.node.as_deref().unwrap_or_default())?;
        Some(Endpoint {
            address,
            node: endpoint.node.is_some().then(|| Arc::clone(node)),
            pod: endpoint.pod.as_deref().map(Arc::from),
            state: Arc::clone(&addresses.get(&address)?.state),
        })
    }
}

/// The endpoints that may be picked.
fn eligible<'m, 'r>(
    all: &'m [(SocketAddr, &'r snapshot::Endpoint)],
) -> impl Iterator<Item = &'m (SocketAddr, &'r snapshot::Endpoint)> {
    let any_ready = all.iter().any(|(_, endpoint)| endpoint.ready);
    all.iter().filter(move |(_, endpoint)| match any_ready {
        true => endpoint.ready,
        false => endpoint.serving && endpoint.terminating,
    })
}

/// Merges slices by port name. An address may be in two slices while it moves between them: the
/// readier entry counts.
fn merge<'r>(slices: impl Iterator<Item = &'r Arc<Resource>>) -> Merged<'r> {
    let mut merged = Merged::new();
    let mut seen: HashMap<(&str, SocketAddr), usize> = HashMap::new();
    for resource in slices {
        let Resource::Endpoints(slice) = &**resource else { continue };
        for (name, number) in &slice.ports {
            let list = merged.entry(name).or_default();
            for endpoint in &slice.endpoints {
                let address = SocketAddr::new(endpoint.address, *number);
                let at = *seen.entry((name, address)).or_insert(list.len());
                match list.get_mut(at) {
                    Some((_, known)) if readiness(endpoint) > readiness(known) => *known = endpoint,
                    Some(_) => {}
                    None => list.push((address, endpoint)),
                }
            }
        }
    }
    merged
}

fn readiness(endpoint: &snapshot::Endpoint) -> (bool, bool, bool) {
    (endpoint.ready, endpoint.serving, !endpoint.terminating)
}
