//! Runs the election: renews or takes the lease, and opens a new epoch with every term.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use meshgate_core::replica::{Attempt, DIRECTORY_TIMES, Election as Rules};
use tokio::sync::watch;
use tracing::{info, warn};

use super::lease_file::LeaseFile;
use crate::drain::{Drain, Phase};
use crate::identity::{InstanceId, NodeName};

/// One time of leading: from a takeover to its end.
#[derive(Clone, Debug)]
pub struct Term {
    /// The epoch that this term opened; no other term of the mesh has it.
    pub epoch: u64,
    /// When it began, Unix time in milliseconds (for people only).
    pub since_ms: u64,
    deadline: Arc<Deadline>,
}

impl Term {
    /// Does it still hold? Asked right before every act: a process that was stopped past its
    /// deadline learns it here, before it does harm.
    pub fn holds(&self) -> bool {
        Instant::now() < self.deadline.get()
    }

    /// A term that holds for `lasting`, without a lease: for tests and offline tools.
    pub fn fixed(epoch: u64, lasting: Duration) -> Self {
        let deadline = Arc::new(Deadline::new());
        deadline.set(Instant::now() + lasting);
        Term { epoch, since_ms: now_ms(), deadline }
    }
}

/// An instant that others may read while it moves.
#[derive(Debug)]
struct Deadline {
    base: Instant,
    after_us: AtomicU64,
}

impl Deadline {
    fn new() -> Self {
        Deadline { base: Instant::now(), after_us: AtomicU64::new(0) }
    }

    fn get(&self) -> Instant {
        self.base + Duration::from_micros(self.after_us.load(Ordering::Acquire))
    }

    fn set(&self, to: Instant) {
        let after = u64::try_from(to.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX);
        self.after_us.store(after, Ordering::Release);
    }

    /// It has passed.
    fn end(&self) {
        self.after_us.store(0, Ordering::Release);
    }
}

/// A candidate's configuration.
#[derive(Debug)]
pub struct Candidate {
    /// The run folder with lease and epoch.
    pub run: PathBuf,
    /// This node.
    pub node: NodeName,
    /// This process.
    pub instance: InstanceId,
    /// The highest epoch seen in leader-signed heads, on disk or from peers.
    pub seen_epoch: watch::Receiver<u64>,
}

/// Runs until the process drains; then releases the lease, so that the next leader need not wait.
///
/// `terms` holds the current term while this process leads. The one writer is this future.
///
/// # Errors
/// The run folder can't be used at all.
pub async fn run(candidate: Candidate, terms: watch::Sender<Option<Term>>, drain: Drain) -> anyhow::Result<()> {
    let mut election = Election {
        file: LeaseFile::open(&candidate.run)?,
        rules: Rules::new(&candidate.node.0, &candidate.instance.to_string(), DIRECTORY_TIMES),
        deadline: Arc::new(Deadline::new()),
        seen_epoch: candidate.seen_epoch,
    };
    loop {
        // File operations block (the lock, the epoch's fsync), so they leave the runtime.
        let leading_before = terms.borrow().clone();
        let (back, term) = tokio::task::spawn_blocking(move || {
            let term = election.step(leading_before);
            (election, term)
        })
        .await
        .context("the election task ended")?;
        election = back;
        publish(&terms, term);
        tokio::select! {
            () = tokio::time::sleep(DIRECTORY_TIMES.retry) => {}
            () = drain.reached(Phase::Draining) => break,
        }
    }
    terms.send_replace(None);
    tokio::task::spawn_blocking(move || election.release()).await.context("the election task ended")
}

fn publish(terms: &watch::Sender<Option<Term>>, term: Option<Term>) {
    terms.send_if_modified(|now| {
        let changed = now.as_ref().map(|term| term.epoch) != term.as_ref().map(|term| term.epoch);
        if changed {
            match &term {
                Some(term) => info!(epoch = term.epoch, "this peer leads now"),
                None => warn!("this peer does not lead any more"),
            }
            *now = term;
        }
        changed
    });
}

struct Election {
    file: LeaseFile,
    rules: Rules,
    deadline: Arc<Deadline>,
    seen_epoch: watch::Receiver<u64>,
}

impl Election {
    /// One attempt to renew or take. Returns the term if this process leads now.
    fn step(&mut self, current: Option<Term>) -> Option<Term> {
        match self.attempt(current.clone()) {
            Ok(term) => term,
            Err(error) => {
                warn!("lease not renewed: {error:#}");
                current.filter(Term::holds)
            }
        }
    }

    fn attempt(&mut self, current: Option<Term>) -> anyhow::Result<Option<Term>> {
        let started = Instant::now();
        let locked = self.file.lock().context("cannot lock the lease")?;
        let lease = locked.lease().context("cannot read the lease")?;
        let (stored, seen) = (locked.epoch()?, *self.seen_epoch.borrow());
        match self.rules.decide(started, lease, stored, seen) {
            Attempt::Leave => {}
            Attempt::Renew(record) => {
                locked.put_lease(&record).context("cannot write the lease")?;
                self.rules.written(started, record);
            }
            Attempt::Take { record, epoch } => {
                // Whatever was led before is over, also for who holds a copy of its term.
                self.deadline.end();
                locked.put_lease(&record).context("cannot write the lease")?;
                self.rules.written(started, record);
                // Its epoch is durable before anybody hears of it.
                locked.put_epoch(epoch).context("cannot store the epoch")?;
                self.rules.opened(epoch);
                self.deadline = Arc::new(Deadline::new());
            }
        }
        let led = self.rules.term(started).zip(self.rules.deadline());
        let Some((epoch, deadline)) = led else {
            self.deadline.end();
            return Ok(None);
        };
        self.deadline.set(deadline);
        let since_ms = current.filter(|term| term.epoch == epoch).map_or_else(now_ms, |term| term.since_ms);
        Ok(Some(Term { epoch, since_ms, deadline: Arc::clone(&self.deadline) }))
    }

    fn release(mut self) {
        let released = self.file.lock().and_then(|locked| {
            let lease = locked.lease()?;
            self.rules.release(lease).map_or(Ok(()), |record| locked.put_lease(&record))
        });
        if let Err(error) = released {
            warn!("lease not released, the next leader waits for its end: {error}");
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(run: &std::path::Path, node: &str, instance: u64, seen: u64) -> Candidate {
        Candidate {
            run: run.to_owned(),
            node: node.into(),
            instance: InstanceId(instance),
            seen_epoch: watch::channel(seen).1,
        }
    }

    async fn leads(terms: &mut watch::Receiver<Option<Term>>) -> Term {
        let wait = terms.wait_for(Option::is_some);
        tokio::time::timeout(Duration::from_secs(5), wait).await.unwrap().unwrap().clone().unwrap()
    }

    #[tokio::test]
    async fn a_drained_leader_hands_over_at_once_and_epochs_grow_past_what_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (first_control, first_drain) = crate::drain::channel();
        let (first_sender, mut first) = watch::channel(None);
        let one = tokio::spawn(run(candidate(folder.path(), "a", 1, 41), first_sender, first_drain));
        assert_eq!(leads(&mut first).await.epoch, 42, "above what peers have seen");

        let (second_control, second_drain) = crate::drain::channel();
        let (second_sender, mut second) = watch::channel(None);
        let two = tokio::spawn(run(candidate(folder.path(), "b", 2, 0), second_sender, second_drain));
        first_control.advance(Phase::Draining);
        one.await.unwrap().unwrap();
        let started = Instant::now();
        assert_eq!(leads(&mut second).await.epoch, 43, "above what the mesh has stored");
        assert!(started.elapsed() < DIRECTORY_TIMES.lease, "released, not expired");
        second_control.advance(Phase::Draining);
        two.await.unwrap().unwrap();
    }

    #[test]
    fn a_term_ends_by_itself() {
        let term = Term::fixed(1, Duration::ZERO);
        assert!(!term.holds());
        assert!(Term::fixed(1, Duration::from_secs(60)).holds());
    }
}
