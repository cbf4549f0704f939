//! The lease state machine: who may lead, decided by observation alone.
//!
//! Pure. A lease is expired when its record has not changed for the lease duration *as this
//! process saw it on its own monotonic clock*; nobody's wall clock is compared. A lease is no
//! fence: that is the epoch's work ([`super::lease_file`]).

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

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

/// Candidate or holder.
#[derive(Debug)]
pub struct Elector {
    node: String,
    instance: String,
    times: LeaseTimes,
    observed: Option<(Record, Instant)>,
    renewed: Option<Instant>,
}

impl Elector {
    /// A candidate that has seen nothing yet.
    pub fn new(node: &str, instance: &str, times: LeaseTimes) -> Self {
        Elector { node: node.to_owned(), instance: instance.to_owned(), times, observed: None, renewed: None }
    }

    /// Decides what to write over `current`; `None` is to leave it alone. Called with the lease
    /// locked, so that nobody else decides at the same time.
    pub fn decide(&mut self, now: Instant, current: Option<Record>) -> Option<Record> {
        let Some(current) = current else {
            return Some(self.record(1, 1));
        };
        if self.mine(&current) {
            // Past its deadline a holder takes its own lease anew, as a stranger would: somebody
            // may have led in between and released.
            if self.leading(now) || self.expired(now, &current) {
                return Some(self.record(current.renewals.wrapping_add(1), current.transitions));
            }
            return None;
        }
        let free = current.node.is_empty() || self.expired(now, &current);
        free.then(|| self.record(current.renewals.wrapping_add(1), current.transitions.wrapping_add(1)))
    }

    /// The write that [`Elector::decide`] asked for was done. `started` is the time before the
    /// lease was read: a slow write counts from its beginning.
    pub fn written(&mut self, started: Instant, record: Record) {
        self.observed = Some((record, started));
        self.renewed = Some(started);
    }

    /// Has this process renewed recently enough to act as the leader at `now`?
    pub fn leading(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|at| now.saturating_duration_since(at) < self.times.renew_deadline)
    }

    /// Until when it leads, if it does not renew again.
    pub fn deadline(&self) -> Option<Instant> {
        self.renewed.map(|at| at + self.times.renew_deadline)
    }

    /// Stops leading. Returns what to write over `current` so that others need not wait.
    pub fn release(&mut self, current: Option<Record>) -> Option<Record> {
        self.renewed = None;
        let current = current.filter(|record| self.mine(record))?;
        Some(Record {
            node: String::new(),
            instance: String::new(),
            renewals: current.renewals.wrapping_add(1),
            ..current
        })
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

    fn record(&self, renewals: u64, transitions: u64) -> Record {
        Record { node: self.node.clone(), instance: self.instance.clone(), renewals, transitions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(elector: &mut Elector, now: Instant, lease: &mut Option<Record>) -> bool {
        if let Some(record) = elector.decide(now, lease.clone()) {
            elector.written(now, record.clone());
            *lease = Some(record);
        }
        elector.leading(now)
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn one_leads_and_the_other_takes_over_only_after_the_lease() {
        let start = Instant::now();
        let mut lease = None;
        let (mut a, mut b) = (Elector::new("a", "1", DIRECTORY_TIMES), Elector::new("b", "2", DIRECTORY_TIMES));
        assert!(step(&mut a, start, &mut lease));
        assert!(!step(&mut b, start, &mut lease));
        for tick in 1..=5 {
            assert!(step(&mut a, start + ms(200 * tick), &mut lease));
            assert!(!step(&mut b, start + ms(200 * tick), &mut lease));
        }
        // a dies at 1000 ms; b saw its last renewal then.
        assert!(!step(&mut b, start + ms(2199), &mut lease));
        assert!(step(&mut b, start + ms(2200), &mut lease));
        assert_eq!(lease.map(|record| record.transitions), Some(2));
    }

    #[test]
    fn a_stopped_leader_knows_that_it_does_not_lead_before_it_acts() {
        let start = Instant::now();
        let mut lease = None;
        let mut a = Elector::new("a", "1", DIRECTORY_TIMES);
        assert!(step(&mut a, start, &mut lease));
        assert!(!a.leading(start + ms(800)), "past the renew deadline");
        assert!(ms(800) < DIRECTORY_TIMES.lease, "it stops before others may start");
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let start = Instant::now();
        let mut lease = None;
        let (mut a, mut b) = (Elector::new("a", "1", DIRECTORY_TIMES), Elector::new("b", "2", DIRECTORY_TIMES));
        assert!(step(&mut a, start, &mut lease));
        lease = a.release(lease);
        assert!(!a.leading(start));
        assert!(step(&mut b, start + ms(1), &mut lease));
    }

    #[test]
    fn a_new_process_of_the_same_node_is_another_candidate() {
        let start = Instant::now();
        let mut lease = None;
        let (mut old, mut new) = (Elector::new("a", "1", DIRECTORY_TIMES), Elector::new("a", "2", DIRECTORY_TIMES));
        assert!(step(&mut old, start, &mut lease));
        assert!(!step(&mut new, start + ms(100), &mut lease));
    }

    #[test]
    fn a_holder_that_overslept_waits_like_a_stranger() {
        let start = Instant::now();
        let mut lease = None;
        let mut a = Elector::new("a", "1", DIRECTORY_TIMES);
        assert!(step(&mut a, start, &mut lease));
        assert!(!step(&mut a, start + ms(900), &mut lease), "not expired yet as it saw it");
        assert!(step(&mut a, start + ms(1200), &mut lease), "nobody took it");
    }
}
