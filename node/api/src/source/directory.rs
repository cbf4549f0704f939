//! Reads a directory of manifests, and reads again only what changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meshgate_core::intent::{Finding, Severity};

use super::board::{Board, Files};
use super::file::FileState;
use super::listing::{self, Identity, ReadError, Stamp};
use super::memory::Memory;
use super::watch::{Changes, Watcher};
use super::{Batch, MAX_OBJECTS, SourceError};
use crate::translate::{code, unnamed};

/// A directory of manifests: `*.yaml`, `*.yml` and `*.json` in it and one level below.
pub struct Directory {
    root: PathBuf,
    identity: Identity,
    files: Files,
    board: Board,
    /// Directories below that could not be listed.
    unreadable: Vec<Finding>,
    /// Those of them that are in `findings`.
    collected: Vec<Finding>,
    /// Everything that is wrong, as it was collected last.
    findings: Arc<Vec<Finding>>,
    memory: Option<Memory>,
    /// What was remembered, until the first read hands it out.
    recalled: Batch,
}

impl Directory {
    /// Opens a directory, and fails if it can't be listed. Nothing is read yet.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SourceError> {
        let root = path.as_ref().to_owned();
        let identity = identity(&root)?;
        fs::read_dir(&root).map_err(|source| SourceError::Unreadable { path: root.clone(), source })?;
        Ok(Directory {
            root,
            identity,
            files: Files::new(),
            board: Board::default(),
            unreadable: Vec::new(),
            collected: Vec::new(),
            findings: Arc::default(),
            memory: None,
            recalled: Batch::default(),
        })
    }

    /// Recalls, from `folder`, what earlier readers of this directory found good, and keeps it there
    /// from now on. A file that is broken at the first read then keeps its last good objects, and
    /// an empty directory in the place of a full one is known for what it is. The folder holds
    /// Secrets: keep it on tmpfs, and to its owner.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn recall(&mut self, folder: impl AsRef<Path>) -> std::io::Result<()> {
        let memory = Memory::open(folder.as_ref(), &self.root)?;
        for (path, text) in memory.texts() {
            let Some(format) = listing::format(&path) else { continue };
            let path: Arc<str> = path.into();
            let state = FileState::default().next(&path, None, &text, format);
            self.board.replace(&path, None, Some(&state));
            self.files.insert(path, state);
        }
        self.board.publish(&self.files, &mut self.recalled);
        self.identity = memory.identity().unwrap_or(self.identity);
        self.memory = Some(memory);
        Ok(())
    }

    /// Watches the directory for changes. Watch first and read then, so that nothing falls between.
    pub fn watch(&self) -> Result<Watcher, SourceError> {
        Watcher::new(&self.root)
    }

    /// Looks at every file and reads those that changed. On an error everything that was read stays
    /// valid, and the next call tries again.
    pub fn read(&mut self) -> Result<Batch, SourceError> {
        let identity = identity(&self.root)?;
        let listing = listing::list(&self.root)?;
        let vanished = listing.files.is_empty() && listing.unreadable.is_empty() && !self.files.is_empty();
        if vanished && identity != self.identity {
            return Err(SourceError::Replaced(self.root.clone()));
        }
        self.identity = identity;
        if let Some(memory) = &mut self.memory {
            memory.identify(identity);
        }
        let below = |path: &str| listing.unreadable.iter().any(|(directory, _)| path.starts_with(directory.as_str()));
        let gone: Vec<_> =
            self.files.keys().filter(|path| !listing.files.contains_key(*path) && !below(path)).cloned().collect();
        for path in gone {
            self.remove(&path);
        }
        for (path, stamp) in listing.files {
            match stamp {
                Ok(stamp) if self.files.get(&path).is_some_and(|file| file.stamp == Some(stamp)) => {}
                Ok(_) => self.load(&path),
                Err(message) => self.fail(&path, None, &message),
            }
        }
        let problem = |(directory, error): (String, String)| {
            let message = format!("the directory can't be read: {error}; its objects stay in use");
            unnamed(code::FILE, Severity::Error, message, &directory)
        };
        self.unreadable = listing.unreadable.into_iter().map(problem).collect();
        Ok(self.finish())
    }

    /// Reads the given files only, whatever their stamps say; paths are within the directory, or
    /// start with it.
    pub fn read_paths(&mut self, paths: &[PathBuf]) -> Result<Batch, SourceError> {
        if identity(&self.root)? != self.identity {
            return self.read();
        }
        let paths: BTreeSet<_> = paths.iter().map(|path| path.strip_prefix(&self.root).unwrap_or(path)).collect();
        for path in paths {
            let name = path.to_string_lossy();
            if listing::format(&name).is_none() || path.components().count() > 2 {
                continue;
            }
            let name: Arc<str> = name.into();
            if fs::symlink_metadata(self.root.join(path)).is_ok() {
                self.load(&name);
            } else if identity(&self.root)? == self.identity {
                self.remove(&name);
            }
        }
        Ok(self.finish())
    }

    /// Fills in where the objects of findings are declared, `file:line`.
    pub fn locate(&self, findings: &mut [Finding]) {
        for finding in findings.iter_mut().filter(|finding| finding.origin.is_empty()) {
            let place = finding.object.as_ref().and_then(|object| self.board.place(&self.files, object));
            finding.origin = place.map(|(path, line)| format!("{path}:{line}")).unwrap_or_default();
        }
    }

    /// Reads what a [`Watcher`] reported.
    pub fn read_changes(&mut self, changes: &Changes) -> Result<Batch, SourceError> {
        match changes {
            Changes::Everything => self.read(),
            Changes::Files(paths) => self.read_paths(&paths.iter().cloned().collect::<Vec<_>>()),
        }
    }

    fn finish(&mut self) -> Batch {
        let mut batch = Batch { files: self.files.len(), ..Batch::default() };
        self.board.publish(&self.files, &mut batch);
        batch.follow(std::mem::take(&mut self.recalled));
        if self.board.take_stale() || self.unreadable != self.collected {
            self.collected.clone_from(&self.unreadable);
            let mut findings = self.board.findings(&self.files);
            findings.extend(self.unreadable.iter().cloned());
            findings.sort();
            if *self.findings != findings {
                self.findings = Arc::new(findings);
            }
        }
        batch.findings = Arc::clone(&self.findings);
        batch
    }

    fn remove(&mut self, path: &Arc<str>) {
        if let Some(before) = self.files.remove(path) {
            self.board.replace(path, Some(&before), None);
            if let Some(memory) = &self.memory {
                memory.forget(path);
            }
        }
    }

    /// Reads one file. Whatever goes wrong, its last good objects stay.
    fn load(&mut self, path: &Arc<str>) {
        let Some(format) = listing::format(path) else { return };
        let (stamp, text) = match listing::read(&self.root.join(&**path)) {
            Ok(read) => read,
            // The next look finds out whether it is really gone.
            Err(ReadError::Gone) => return self.fail(path, None, "is not there, or is a link to nothing"),
            Err(ReadError::Failed(message)) => return self.fail(path, None, &message),
            Err(ReadError::Unfit(message)) => return self.fail(path, stamp(&self.root.join(&**path)), &message),
        };
        let empty = FileState::default();
        let before = self.files.get(path);
        let after = before.unwrap_or(&empty).next(path, Some(stamp), &text, format);
        let others = self.board.len() - before.map_or(0, |before| before.names.len()).min(self.board.len());
        if others + after.names.len() > MAX_OBJECTS {
            let message = format!("would make it more than {MAX_OBJECTS} objects");
            return self.fail_with(path, Some(stamp), code::LIMIT, &message);
        }
        self.board.replace(path, before, Some(&after));
        if let Some(memory) = &mut self.memory
            && after.is_good()
        {
            memory.keep(path, &text);
        }
        self.files.insert(Arc::clone(path), after);
    }

    fn fail(&mut self, path: &Arc<str>, stamp: Option<Stamp>, message: &str) {
        self.fail_with(path, stamp, code::FILE, message);
    }

    fn fail_with(&mut self, path: &Arc<str>, stamp: Option<Stamp>, code: &'static str, message: &str) {
        let before = self.files.remove(path).unwrap_or_default();
        let kept = if before.names.is_empty() { "" } else { "; its objects stay in use" };
        let problem = unnamed(code, Severity::Error, format!("{message}{kept}"), path);
        let after = before.with_problem(stamp, problem);
        self.board.fault(path);
        self.files.insert(Arc::clone(path), after);
    }
}

fn identity(root: &Path) -> Result<Identity, SourceError> {
    let meta = fs::metadata(root).map_err(|source| SourceError::Unreadable { path: root.to_owned(), source })?;
    Ok(listing::identity(&meta))
}

fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|meta| Stamp::of(&meta))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use meshgate_core::intent::ObjectRef;
    use proptest::prelude::*;

    use super::*;

    const FILES: [&str; 4] = ["a.yaml", "b.yaml", "c.yaml", "d/e.yaml"];

    /// A manifest of these parts: good, refused, broken, cut off, twice, nothing.
    fn manifest(parts: &[(u8, u8)]) -> String {
        let part = |&(what, name): &(u8, u8)| {
            let service = |port: &str| {
                let head = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s{name}, namespace: n}}\n");
                format!("{head}spec: {{ports: [{{port: {port}}}]}}\n")
            };
            match what {
                0..3 => service("80"),
                3 => service("81"),
                4 => service("none"),
                5 => "kind: [\n".to_owned(),
                6 => "# nothing\n".to_owned(),
                _ => "kind: Service".to_owned(),
            }
        };
        parts.iter().map(part).collect::<Vec<_>>().join("---\n")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_is_wrong_is_what_a_look_everywhere_finds(
            steps in prop::collection::vec(
                (0..FILES.len(), prop::option::weighted(0.8, prop::collection::vec((0..8u8, 0..4u8), 0..4)), any::<bool>()),
                1..20,
            )
        ) {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("d")).unwrap();
            let mut directory = Directory::open(folder.path()).unwrap();
            let mut places: BTreeMap<ObjectRef, (String, usize)> = BTreeMap::new();
            let mut last = Arc::clone(&directory.findings);
            for (file, text, whole) in steps {
                let path = folder.path().join(FILES[file]);
                match text {
                    Some(parts) => fs::write(&path, manifest(&parts)).unwrap(),
                    None => drop(fs::remove_file(&path)),
                }
                let batch = if whole { directory.read() } else { directory.read_paths(&[path]) }.unwrap();
                prop_assert_eq!(&*batch.findings, &directory.board.findings_everywhere(&directory.files));
                prop_assert_eq!(Arc::ptr_eq(&last, &batch.findings), last == batch.findings);
                last = batch.findings;
                for name in batch.moved {
                    match directory.board.place(&directory.files, &name) {
                        Some((path, line)) => places.insert(name, (path.to_owned(), line)),
                        None => places.remove(&name),
                    };
                }
                prop_assert_eq!(&places, &directory.board.places(&directory.files));
            }
        }
    }
}
