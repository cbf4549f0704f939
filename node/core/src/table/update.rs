//! From one table to the next: what did not change is shared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::gateway::{ChangedRoute, GatewayEntry};
use super::route::CompiledRoute;
use super::{Change, Held, Table};
use crate::snapshot::{Gateway, HeadId, Key, Kind, Resource};

/// Changed routes by key.
type Changed = HashMap<Key, ChangedRoute>;

/// The table after `changes`; of several changes to one key the last counts.
pub(super) fn update(old: &Table, head: HeadId, changes: &[Change]) -> Table {
    let mut next = Table { head, ..old.clone() };
    let last: BTreeMap<&Key, Option<&Arc<Resource>>> =
        changes.iter().map(|(key, resource)| (key, resource.as_ref())).collect();
    let mut gateways: BTreeMap<&Key, Option<&Gateway>> = BTreeMap::new();
    let mut routes = Changed::new();
    let mut services = Vec::new();
    for (key, resource) in last {
        next.held.remove(key);
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
                let certificates = Arc::make_mut(&mut next.certificates);
                certificates.extend(resource.map(|resource| (key.clone(), Arc::clone(resource))));
            }
            (Kind::Certificate | Kind::TrustBundle, None) => drop(Arc::make_mut(&mut next.certificates).remove(key)),
            (Kind::Other(_), _) => {}
            (_, Some(_)) => next.hold(key, "its content does not belong to its kind".to_owned()),
        }
    }
    if !services.is_empty() {
        next.services = Arc::new(old.services.update(services.into_iter()));
    }
    next.reroute(&gateways, &routes);
    next
}

impl Table {
    fn hold(&mut self, key: &Key, reason: String) {
        self.held.insert(key.clone(), Held { key: key.clone(), reason });
    }

    fn replace_route(&mut self, key: &Key, compiled: Option<Arc<CompiledRoute>>, changed: &mut Changed) {
        let routes = Arc::make_mut(&mut self.routes);
        let before = match &compiled {
            Some(after) => routes.insert(key.clone(), Arc::clone(after)),
            None => routes.remove(key),
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
        let entries = Arc::make_mut(&mut self.gateways);
        for (key, changed) in affected {
            let old = entries.get(key);
            let entry = match (gateways.get(key), old) {
                (Some(Some(gateway)), old) => {
                    let attached = attached.get(key).map(Vec::as_slice).unwrap_or_default();
                    GatewayEntry::build(key, gateway, old.map(|old| &**old), attached, &changed)
                }
                (None, Some(old)) => old.reroute(key, &changed),
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
    routes: &'r HashMap<Key, Arc<CompiledRoute>>,
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
