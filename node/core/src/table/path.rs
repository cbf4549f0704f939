//! The paths of one host: exact ones by hash, regular expressions in order, prefixes by length.
//!
//! Routes whose own hostname is more specific come before all others of the host, whatever their
//! paths (`HTTPRoute.spec.hostnames`): a tier for each specificity, nearly always one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::RequestHead;
use super::route::{CompiledMatch, CompiledRoute};
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
}

/// All matches of one host, by tier, the first one first.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    tiers: Vec<Tier>,
}

/// Matches of equally specific hostnames, each list in order of precedence.
#[derive(Debug, Default)]
struct Tier {
    exact: HashMap<Box<str>, Vec<Candidate>>,
    /// Without trailing `/`, so that the root is the empty string.
    prefix: HashMap<Box<str>, Vec<Candidate>>,
    /// Lengths that occur in `prefix`, longest first: bounds the look-ups for a hostile path.
    lengths: Vec<usize>,
    regex: Vec<Candidate>,
    /// Where an Ingress has expressions: these and all prefixes, which stand among each other.
    mixed: Vec<Candidate>,
}

impl PathIndex {
    /// Indexes candidates; their order does not matter, and duplicates count once.
    pub(super) fn build(mut candidates: Vec<Candidate>) -> Self {
        candidates.sort_by(|a, b| (a.declared, &a.compiled().precedence).cmp(&(b.declared, &b.compiled().precedence)));
        let tiers = candidates.chunk_by(|a, b| a.declared == b.declared).count();
        if tiers > 1 {
            let mut seen = BTreeSet::new();
            candidates.retain(|candidate| seen.insert(candidate.compiled().precedence.clone()));
        } else {
            candidates.dedup_by(|a, b| a.compiled().precedence == b.compiled().precedence);
        }
        PathIndex { tiers: candidates.chunk_by(|a, b| a.declared == b.declared).map(Tier::build).collect() }
    }

    /// The match with the highest precedence that holds for a request.
    pub(super) fn find(&self, head: &RequestHead<'_>) -> Option<&Candidate> {
        self.tiers.iter().find_map(|tier| tier.find(head))
    }

    /// All candidates, in no order.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.tiers.iter().flat_map(Tier::candidates)
    }

    /// All candidates in order of precedence.
    pub(super) fn sorted(&self) -> Vec<&Candidate> {
        let mut all: Vec<&Candidate> = self.candidates().collect();
        all.sort_by(|a, b| (a.declared, &a.compiled().precedence).cmp(&(b.declared, &b.compiled().precedence)));
        all
    }
}

impl Tier {
    /// From candidates in order of precedence.
    fn build(candidates: &[Candidate]) -> Self {
        let mut tier = Tier::default();
        let mixed = candidates.iter().any(|c| matches!(c.compiled().path, PathMatch::RegexPrefix(_)));
        for candidate in candidates.iter().cloned() {
            match &candidate.compiled().path {
                PathMatch::Exact(path) => {
                    let path = path.as_str().into();
                    tier.exact.entry(path).or_default().push(candidate);
                }
                PathMatch::Prefix(_) | PathMatch::RegexPrefix(_) if mixed => tier.mixed.push(candidate),
                PathMatch::Prefix(prefix) => {
                    let prefix = prefix.trim_end_matches('/').into();
                    tier.prefix.entry(prefix).or_default().push(candidate);
                }
                PathMatch::Regex(_) | PathMatch::RegexPrefix(_) => tier.regex.push(candidate),
            }
        }
        tier.lengths = tier.prefix.keys().map(|prefix| prefix.len()).collect();
        tier.lengths.sort_unstable_by(|a, b| b.cmp(a));
        tier.lengths.dedup();
        tier
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
        for &length in &self.lengths {
            let list = segments(head.path, length).and_then(|prefix| self.prefix.get(prefix));
            if let Some(found) = list.and_then(|list| list.iter().find(holds)) {
                return Some(found);
            }
        }
        self.mixed.iter().find(|c| mixed_holds(c, head.path) && c.compiled().rest_holds(head))
    }

    fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.exact.values().chain(self.prefix.values()).flatten().chain(&self.regex).chain(&self.mixed)
    }
}

fn mixed_holds(candidate: &Candidate, path: &str) -> bool {
    match &candidate.compiled().path {
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            segments(path, prefix.len()) == Some(prefix)
        }
        _ => candidate.compiled().regex_holds(path),
    }
}

/// The first `length` bytes of a path, when a segment ends there.
fn segments(path: &str, length: usize) -> Option<&str> {
    let ends = path.len() == length || path.as_bytes().get(length) == Some(&b'/');
    if ends { path.get(..length) } else { None }
}
