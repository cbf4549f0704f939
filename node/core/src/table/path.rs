//! The paths of one host: exact ones by hash, regular expressions in order, prefixes by length.

use std::collections::HashMap;
use std::sync::Arc;

use super::RequestHead;
use super::route::{CompiledMatch, CompiledRoute};
use crate::snapshot::PathMatch;

/// One match of one rule of one route.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
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

/// All matches of one host, each list in order of precedence.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    exact: HashMap<Box<str>, Vec<Candidate>>,
    /// Without trailing `/`, so that the root is the empty string.
    prefix: HashMap<Box<str>, Vec<Candidate>>,
    /// Lengths that occur in `prefix`, longest first: bounds the look-ups for a hostile path.
    lengths: Vec<usize>,
    regex: Vec<Candidate>,
}

impl PathIndex {
    /// Indexes candidates; their order does not matter, and duplicates count once.
    pub(super) fn build(mut candidates: Vec<Candidate>) -> Self {
        candidates.sort_by(|a, b| a.compiled().precedence.cmp(&b.compiled().precedence));
        candidates.dedup_by(|a, b| a.compiled().precedence == b.compiled().precedence);
        let mut index = PathIndex::default();
        for candidate in candidates {
            match &candidate.compiled().path {
                PathMatch::Exact(path) => {
                    let path = path.as_str().into();
                    index.exact.entry(path).or_default().push(candidate);
                }
                PathMatch::Prefix(prefix) => {
                    let prefix = prefix.trim_end_matches('/').into();
                    index.prefix.entry(prefix).or_default().push(candidate);
                }
                PathMatch::Regex(_) => index.regex.push(candidate),
            }
        }
        index.lengths = index.prefix.keys().map(|prefix| prefix.len()).collect();
        index.lengths.sort_unstable_by(|a, b| b.cmp(a));
        index.lengths.dedup();
        index
    }

    /// The match with the highest precedence that holds for a request.
    pub(super) fn find(&self, head: &RequestHead<'_>) -> Option<&Candidate> {
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
        None
    }

    /// All candidates, in no order.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.exact.values().chain(self.prefix.values()).flatten().chain(&self.regex)
    }

    /// All candidates in order of precedence.
    pub(super) fn sorted(&self) -> Vec<&Candidate> {
        let mut all: Vec<&Candidate> = self.candidates().collect();
        all.sort_by(|a, b| a.compiled().precedence.cmp(&b.compiled().precedence));
        all
    }
}

/// The first `length` bytes of a path, when a segment ends there.
fn segments(path: &str, length: usize) -> Option<&str> {
    let ends = path.len() == length || path.as_bytes().get(length) == Some(&b'/');
    if ends { path.get(..length) } else { None }
}
