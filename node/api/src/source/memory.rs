//! The last good text of every file, kept outside the source: whoever reads the directory next
//! (another leader, a new process) can keep the objects of a file that is broken by then.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::MAX_FILE;
use super::listing::Identity;

const TEXTS: &str = "good";
const IDENTITY: &str = "directory";

/// A folder with the last good texts. It may hold private keys (of Secrets), so it belongs where
/// those may be: on tmpfs, readable by its owner only.
#[derive(Debug)]
pub(super) struct Memory {
    folder: PathBuf,
    /// A failure was logged; what follows of the same kind is not news.
    failed: bool,
}

impl Memory {
    /// Opens the memory of one directory below `folder`, and makes it if absent.
    pub(super) fn open(folder: &Path, root: &Path) -> io::Result<Self> {
        let name = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
        let folder = folder.join(&name.as_str()[..16]);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Memory { folder, failed: false })
    }

    /// Every remembered file: path within the directory, and text. What can't be read is left out.
    pub(super) fn texts(&self) -> Vec<(String, String)> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let remembered = entries.flatten().filter(|entry| {
            let small = entry.metadata().is_ok_and(|meta| meta.len() <= 2 * MAX_FILE);
            small && entry.path().extension().is_some_and(|extension| extension == TEXTS)
        });
        let mut texts: Vec<(String, String)> = remembered
            .filter_map(|entry| fs::read_to_string(entry.path()).ok())
            .filter_map(|text| text.split_once('\n').map(|(path, text)| (path.to_owned(), text.to_owned())))
            .collect();
        texts.sort();
        texts
    }

    /// Which directory was read last.
    pub(super) fn identity(&self) -> Option<Identity> {
        let text = fs::read_to_string(self.folder.join(IDENTITY)).ok()?;
        let (device, inode) = text.trim().split_once(' ')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    }

    /// Remembers which directory was read.
    pub(super) fn identify(&mut self, identity: Identity) {
        let path = self.folder.join(IDENTITY);
        self.write(&path, &[&format!("{} {}\n", identity.0, identity.1)]);
    }

    /// Remembers a file's text.
    pub(super) fn keep(&mut self, path: &str, text: &str) {
        if !path.contains('\n') {
            self.write(&self.place(path), &[path, "\n", text]);
        }
    }

    /// Forgets a file.
    pub(super) fn forget(&self, path: &str) {
        // It may never have been good; then there is nothing to forget.
        let _ = fs::remove_file(self.place(path));
    }

    fn place(&self, path: &str) -> PathBuf {
        self.folder.join(format!("{}.{TEXTS}", blake3::hash(path.as_bytes()).to_hex()))
    }

    /// A failure costs memory, never service.
    fn write(&mut self, path: &Path, parts: &[&str]) {
        let temporary = path.with_extension("new");
        let written = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| parts.iter().try_for_each(|part| file.write_all(part.as_bytes())))
            .and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = &written
            && !self.failed
        {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "last good manifests can't be kept; a later leader may miss broken files");
        }
        self.failed = written.is_err();
    }
}
