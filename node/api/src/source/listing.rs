//! Which manifests a directory holds, without reading them.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::document::Format;
use super::{MAX_FILE, MAX_FILES, SourceError};

/// Tells a directory or file from another of the same name.
pub(super) type Identity = (u64, u64);

/// Tells whether a file may have changed. With ctime, because tools preserve mtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    identity: Identity,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        Stamp {
            identity: identity(meta),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// Device and inode.
pub(super) fn identity(meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino())
}

/// The manifests of a directory and of those one level below.
#[derive(Default)]
pub(super) struct Listing {
    /// By path within the directory; `Err` for what is there but can't be looked at.
    pub(super) files: BTreeMap<Arc<str>, Result<Stamp, String>>,
    /// Directories below that can't be listed, with a `/` at the end, and why.
    pub(super) unreadable: Vec<(String, String)>,
}

/// Is it a manifest by its name, and in which format?
pub(super) fn format(name: &str) -> Option<Format> {
    let base = name.rsplit('/').next().unwrap_or(name);
    if base.starts_with('.') {
        return None;
    }
    match base.rsplit_once('.')?.1 {
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        _ => None,
    }
}

/// Lists the manifests.
pub(super) fn list(root: &Path) -> Result<Listing, SourceError> {
    let mut listing = Listing::default();
    let entries = read_dir(root).map_err(|source| SourceError::Unreadable { path: root.to_owned(), source })?;
    for name in entries {
        match fs::metadata(root.join(&name)) {
            Ok(meta) if meta.is_dir() => list_below(root, &name, &mut listing),
            other => add(name, other, &mut listing),
        }
        if listing.files.len() > MAX_FILES {
            return Err(SourceError::TooManyFiles(root.to_owned()));
        }
    }
    Ok(listing)
}

fn list_below(root: &Path, directory: &str, listing: &mut Listing) {
    match read_dir(&root.join(directory)) {
        Ok(names) => {
            for name in names {
                let name = format!("{directory}/{name}");
                match fs::metadata(root.join(&name)) {
                    Ok(meta) if meta.is_dir() => {}
                    other => add(name, other, listing),
                }
            }
        }
        Err(error) => listing.unreadable.push((format!("{directory}/"), error.to_string())),
    }
}

fn add(name: String, meta: io::Result<Metadata>, listing: &mut Listing) {
    if format(&name).is_some() {
        let stamp = match meta {
            Ok(meta) if meta.is_file() => Ok(Stamp::of(&meta)),
            Ok(_) => Err("is neither a file nor a directory".to_owned()),
            Err(error) => Err(format!("can't be read: {error}")),
        };
        listing.files.insert(name.into(), stamp);
    }
}

/// Names in a directory, without those that start with a dot: `..data` and its like are reached
/// through the names that link to them.
fn read_dir(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    Ok(names)
}

/// Why a file's text is not to be had.
pub(super) enum ReadError {
    /// It is not there (any more).
    Gone,
    /// It could not be read this time, in words.
    Failed(String),
    /// What it holds is no text that is read, in words; only a change of the file helps.
    Unfit(String),
}

/// Reads a file, with the stamp of what was read.
pub(super) fn read(path: &Path) -> Result<(Stamp, String), ReadError> {
    let read = || -> io::Result<Result<(Stamp, Vec<u8>), String>> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(Err("is not a file".to_owned()));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len().min(MAX_FILE)).unwrap_or(0));
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Ok(Err(format!("is larger than {MAX_FILE} bytes; split it")));
        }
        Ok(Ok((Stamp::of(&meta), bytes)))
    };
    match read() {
        Ok(Ok((stamp, bytes))) => match String::from_utf8(bytes) {
            Ok(text) => Ok((stamp, text)),
            Err(_) => Err(ReadError::Unfit("is not UTF-8".to_owned())),
        },
        Ok(Err(message)) => Err(ReadError::Unfit(message)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ReadError::Gone),
        Err(error) => Err(ReadError::Failed(format!("can't be read: {error}"))),
    }
}
