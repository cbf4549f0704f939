//! Which object counts under each name, over all files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use meshgate_core::intent::{Finding, Meta, Object, ObjectKind, ObjectRef, Severity, Spec};

use super::document::Entry;
use super::file::FileState;
use super::{Batch, PrivateKeyChange};
use crate::translate::code;

/// The files of a directory, by path.
pub(super) type Files = BTreeMap<Arc<str>, FileState>;

/// What was handed out, and who declares what.
#[derive(Default)]
pub(super) struct Board {
    /// Files that declare a name; the first one counts.
    holders: HashMap<ObjectRef, BTreeSet<Arc<str>>>,
    /// Names that several files declare.
    duplicates: BTreeSet<ObjectRef>,
    /// Objects handed out; never refused ones.
    published: HashMap<ObjectRef, Arc<Entry>>,
    /// How many published objects each namespace has.
    namespaces: HashMap<Arc<str>, usize>,
    /// Names that must be looked at.
    affected: BTreeSet<ObjectRef>,
    /// Names that are declared elsewhere than when the last batch was made.
    moved: BTreeSet<ObjectRef>,
    /// Files that are not without fault, or were not when the last batch was made.
    at_fault: BTreeSet<Arc<str>>,
    /// What is wrong may be something else now.
    stale: bool,
}

impl Board {
    /// How many objects are declared.
    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }

    /// The file that counts for a name, and the line in it, from 1.
    pub(super) fn place<'a>(&'a self, files: &Files, name: &ObjectRef) -> Option<(&'a str, usize)> {
        let path = self.holders.get(name)?.first()?;
        let (line, _) = files.get(path)?.names.get(name)?;
        Some((path, *line))
    }

    /// Was an object of the name handed out?
    pub(super) fn has(&self, name: &ObjectRef) -> bool {
        self.published.contains_key(name)
    }

    /// A file changed from one state to another.
    pub(super) fn replace(&mut self, path: &Arc<str>, before: Option<&FileState>, after: Option<&FileState>) {
        let declared = |state: Option<&FileState>, name: &ObjectRef| {
            state.and_then(|state| state.names.get(name)).map(|(_, entry)| Arc::clone(entry))
        };
        let line = |name: &ObjectRef| Some(before?.names.get(name)?.0);
        for (name, (now, _)) in after.into_iter().flat_map(|state| &state.names) {
            if line(name) != Some(*now) {
                self.stale |= self.duplicates.contains(name);
                self.moved.insert(name.clone());
            }
        }
        self.stale |= self.at_fault.remove(path);
        if after.is_some_and(|state| !state.is_faultless()) {
            self.at_fault.insert(Arc::clone(path));
            self.stale = true;
        }
        for name in before.into_iter().flat_map(|state| state.names.keys()) {
            if declared(after, name).is_none() {
                self.release(path, name);
            }
        }
        for (name, (_, entry)) in after.into_iter().flat_map(|state| &state.names) {
            match declared(before, name) {
                Some(old) if Arc::ptr_eq(&old, entry) => {}
                Some(_) => {
                    self.affected.insert(name.clone());
                }
                None => {
                    let holders = self.holders.entry(name.clone()).or_default();
                    holders.insert(Arc::clone(path));
                    if holders.len() > 1 {
                        self.duplicates.insert(name.clone());
                        self.stale = true;
                    }
                    self.affected.insert(name.clone());
                }
            }
        }
    }

    fn release(&mut self, path: &Arc<str>, name: &ObjectRef) {
        if let Some(holders) = self.holders.get_mut(name) {
            holders.remove(path);
            self.stale |= !holders.is_empty();
            if holders.len() < 2 {
                self.duplicates.remove(name);
            }
            if holders.is_empty() {
                self.holders.remove(name);
            }
        }
        self.affected.insert(name.clone());
        self.moved.insert(name.clone());
    }

    /// A file has a problem as a whole; what it declares is as before.
    pub(super) fn fault(&mut self, path: &Arc<str>) {
        self.at_fault.insert(Arc::clone(path));
        self.stale = true;
    }

    /// What is wrong may be something else now: only then is it worth collecting again.
    pub(super) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }

    /// Decides every affected name and puts what changed into the batch.
    pub(super) fn publish(&mut self, files: &Files, batch: &mut Batch) {
        let affected = std::mem::take(&mut self.affected);
        let (namespaces, others): (BTreeSet<_>, BTreeSet<_>) =
            affected.into_iter().partition(|name| name.kind == ObjectKind::Namespace);
        let mut namespaces = namespaces;
        for name in others {
            let next = self.declared(files, &name);
            if self.settle(&name, next, batch) {
                namespaces.insert(ObjectRef::new(ObjectKind::Namespace, "", &name.namespace));
            }
        }
        for name in namespaces.into_iter().filter(|name| !name.name.is_empty()) {
            let next = self.declared(files, &name).or_else(|| self.made_up(&name));
            self.settle(&name, next, batch);
        }
        batch.changes.sort_by(|a, b| a.0.cmp(&b.0));
        batch.moved.append(&mut self.moved);
    }

    /// What counts under a name now. A refused object leaves in place what was handed out before.
    fn declared(&self, files: &Files, name: &ObjectRef) -> Option<Arc<Entry>> {
        let path = self.holders.get(name)?.first()?;
        let (_, entry) = files.get(path)?.names.get(name)?;
        match entry.object {
            Some(_) => Some(Arc::clone(entry)),
            None => self.published.get(name).cloned(),
        }
    }

    /// A Namespace that objects are in and no file declares.
    fn made_up(&self, name: &ObjectRef) -> Option<Arc<Entry>> {
        self.namespaces.get(&name.name).filter(|count| **count > 0)?;
        let labels = [("kubernetes.io/metadata.name".to_owned(), name.name.to_string())].into();
        let meta = Meta { object: name.clone(), generation: 0, created: None, labels };
        let object = Some(Object { meta, spec: Spec::Namespace });
        Some(Arc::new(Entry { name: name.clone(), object, key: None, findings: Vec::new() }))
    }

    /// Hands out the difference; true when an object came or went.
    fn settle(&mut self, name: &ObjectRef, next: Option<Arc<Entry>>, batch: &mut Batch) -> bool {
        let before = match &next {
            Some(entry) => self.published.insert(name.clone(), Arc::clone(entry)),
            None => self.published.remove(name),
        };
        let object = |entry: &Option<Arc<Entry>>| entry.as_ref().and_then(|entry| entry.object.clone());
        let key = |entry: &Option<Arc<Entry>>| entry.as_ref().and_then(|entry| entry.key.clone());
        let same = matches!((&before, &next), (Some(before), Some(next)) if Arc::ptr_eq(before, next));
        if same || (before.is_none() && next.is_none()) {
            return false;
        }
        if object(&before) != object(&next) {
            batch.changes.push((name.clone(), object(&next)));
        }
        if key(&before) != key(&next) {
            batch.keys.push(PrivateKeyChange { object: name.clone(), key: key(&next) });
        }
        if before.is_some() == next.is_some() {
            return false;
        }
        // A finding about a refused object says whether another version of it is in use.
        self.stale |= !self.at_fault.is_empty();
        if !name.namespace.is_empty() {
            let count = self.namespaces.entry(Arc::clone(&name.namespace)).or_default();
            *count = if next.is_some() { *count + 1 } else { count.saturating_sub(1) };
        }
        true
    }

    /// Everything that is wrong with files, and with names that are declared more than once, sorted.
    pub(super) fn findings(&self, files: &Files) -> Vec<Finding> {
        self.findings_in(files, &self.at_fault)
    }

    /// The same, looked for in these files.
    fn findings_in<'a>(
        &self,
        files: &Files,
        paths: impl IntoIterator<Item = &'a Arc<str>, IntoIter: Clone>,
    ) -> Vec<Finding> {
        let mut out = Vec::new();
        let note = |entry: &Entry| match (&entry.object, self.has(&entry.name)) {
            (Some(_), _) => "",
            (None, true) => "; the previous version stays in use",
            (None, false) => "; the object is left out",
        };
        let at_fault = paths.into_iter().filter_map(|path| Some((path, files.get(path)?)));
        for (path, file) in at_fault.clone() {
            file.findings(path, &mut out, note);
        }
        let twice = |name: &ObjectRef, first: String, other: String| Finding {
            code: code::DUPLICATE,
            severity: Severity::Warning,
            object: Some(name.clone()),
            field: String::new(),
            message: format!("is declared in {first} and in {other}: the first counts, the other is ignored"),
            origin: other,
        };
        let place = |path: &Arc<str>, name: &ObjectRef| {
            let line = files.get(path).and_then(|file| file.names.get(name)).map_or(0, |(line, _)| *line);
            format!("{path}:{line}")
        };
        for name in &self.duplicates {
            let mut holders = self.holders.get(name).into_iter().flatten();
            let Some(first) = holders.next() else { continue };
            out.extend(holders.map(|other| twice(name, place(first, name), place(other, name))));
        }
        for (path, file) in at_fault {
            out.extend(
                file.twice.iter().map(|item| {
                    twice(&item.name, format!("{path}:{}", item.lines.0), format!("{path}:{}", item.lines.1))
                }),
            );
        }
        out.sort();
        out
    }
}

#[cfg(test)]
impl Board {
    /// What [`Board::findings`] must be, looked for everywhere.
    pub(super) fn findings_everywhere(&self, files: &Files) -> Vec<Finding> {
        self.findings_in(files, files.keys())
    }

    /// Every name with its place.
    pub(super) fn places(&self, files: &Files) -> BTreeMap<ObjectRef, (String, usize)> {
        let place = |name: &ObjectRef| self.place(files, name).map(|(path, line)| (path.to_owned(), line));
        self.holders.keys().filter_map(|name| Some((name.clone(), place(name)?))).collect()
    }
}
