//! From one table to the next: what did not change is shared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::gateway::{ChangedRoute, GatewayEntry};
use super::route::CompiledRoute;
use super::shared::SharedMap;
use super::{Bind, Change, Held, Listening, Table};
use crate::snapshot::{Gateway, HeadId, Key, Kind, Resource};

/// Changed routes by key.
type Changed = HashMap<Key, ChangedRoute>;

/// The table after `changes`; of several changes to one key the last counts.
pub(super) fn update(old: &Table, head: HeadId, changes: &[Change]) -> Table {
    let mut next = Table { head, touched: changes.len(), ..old.clone() };
    let last: BTreeMap<&Key, Option<&Arc<Resource>>> =
        changes.iter().map(|(key, resource)| (key, resource.as_ref())).collect();
    let mut gateways: BTreeMap<&Key, Option<&Gateway>> = BTreeMap::new();
    let mut routes = Changed::new();
    let mut services = Vec::new();
    let mut certificates = false;
    for (key, resource) in last {
        next.unhold(key);
        match (key.kind, resource.map(|resource| &**resource)) {
            (Kind::Gateway, Some(Resource::Gateway(gateway))) => drop(gateways.insert(key, Some(gateway))),
            (Kind::Gateway, None) => drop(gateways.insert(key, None)),
            (Kind::HttpRoute | Kind::Ingress, Some(Resource::Route(route))) => match CompiledRoute::compile(key, route)
            {
                Ok(compiled) => next.replace_route(key, Some(compiled), &mut routes),
                Err(reason) => next.hold(key, reason),
            },
            (Kind::HttpRoute | Kind::Ingress, None) => next.replace_route(key, None, &mut routes),
            (Kind::Service, Some(Resource::Service(_)) | None)
            | (Kind::Endpoints, Some(Resource::Endpoints(_)) | None) => services.push((key, resource)),
            (Kind::Certificate, Some(Resource::Certificate(_)))
            | (Kind::TrustBundle, Some(Resource::TrustBundle(_))) => {
                certificates = true;
                resource.map(|resource| next.certificates.insert(key.clone(), Arc::clone(resource)));
            }
            (Kind::Certificate | Kind::TrustBundle, None) => {
                certificates |= next.certificates.remove(key).is_some();
            }
            (Kind::Other(_), _) => {}
            (_, Some(_)) => next.hold(key, "its content does not belong to its kind".to_owned()),
        }
    }
    if !services.is_empty() {
        let (updated, touched) = old.services.update(services.into_iter());
        next.services = updated;
        next.touched += touched;
    }
    next.reroute(&gateways, &routes);
    if certificates || !gateways.is_empty() {
        next.listening = Arc::new(next.listening_now());
    }
    next
}

impl Table {
    fn hold(&mut self, key: &Key, reason: String) {
        Arc::make_mut(&mut self.held).insert(key.clone(), Held { key: key.clone(), reason });
    }

    fn unhold(&mut self, key: &Key) {
        if self.held.contains_key(key) {
            Arc::make_mut(&mut self.held).remove(key);
        }
    }

    /// What sockets and certificates the listeners want.
    fn listening_now(&self) -> Listening {
        let binds = self.gateways.iter().flat_map(|(gateway, entry)| {
            entry.binds().map(|(port, protocol)| Bind { gateway: gateway.clone(), port, protocol })
        });
        let entries = self.gateways.values().flat_map(|gateway| &gateway.listeners);
        let keys: BTreeSet<&Key> = entries.flat_map(|entry| &entry.listener.certificates).collect();
        let known = |key: &Key| Some((key.clone(), Arc::clone(self.certificates.get(key)?)));
        Listening {
            binds: binds.collect::<BTreeSet<_>>().into_iter().collect(),
            certificates: keys.into_iter().filter_map(known).collect(),
        }
    }

    fn replace_route(&mut self, key: &Key, compiled: Option<Arc<CompiledRoute>>, changed: &mut Changed) {
        let before = match &compiled {
            Some(after) => self.routes.insert(key.clone(), Arc::clone(after)),
            None => self.routes.remove(key),
        };
        changed.insert(key.clone(), (before, compiled));
    }

    /// Rebuilds Gateways that changed, and those that a changed route was or is attached to.
    fn reroute(&mut self, gateways: &BTreeMap<&Key, Option<&Gateway>>, routes: &Changed) {
        let affected = affected(gateways, routes);
        if affected.is_empty() {
            return;
        }
        let attached = attached(&self.routes, gateways);
        let (entries, touched) = (&mut self.gateways, &mut self.touched);
        for (key, changed) in affected {
            let old = entries.get(key);
            let entry = match (gateways.get(key), old) {
                (Some(Some(gateway)), old) => {
                    let attached = attached.get(key).map(Vec::as_slice).unwrap_or_default();
                    GatewayEntry::build(key, gateway, old.map(|old| &**old), attached, &changed, touched)
                }
                (None, Some(old)) => old.reroute(key, &changed, touched),
                (Some(None), _) | (None, None) => {
                    entries.remove(key);
                    continue;
                }
            };
            entries.insert(key.clone(), Arc::new(entry));
        }
    }
}

/// All routes that are attached to Gateways which are new or changed.
fn attached<'r>(
    routes: &'r SharedMap<Key, Arc<CompiledRoute>>,
    gateways: &BTreeMap<&Key, Option<&Gateway>>,
) -> HashMap<&'r Key, Vec<&'r Arc<CompiledRoute>>> {
    let mut attached: HashMap<&Key, Vec<&Arc<CompiledRoute>>> = HashMap::new();
    if gateways.is_empty() {
        return attached;
    }
    for route in routes.values() {
        for gateway in targets([route]).into_iter().filter(|gateway| gateways.contains_key(gateway)) {
            attached.entry(gateway).or_default().push(route);
        }
    }
    attached
}

/// Gateways that need a new entry, each with the changed routes that were or are attached to it.
fn affected<'c>(
    gateways: &BTreeMap<&'c Key, Option<&Gateway>>,
    routes: &'c Changed,
) -> HashMap<&'c Key, Vec<ChangedRoute>> {
    let mut affected: HashMap<&Key, Vec<ChangedRoute>> = gateways.keys().map(|key| (*key, Vec::new())).collect();
    for change in routes.values() {
        for gateway in targets(change.0.iter().chain(&change.1)) {
            affected.entry(gateway).or_default().push(change.clone());
        }
    }
    affected
}

/// The Gateways that routes are attached to, each once.
fn targets<'r>(routes: impl IntoIterator<Item = &'r Arc<CompiledRoute>>) -> Vec<&'r Key> {
    let mut targets: Vec<&Key> =
        routes.into_iter().flat_map(|route| &route.attachments).map(|attachment| &attachment.gateway).collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}
