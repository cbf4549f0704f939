//! The leader's book: what it read, what it found wrong, what it published when. Written by the
//! leading session, read by the admin API.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use meshgate_core::compile::ObjectStatus;
use meshgate_core::intent::{Finding, ObjectKind, ObjectRef, Severity};
use meshgate_core::snapshot::{HeadId, Key, Kind};

/// Code of the finding about a source that can't be read.
const SOURCE_UNREADABLE: &str = "MG0502";
/// Code of the finding about a pass that can't be published.
const UNPUBLISHED: &str = "MG0503";

/// When a resource changed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The head that brought the change.
    pub head: HeadId,
    /// When the leader saw the source change.
    pub read_at: Instant,
}

#[derive(Debug, Default)]
struct Pages {
    epoch: u64,
    since_ms: u64,
    head: HeadId,
    begun: Option<Changed>,
    objects: BTreeSet<ObjectRef>,
    /// What compile found, by object; none of them is empty.
    compiled: BTreeMap<ObjectRef, Vec<Finding>>,
    /// What is wrong with manifests.
    source: Arc<Vec<Finding>>,
    /// What can't be published.
    refused: Vec<Finding>,
    /// The source can't be read, or what was read of it can't be published.
    complaint: Option<Finding>,
    statuses: BTreeMap<ObjectRef, Arc<ObjectStatus>>,
    changed: BTreeMap<Key, Changed>,
    changed_last: Option<Changed>,
}

impl Pages {
    /// Findings that are not kept by object: few, as a rule.
    fn others(&self) -> impl Iterator<Item = &Finding> {
        self.source.iter().chain(&self.refused).chain(&self.complaint)
    }
}

/// The writing end: one, in the session that leads.
#[derive(Debug, Default)]
pub struct Book {
    pages: Arc<RwLock<Pages>>,
}

/// The reading end.
#[derive(Clone, Debug)]
pub struct BookReader {
    pages: Arc<RwLock<Pages>>,
}

/// What one pass over the source leads to.
#[derive(Debug)]
pub struct Entry {
    /// The head published, or the last one if nothing changed.
    pub head: HeadId,
    /// When the pass began.
    pub read_at: Instant,
    /// Why nothing could be published; then `head` does not show what was read.
    pub unpublished: Option<String>,
    /// Resources that changed; with what could not be published before, and none if nothing can be now.
    pub keys: Vec<Key>,
    /// Objects that appeared.
    pub appeared: Vec<ObjectRef>,
    /// Objects that went.
    pub gone: Vec<ObjectRef>,
    /// Objects about which compile finds something else than before, with all of it.
    pub compiled: Vec<(ObjectRef, Vec<Finding>)>,
    /// All that is wrong with manifests now.
    pub source: Arc<Vec<Finding>>,
    /// All that can't be published now.
    pub refused: Vec<Finding>,
    /// Conditions that are other than before, or gone.
    pub statuses: Vec<(ObjectRef, Option<Arc<ObjectStatus>>)>,
}

impl Book {
    /// A reader of it.
    pub fn reader(&self) -> BookReader {
        BookReader { pages: Arc::clone(&self.pages) }
    }

    /// Starts a term with empty pages.
    pub fn begin(&self, epoch: u64, since_ms: u64) {
        *self.pages.write().unwrap_or_else(PoisonError::into_inner) = Pages { epoch, since_ms, ..Pages::default() };
    }

    /// Writes down that the source can't be read; the next pass takes it back.
    pub fn complain(&self, source: &Path, error: &str) {
        let finding = Finding {
            code: SOURCE_UNREADABLE,
            severity: Severity::Error,
            object: None,
            field: String::new(),
            message: format!("{error}. Edits have no effect until it can be read; what was published is served"),
            origin: source.display().to_string(),
        };
        self.pages.write().unwrap_or_else(PoisonError::into_inner).complaint = Some(finding);
    }

    /// Writes down a pass. Returns what was not found before, wherever it is declared.
    pub fn enter(&self, entry: Entry) -> Vec<Finding> {
        let changed = Changed { head: entry.head, read_at: entry.read_at };
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        pages.head = entry.head;
        if entry.unpublished.is_none() {
            pages.begun.get_or_insert(changed);
        }
        for object in &entry.gone {
            pages.objects.remove(object);
        }
        pages.objects.extend(entry.appeared);
        for (object, status) in entry.statuses {
            match status {
                Some(status) => pages.statuses.insert(object, status),
                None => pages.statuses.remove(&object),
            };
        }
        if !entry.keys.is_empty() {
            pages.changed_last = Some(changed);
        }
        for key in entry.keys {
            pages.changed.insert(key, changed);
        }
        let mut new = Vec::new();
        let before = std::mem::replace(&mut pages.complaint, entry.unpublished.as_deref().map(unpublished));
        note_new(before.as_slice(), pages.complaint.as_slice(), &mut new);
        for (object, findings) in entry.compiled {
            let before = pages.compiled.remove(&object).unwrap_or_default();
            note_new(&before, &findings, &mut new);
            if !findings.is_empty() {
                pages.compiled.insert(object, findings);
            }
        }
        if !Arc::ptr_eq(&pages.source, &entry.source) {
            let before = std::mem::replace(&mut pages.source, entry.source);
            note_new(&before, &pages.source, &mut new);
        }
        let before = std::mem::replace(&mut pages.refused, entry.refused);
        note_new(&before, &pages.refused, &mut new);
        new
    }
}

fn unpublished(error: &str) -> Finding {
    Finding {
        code: UNPUBLISHED,
        severity: Severity::Error,
        object: None,
        field: String::new(),
        message: format!("can't publish: {error}; what was published goes on"),
        origin: String::new(),
    }
}

/// Adds what is in `now` and was not `before`. A finding that only moved within its file is not new.
fn note_new(before: &[Finding], now: &[Finding], new: &mut Vec<Finding>) {
    fn news(finding: &Finding) -> (&str, &Option<ObjectRef>, &str, &str) {
        (finding.code, &finding.object, &finding.field, &finding.message)
    }
    let known: BTreeSet<_> = before.iter().map(news).collect();
    new.extend(now.iter().filter(|finding| !known.contains(&news(finding))).cloned());
}

impl BookReader {
    fn read<T>(&self, with: impl FnOnce(&Pages) -> T) -> T {
        with(&self.pages.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Epoch of the term and when it began (Unix time in milliseconds).
    pub fn term(&self) -> (u64, u64) {
        self.read(|pages| (pages.epoch, pages.since_ms))
    }

    /// The head published last.
    pub fn head(&self) -> HeadId {
        self.read(|pages| pages.head)
    }

    /// Does the source hold the object, or did it and is it refused?
    pub fn knows(&self, object: &ObjectRef) -> bool {
        self.read(|pages| {
            pages.objects.contains(object)
                || pages.compiled.contains_key(object)
                || pages.others().any(|found| found.object.as_ref() == Some(object))
        })
    }

    /// All findings, sorted.
    pub fn findings(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> =
            self.read(|pages| pages.compiled.values().flatten().chain(pages.others()).cloned().collect());
        all.sort();
        all
    }

    /// How many findings there are.
    pub fn findings_count(&self) -> usize {
        self.read(|pages| pages.compiled.values().map(Vec::len).sum::<usize>() + pages.others().count())
    }

    /// The findings about an object.
    pub fn findings_of(&self, object: &ObjectRef) -> Vec<Finding> {
        self.read(|pages| {
            let others = pages.others().filter(|found| found.object.as_ref() == Some(object));
            pages.compiled.get(object).into_iter().flatten().chain(others).cloned().collect()
        })
    }

    /// What compile found about an object.
    pub fn compiled(&self, object: &ObjectRef) -> Option<Vec<Finding>> {
        self.read(|pages| pages.compiled.get(object).cloned())
    }

    /// The conditions of an object.
    pub fn status(&self, object: &ObjectRef) -> Option<Arc<ObjectStatus>> {
        self.read(|pages| pages.statuses.get(object).cloned())
    }

    /// When the object's resource changed last; what did not change in this term counts from its
    /// first commit. `None` before that.
    pub fn changed(&self, object: &ObjectRef) -> Option<Changed> {
        self.read(|pages| {
            let key = resource_key(object);
            key.and_then(|key| pages.changed.get(&key).copied()).or(pages.begun)
        })
    }

    /// When anything changed last.
    pub fn changed_last(&self) -> Option<Changed> {
        self.read(|pages| pages.changed_last.or(pages.begun))
    }
}

/// Kinds of objects that compile to a resource of their own, and the resource's kind.
const COMPILED: &[(ObjectKind, Kind)] = &[
    (ObjectKind::Gateway, Kind::Gateway),
    (ObjectKind::HttpRoute, Kind::HttpRoute),
    (ObjectKind::Ingress, Kind::Ingress),
    (ObjectKind::Service, Kind::Service),
    (ObjectKind::EndpointSlice, Kind::Endpoints),
    (ObjectKind::Secret, Kind::Certificate),
];

/// The key of the resource that an object compiles to, if its kind does.
pub fn resource_key(object: &ObjectRef) -> Option<Key> {
    let (_, kind) = COMPILED.iter().find(|(of, _)| *of == object.kind)?;
    Some(Key { kind: *kind, namespace: Arc::clone(&object.namespace), name: Arc::clone(&object.name) })
}

/// The object that a resource was made from.
pub fn object(key: &Key) -> Option<ObjectRef> {
    let (kind, _) = COMPILED.iter().find(|(_, compiled)| *compiled == key.kind)?;
    Some(ObjectRef { kind: *kind, namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) })
}
