//! Matches that never see a request, because an older object has the same one on the same host.
//!
//! Who wants which match is kept, so that a change looks at the matches of the changed object and at
//! nothing else.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use super::Finding;
use super::codes;
use super::routes::{NEVER, Unit};
use crate::intent::{ObjectKind, ObjectRef};
use crate::snapshot::{HostPattern, HttpMatch, Key, Kind, PathMatch, Route, RouteHost, StringMatch, ValueMatch};

/// What objects can contest: a match on one host of one listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Contest {
    gateway: Key,
    listener: String,
    host: RouteHost,
    path: (u8, String),
    method: Option<String>,
    headers: Vec<ValueMatch>,
    query: Vec<ValueMatch>,
}

/// An object that has the match. Ordered as `precedence` orders equal matches: the first one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entrant {
    created: i64,
    namespace: Arc<str>,
    name: Arc<str>,
    kind: Kind,
}

impl Entrant {
    fn new(key: &Key, route: &Route) -> Self {
        let (namespace, name) = (key.namespace.clone(), key.name.clone());
        Entrant { created: route.created.unwrap_or(0), namespace, name, kind: key.kind }
    }

    fn key(&self) -> Key {
        Key { kind: self.kind, namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// Who has which match.
#[derive(Debug, Default)]
pub(crate) struct Shadows {
    /// Entrants in order, each once.
    contests: HashMap<Contest, SmallVec<[Entrant; 1]>>,
}

impl Shadows {
    /// A route changed. Adds to `affected` whoever may win or lose something by it; returns how many
    /// matches were looked at.
    pub(crate) fn change(
        &mut self,
        key: &Key,
        old: Option<&Route>,
        new: Option<&Route>,
        affected: &mut BTreeSet<Key>,
    ) -> usize {
        let mut owners: HashMap<Contest, Option<Entrant>> = HashMap::new();
        let mut looked = 0;
        if let Some(route) = old {
            let entrant = Entrant::new(key, route);
            for (_, _, contest) in contests(route) {
                looked += 1;
                let Some(entrants) = self.contests.get_mut(&contest) else { continue };
                owners.entry(contest.clone()).or_insert_with(|| entrants.first().cloned());
                entrants.retain(|other| *other != entrant);
                if entrants.is_empty() {
                    self.contests.remove(&contest);
                }
            }
        }
        if let Some(route) = new {
            let entrant = Entrant::new(key, route);
            for (_, _, contest) in contests(route) {
                looked += 1;
                let entrants = self.contests.entry(contest.clone()).or_default();
                owners.entry(contest).or_insert_with(|| entrants.first().cloned());
                if let Err(at) = entrants.binary_search(&entrant) {
                    entrants.insert(at, entrant.clone());
                }
            }
        }
        // A loser is told who wins, so a new winner is news to all of them.
        for (contest, before) in owners {
            let entrants = self.contests.get(&contest).map(SmallVec::as_slice).unwrap_or_default();
            if entrants.first().map(Entrant::key) != before.as_ref().map(Entrant::key) {
                looked += entrants.len();
                affected.extend(entrants.iter().map(Entrant::key));
            }
        }
        looked
    }

    /// Every match of a route that another object's wins against. In no order, and perhaps once a
    /// listener: the caller sorts and removes duplicates.
    pub(crate) fn findings(&self, key: &Key, route: &Route, unit: Option<&Unit>) -> Vec<Finding> {
        let lost = contests(route).filter_map(|(rule, index, contest)| {
            let owner = self.contests.get(&contest)?.first()?.key();
            (owner != *key).then(|| finding(key, &owner, &contest.host.served, (rule, index), unit))
        });
        lost.collect()
    }
}

/// All matches of a route on all its hosts, each with its rule and number.
fn contests(route: &Route) -> impl Iterator<Item = (usize, usize, Contest)> {
    let places =
        route.attachments.iter().flat_map(|attachment| attachment.hosts.iter().map(move |host| (attachment, host)));
    places.flat_map(move |(attachment, host)| {
        matches(route, host).map(move |(rule, index, one)| {
            let contest = Contest {
                gateway: attachment.gateway.clone(),
                listener: attachment.listener.clone(),
                host: host.clone(),
                path: path(&one.path),
                method: one.method.clone(),
                headers: sorted(&one.headers),
                query: sorted(&one.query),
            };
            (rule, index, contest)
        })
    })
}

/// All matches of a route on a host, each with its rule and number.
fn matches<'a>(route: &'a Route, host: &RouteHost) -> impl Iterator<Item = (usize, usize, &'a HttpMatch)> {
    let here = route.rules.iter().enumerate();
    let here = here.filter(move |(_, rule)| rule.host.as_ref().is_none_or(|only| *only == host.served));
    here.flat_map(|(rule, declared)| {
        let live = declared.matches.iter().enumerate().filter(|(_, one)| !never(one));
        live.map(move |(index, one)| (rule, index, one))
    })
}

fn path(path: &PathMatch) -> (u8, String) {
    match path {
        PathMatch::Exact(path) => (0, path.clone()),
        PathMatch::Prefix(path) => (1, path.trim_end_matches('/').to_owned()),
        PathMatch::Regex(path) => (2, path.clone()),
        PathMatch::RegexPrefix(path) => (3, path.clone()),
    }
}

/// Stands it for an expression that does not compile? Then it contests nothing.
fn never(one: &HttpMatch) -> bool {
    let is = |value: &ValueMatch| matches!(&value.value, StringMatch::Regex(pattern) if pattern == NEVER);
    matches!(&one.path, PathMatch::Regex(pattern) if pattern == NEVER)
        || one.headers.iter().any(is)
        || one.query.iter().any(is)
}

fn sorted(values: &[ValueMatch]) -> Vec<ValueMatch> {
    let mut sorted = values.to_vec();
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
