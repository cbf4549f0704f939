//! Gateways: listeners by port and hostname, and the routes of each listener by host.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::host::HostMap;
use super::path::{Candidate, PathIndex};
use super::route::CompiledRoute;
use crate::snapshot::{Gateway, GatewayAddress, HostPattern, Key, Listener, Protocol, Specificity};

/// The routes of a listener. Unchanged hosts are shared between tables.
pub(super) type Hosts = HostMap<Arc<PathIndex>>;

/// A Gateway, ready to be asked.
#[derive(Clone, Debug)]
pub(super) struct GatewayEntry {
    pub(super) address: GatewayAddress,
    pub(super) listeners: Vec<ListenerEntry>,
    shape: Arc<Shape>,
}

/// A listener with its routes.
#[derive(Clone, Debug)]
pub(super) struct ListenerEntry {
    pub(super) listener: Arc<Listener>,
    pub(super) hosts: Hosts,
}

/// How listeners are found: positions in [`GatewayEntry::listeners`]. Routes don't change it.
#[derive(Debug, Default)]
struct Shape {
    ports: Vec<Port>,
    names: HashMap<String, Vec<usize>>,
}

/// The listeners of one port by hostname.
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
    /// `touched` counts the candidates that are placed or removed.
    pub(super) fn build(
        key: &Key,
        gateway: &Gateway,
        old: Option<&GatewayEntry>,
        attached: &[&Arc<CompiledRoute>],
        changed: &[ChangedRoute],
        touched: &mut usize,
    ) -> Self {
        let listeners = gateway.listeners.iter().map(|listener| {
            let known = old.and_then(|old| old.listeners.get(*old.shape.names.get(&listener.name)?.first()?));
            let mut entry = ListenerEntry { listener: Arc::new(listener.clone()), hosts: Hosts::default() };
            match known {
                Some(known) => {
                    entry.hosts = known.hosts.clone();
                    *touched += entry.reroute(key, changed);
                }
                None => {
                    *touched += attached.iter().map(|route| entry.place(key, route)).sum::<usize>();
                }
            }
            entry
        });
        let listeners: Vec<ListenerEntry> = listeners.collect();
        GatewayEntry { address: gateway.address.clone(), shape: Arc::new(Shape::of(&listeners)), listeners }
    }

    /// The same Gateway after routes changed.
    pub(super) fn reroute(&self, key: &Key, changed: &[ChangedRoute], touched: &mut usize) -> Self {
        let mut next = self.clone();
        let routes = changed.iter().flat_map(|(before, after)| before.iter().chain(after));
        let attachments = routes.flat_map(|route| &route.attachments).filter(|attachment| attachment.gateway == *key);
        let positions: BTreeSet<usize> = attachments
            .filter_map(|attachment| self.shape.names.get(&attachment.listener))
            .flatten()
            .copied()
            .collect();
        for position in positions {
            if let Some(entry) = next.listeners.get_mut(position) {
                *touched += entry.reroute(key, changed);
            }
        }
        next
    }

    /// The listener on a port whose hostname matches a host most specifically.
    pub(super) fn listener(&self, port: u16, host: &str) -> Option<&ListenerEntry> {
        let port = self.shape.ports.iter().find(|candidate| candidate.number == port)?;
        let position = port.listeners.find(host, |&position| Some(position))?;
        self.listeners.get(position)
    }

    /// Ports with what is spoken on them, once for each listener.
    pub(super) fn binds(&self) -> impl Iterator<Item = (u16, Protocol)> {
        self.listeners.iter().map(|entry| (entry.listener.port, entry.listener.protocol))
    }
}

impl Shape {
    fn of(listeners: &[ListenerEntry]) -> Self {
        let mut shape = Shape::default();
        for (position, entry) in listeners.iter().enumerate() {
            shape.names.entry(entry.listener.name.clone()).or_default().push(position);
            let ports = &mut shape.ports;
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
        shape
    }
}

impl ListenerEntry {
    /// Routes changed: what they were goes, what they are comes. Nothing else is looked at. Returns
    /// how many candidates that were.
    fn reroute(&mut self, gateway: &Key, changed: &[ChangedRoute]) -> usize {
        let removed: usize =
            changed.iter().filter_map(|(before, _)| before.as_ref()).map(|route| self.displace(gateway, route)).sum();
        let placed: usize =
            changed.iter().filter_map(|(_, after)| after.as_ref()).map(|route| self.place(gateway, route)).sum();
        removed + placed
    }

    fn displace(&mut self, gateway: &Key, route: &Arc<CompiledRoute>) -> usize {
        let candidates = self.candidates(gateway, route);
        for (host, candidate) in &candidates {
            let Some(paths) = self.hosts.get_mut(host).map(Arc::make_mut) else { continue };
            paths.remove(candidate);
            if paths.is_empty() {
                self.hosts.remove(host);
            }
        }
        candidates.len()
    }

    fn place(&mut self, gateway: &Key, route: &Arc<CompiledRoute>) -> usize {
        let candidates = self.candidates(gateway, route);
        let touched = candidates.len();
        for (host, candidate) in candidates {
            if self.hosts.get(host).is_none() {
                self.hosts.insert(host, Arc::default());
            }
            if let Some(paths) = self.hosts.get_mut(host) {
                Arc::make_mut(paths).add(candidate);
            }
        }
        touched
    }

    /// What a route has on the hosts of this listener. Of several hostnames that lead to one host, the
    /// most specific counts.
    fn candidates<'r>(&self, gateway: &Key, route: &'r Arc<CompiledRoute>) -> Vec<(&'r HostPattern, Candidate)> {
        let mut rules: BTreeMap<(&HostPattern, usize), Specificity> = BTreeMap::new();
        route.placements(gateway, &self.listener.name, |host, declared, rule| {
            rules.entry((host, rule)).and_modify(|known| *known = declared.min(*known)).or_insert(declared);
        });
        let of_rule = |((host, rule), declared): ((&'r HostPattern, usize), Specificity)| {
            let matches = 0..route.rules[rule].matches.len();
            matches.map(move |index| (host, Candidate { declared, route: Arc::clone(route), rule, index }))
        };
        rules.into_iter().flat_map(of_rule).collect()
    }
}
