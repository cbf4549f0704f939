//! The lease and the epoch as files in the run folder that all processes of a mesh share.
//!
//! Every read-modify-write happens under a short `flock`. The lock alone elects nobody (a stopped
//! process would hold it for ever); it only makes the changes atomic.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use meshgate_core::replica::Record;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

const LEASE: &str = "lease.json";
const EPOCH: &str = "epoch";
const LOCK: &str = "lease.lock";

/// How long to wait for the lock at most.
const LOCK_WAIT: Duration = Duration::from_millis(100);
/// How often to look.
const LOCK_POLL: Duration = Duration::from_millis(1);

/// The two files and their lock.
#[derive(Debug)]
pub struct LeaseFile {
    folder: PathBuf,
    lock: File,
}

/// The lock, held.
#[derive(Debug)]
pub struct Locked<'a> {
    file: &'a LeaseFile,
}

impl LeaseFile {
    /// Opens (and makes, if absent) the files in the run folder.
    ///
    /// # Errors
    /// The operator's: the folder is missing or not writable.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(LeaseFile { folder: folder.to_owned(), lock })
    }

    /// Waits for the lock, which holders keep for one read and one write of a few bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] after [`LOCK_WAIT`] (a process was stopped in that moment;
    /// try again later), or the operating system's.
    pub fn lock(&self) -> io::Result<Locked<'_>> {
        let give_up = Instant::now() + LOCK_WAIT;
        loop {
            match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Locked { file: self }),
                Err(Errno::WOULDBLOCK) if Instant::now() < give_up => std::thread::sleep(LOCK_POLL),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Locked<'_> {
    /// The lease; `None` when there is none, or none that can be read (then it is free: the
    /// epoch, not the lease, is what fences).
    ///
    /// # Errors
    /// The file exists and can't be read.
    pub fn lease(&self) -> io::Result<Option<Record>> {
        match fs::read(self.file.folder.join(LEASE)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the lease.
    ///
    /// # Errors
    /// The file can't be written; the old lease is then still there.
    pub fn put_lease(&self, record: &Record) -> io::Result<()> {
        self.replace(LEASE, &serde_json::to_vec(record)?, false)
    }

    /// The highest epoch that any leader of this mesh took; 0 before the first.
    ///
    /// # Errors
    /// The file exists but can't be read or understood. Guessing would break the fence.
    pub fn epoch(&self) -> anyhow::Result<u64> {
        let path = self.file.folder.join(EPOCH);
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().with_context(|| format!("{} does not hold a number", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Stores a new epoch, durably, before anybody acts in it.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn put_epoch(&self, epoch: u64) -> io::Result<()> {
        self.replace(EPOCH, format!("{epoch}\n").as_bytes(), true)
    }

    fn replace(&self, name: &str, bytes: &[u8], durable: bool) -> io::Result<()> {
        let temporary = self.file.folder.join(format!("{name}.new"));
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&temporary, self.file.folder.join(name))?;
        if durable {
            File::open(&self.file.folder)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Unlocking an open descriptor that we locked can't fail in a way we could act on: the
        // kernel drops the lock with the process at the latest.
        let _ = flock(&self.file.lock, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_and_an_unreadable_epoch_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = LeaseFile::open(folder.path()).unwrap();
        let locked = file.lock().unwrap();
        assert_eq!(locked.epoch().unwrap(), 0);
        assert_eq!(locked.lease().unwrap(), None);
        let record = Record { node: "a".into(), instance: "1".into(), renewals: 1, transitions: 1 };
        locked.put_lease(&record).unwrap();
        locked.put_epoch(7).unwrap();
        assert_eq!(locked.lease().unwrap(), Some(record));
        assert_eq!(locked.epoch().unwrap(), 7);
        fs::write(folder.path().join(EPOCH), "seven").unwrap();
        assert!(locked.epoch().is_err(), "a damaged epoch is never taken for 0");
    }

    #[test]
    fn the_lock_excludes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (LeaseFile::open(folder.path()).unwrap(), LeaseFile::open(folder.path()).unwrap());
        let locked = one.lock().unwrap();
        assert!(flock(&two.lock, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(locked);
        assert!(flock(&two.lock, FlockOperation::NonBlockingLockExclusive).is_ok());
    }
}
