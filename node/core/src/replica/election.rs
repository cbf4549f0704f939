//! Who may lead, decided by observation alone, and the epoch of a term.
//!
//! A lease is expired when its record has not changed for the lease duration *as this process saw
//! it on its own monotonic clock*; nobody's wall clock is compared. A lease is no fence: that is the
//! epoch's work. An epoch is opened above every epoch known of, and is durable before its leader acts.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::snapshot::HeadId;

/// How far an announced rev, which a lying member may have made up, moves a leader at most.
const MAX_REV_JUMP: u64 = 1 << 32;

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTimes {
    /// A record that did not change for this long is free to take.
    pub lease: Duration,
    /// A holder that could not renew for this long has stopped leading. Shorter than `lease`.
    pub renew_deadline: Duration,
    /// Time between two attempts to renew or take.
    pub retry: Duration,
}

/// Directory mode: 1.2 s lease, 0.8 s renew deadline, 0.2 s retry.
pub const DIRECTORY_TIMES: LeaseTimes = LeaseTimes {
    lease: Duration::from_millis(1200),
    renew_deadline: Duration::from_millis(800),
    retry: Duration::from_millis(200),
};

/// What the lease says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The holder's node; empty when it was released.
    pub node: String,
    /// The holder's instance.
    pub instance: String,
    /// Changes with every renewal.
    pub renewals: u64,
    /// Counts the holders.
    pub transitions: u64,
}

/// What to do about the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Nothing: it is somebody else's, or not yet free.
    Leave,
    /// Write this; the term goes on.
    Renew(Record),
    /// Write this; then store `epoch` durably, and only then [`Election::opened`].
    Take {
        /// The lease.
        record: Record,
        /// The epoch of the new term.
        epoch: u64,
    },
}

/// Candidate or leader.
#[derive(Clone, Debug)]
pub struct Election {
    node: String,
    instance: String,
    times: LeaseTimes,
    observed: Option<(Record, Instant)>,
    renewed: Option<Instant>,
    epoch: Option<u64>,
}

impl Election {
    /// A candidate that has seen nothing yet.
    pub fn new(node: &str, instance: &str, times: LeaseTimes) -> Self {
        Election {
            node: node.to_owned(),
            instance: instance.to_owned(),
            times,
            observed: None,
            renewed: None,
            epoch: None,
        }
    }

    /// Decides what to write over the lease `current`. Called with it locked, so that nobody else
    /// decides at the same time. `stored` is the highest epoch that any leader stored, `seen` the
    /// highest in leader-signed heads, on disk or from peers.
    pub fn decide(&mut self, now: Instant, current: Option<Record>, stored: u64, seen: u64) -> Attempt {
        let known = stored.max(seen);
        // A later term began, whatever the lease says now: ours is over.
        if self.epoch.is_some_and(|epoch| epoch < known) {
            self.step_down();
        }
        let (renewals, transitions) = match &current {
            None => (1, 1),
            Some(record) if self.mine(record) => {
                // Past its deadline a holder takes its own lease anew, as a stranger would: somebody
                // may have led in between and released.
                if !self.leading(now) && !self.expired(now, record) {
                    return Attempt::Leave;
                }
                (record.renewals.wrapping_add(1), record.transitions)
            }
            Some(record) => {
                // Somebody else has it, so the term is over before its deadline.
                self.step_down();
                if !record.node.is_empty() && !self.expired(now, record) {
                    return Attempt::Leave;
                }
                (record.renewals.wrapping_add(1), record.transitions.wrapping_add(1))
            }
        };
        let record = Record { node: self.node.clone(), instance: self.instance.clone(), renewals, transitions };
        if self.term(now).is_some() {
            return Attempt::Renew(record);
        }
        Attempt::Take { record, epoch: known.saturating_add(1) }
    }

    /// The record that [`Election::decide`] asked for was written. `started` is the time before the
    /// lease was read: a slow write counts from its beginning.
    pub fn written(&mut self, started: Instant, record: Record) {
        self.observed = Some((record, started));
        self.renewed = Some(started);
    }

    /// The epoch is stored: a term begins.
    pub fn opened(&mut self, epoch: u64) {
        self.epoch = Some(epoch);
    }

    /// The epoch in which this process may act as the leader at `now`.
    pub fn term(&self, now: Instant) -> Option<u64> {
        self.epoch.filter(|_| self.leading(now))
    }

    /// Until when the term lasts, if it is not renewed.
    pub fn deadline(&self) -> Option<Instant> {
        self.renewed.map(|at| at + self.times.renew_deadline)
    }

    /// Stops leading. Returns what to write over `current` so that others need not wait.
    pub fn release(&mut self, current: Option<Record>) -> Option<Record> {
        self.step_down();
        let current = current.filter(|record| self.mine(record))?;
        Some(Record {
            node: String::new(),
            instance: String::new(),
            renewals: current.renewals.wrapping_add(1),
            ..current
        })
    }

    fn step_down(&mut self) {
        self.renewed = None;
        self.epoch = None;
    }

    fn leading(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|at| now.saturating_duration_since(at) < self.times.renew_deadline)
    }

    fn mine(&self, record: &Record) -> bool {
        record.node == self.node && record.instance == self.instance
    }

    fn expired(&mut self, now: Instant, current: &Record) -> bool {
        match &self.observed {
            Some((seen, since)) if seen == current => now.saturating_duration_since(*since) >= self.times.lease,
            _ => {
                self.observed = Some((current.clone(), now));
                false
            }
        }
    }
}

/// The rev of a term's first commit. A rev never starts again: it is above what is held, what was
/// signed here before (`last`), and, within reason, what peers announce.
pub fn first_rev(held: HeadId, announced: HeadId, last: u64) -> u64 {
    let announced = announced.rev.min(held.rev.saturating_add(MAX_REV_JUMP));
    held.rev.max(announced).max(last).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lease and the stored epoch.
    #[derive(Default)]
    struct Files(Option<Record>, u64);

    fn step(election: &mut Election, now: Instant, files: &mut Files) -> Option<u64> {
        match election.decide(now, files.0.clone(), files.1, 0) {
            Attempt::Leave => {}
            Attempt::Renew(record) => {
                files.0 = Some(record.clone());
                election.written(now, record);
            }
            Attempt::Take { record, epoch } => {
                *files = Files(Some(record.clone()), epoch);
                election.written(now, record);
                election.opened(epoch);
            }
        }
        election.term(now)
    }

    fn two() -> (Election, Election) {
        (Election::new("a", "1", DIRECTORY_TIMES), Election::new("b", "2", DIRECTORY_TIMES))
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn one_leads_and_the_other_takes_over_only_after_the_lease() {
        let start = Instant::now();
        let mut files = Files::default();
        let (mut a, mut b) = two();
        assert_eq!(step(&mut a, start, &mut files), Some(1));
        assert_eq!(step(&mut b, start, &mut files), None);
        for tick in 1..=5 {
            assert_eq!(step(&mut a, start + ms(200 * tick), &mut files), Some(1));
            assert_eq!(step(&mut b, start + ms(200 * tick), &mut files), None);
        }
        // a dies at 1000 ms; b saw its last renewal then.
        assert_eq!(step(&mut b, start + ms(2199), &mut files), None);
        assert_eq!(step(&mut b, start + ms(2200), &mut files), Some(2));
        assert_eq!(files.0.map(|record| record.transitions), Some(2));
    }

    #[test]
    fn a_stopped_leader_knows_that_it_does_not_lead_before_it_acts() {
        let start = Instant::now();
        let mut a = two().0;
        assert_eq!(step(&mut a, start, &mut Files::default()), Some(1));
        assert_eq!(a.deadline(), Some(start + ms(800)));
        assert_eq!(a.term(start + ms(800)), None, "past the renew deadline");
        assert!(ms(800) < DIRECTORY_TIMES.lease, "it stops before others may start");
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let start = Instant::now();
        let mut files = Files::default();
        let (mut a, mut b) = two();
        assert_eq!(step(&mut a, start, &mut files), Some(1));
        files.0 = a.release(files.0);
        assert_eq!(a.term(start), None);
        assert_eq!(step(&mut b, start + ms(1), &mut files), Some(2));
    }

    #[test]
    fn a_new_process_of_the_same_node_is_another_candidate() {
        let start = Instant::now();
        let mut files = Files::default();
        let (mut old, mut new) = (two().0, Election::new("a", "2", DIRECTORY_TIMES));
        assert_eq!(step(&mut old, start, &mut files), Some(1));
        assert_eq!(step(&mut new, start + ms(100), &mut files), None);
    }

    #[test]
    fn a_holder_that_overslept_waits_like_a_stranger() {
        let start = Instant::now();
        let mut files = Files::default();
        let mut a = two().0;
        assert_eq!(step(&mut a, start, &mut files), Some(1));
        assert_eq!(step(&mut a, start + ms(900), &mut files), None, "not expired yet as it saw it");
        assert_eq!(step(&mut a, start + ms(1200), &mut files), Some(2), "nobody took it");
    }

    #[test]
    fn a_deleted_lease_ends_the_term_of_who_is_overtaken() {
        let start = Instant::now();
        let mut files = Files::default();
        let (mut a, mut b) = two();
        assert_eq!(step(&mut a, start, &mut files), Some(1));
        files.0 = None;
        assert_eq!(step(&mut b, start + ms(100), &mut files), Some(2));
        assert_eq!(step(&mut a, start + ms(200), &mut files), None, "not until its deadline");
        // Deleted again, and a is first this time: with its old epoch nobody would believe it.
        files.0 = None;
        assert_eq!(step(&mut a, start + ms(300), &mut files), Some(3));
        files.0 = None;
        assert_eq!(step(&mut b, start + ms(300), &mut files), Some(4));
        // Nobody noticed that it was gone: the term goes on.
        files.0 = None;
        assert_eq!(step(&mut b, start + ms(400), &mut files), Some(4));
    }

    #[test]
    fn revs_go_on_above_what_is_known_but_not_beyond_reason() {
        let id = |rev| HeadId { epoch: 1, rev };
        assert_eq!(first_rev(id(5), id(3), 0), 6);
        assert_eq!(first_rev(id(5), id(8), 0), 9);
        assert_eq!(first_rev(id(5), id(8), 11), 12);
        assert_eq!(first_rev(id(5), id(u64::MAX), 0), 6 + MAX_REV_JUMP);
    }
}
