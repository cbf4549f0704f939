//! The directory source: manifests in files, read incrementally and watched.
//!
//! Everything here is blocking and meant for a thread of its own. Order of use: [`Directory::open`],
//! [`Directory::watch`] (so that no change falls between), [`Directory::read`], then
//! [`Watcher::wait`] and [`Directory::read_changes`] for ever.

mod board;
mod directory;
mod document;
mod file;
mod listing;
mod memory;
mod watch;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meshgate_core::intent::{Finding, Object, ObjectRef};

pub use self::directory::Directory;
pub use self::watch::{Changes, Waker, Watcher};
use crate::translate::PrivateKey;

/// The largest file that is read.
pub const MAX_FILE: u64 = 16 << 20;

/// The largest object, as compact JSON: what etcd takes too.
pub const MAX_OBJECT: usize = 1 << 20;

/// The most objects in a directory.
pub const MAX_OBJECTS: usize = 100_000;

/// The most files in a directory.
pub const MAX_FILES: usize = 100_000;

/// Why a directory can't be read now. What was read before stays valid: an unreadable directory is
/// never an empty one.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The directory, or one below it, can't be listed.
    #[error("can't read the directory {path}: {source}; what was read before stays in use", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another directory, and an empty one, has taken its place: a volume was unmounted.
    #[error("the directory {path} was replaced by an empty one; what was read before stays in use", path = .0.display())]
    Replaced(PathBuf),
    /// More files than [`MAX_FILES`].
    #[error("the directory {path} holds more than {MAX_FILES} manifests", path = .0.display())]
    TooManyFiles(PathBuf),
    /// It can't be watched.
    #[error("can't watch the directory {path}: {source}", path = path.display())]
    Watch {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What changed since the last read.
#[derive(Debug, Default)]
pub struct Batch {
    /// Objects that are new or different, and `None` for those that are gone; sorted by name.
    pub changes: Vec<(ObjectRef, Option<Object>)>,
    /// Private keys that are new or different, and `None` for those that are gone.
    pub keys: Vec<PrivateKeyChange>,
    /// Everything that is wrong with the directory now, old and new; sorted. The same value as
    /// before when nothing of it changed.
    pub findings: Arc<Vec<Finding>>,
    /// Objects that are declared at another place than before, of those that were read.
    pub moved: BTreeSet<ObjectRef>,
    /// How many manifests the directory holds.
    pub files: usize,
}

impl Batch {
    /// Adds what went before; what this batch says of an object or a key counts.
    fn follow(&mut self, earlier: Batch) {
        let changed: BTreeSet<ObjectRef> = self.changes.iter().map(|(name, _)| name.clone()).collect();
        self.changes.extend(earlier.changes.into_iter().filter(|(name, _)| !changed.contains(name)));
        self.changes.sort_by(|a, b| a.0.cmp(&b.0));
        let changed: BTreeSet<ObjectRef> = self.keys.iter().map(|key| key.object.clone()).collect();
        self.keys.extend(earlier.keys.into_iter().filter(|key| !changed.contains(&key.object)));
        self.moved.extend(earlier.moved);
    }
}

/// A Secret's private key has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct PrivateKeyChange {
    /// The Secret.
    pub object: ObjectRef,
    /// The key; `None` when it is gone.
    pub key: Option<PrivateKey>,
}

/// Reads a directory once, for work offline.
pub fn load_directory(path: impl AsRef<Path>) -> Result<(Vec<Object>, Vec<Finding>), SourceError> {
    let batch = Directory::open(path)?.read()?;
    let findings = Arc::unwrap_or_clone(batch.findings);
    Ok((batch.changes.into_iter().filter_map(|(_, object)| object).collect(), findings))
}
