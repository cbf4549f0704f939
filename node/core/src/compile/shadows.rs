//! Matches that never see a request, because an older object has the same one on the same host.

use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;

use super::Finding;
use super::codes;
use super::routes::{NEVER, Unit};
use crate::intent::{ObjectKind, ObjectRef};
use crate::snapshot::{
    HostPattern, HttpMatch, Key, Kind, PathMatch, Resource, Route, RouteHost, StringMatch, ValueMatch,
};

/// Where routes meet: on one host of one listener.
#[derive(PartialEq, Eq, Hash)]
struct Place<'a> {
    gateway: &'a Key,
    listener: &'a str,
    host: &'a RouteHost,
}

/// What they can contest there.
#[derive(PartialEq, Eq, Hash)]
struct Contest<'a> {
    path: (u8, &'a str),
    method: Option<&'a str>,
    headers: Vec<&'a ValueMatch>,
    query: Vec<&'a ValueMatch>,
}

type Ours<'a> = (&'a Key, &'a Route);

/// Every match that another object's wins against, reported to the loser only. In no order, and
/// perhaps once a listener: the caller sorts all findings and removes duplicates.
pub(crate) fn find(resources: &BTreeMap<Key, Resource>, units: &BTreeMap<Key, Unit>) -> Vec<Finding> {
    let mut routes: Vec<Ours<'_>> = resources
        .iter()
        .filter_map(|(key, resource)| match resource {
            Resource::Route(route) => Some((key, route)),
            _ => None,
        })
        .collect();
    // Equal matches are decided by what comes after the match in `precedence`.
    routes.sort_by_key(|(key, route)| (route.created.unwrap_or(0), &key.namespace, &key.name, key.kind));
    let mut places: HashMap<Place<'_>, SmallVec<[Ours<'_>; 2]>> = HashMap::with_capacity(routes.len());
    for (key, route) in routes {
        for attachment in &route.attachments {
            for host in &attachment.hosts {
                let place = Place { gateway: &attachment.gateway, listener: &attachment.listener, host };
                places.entry(place).or_default().push((key, route));
            }
        }
    }
    let mut findings = Vec::new();
    // Most hosts have one route, which has nobody to lose against.
    for (place, routes) in places.iter().filter(|(_, routes)| routes.len() > 1) {
        let mut owners = HashMap::new();
        for (key, route) in routes {
            for (rule, index, contest) in contests(route, place.host) {
                let owner: &&Key = owners.entry(contest).or_insert(key);
                if owner != key {
                    findings.push(finding(key, owner, &place.host.served, (rule, index), units.get(key)));
                }
            }
        }
    }
    findings
}

/// All matches of a route on a host, each with its rule and number.
fn contests<'a>(route: &'a Route, host: &RouteHost) -> impl Iterator<Item = (usize, usize, Contest<'a>)> {
    let here = route.rules.iter().enumerate();
    let here = here.filter(move |(_, rule)| rule.host.as_ref().is_none_or(|only| *only == host.served));
    here.flat_map(|(rule, declared)| {
        let live = declared.matches.iter().enumerate().filter(|(_, one)| !never(one));
        live.map(move |(index, one)| {
            let contest = Contest {
                path: path(&one.path),
                method: one.method.as_deref(),
                headers: sorted(&one.headers),
                query: sorted(&one.query),
            };
            (rule, index, contest)
        })
    })
}

fn path(path: &PathMatch) -> (u8, &str) {
    match path {
        PathMatch::Exact(path) => (0, path),
        PathMatch::Prefix(path) => (1, path.trim_end_matches('/')),
        PathMatch::Regex(path) => (2, path),
        PathMatch::RegexPrefix(path) => (3, path),
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

fn finding(
    loser: &Key,
    owner: &Key,
    host: &HostPattern,
    (rule, index): (usize, usize),
    unit: Option<&Unit>,
) -> Finding {
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
