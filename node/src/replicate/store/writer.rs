//! The thread that writes the state folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use meshgate_core::replica::Suspects;
use meshgate_wire::Commit;

use super::load::Resume;
use super::{Command, Pair, Shared, base, log, small};

/// The log is synced at most this often.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// After an error, a fresh base is tried this much later.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// A log is compacted when it is longer than this and than its base.
const COMPACT_BYTES: u64 = 4 * 1024 * 1024;
/// A log is compacted when it has more entries than this, because a start replays them.
const COMPACT_ENTRIES: usize = 4096;
/// How long the thread sleeps with nothing due.
const IDLE: Duration = Duration::from_secs(60);

/// The generation that is being written.
struct Open {
    log: File,
    state: Resume,
    /// Since when there is something unsynced.
    dirty: Option<Instant>,
}

/// The thread's state.
pub(super) struct Writer {
    dir: PathBuf,
    shared: Arc<Shared>,
    open: Option<Open>,
    newest: u64,
    suspects: Suspects,
    /// The highest fence that this thread has written.
    fence: u64,
    /// After an error: when to try again.
    retry: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        dir: PathBuf,
        shared: Arc<Shared>,
        resume: Option<Resume>,
        newest: u64,
        suspects: Suspects,
    ) -> Writer {
        let mut writer = Writer { dir, shared, open: None, newest, suspects, fence: 0, retry: None };
        if let Some(resume) = resume {
            match writer.reopen(resume) {
                Ok(open) => writer.open = Some(open),
                Err(error) => writer.failed("the log can't be opened", &error),
            }
        }
        writer
    }

    /// Runs until the handle is gone.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        self.maintain();
        loop {
            match commands.recv_timeout(self.due()) {
                Ok(Command::Close(done)) => {
                    self.maintain();
                    self.sync();
                    let _ = done.send(());
                }
                Ok(command) => self.handle(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.maintain();
        }
        self.sync();
    }

    /// How long nothing is due.
    fn due(&self) -> Duration {
        let sync = self.open.as_ref().and_then(|open| open.dirty).map(|since| since + SYNC_EVERY);
        let next = sync.into_iter().chain(self.retry).min();
        next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()))
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Append(commit) => self.append(&commit),
            Command::Fence(done) => {
                let written = self.write_fence();
                match &written {
                    Ok(()) => self.works(),
                    Err(error) => self.failed("the fence can't be written", error),
                }
                let _ = done.send(written.is_ok());
            }
            Command::Mark(pairs, done) => {
                self.mark(pairs);
                let _ = done.send(());
            }
            Command::Unmark => {
                self.suspects = Suspects::default();
                if let Err(error) = small::remove_marker(&self.dir) {
                    self.failed("the marker can't be removed", &error);
                }
            }
            Command::Close(done) => drop(done),
        }
    }

    /// Brings the fence on disk, if it is not there.
    fn write_fence(&mut self) -> io::Result<()> {
        let wanted = self.shared.fence.load(Ordering::Acquire);
        if wanted > self.fence {
            small::write_fence(&self.dir, wanted)?;
            self.fence = wanted;
        }
        Ok(())
    }

    /// Something was written: clears the alarm of a write that only came late. One of a failed
    /// write stays until there is a fresh base.
    fn works(&mut self) {
        if self.retry.is_none() && self.fence >= self.shared.fence.load(Ordering::Acquire) {
            self.shared.report(None);
        }
    }

    fn mark(&mut self, pairs: Vec<Pair>) {
        if let Err(error) = small::write_marker(&self.dir, &self.suspects.mark(pairs)) {
            self.failed("the marker can't be written", &error);
        }
    }

    fn append(&mut self, commit: &Commit) {
        let Some(open) = &mut self.open else { return };
        if commit.head.id() <= open.state.head {
            return;
        }
        let frame = if commit.base == open.state.head { log::frame(commit) } else { None };
        let Some(frame) = frame else {
            // A gap, or too large for a frame: maintain() writes a new base.
            self.open = None;
            return;
        };
        match open.log.write_all(&frame) {
            Ok(()) => {
                open.state.log_bytes += frame.len() as u64;
                open.state.log_entries += 1;
                open.state.head = commit.head.id();
                open.dirty.get_or_insert_with(Instant::now);
            }
            Err(error) => return self.failed("the log can't be written", &error),
        }
        match self.write_fence() {
            Ok(()) => self.works(),
            Err(error) => self.failed("the fence can't be written", &error),
        }
    }

    /// Whatever is due besides commands.
    fn maintain(&mut self) {
        let now = Instant::now();
        if self.retry.is_some_and(|at| at > now) {
            return;
        }
        let gap = self.shared.gap.swap(false, Ordering::AcqRel);
        if gap || self.open.as_ref().is_none_or(|open| wants_compaction(&open.state)) {
            self.rebase();
        }
        let due = self.open.as_ref().and_then(|open| open.dirty).is_some_and(|since| since + SYNC_EVERY <= now);
        if due {
            self.sync();
        }
    }

    /// Starts a new generation from the latest state.
    fn rebase(&mut self) {
        let Some((head, snapshot)) = self.shared.latest() else { return self.recover() };
        let generation = self.newest + 1;
        let prepared = std::fs::create_dir_all(&self.dir).and_then(|()| self.write_fence());
        let written =
            prepared.and_then(|()| base::write(&self.dir, generation, &head, &snapshot)).and_then(|base_bytes| {
                self.newest = generation;
                let resume = Resume { generation, base_bytes, log_bytes: 0, log_entries: 0, head: head.id() };
                let open = self.reopen(resume)?;
                base::prune(&self.dir)?;
                Ok(open)
            });
        match written {
            Ok(open) => {
                self.open = Some(open);
                self.retry = None;
                self.shared.report(None);
            }
            Err(error) => self.failed("a base can't be written", &error),
        }
    }

    /// After an error, with no state to keep yet: the fence is all there is to write.
    fn recover(&mut self) {
        if self.retry.take().is_none() {
            return;
        }
        match std::fs::create_dir_all(&self.dir).and_then(|()| self.write_fence()) {
            Ok(()) => self.works(),
            Err(error) => self.failed("the fence can't be written", &error),
        }
    }

    /// Opens the log of a generation and cuts off what is torn.
    fn reopen(&self, state: Resume) -> io::Result<Open> {
        let path = base::log_path(&self.dir, state.generation);
        let log = OpenOptions::new().create(true).append(true).open(path)?;
        log.set_len(state.log_bytes)?;
        small::sync_dir(&self.dir)?;
        Ok(Open { log, state, dirty: None })
    }

    fn sync(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.dirty.take().is_some()
            && let Err(error) = open.log.sync_data()
        {
            self.failed("the log can't be synced", &error);
        }
    }

    /// Raises the alarm; a fresh base is tried later and clears it.
    fn failed(&mut self, what: &str, error: &io::Error) {
        self.open = None;
        self.retry = Some(Instant::now() + RETRY_AFTER);
        self.shared.report(Some(format!("{}: {what}: {error}", self.dir.display())));
    }
}

fn wants_compaction(state: &Resume) -> bool {
    state.log_bytes > COMPACT_BYTES.max(state.base_bytes) || state.log_entries > COMPACT_ENTRIES
}
