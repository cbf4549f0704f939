//! Tells when a directory of manifests has changed, by inotify.
//!
//! A file counts once whoever wrote it has closed it, renamed it into place or deleted it; a mere
//! write never does. The `..data` swap of a mounted ConfigMap counts too.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inotify::{EventMask, EventOwned, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::SourceError;
use super::listing::{self, Identity};

/// A burst of events ends after this much quiet,
const QUIET: Duration = Duration::from_millis(2);

/// or after this long, whatever happens.
const BURST: Duration = Duration::from_millis(50);

/// How often a lost directory is looked for.
const LOST: Duration = Duration::from_millis(100);

/// What to read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Look at every file.
    Everything,
    /// Only these, by path within the directory.
    Files(BTreeSet<PathBuf>),
}

impl Changes {
    fn is_empty(&self) -> bool {
        matches!(self, Changes::Files(paths) if paths.is_empty())
    }

    fn add(&mut self, path: PathBuf) {
        if let Changes::Files(paths) = self {
            paths.insert(path);
        }
    }
}

/// Ends a [`Watcher::wait`] from another thread.
#[derive(Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes the current wait, or else the next one, return `false` at once.
    pub fn wake(&self) {
        // It can only fail when the counter is full, and then the wait ends anyway.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

/// Watches a directory and those one level below.
pub struct Watcher {
    root: PathBuf,
    inotify: Inotify,
    /// Where events come from: the empty path is the directory itself.
    places: HashMap<WatchDescriptor, PathBuf>,
    /// The directory that is watched; `None` while it is not there.
    watched: Option<Identity>,
    changes: Changes,
    /// Directories came or went: watch anew.
    reshaped: bool,
    waker: Arc<OwnedFd>,
}

impl Watcher {
    pub(super) fn new(root: &Path) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Watch { path: root.to_owned(), source };
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let waker = eventfd(0, flags).map_err(|error| failed(error.into()))?;
        let mut watcher = Watcher {
            root: root.to_owned(),
            inotify: Inotify::init().map_err(failed)?,
            places: HashMap::new(),
            watched: None,
            changes: Changes::Files(BTreeSet::new()),
            reshaped: false,
            waker: Arc::new(waker),
        };
        watcher.rewatch().map_err(failed)?;
        Ok(watcher)
    }

    /// Something to end a wait with.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.waker))
    }

    /// What was seen since the last call; [`Directory::read_changes`](super::Directory::read_changes)
    /// takes it.
    pub fn take(&mut self) -> Changes {
        std::mem::replace(&mut self.changes, Changes::Files(BTreeSet::new()))
    }

    /// Waits until something happened and it is quiet again (2 ms, but 50 ms at most): `true`. After
    /// the timeout, or when woken: `false`. A directory that goes away is reported once, and again
    /// when it is back.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, SourceError> {
        let path = self.root.clone();
        self.wait_io(timeout).map_err(|source| SourceError::Watch { path, source })
    }

    fn wait_io(&mut self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            self.check_root()?;
            if !self.changes.is_empty() {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let slice = if self.watched.is_some() { left } else { left.min(LOST) };
            let (happened, woken) = self.poll(slice)?;
            if woken {
                let _ = rustix::io::read(&*self.waker, &mut [0_u8; 8]);
                return Ok(false);
            }
            if happened {
                self.drain()?;
                self.settle()?;
            }
            if left.is_zero() {
                return Ok(!self.changes.is_empty());
            }
        }
    }

    /// Collects the rest of a burst.
    fn settle(&mut self) -> io::Result<()> {
        let end = Instant::now() + BURST;
        while !self.changes.is_empty() && Instant::now() < end && self.poll(QUIET)?.0 {
            self.drain()?;
        }
        if self.reshaped {
            self.rewatch()?;
        }
        Ok(())
    }

    /// (events are there, the waker was used)
    fn poll(&self, timeout: Duration) -> io::Result<(bool, bool)> {
        let mut fds =
            [PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN), PollFd::new(&*self.waker, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => Ok((!fds[0].revents().is_empty(), !fds[1].revents().is_empty())),
            Err(rustix::io::Errno::INTR) => Ok((false, false)),
            Err(error) => Err(error.into()),
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            let events: Vec<EventOwned> = match self.inotify.read_events(&mut buffer) {
                Ok(events) => events.map(|event| event.to_owned()).collect(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            for event in events {
                self.note(&event);
            }
        }
    }

    fn everything(&mut self) {
        self.changes = Changes::Everything;
        self.reshaped = true;
    }

    fn note(&mut self, event: &EventOwned) {
        let ends = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED | EventMask::UNMOUNT;
        if event.mask.intersects(EventMask::Q_OVERFLOW) {
            return self.everything();
        }
        let Some(place) = self.places.get(&event.wd) else { return };
        if event.mask.intersects(ends) {
            return self.everything();
        }
        let Some(name) = event.name.as_deref() else { return };
        let path = place.join(name);
        let name = name.to_string_lossy();
        if name == "..data" {
            // The files that link through it have all changed; the watch stays right.
            self.changes = Changes::Everything;
        } else if name.starts_with('.') {
            // Editors' and volumes' own.
        } else if listing::format(&name).is_some() && !event.mask.contains(EventMask::ISDIR) {
            // A new file is complete when it is closed; links are never closed.
            let whole =
                fs::symlink_metadata(self.root.join(&path)).is_ok_and(|meta| !meta.is_file() || meta.nlink() > 1);
            if !event.mask.contains(EventMask::CREATE) || whole {
                self.changes.add(path);
            }
        } else if place.as_os_str().is_empty() {
            let known = self.places.values().any(|known| *known == path);
            if known || fs::metadata(self.root.join(&path)).is_ok_and(|meta| meta.is_dir()) {
                self.everything();
            }
        }
    }

    /// Notices that the directory went away, came back, or is another one now.
    fn check_root(&mut self) -> io::Result<()> {
        let now = self.directory();
        if now != self.watched {
            self.rewatch()?;
            self.changes = Changes::Everything;
        }
        Ok(())
    }

    /// The directory that is there now. A file in its place is no directory.
    fn directory(&self) -> Option<Identity> {
        let meta = fs::metadata(&self.root).ok().filter(fs::Metadata::is_dir)?;
        Some(listing::identity(&meta))
    }

    /// Watches anew. Whatever changes from here on is seen, so read everything afterwards.
    fn rewatch(&mut self) -> io::Result<()> {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::CREATE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        self.inotify = Inotify::init()?;
        self.places.clear();
        self.reshaped = false;
        let identity = self.directory();
        self.watched = None;
        match self.inotify.watches().add(&self.root, mask) {
            Ok(place) => self.places.insert(place, PathBuf::new()),
            // Not there now; `check_root` keeps looking.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for entry in fs::read_dir(&self.root)?.filter_map(Result::ok) {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') || !entry.path().is_dir() {
                continue;
            }
            match self.inotify.watches().add(entry.path(), mask) {
                Ok(place) => {
                    self.places.insert(place, name.into());
                }
                // It went away, or may not be read: the next read says so.
                Err(error) if error.kind() != io::ErrorKind::StorageFull => {}
                Err(error) => return Err(error),
            }
        }
        self.watched = identity;
        Ok(())
    }
}
