//! From one table to the next: what did not change is shared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::gateway::GatewayEntry;
use super::route::CompiledRoute;
use super::{Change, Held, Table};
use crate::snapshot::{Gateway, HeadId, Key, Kind, Resource};

/// Changed routes, each as it was and as it is.
type Changed = HashMap<Key, (Option<Arc<CompiledRoute>>, Option<Arc<CompiledRoute>>)>;

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
            (Kind::Certificate, Some(Resource::Certificate(_))) => {
                let certificates = Arc::make_mut(&mut next.certificates);
                certificates.extend(resource.map(|resource| (key.clone(), Arc::clone(resource))));
            }
            (Kind::Certificate, None) => drop(Arc::make_mut(&mut next.certificates).remove(key)),
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
        let mut affected: HashMap<Key, (Vec<_>, Vec<Arc<CompiledRoute>>)> = HashMap::new();
        for key in gateways.keys() {
            affected.insert(Key::clone(key), Default::default());
        }
        for change in routes.values() {
            let versions = change.0.iter().chain(&change.1);
            let mut targets: Vec<&Key> = versions.flat_map(|route| &route.attachments).map(|a| &a.gateway).collect();
            targets.sort_unstable();
            targets.dedup();
            for gateway in targets {
                affected.entry(gateway.clone()).or_default().0.push(change.clone());
            }
        }
        if affected.is_empty() {
            return;
        }
        for route in self.routes.values() {
            for attachment in &route.attachments {
                if let Some((_, attached)) = affected.get_mut(&attachment.gateway)
                    && !attached.last().is_some_and(|last| Arc::ptr_eq(last, route))
                {
                    attached.push(Arc::clone(route));
                }
            }
        }
        let entries = Arc::make_mut(&mut self.gateways);
        for (key, (changed, attached)) in affected {
            let old = entries.get(&key);
            let entry = match (gateways.get(&key), old) {
                (Some(Some(gateway)), old) => {
                    GatewayEntry::build(&key, gateway, old.map(|old| &**old), &attached, &changed)
                }
                (None, Some(old)) => old.reroute(&key, &attached, &changed),
                (Some(None), _) | (None, None) => {
                    entries.remove(&key);
                    continue;
                }
            };
            entries.insert(key, Arc::new(entry));
        }
    }
}
