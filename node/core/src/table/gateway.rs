//! Gateways: listeners by port and hostname, and the routes of each listener by host.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::host::HostMap;
use super::path::{Candidate, PathIndex};
use super::route::CompiledRoute;
use crate::snapshot::{Gateway, GatewayAddress, HostPattern, Key, Listener, Protocol};

/// The routes of a listener. Unchanged hosts are shared between tables.
pub(super) type Hosts = HostMap<Arc<PathIndex>>;

/// A Gateway, ready to be asked.
#[derive(Debug)]
pub(super) struct GatewayEntry {
    pub(super) address: GatewayAddress,
    pub(super) listeners: Vec<ListenerEntry>,
    ports: Vec<Port>,
}

/// A listener with its routes.
#[derive(Clone, Debug)]
pub(super) struct ListenerEntry {
    pub(super) listener: Listener,
    pub(super) hosts: Arc<Hosts>,
}

/// The listeners of one port by hostname (positions in [`GatewayEntry::listeners`]).
#[derive(Debug)]
struct Port {
    number: u16,
    listeners: HostMap<usize>,
}

/// A changed route as it was and as it is.
pub(super) type ChangedRoute = (Option<Arc<CompiledRoute>>, Option<Arc<CompiledRoute>>);

impl GatewayEntry {
    /// A Gateway's entry. Listeners that `old` has by name keep the hosts that no changed route
    /// touches; `attached` are all routes with an attachment to this Gateway, as they are now.
    pub(super) fn build(
        key: &Key,
        gateway: &Gateway,
        old: Option<&GatewayEntry>,
        attached: &[&Arc<CompiledRoute>],
        changed: &[ChangedRoute],
    ) -> Self {
        let listeners = gateway.listeners.iter().map(|listener| {
            let known = old.and_then(|old| old.listeners.iter().find(|entry| entry.listener.name == listener.name));
            let hosts = match known {
                Some(entry) => update_hosts(key, &listener.name, &entry.hosts, changed),
                None => Arc::new(build_hosts(key, &listener.name, attached)),
            };
            ListenerEntry { listener: listener.clone(), hosts }
        });
        Self::new(gateway.address.clone(), listeners.collect())
    }

    /// The same Gateway after routes changed.
    pub(super) fn reroute(&self, key: &Key, changed: &[ChangedRoute]) -> Self {
        let listeners = self.listeners.iter().map(|entry| ListenerEntry {
            listener: entry.listener.clone(),
            hosts: update_hosts(key, &entry.listener.name, &entry.hosts, changed),
        });
        Self::new(self.address.clone(), listeners.collect())
    }

    fn new(address: GatewayAddress, listeners: Vec<ListenerEntry>) -> Self {
        let mut ports: Vec<Port> = Vec::new();
        for (position, entry) in listeners.iter().enumerate() {
            let number = entry.listener.port;
            let at = ports.iter().position(|port| port.number == number).unwrap_or_else(|| {
                ports.push(Port { number, listeners: HostMap::default() });
                ports.len() - 1
            });
            // Of two listeners with one hostname (which compile reports as a conflict) the first
            // declared serves.
            if ports[at].listeners.get(&entry.listener.hostname).is_none() {
                ports[at].listeners.insert(&entry.listener.hostname, position);
            }
        }
        GatewayEntry { address, listeners, ports }
    }

    /// The listener on a port whose hostname matches a host most specifically.
    pub(super) fn listener(&self, port: u16, host: &str) -> Option<&ListenerEntry> {
        let port = self.ports.iter().find(|candidate| candidate.number == port)?;
        let position = port.listeners.find(host, |&position| Some(position))?;
        self.listeners.get(position)
    }

    /// Ports with what is spoken on them, once for each listener.
    pub(super) fn binds(&self) -> impl Iterator<Item = (u16, Protocol)> {
        self.listeners.iter().map(|entry| (entry.listener.port, entry.listener.protocol))
    }
}

/// A listener's hosts after routes changed: those that they don't touch are shared, the others get
/// what they had of unchanged routes and what the changed ones bring.
fn update_hosts(gateway: &Key, listener: &str, old: &Arc<Hosts>, changed: &[ChangedRoute]) -> Arc<Hosts> {
    let mut touched: HashMap<&HostPattern, Vec<Candidate>> = HashMap::new();
    for (before, after) in changed {
        if let Some(before) = before {
            before.placements(gateway, listener, |host, _, _| {
                touched.entry(host).or_default();
            });
        }
        if let Some(after) = after {
            place(after, gateway, listener, &mut touched);
        }
    }
    if touched.is_empty() {
        return Arc::clone(old);
    }
    let keys: HashSet<&Key> =
        changed.iter().flat_map(|(before, after)| before.iter().chain(after)).map(|route| &route.key).collect();
    let mut hosts = Hosts::clone(old);
    for (host, mut candidates) in touched {
        let had = old.get(host).into_iter().flat_map(|paths| paths.candidates());
        candidates.extend(had.filter(|candidate| !keys.contains(&candidate.route.key)).cloned());
        if candidates.is_empty() {
            hosts.remove(host);
        } else {
            hosts.insert(host, Arc::new(PathIndex::build(candidates)));
        }
    }
    Arc::new(hosts)
}

/// The hosts of a listener from its routes.
fn build_hosts(gateway: &Key, listener: &str, attached: &[&Arc<CompiledRoute>]) -> Hosts {
    let mut by_host: HashMap<&HostPattern, Vec<Candidate>> = HashMap::new();
    attached.iter().for_each(|route| place(route, gateway, listener, &mut by_host));
    let mut hosts = Hosts::default();
    for (host, candidates) in by_host.into_iter().filter(|(_, candidates)| !candidates.is_empty()) {
        hosts.insert(host, Arc::new(PathIndex::build(candidates)));
    }
    hosts
}

/// Adds a route's candidates on a listener to the hosts that they serve.
fn place<'r>(
    route: &'r Arc<CompiledRoute>,
    gateway: &Key,
    listener: &str,
    by_host: &mut HashMap<&'r HostPattern, Vec<Candidate>>,
) {
    route.placements(gateway, listener, |host, declared, rule| {
        let matches = 0..route.rules[rule].matches.len();
        let candidates = matches.map(|index| Candidate { declared, route: Arc::clone(route), rule, index });
        by_host.entry(host).or_default().extend(candidates);
    });
}
