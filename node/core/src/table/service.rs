//! Services with their endpoints merged from slices, and the same endpoints by node.
//!
//! Which endpoints may be picked follows kube-proxy: the ready ones; if there is none, those that
//! still serve while they terminate.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::shared::SharedMap;
use super::topology::{Place, Wish};
use super::{Endpoint, Hosted, ServicePort};
use crate::balance::EndpointState;
use crate::snapshot::{self, AppProtocol, Key, Resource, SessionAffinity};

/// All Services, and all endpoints by node.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    entries: SharedMap<Key, Arc<Entry>>,
    /// Which Service a slice belongs to.
    owners: SharedMap<Key, Key>,
    /// Endpoints by node; those without one are under the empty name.
    nodes: SharedMap<Arc<str>, Addresses>,
    /// Where this peer is said to be.
    place: Arc<Place>,
    /// Where it is, with what the endpoints of its node say.
    found: Arc<Place>,
    /// Endpoints of the peer's own node came or went since it was found.
    doubt: bool,
}

type Addresses = SharedMap<SocketAddr, Address>;

/// An address on a node: its live state, and what each Service that lists it says about it.
#[derive(Clone, Debug, Default)]
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

    /// The next state, and how many endpoints were looked at for it: Services and slices changed
    /// (`Some`) or went (`None`).
    pub(super) fn update<'a>(
        &self,
        changes: impl Iterator<Item = (&'a Key, Option<&'a Arc<Resource>>)>,
    ) -> (Self, usize) {
        let mut next = self.clone();
        let mut dirty: BTreeSet<Key> = BTreeSet::new();
        for (key, resource) in changes {
            match resource.map(|resource| (&**resource, resource)) {
                Some((Resource::Endpoints(slice), resource)) => {
                    if next.owners.get(key) != Some(&slice.service) {
                        dirty.extend(next.disown(key));
                        next.owners.insert(key.clone(), slice.service.clone());
                    }
                    next.change(&slice.service, |entry| drop(entry.slices.insert(key.clone(), Arc::clone(resource))));
                    dirty.insert(slice.service.clone());
                }
                Some((_, resource)) => {
                    next.change(key, |entry| entry.service = Some(Arc::clone(resource)));
                    dirty.insert(key.clone());
                }
                None if key.kind == snapshot::Kind::Endpoints => dirty.extend(next.disown(key)),
                None => {
                    next.change(key, |entry| entry.service = None);
                    dirty.insert(key.clone());
                }
            }
        }
        let unlisted: usize = dirty.iter().map(|key| next.unlist(key)).sum();
        let listed: usize = dirty.iter().map(|key| next.rebuild(key, self)).sum();
        let sorted = next.find_place();
        (next, unlisted + listed + sorted)
    }

    /// Learns the zone, where it was not said, from the endpoints of the peer's own node. All
    /// Services are sorted anew when it changes, which it hardly ever does. Returns how many
    /// endpoints were looked at.
    fn find_place(&mut self) -> usize {
        let doubt = std::mem::take(&mut self.doubt);
        let Some(node) = self.place.node.as_deref().filter(|_| doubt && self.place.zone.is_none()) else { return 0 };
        let listed = self.nodes.get(node).into_iter().flat_map(|addresses| addresses.values());
        let mut seen = 0;
        let listed = listed.inspect(|_| seen += 1).flat_map(|address| address.listed.values());
        let zone = listed.filter_map(|listed| listed.zone.as_ref()).min().cloned();
        if zone == self.found.zone {
            return seen;
        }
        self.found = Arc::new(Place { node: self.place.node.clone(), zone });
        let old = self.clone();
        let all: Vec<Key> = self.entries.iter().map(|(key, _)| key.clone()).collect();
        let unlisted: usize = all.iter().map(|key| self.unlist(key)).sum();
        let listed: usize = all.iter().map(|key| self.rebuild(key, &old)).sum();
        self.doubt = false;
        seen + unlisted + listed
    }

    fn is_own(&self, node: &str) -> bool {
        self.place.node.as_deref() == Some(node)
    }

    /// Takes a slice from the Service that has it, which is returned.
    fn disown(&mut self, slice: &Key) -> Option<Key> {
        let owner = self.owners.remove(slice)?;
        self.change(&owner, |entry| drop(entry.slices.remove(slice)));
        Some(owner)
    }

    fn change(&mut self, service: &Key, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_or_default(service) {
            change(Arc::make_mut(entry));
        }
    }

    /// Removes what a Service says of addresses; addresses nobody lists any more go. Returns how
    /// many there were.
    fn unlist(&mut self, service: &Key) -> usize {
        let mut listed = Vec::new();
        self.change(service, |entry| listed = std::mem::take(&mut entry.listed));
        let count = listed.len();
        for (node, address) in listed {
            self.doubt |= self.is_own(&node);
            let Some(addresses) = self.nodes.get_mut(&node) else { continue };
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
        count
    }

    /// Merges a Service anew. Live state comes from here or from `old`, so that it survives. Returns
    /// how many addresses it has.
    fn rebuild(&mut self, key: &Key, old: &Services) -> usize {
        let Some(mut entry) = self.entries.remove(key).map(|entry| Entry::clone(&entry)) else { return 0 };
        if entry.service.is_none() && entry.slices.is_empty() {
            return 0;
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
        let count = entry.listed.len();
        self.entries.insert(key.clone(), Arc::new(entry));
        count
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
        let known = old.nodes.get(&node).and_then(|addresses| addresses.get(&address));
        let is_own = self.is_own(&node);
        self.doubt |= is_own;
        let zone = || endpoint.zone.as_deref().filter(|_| is_own).map(Arc::from);
        let addresses = self.nodes.get_or_default(&node);
        let new = addresses.as_ref().is_some_and(|addresses| addresses.get(&address).is_none());
        if let Some(found) = addresses.and_then(|addresses| addresses.get_or_default(&address)) {
            if let Some(known) = known.filter(|_| new) {
                found.state = Arc::clone(&known.state);
            }
            // One address under two port names: usable if either says so.
            let said = found.listed.entry(service.clone()).or_insert_with(|| Listed { hosted, zone: zone() });
            if matches!(said.hosted, Hosted::Terminating) {
                said.hosted = hosted;
            }
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
