//! The paths of one host: exact ones by hash, regular expressions in order, prefixes by length.

use std::sync::Arc;

use super::RequestHead;
use super::route::{CompiledMatch, CompiledRoute};
use super::shared::SharedMap;
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

/// Candidates in order of precedence.
type List = Arc<Vec<Candidate>>;

/// All matches of one host, each list in order of precedence. A clone shares them all.
#[derive(Clone, Debug, Default)]
pub(super) struct PathIndex {
    exact: SharedMap<Arc<str>, List>,
    /// Without trailing `/`, so that the root is the empty string.
    prefix: SharedMap<Arc<str>, List>,
    /// Lengths that occur in `prefix`, longest first, each with how often: bounds the look-ups for a
    /// hostile path.
    lengths: Vec<(usize, usize)>,
    regex: List,
}

impl PathIndex {
    /// Adds a candidate; one that is there already counts once.
    pub(super) fn add(&mut self, candidate: Candidate) {
        match &candidate.compiled().path {
            PathMatch::Exact(path) => {
                let path: Arc<str> = path.as_str().into();
                self.exact.get_or_default(&path).into_iter().for_each(|list| put(list, candidate.clone()));
            }
            PathMatch::Prefix(prefix) => {
                let prefix: Arc<str> = stem(prefix).into();
                if self.prefix.get(&prefix).is_none() {
                    self.note_length(prefix.len());
                }
                self.prefix.get_or_default(&prefix).into_iter().for_each(|list| put(list, candidate.clone()));
            }
            PathMatch::Regex(_) => put(&mut self.regex, candidate),
        }
    }

    /// Takes out everything of the candidate's route that has the candidate's path.
    pub(super) fn remove(&mut self, candidate: &Candidate) {
        match &candidate.compiled().path {
            PathMatch::Exact(path) => {
                take_from(&mut self.exact, path, &candidate.route);
            }
            PathMatch::Prefix(prefix) => {
                if take_from(&mut self.prefix, stem(prefix), &candidate.route) {
                    self.forget_length(stem(prefix).len());
                }
            }
            PathMatch::Regex(_) => take(&mut self.regex, &candidate.route),
        }
    }

    /// There is no candidate.
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty() && self.regex.is_empty()
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
        for &(length, _) in &self.lengths {
            let list = segments(head.path, length).and_then(|prefix| self.prefix.get(prefix));
            if let Some(found) = list.and_then(|list| list.iter().find(holds)) {
                return Some(found);
            }
        }
        None
    }

    /// All candidates in order of precedence.
    pub(super) fn sorted(&self) -> Vec<&Candidate> {
        let lists = self.exact.values().chain(self.prefix.values()).chain([&self.regex]);
        let mut all: Vec<&Candidate> = lists.flat_map(|list| list.iter()).collect();
        all.sort_by(|a, b| a.compiled().precedence.cmp(&b.compiled().precedence));
        all
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
