//! The paths of one host: exact ones by hash, regular expressions in order, prefixes by length.
//!
//! Routes whose own hostname is more specific come before all others of the host, whatever their
//! paths (`HTTPRoute.spec.hostnames`): a tier for each specificity, nearly always one.

use std::sync::Arc;

use super::RequestHead;
use super::route::{CompiledMatch, CompiledRoute};
use super::shared::SharedMap;
use crate::snapshot::{PathMatch, Specificity};

/// One match of one rule of one route.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// How specific the route's own hostname is.
    pub(super) declared: Specificity,
    pub(super) route: Arc<CompiledRoute>,
    pub(super) rule: usize,
    pub(super) index: usize,
}

impl Candidate {
    /// The match itself.
    pub(super) fn compiled(&self) -> &CompiledMatch {
        &self.route.rules[self.rule].matches[self.index]
    }

    fn is_regex_prefix(&self) -> bool {
        matches!(self.compiled().path, PathMatch::RegexPrefix(_))
    }
}

/// Candidates in order of precedence.
type List = Arc<Vec<Candidate>>;

/// All matches of one host, by tier, the first one first. A clone shares them all.
#[derive(Clone, Debug, Default)]
pub(super) struct PathIndex {
    tiers: Vec<Tier>,
}

/// Matches of equally specific hostnames, each list in order of precedence.
#[derive(Clone, Debug)]
struct Tier {
    declared: Specificity,
    exact: SharedMap<Arc<str>, List>,
    /// Without trailing `/`, so that the root is the empty string.
    prefix: SharedMap<Arc<str>, List>,
    /// Lengths that occur in `prefix`, longest first, each with how often: bounds the look-ups for a
    /// hostile path.
    lengths: Vec<(usize, usize)>,
    regex: List,
    /// Where an Ingress has expressions: these and all prefixes, which stand among each other.
    mixed: List,
}

impl PathIndex {
    /// Adds a candidate; one that is there already counts once.
    pub(super) fn add(&mut self, candidate: Candidate) {
        let at = self.tiers.binary_search_by(|tier| tier.declared.cmp(&candidate.declared));
        let at = at.unwrap_or_else(|at| {
            self.tiers.insert(at, Tier::new(candidate.declared));
            at
        });
        self.tiers[at].add(candidate);
    }

    /// Takes out everything of the candidate's route that has the candidate's path.
    pub(super) fn remove(&mut self, candidate: &Candidate) {
        let at = self.tiers.binary_search_by(|tier| tier.declared.cmp(&candidate.declared));
        if let Ok(at) = at {
            self.tiers[at].remove(candidate);
            if self.tiers[at].is_empty() {
                self.tiers.remove(at);
            }
        }
    }

    /// There is no candidate.
    pub(super) fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    /// The match with the highest precedence that holds for a request.
    pub(super) fn find(&self, head: &RequestHead<'_>) -> Option<&Candidate> {
        self.tiers.iter().find_map(|tier| tier.find(head))
    }

    /// All candidates in order of precedence.
    pub(super) fn sorted(&self) -> Vec<&Candidate> {
        let mut all: Vec<&Candidate> = self.tiers.iter().flat_map(Tier::candidates).collect();
        all.sort_by(|a, b| (a.declared, &a.compiled().precedence).cmp(&(b.declared, &b.compiled().precedence)));
        all
    }
}

impl Tier {
    fn new(declared: Specificity) -> Self {
        let (exact, prefix, lengths, regex, mixed) = Default::default();
        Tier { declared, exact, prefix, lengths, regex, mixed }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty() && self.regex.is_empty() && self.mixed.is_empty()
    }

    fn add(&mut self, candidate: Candidate) {
        match &candidate.compiled().path {
            PathMatch::Exact(path) => {
                let path: Arc<str> = path.as_str().into();
                if let Some(list) = self.exact.get_or_default(&path) {
                    put(list, candidate);
                }
            }
            PathMatch::Prefix(_) if !self.mixed.is_empty() => put(&mut self.mixed, candidate),
            PathMatch::Prefix(prefix) => {
                let prefix: Arc<str> = stem(prefix).into();
                if self.prefix.get(&prefix).is_none() {
                    self.note_length(prefix.len());
                }
                if let Some(list) = self.prefix.get_or_default(&prefix) {
                    put(list, candidate);
                }
            }
            PathMatch::Regex(_) => put(&mut self.regex, candidate),
            PathMatch::RegexPrefix(_) => {
                if self.mixed.is_empty() {
                    self.mix();
                }
                put(&mut self.mixed, candidate);
            }
        }
    }

    fn remove(&mut self, candidate: &Candidate) {
        match &candidate.compiled().path {
            PathMatch::Exact(path) => {
                take_from(&mut self.exact, path, &candidate.route);
            }
            PathMatch::Prefix(_) | PathMatch::RegexPrefix(_) if !self.mixed.is_empty() => {
                let precedence = &candidate.compiled().precedence;
                let found = self.mixed.binary_search_by(|other| other.compiled().precedence.cmp(precedence));
                if let Ok(at) = found {
                    Arc::make_mut(&mut self.mixed).remove(at);
                }
                if !self.mixed.iter().any(Candidate::is_regex_prefix) {
                    let prefixes = std::mem::take(&mut self.mixed);
                    prefixes.iter().for_each(|candidate| self.add(candidate.clone()));
                }
            }
            PathMatch::Prefix(prefix) => {
                if take_from(&mut self.prefix, stem(prefix), &candidate.route) {
                    self.forget_length(stem(prefix).len());
                }
            }
            PathMatch::Regex(_) => take(&mut self.regex, &candidate.route),
            PathMatch::RegexPrefix(_) => {}
        }
    }

    /// Brings all prefixes among the expressions.
    fn mix(&mut self) {
        let prefixes = std::mem::take(&mut self.prefix);
        self.lengths.clear();
        let mut mixed: Vec<Candidate> = prefixes.values().flat_map(|list| list.iter()).cloned().collect();
        mixed.sort_by(|a, b| a.compiled().precedence.cmp(&b.compiled().precedence));
        self.mixed = Arc::new(mixed);
    }

    fn note_length(&mut self, length: usize) {
        match self.lengths.binary_search_by(|(known, _)| length.cmp(known)) {
            Ok(at) => self.lengths[at].1 += 1,
            Err(at) => self.lengths.insert(at, (length, 1)),
        }
    }

    fn forget_length(&mut self, length: usize) {
        if let Ok(at) = self.lengths.binary_search_by(|(known, _)| length.cmp(known)) {
            self.lengths[at].1 -= 1;
            if self.lengths[at].1 == 0 {
                self.lengths.remove(at);
            }
        }
    }

    fn find(&self, head: &RequestHead<'_>) -> Option<&Candidate> {
        let holds = |c: &&Candidate| c.compiled().rest_holds(head);
        if let Some(found) = self.exact.get(head.path).and_then(|list| list.iter().find(holds)) {
            return Some(found);
        }
        let matches = |c: &&Candidate| c.compiled().regex_holds(head.path) && c.compiled().rest_holds(head);
        if let Some(found) = self.regex.iter().find(matches) {
            return Some(found);
        }
        for &(length, _) in &self.lengths {
            let list = segments(head.path, length).and_then(|prefix| self.prefix.get(prefix));
            if let Some(found) = list.and_then(|list| list.iter().find(holds)) {
                return Some(found);
            }
        }
        self.mixed.iter().find(|c| mixed_holds(c, head.path) && c.compiled().rest_holds(head))
    }

    fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        let lists = self.exact.values().chain(self.prefix.values()).chain([&self.regex, &self.mixed]);
        lists.flat_map(|list| list.iter())
    }
}

fn mixed_holds(candidate: &Candidate, path: &str) -> bool {
    match &candidate.compiled().path {
        PathMatch::Prefix(prefix) => segments(path, stem(prefix).len()) == Some(stem(prefix)),
        _ => candidate.compiled().regex_holds(path),
    }
}

/// A prefix as it is looked up.
fn stem(prefix: &str) -> &str {
    prefix.trim_end_matches('/')
}

/// Puts a candidate into its place.
fn put(list: &mut List, candidate: Candidate) {
    let found = list.binary_search_by(|other| other.compiled().precedence.cmp(&candidate.compiled().precedence));
    if let Err(at) = found {
        Arc::make_mut(list).insert(at, candidate);
    }
}

/// Takes everything of a route out of a list.
fn take(list: &mut List, route: &CompiledRoute) {
    if list.iter().any(|candidate| candidate.route.key == route.key) {
        Arc::make_mut(list).retain(|candidate| candidate.route.key != route.key);
    }
}

/// Takes everything of a route from under a path. True if nothing is left there.
fn take_from(lists: &mut SharedMap<Arc<str>, List>, path: &str, route: &CompiledRoute) -> bool {
    let Some(list) = lists.get_mut(path) else { return false };
    take(list, route);
    let gone = list.is_empty();
    if gone {
        lists.remove(path);
    }
    gone
}

/// The first `length` bytes of a path, when a segment ends there.
fn segments(path: &str, length: usize) -> Option<&str> {
    let ends = path.len() == length || path.as_bytes().get(length) == Some(&b'/');
    if ends { path.get(..length) } else { None }
}
