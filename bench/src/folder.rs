//! The folder of one measurement: on tmpfs where there is one, gone at the end.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

/// What the folder's name starts with.
const PREFIX: &str = "meshgate-bench-";
/// Held while the measurement runs.
const LOCK: &str = "lock";
/// A younger folder may not be locked yet.
const LEFT_OVER_AGE: Duration = Duration::from_secs(60);

/// The folder. Dropping it removes it.
#[derive(Debug)]
pub struct Folder {
    root: TempDir,
    _lock: File,
}

impl Folder {
    /// Makes it, with `source`, `run`, `state` and `logs` in it. With `keep` it stays.
    ///
    /// # Errors
    /// It can't be made.
    pub fn create(keep: bool) -> anyhow::Result<Self> {
        let shared = PathBuf::from("/dev/shm");
        let base = if tempfile::tempfile_in(&shared).is_ok() { shared } else { std::env::temp_dir() };
        sweep(&base);
        let made = tempfile::Builder::new().prefix(PREFIX).disable_cleanup(keep).tempdir_in(&base);
        let root = made.with_context(|| format!("cannot make a folder in {}", base.display()))?;
        let lock = File::create(root.path().join(LOCK)).context("cannot make a lock file")?;
        lock.try_lock().context("cannot lock the folder")?;
        for name in ["source", "run", "state", "logs"] {
            let path = root.path().join(name);
            fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
            fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        }
        if keep {
            eprintln!("kept: {}", root.path().display());
        }
        Ok(Folder { root, _lock: lock })
    }

    /// Something in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a manifest into the source.
    ///
    /// # Errors
    /// It can't be written.
    pub fn put(&self, name: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.path("source").join(name), text).with_context(|| format!("cannot write {name}"))
    }

    /// Writes a manifest beside the source; [`Staged::rename`] puts it in place.
    ///
    /// # Errors
    /// It can't be written.
    pub fn stage(&self, name: &str, text: &str) -> anyhow::Result<Staged> {
        let staged = Staged { aside: self.path("staged"), path: self.path("source").join(name) };
        fs::write(&staged.aside, text).with_context(|| format!("cannot write {name}"))?;
        Ok(staged)
    }
}

/// A manifest that is written and not yet in place.
#[derive(Debug)]
pub struct Staged {
    aside: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// Puts it in place.
    ///
    /// # Errors
    /// It can't be renamed.
    pub fn rename(self) -> anyhow::Result<()> {
        fs::rename(&self.aside, &self.path).with_context(|| format!("cannot rename to {}", self.path.display()))
    }
}

/// Removes what a killed measurement left: own folders of some age whose lock nobody holds.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    let own = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Not followed: a link is not a folder of ours.
        let ours = entry.metadata().is_ok_and(|meta| {
            let old = meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|passed| passed >= LEFT_OVER_AGE));
            meta.is_dir() && meta.uid() == own && old
        });
        if named
            && ours
            && let Ok(lock) = File::open(entry.path().join(LOCK))
            && lock.try_lock().is_ok()
        {
            // Whatever can't be removed stays as it was.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_appear_whole_and_nothing_is_left() {
        let folder = Folder::create(false).unwrap();
        let root = folder.path("");
        folder.put("a.yaml", "kind: Service\n").unwrap();
        let staged = folder.stage("b.yaml", "kind: Gateway\n").unwrap();
        assert_eq!(fs::read_dir(folder.path("source")).unwrap().count(), 1);
        staged.rename().unwrap();
        assert_eq!(fs::read_to_string(folder.path("source/b.yaml")).unwrap(), "kind: Gateway\n");
        drop(folder);
        assert!(!root.exists());
    }
}
