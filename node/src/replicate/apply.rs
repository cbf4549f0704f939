//! From verified bytes to a table: decodes what changed, makes the next table aside, tests it. A
//! resource that can't be used is held back alone.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::{HeaderMap, Method};
use meshgate_core::snapshot::{HeadId, HostPattern, Key, PathMatch, Resource};
use meshgate_core::table::{Change, Held, RequestHead, Table};
use meshgate_wire::{LeafChange, decode, leaf_hash};

use super::store::Pair;

/// Changed routes that the self-test sends a request through.
const PROBES: usize = 64;

/// A table that may be swapped in.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) table: Table,
    /// Of the resources that changed, those that are held back.
    pub(super) held: Vec<Held>,
}

/// Hashes of private keys that changed certificates need.
pub(super) fn key_hashes(changes: &[Change]) -> Vec<[u8; 32]> {
    let hashes = changes.iter().filter_map(|(_, resource)| match resource.as_deref() {
        Some(Resource::Certificate(certificate)) => Some(certificate.key_hash),
        _ => None,
    });
    BTreeSet::from_iter(hashes).into_iter().collect()
}

/// What is about to be applied, by content.
pub(super) fn pairs(changes: &[LeafChange]) -> Vec<Pair> {
    changes
        .iter()
        .filter_map(|change| {
            let value = change.value.as_ref()?;
            Some((change.key.clone(), leaf_hash(&change.key, value)))
        })
        .collect()
}

/// Decodes changes. What can't be decoded or is quarantined is held back.
pub(super) fn decode_changes(changes: &[LeafChange], quarantine: &BTreeSet<Pair>) -> (Vec<Change>, Vec<Held>) {
    let mut decoded = Vec::with_capacity(changes.len());
    let mut held = Vec::new();
    for LeafChange { key, value } in changes {
        let Some(value) = value else {
            decoded.push((key.clone(), None));
            continue;
        };
        if !quarantine.is_empty() && quarantine.contains(&(key.clone(), leaf_hash(key, value))) {
            held.push(hold(key, "it is quarantined: two processes died while applying it"));
            continue;
        }
        match decode(key.kind, value) {
            Ok(resource) => decoded.push((key.clone(), Some(Arc::new(resource)))),
            Err(error) => held.push(hold(key, &error.to_string())),
        }
    }
    (decoded, held)
}

/// Makes the next table and tests it. Whatever panics is found by halving, and held back. `None`:
/// even nothing panics.
pub(super) fn build(table: &Table, head: HeadId, changes: &[Change]) -> Option<Built> {
    if let Some(built) = attempt(table, head, changes) {
        return Some(built);
    }
    tracing::error!(%head, changes = changes.len(), "applying a change panicked; looking for the resource");
    match changes {
        [] => None,
        [(key, _)] => {
            let built = attempt(table, head, &[])?;
            Some(Built { table: built.table, held: vec![hold(key, "applying it panicked")] })
        }
        _ => {
            let (left, right) = changes.split_at(changes.len() / 2);
            let mut built = build(table, head, left)?;
            let rest = build(&built.table, head, right)?;
            built.held.extend(rest.held);
            Some(Built { table: rest.table, held: built.held })
        }
    }
}

fn attempt(table: &Table, head: HeadId, changes: &[Change]) -> Option<Built> {
    let guarded = AssertUnwindSafe(|| {
        let (table, held) = table.update(head, changes);
        probe(&table, changes);
        Built { table, held }
    });
    catch_unwind(guarded).ok()
}

/// The self-test: asks the table what the edge will ask. It passes unless it panics.
fn probe(table: &Table, changes: &[Change]) {
    let binds = table.binds();
    for bind in &binds {
        let _ = table.gateway_address(&bind.gateway);
        let _ = table.certificate(&bind.gateway, bind.port, None);
    }
    let routes = changes.iter().filter_map(|(_, resource)| match resource.as_deref() {
        Some(Resource::Route(route)) => Some(route),
        _ => None,
    });
    let headers = HeaderMap::new();
    for route in routes.take(PROBES) {
        let path =
            route.rules.first().and_then(|rule| rule.matches.first()).map_or("/", |matcher| match &matcher.path {
                PathMatch::Exact(path) | PathMatch::Prefix(path) => path,
                PathMatch::Regex(_) | PathMatch::RegexPrefix(_) => "/",
            });
        for attachment in &route.attachments {
            let host = match attachment.hosts.first().map(|host| &host.served) {
                Some(HostPattern::Exact(name)) => name.as_str(),
                _ => "probe.invalid",
            };
            let (method, query) = (&Method::GET, None);
            let head = RequestHead { host, path, query, method, headers: &headers, sni: None, verified: None };
            for bind in binds.iter().filter(|bind| bind.gateway == attachment.gateway) {
                let _ = table.decide(&bind.gateway, bind.port, &head);
            }
        }
    }
}

fn hold(key: &Key, reason: &str) -> Held {
    Held { key: key.clone(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use meshgate_core::snapshot::{Kind, Service, SessionAffinity};
    use meshgate_wire::encode;

    use super::*;

    #[test]
    fn what_does_not_decode_is_held_alone() {
        let good = Resource::Service(Service {
            ports: vec![],
            affinity: SessionAffinity::None,
            distribution: Default::default(),
            internal_local: false,
        });
        let change = |name: &str, value| LeafChange { key: Key::new(Kind::Service, "a", name), value: Some(value) };
        let changes = [change("bad", Bytes::from_static(&[0xff])), change("good", encode(&good))];
        let (decoded, held) = decode_changes(&changes, &BTreeSet::new());
        assert_eq!(decoded.len(), 1);
        assert_eq!(decoded[0].0.name.as_ref(), "good");
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].key.name.as_ref(), "bad");
    }

    #[test]
    fn quarantine_is_by_content() {
        let value = encode(&Resource::Service(Service {
            ports: vec![],
            affinity: SessionAffinity::None,
            distribution: Default::default(),
            internal_local: true,
        }));
        let change = LeafChange { key: Key::new(Kind::Service, "a", "b"), value: Some(value) };
        let quarantine = BTreeSet::from_iter(pairs(std::slice::from_ref(&change)));
        assert_eq!(decode_changes(std::slice::from_ref(&change), &quarantine).1.len(), 1);
        let other = LeafChange { value: Some(Bytes::new()), ..change };
        assert!(decode_changes(&[other], &quarantine).1.is_empty());
    }
}
