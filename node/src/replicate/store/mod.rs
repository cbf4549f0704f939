//! The state folder: the last good state survives the process.
//!
//! Three generations of a base file and a log of the deltas applied after it, the fence (highest
//! epoch ever accepted), and the marker of what is being applied right now. One thread does all
//! writing behind a bounded queue; trouble with the disk raises an alarm and never stops an apply.

mod base;
mod load;
mod log;
mod small;
mod writer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshgate_wire::{Commit, LeaderVerifier, SignedHead, Snapshot};
use tokio::sync::{oneshot, watch};

pub(super) use meshgate_core::replica::Pair;
use writer::Writer;

/// Commands that may wait for the disk. When they fill up, a fresh base is written later instead.
const QUEUE: usize = 256;

/// How long the first apply of a new epoch waits for the fence to be on disk.
const FENCE_WAIT: Duration = Duration::from_secs(2);

/// How long an apply waits for its marker; the marker is best effort.
const MARKER_WAIT: Duration = Duration::from_millis(20);

/// More pairs than this are no suspects: it is a first fill, not a change.
const MARKER_PAIRS: usize = 4096;

/// How long the end of the process waits for the last writes.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What the folder held at start.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// The highest epoch ever accepted.
    pub(super) fence: u64,
    /// The newest state that verifies.
    pub(super) state: Option<(SignedHead, Snapshot)>,
    /// What killed the process twice while it was applied.
    pub(super) quarantine: BTreeSet<Pair>,
}

/// Commands to the thread.
enum Command {
    Append(Arc<Commit>),
    Fence(oneshot::Sender<bool>),
    Mark(Vec<Pair>, oneshot::Sender<()>),
    Unmark,
    Close(oneshot::Sender<()>),
}

/// What the handle and the thread share.
#[derive(Debug)]
struct Shared {
    /// The state as it should be on disk. Held only to copy in or out.
    latest: Mutex<Option<(SignedHead, Snapshot)>>,
    /// A command was lost: the log has a gap.
    gap: AtomicBool,
    /// The epoch that has to be on disk.
    fence: AtomicU64,
    /// Why the state can't be kept, if so.
    failed: watch::Sender<Option<String>>,
}

impl Shared {
    fn latest(&self) -> Option<(SignedHead, Snapshot)> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_latest(&self, state: (SignedHead, Snapshot)) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// Raises or clears the alarm; logs each change of it once.
    fn report(&self, failure: Option<String>) {
        self.failed.send_if_modified(|now| {
            if now.is_some() == failure.is_some() {
                return false;
            }
            match &failure {
                Some(reason) => {
                    tracing::error!(
                        reason,
                        "the configuration can't be kept on disk; serving goes on, check the state folder"
                    );
                }
                None => tracing::info!("the configuration is kept on disk again"),
            }
            *now = failure;
            true
        });
    }
}

/// Why nothing can be kept when the thread is gone.
const DEAD: &str = "the thread that writes it has died; restart this process";

/// Raises the alarm when the thread panics.
struct AlarmOnPanic(Arc<Shared>);

impl Drop for AlarmOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.report(Some(DEAD.to_owned()));
        }
    }
}

/// The handle. Its owner is the replica.
pub(super) struct Store {
    queue: SyncSender<Command>,
    shared: Arc<Shared>,
}

impl Store {
    /// Loads the folder and starts the thread that writes it, which ends with the handle.
    pub(super) fn open(dir: &Path, mesh_id: &str, verifier: &dyn LeaderVerifier) -> (Store, Loaded) {
        let shared = Arc::new(Shared {
            latest: Mutex::new(None),
            gap: AtomicBool::new(false),
            fence: AtomicU64::new(0),
            failed: watch::Sender::new(None),
        });
        let prepared = std::fs::create_dir_all(dir);
        if let Err(error) = &prepared {
            shared.report(Some(format!("{}: {error}", dir.display())));
        }
        let found = load::load(dir, mesh_id, verifier);
        if let Some(state) = &found.loaded.state {
            shared.set_latest(state.clone());
        }
        let (queue, commands) = sync_channel(QUEUE);
        let writer = Writer::new(PathBuf::from(dir), Arc::clone(&shared), found.resume, found.newest, found.suspects);
        let alarm = AlarmOnPanic(Arc::clone(&shared));
        let spawned = std::thread::Builder::new().name("meshgate-store".to_owned()).spawn(move || {
            let _alarm = alarm;
            writer.run(&commands);
        });
        if let Err(error) = spawned {
            shared.report(Some(format!("no thread for it: {error}")));
        }
        (Store { queue, shared }, found.loaded)
    }

    /// Why the state can't be kept, if so.
    pub(super) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.failed.subscribe()
    }

    /// Stores an applied commit. Never waits.
    pub(super) fn append(&self, commit: Arc<Commit>, snapshot: Snapshot) {
        self.shared.set_latest((commit.head.clone(), snapshot));
        match self.queue.try_send(Command::Append(commit)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.shared.gap.store(true, Ordering::Release),
            Err(TrySendError::Disconnected(_)) => self.shared.report(Some(DEAD.to_owned())),
        }
    }

    /// Makes an epoch the fence and waits (not for ever) until it is on disk.
    pub(super) async fn fence(&self, epoch: u64) {
        let (done, wait) = oneshot::channel();
        // Where the queue is full or the disk slow, the thread writes it when it can.
        self.shared.fence.fetch_max(epoch, Ordering::AcqRel);
        let queued = self.queue.try_send(Command::Fence(done)).is_ok();
        let kept = queued && matches!(tokio::time::timeout(FENCE_WAIT, wait).await, Ok(Ok(true)));
        if !kept {
            self.shared.report(Some(format!("epoch {epoch} is not on disk: a restart may accept an older leader")));
        }
    }

    /// Notes what is about to be applied, so that a death now is remembered. Best effort.
    pub(super) async fn mark(&self, pairs: Vec<Pair>) {
        if pairs.is_empty() || pairs.len() > MARKER_PAIRS {
            return;
        }
        let (done, wait) = oneshot::channel();
        if self.queue.try_send(Command::Mark(pairs, done)).is_ok() {
            let _ = tokio::time::timeout(MARKER_WAIT, wait).await;
        }
    }

    /// The apply went well.
    pub(super) fn unmark(&self) {
        // A full queue leaves the marker: at worst one death is counted that was none.
        let _ = self.queue.try_send(Command::Unmark);
    }

    /// Waits (not for ever) until everything is on disk.
    pub(super) async fn close(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.try_send(Command::Close(done)).is_ok() {
            let _ = tokio::time::timeout(CLOSE_WAIT, wait).await;
        }
    }
}

#[cfg(test)]
mod tests;
