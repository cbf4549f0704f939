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
    findings: Arc<Vec<Finding>>,
    statuses: Arc<Vec<ObjectStatus>>,
    changed: BTreeMap<Key, Changed>,
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
    /// Resources that changed.
    pub keys: Vec<Key>,
    /// Objects that appeared.
    pub appeared: Vec<ObjectRef>,
    /// Objects that went.
    pub gone: Vec<ObjectRef>,
    /// All findings now.
    pub findings: Vec<Finding>,
    /// All statuses now.
    pub statuses: Vec<ObjectStatus>,
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
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        let others = pages.findings.iter().filter(|found| found.code != SOURCE_UNREADABLE).cloned();
        pages.findings = Arc::new(others.chain([finding]).collect());
    }

    /// Writes down a pass.
    pub fn enter(&self, entry: Entry) {
        let changed = Changed { head: entry.head, read_at: entry.read_at };
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        pages.head = entry.head;
        pages.begun.get_or_insert(changed);
        for object in &entry.gone {
            pages.objects.remove(object);
        }
        pages.objects.extend(entry.appeared);
        pages.findings = Arc::new(entry.findings);
        pages.statuses = Arc::new(entry.statuses);
        for key in entry.keys {
            pages.changed.insert(key, changed);
        }
    }
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
            pages.objects.contains(object) || pages.findings.iter().any(|found| found.object.as_ref() == Some(object))
        })
    }

    /// All findings.
    pub fn findings(&self) -> Arc<Vec<Finding>> {
        self.read(|pages| Arc::clone(&pages.findings))
    }

    /// All statuses.
    pub fn statuses(&self) -> Arc<Vec<ObjectStatus>> {
        self.read(|pages| Arc::clone(&pages.statuses))
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
        self.read(|pages| pages.changed.values().max_by_key(|changed| changed.head).copied().or(pages.begun))
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
