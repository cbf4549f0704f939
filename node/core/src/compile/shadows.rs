//! Matches that never see a request, because an older object has the same one on the same host.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Finding;
use super::codes;
use super::routes::{NEVER, Unit};
use crate::intent::{ObjectKind, ObjectRef};
use crate::snapshot::{HostPattern, HttpMatch, Key, Kind, PathMatch, Resource, Route, StringMatch, ValueMatch};

/// Where a match is met: equal places are contested.
#[derive(PartialEq, Eq, Hash)]
struct Place<'a> {
    gateway: &'a Key,
    listener: &'a str,
    host: &'a HostPattern,
    path: (u8, &'a str),
    method: Option<&'a str>,
    headers: Vec<&'a ValueMatch>,
    query: Vec<&'a ValueMatch>,
}

/// Every match that another object's wins against, reported to the loser only.
pub(crate) fn find(resources: &BTreeMap<Key, Resource>, units: &BTreeMap<Key, Unit>) -> Vec<Finding> {
    let mut routes: Vec<(&Key, &Route)> = resources
        .iter()
        .filter_map(|(key, resource)| match resource {
            Resource::Route(route) => Some((key, route)),
            _ => None,
        })
        .collect();
    // Equal matches are decided by what comes after the match in `precedence`.
    routes.sort_by_key(|(key, route)| (route.created.unwrap_or(0), &key.namespace, &key.name, key.kind));
    let mut owners: HashMap<Place<'_>, &Key> = HashMap::new();
    let mut findings = Vec::new();
    for (key, route) in routes {
        let mut seen = BTreeSet::new();
        for (rule, index, place) in places(route) {
            let host = place.host;
            let owner = *owners.entry(place).or_insert(key);
            if owner != key && seen.insert((rule, index, host)) {
                findings.push(finding(key, owner, host, rule, index, units.get(key)));
            }
        }
    }
    findings
}

/// All places of a route, each with its rule and match.
fn places(route: &Route) -> impl Iterator<Item = (usize, usize, Place<'_>)> {
    route.attachments.iter().flat_map(move |attachment| {
        attachment.hosts.iter().flat_map(move |host| {
            let here = route
                .rules
                .iter()
                .enumerate()
                .filter(move |(_, rule)| rule.host.as_ref().is_none_or(|only| only == host));
            here.flat_map(move |(rule, declared)| {
                let live = declared.matches.iter().enumerate().filter(|(_, one)| !never(one));
                live.map(move |(index, one)| {
                    let place = Place {
                        gateway: &attachment.gateway,
                        listener: &attachment.listener,
                        host,
                        path: path(&one.path),
                        method: one.method.as_deref(),
                        headers: sorted(&one.headers),
                        query: sorted(&one.query),
                    };
                    (rule, index, place)
                })
            })
        })
    })
}

fn path(path: &PathMatch) -> (u8, &str) {
    match path {
        PathMatch::Exact(path) => (0, path),
        PathMatch::Prefix(path) => (1, path.trim_end_matches('/')),
        PathMatch::Regex(path) => (2, path),
    }
}

/// Stands it for an expression that does not compile? Then it contests nothing.
fn never(one: &HttpMatch) -> bool {
    let is = |value: &ValueMatch| matches!(&value.value, StringMatch::Regex(pattern) if pattern == NEVER);
    matches!(&one.path, PathMatch::Regex(pattern) if pattern == NEVER)
        || one.headers.iter().any(is)
        || one.query.iter().any(is)
}

fn sorted(values: &[ValueMatch]) -> Vec<&ValueMatch> {
    let mut sorted: Vec<&ValueMatch> = values.iter().collect();
    sorted.sort();
    sorted
}

fn finding(loser: &Key, owner: &Key, host: &HostPattern, rule: usize, index: usize, unit: Option<&Unit>) -> Finding {
    let (kind, code, field) = match loser.kind {
        Kind::Ingress => {
            let field = unit.and_then(|unit| unit.fields.get(rule)).cloned().unwrap_or_default();
            (ObjectKind::Ingress, codes::PATH_SHADOWED, field)
        }
        _ => (ObjectKind::HttpRoute, codes::MATCH_SHADOWED, format!("spec.rules[{rule}].matches[{index}]")),
    };
    let object = ObjectRef { kind, namespace: loser.namespace.clone(), name: loser.name.clone() };
    let message = format!(
        "{owner} matches the same on host {host} and comes first (age, then name); change or remove one of them"
    );
    code.at(&object, field, message)
}
