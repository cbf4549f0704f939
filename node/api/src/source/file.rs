//! What one file declares, and what it declared before it was broken.

use std::collections::HashMap;
use std::sync::Arc;

use meshgate_core::intent::{Finding, ObjectRef, Severity};

use super::document::{Document, Entry, Format, split};
use super::listing::Stamp;
use crate::translate::{code, unnamed};

/// A document and where it starts.
#[derive(Clone)]
struct Placed {
    /// Line, from 0.
    line: usize,
    document: Arc<Document>,
}

/// A name that a file declares twice.
pub(super) struct Twice {
    pub(super) name: ObjectRef,
    /// Lines from 1: the one that counts, and the other.
    pub(super) lines: (usize, usize),
}

/// The state of one file.
#[derive(Default)]
pub(super) struct FileState {
    /// When it was read; `None` makes the next look read it again.
    pub(super) stamp: Option<Stamp>,
    documents: Vec<Placed>,
    /// Older documents whose objects stay in use because a newer one is broken.
    kept: Vec<Placed>,
    /// What is wrong with the file as a whole.
    problem: Option<Finding>,
    /// What it declares: line from 1, and the object.
    pub(super) names: HashMap<ObjectRef, (usize, Arc<Entry>)>,
    pub(super) twice: Vec<Twice>,
}

impl FileState {
    /// The state that follows from a new text. Documents whose text is known are reused.
    pub(super) fn next(&self, path: &str, stamp: Option<Stamp>, text: &str, format: Format) -> Self {
        let mut next = FileState { stamp, ..FileState::default() };
        if text.trim().is_empty() && !self.names.is_empty() {
            let message = "became empty; its objects stay in use. Delete the file if that is meant";
            next.documents.clone_from(&self.documents);
            next.kept.clone_from(&self.kept);
            next.problem = Some(unnamed(code::CUT_OFF, Severity::Error, message.to_owned(), path));
            next.collect();
            return next;
        }
        let known: HashMap<blake3::Hash, &Arc<Document>> =
            self.documents.iter().chain(&self.kept).map(|placed| (placed.document.hash, &placed.document)).collect();
        let chunks = split(text, format);
        let last = chunks.len().saturating_sub(1);
        for (i, (line, chunk)) in chunks.into_iter().enumerate() {
            let hash = blake3::hash(chunk.as_bytes());
            let document = match known.get(&hash) {
                Some(known) => Arc::clone(known),
                None if i == last && self.is_cut_off(chunk) => Arc::new(Document::cut_off(chunk, hash)),
                None => Arc::new(Document::parse(chunk, hash, format)),
            };
            next.documents.push(Placed { line, document });
        }
        if next.documents.iter().any(|placed| placed.document.broken.is_some()) {
            next.keep(self);
        }
        next.collect();
        next
    }

    /// Everything in it could be read, and nothing of it was refused.
    pub(super) fn is_good(&self) -> bool {
        let good = |placed: &Placed| {
            placed.document.broken.is_none() && placed.document.entries.iter().all(|entry| entry.object.is_some())
        };
        self.problem.is_none() && self.documents.iter().all(good)
    }

    /// Nothing is to be found about it, its documents and its objects.
    pub(super) fn is_faultless(&self) -> bool {
        let silent = |placed: &Placed| {
            let document = &placed.document;
            document.broken.is_none()
                && document.notes.is_empty()
                && document.entries.iter().all(|entry| entry.findings.is_empty())
        };
        self.problem.is_none() && self.twice.is_empty() && self.documents.iter().all(silent)
    }

    /// The same objects, with a problem of the file as a whole.
    pub(super) fn with_problem(mut self, stamp: Option<Stamp>, problem: Finding) -> Self {
        self.stamp = stamp;
        self.problem = Some(problem);
        self
    }

    /// Does a text end in the middle of a line of what was a document here?
    fn is_cut_off(&self, chunk: &str) -> bool {
        let cuts = |placed: &Placed| {
            let rest = placed.document.text.strip_prefix(chunk);
            rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['\n', '\r']))
        };
        !chunk.ends_with('\n') && self.documents.iter().chain(&self.kept).any(cuts)
    }

    /// Keeps the earlier documents that declare something which is not declared any more.
    fn keep(&mut self, before: &FileState) {
        let named: std::collections::HashSet<&ObjectRef> =
            self.documents.iter().flat_map(|placed| placed.document.entries.iter().map(|entry| &entry.name)).collect();
        let missing = |placed: &&Placed| placed.document.entries.iter().any(|entry| !named.contains(&entry.name));
        let kept = before.documents.iter().chain(&before.kept).filter(missing).cloned().collect();
        self.kept = kept;
    }

    fn collect(&mut self) {
        for placed in &self.documents {
            for entry in &placed.document.entries {
                let line = placed.line + 1;
                match self.names.get(&entry.name) {
                    Some((first, _)) => {
                        self.twice.push(Twice { name: entry.name.clone(), lines: (*first, line) });
                    }
                    None => {
                        self.names.insert(entry.name.clone(), (line, Arc::clone(entry)));
                    }
                }
            }
        }
        for placed in &self.kept {
            for entry in &placed.document.entries {
                let place = (placed.line + 1, Arc::clone(entry));
                self.names.entry(entry.name.clone()).or_insert(place);
            }
        }
    }

    /// Everything that is wrong here, with its place. `note` completes the words about an object.
    pub(super) fn findings(&self, path: &str, out: &mut Vec<Finding>, note: impl Fn(&Entry) -> &'static str) {
        out.extend(self.problem.clone());
        for Placed { line, document } in &self.documents {
            let origin = || format!("{path}:{}", line + 1);
            out.extend(document.notes.iter().cloned().map(|finding| Finding { origin: origin(), ..finding }));
            for entry in document.entries.iter().filter(|entry| !entry.findings.is_empty()) {
                let note = note(entry);
                out.extend(entry.findings.iter().cloned().map(|finding| {
                    let message = format!("{}{note}", finding.message);
                    Finding { origin: origin(), message, ..finding }
                }));
            }
            if let Some(broken) = &document.broken {
                let kept = if self.kept.is_empty() { "" } else { "; what the file said before stays in use" };
                let place = format!("{path}:{}", line + 1 + broken.line);
                out.push(unnamed(broken.code, Severity::Error, format!("{}{kept}", broken.message), &place));
            }
        }
    }
}
