//! What this peer knows of an endpoint: load, latency, and whether it failed lately.
//!
//! Outlier ejection: an endpoint that fails several times in a row is left out for a while, the
//! longer the more often that happened. Then one request tries it, and decides whether it is back.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Time in which an observation's weight falls to 1/e, in nanoseconds: 10 s.
pub const TAU: u64 = 10_000_000_000;

/// Failures in a row that eject.
pub const FAILURES: u32 = 5;

/// How long the first ejection lasts, in nanoseconds; the n-th lasts n times as long.
pub const EJECTION: u64 = 10_000_000_000;

/// How long an ejection lasts at most, in nanoseconds.
pub const EJECTION_MAX: u64 = 300_000_000_000;

/// How long a trial may take before there is another one, in nanoseconds.
const TRIAL: u64 = 10_000_000_000;

/// Time without an ejection after which one less is counted, in nanoseconds.
const FORGIVE: u64 = 30_000_000_000;

/// Latency below which endpoints count as equally fast, in nanoseconds: 1 µs. Keeps the requests
/// in flight in the comparison when an average has decayed to nothing.
const FLOOR: f64 = 1_000.0;

/// In `ejected`: a trial is on its way. Costs a nanosecond of precision.
const ON_TRIAL: u64 = 1;

/// Live state of an endpoint as seen from this peer. Outlives tables. All times are nanoseconds on
/// the caller's monotonic clock.
#[derive(Debug, Default)]
pub struct EndpointState {
    /// Requests sent and not yet answered to their end.
    pub in_flight: AtomicU32,
    /// Requests ever sent; wraps.
    begun: AtomicU32,
    /// Failures since the last success; never 0 while ejected.
    failures: AtomicU32,
    /// Peak-EWMA of the time to the response head in nanoseconds (bits of an f64); 0 before the
    /// first answer.
    pub ewma: AtomicU64,
    /// When `ewma` was last updated.
    pub updated: AtomicU64,
    /// Until when it is left out, with [`ON_TRIAL`]; 0 where it is not ejected.
    ejected: AtomicU64,
    /// When `ejected` last became zero or something else.
    since: AtomicU64,
    /// Ejections that are not forgiven yet.
    ejections: AtomicU32,
}

/// Whether an endpoint may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may.
    Good,
    /// Its time out is over: it may, if [`EndpointState::claim`] says so.
    HalfOpen,
    /// It is ejected.
    Out,
    /// It has as many requests as it may have.
    Full,
}

impl EndpointState {
    /// Records one answer that took `latency` nanoseconds.
    ///
    /// Threads may record at once: each answer is counted, but with an age that may be off by the
    /// time between the two.
    pub fn observe(&self, now: u64, latency: u64) {
        // A latency above 2^53 ns (104 days) may lose its last digits.
        let latency = latency as f64;
        let weight = decay(now.saturating_sub(self.updated.fetch_max(now, Relaxed)));
        let next = |bits| {
            let average = f64::from_bits(bits);
            let new = if latency > average { latency } else { average * weight + latency * (1.0 - weight) };
            Some(new.to_bits())
        };
        // The closure always returns `Some`, so there is nothing to handle.
        let _ = self.ewma.fetch_update(Relaxed, Relaxed, next);
    }

    /// The average as it has decayed until `now`, in nanoseconds; `None` before the first answer.
    pub fn latency(&self, now: u64) -> Option<f64> {
        let average = f64::from_bits(self.ewma.load(Relaxed));
        if average <= 0.0 {
            return None;
        }
        Some((average * decay(now.saturating_sub(self.updated.load(Relaxed)))).max(FLOOR))
    }

    /// A request is sent.
    pub fn begins(&self) {
        self.in_flight.fetch_add(1, Relaxed);
        self.begun.fetch_add(1, Relaxed);
    }

    /// A request that was sent was answered to its end, or given up.
    pub fn ends(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Requests ever sent; wraps.
    pub(super) fn begun(&self) -> u32 {
        self.begun.load(Relaxed)
    }

    /// A request that was sent at `sent` was answered as it should be.
    pub fn succeeded(&self, now: u64, sent: u64) {
        if self.failures.load(Relaxed) != 0 {
            self.recovers(now, sent);
        }
    }

    /// It is left out, or was and has not answered since.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed) != 0
    }

    fn recovers(&self, now: u64, sent: u64) {
        if self.is_ejected() {
            // What was sent before says nothing.
            if sent < self.since.load(Relaxed) {
                return;
            }
            self.since.store(now, Relaxed);
            self.ejected.store(0, Relaxed);
        }
        self.failures.store(0, Relaxed);
    }

    /// Whether this endpoint is the better choice of two at `now`.
    pub(super) fn beats(&self, other: &Self, now: u64) -> bool {
        let load = |state: &Self| f64::from(state.in_flight.load(Relaxed)) + 1.0;
        match (self.latency(now), other.latency(now)) {
            (Some(mine), Some(theirs)) => load(self) * mine <= load(other) * theirs,
            // An endpoint that never answered is taken to be as fast as the other one: neither
            // flooded nor shunned.
            _ => load(self) <= load(other),
        }
    }

    pub(super) fn standing(&self, now: u64, limit: u32) -> Standing {
        if self.in_flight.load(Relaxed) >= limit {
            return Standing::Full;
        }
        match self.ejected.load(Relaxed) {
            0 => Standing::Good,
            until if now < until => Standing::Out,
            _ => Standing::HalfOpen,
        }
    }

    /// Takes the one trial of a half-open endpoint; false where another request has it.
    pub(super) fn claim(&self, now: u64) -> bool {
        let until = self.ejected.load(Relaxed);
        let trial = now.saturating_add(TRIAL) | ON_TRIAL;
        until != 0 && now >= until && self.ejected.compare_exchange(until, trial, Relaxed, Relaxed).is_ok()
    }

    /// Notes a failure. Returns whether the endpoint was ejected for it; `room` says whether it may
    /// be, where it has not been.
    pub(super) fn fails(&self, now: u64, room: impl FnOnce() -> bool) -> bool {
        let failures = self.failures.load(Relaxed).saturating_add(1);
        self.failures.store(failures, Relaxed);
        let until = self.ejected.load(Relaxed);
        let due = match until {
            0 => failures >= FAILURES && room(),
            // Others were sent for want of a better endpoint, and show nothing new.
            until => until & ON_TRIAL != 0,
        };
        due && self.eject(now, until)
    }

    fn eject(&self, now: u64, before: u64) -> bool {
        let quiet = if before == 0 { now.saturating_sub(self.since.load(Relaxed)) } else { 0 };
        let forgiven = u32::try_from(quiet / FORGIVE).unwrap_or(u32::MAX);
        let ejections = self.ejections.load(Relaxed).saturating_sub(forgiven).saturating_add(1);
        let time = EJECTION.saturating_mul(u64::from(ejections)).min(EJECTION_MAX);
        let until = now.saturating_add(time) & !ON_TRIAL;
        // Of several threads one ejects.
        if self.ejected.compare_exchange(before, until, Relaxed, Relaxed).is_err() {
            return false;
        }
        self.ejections.store(ejections, Relaxed);
        self.since.store(now, Relaxed);
        true
    }
}

/// What is left of a weight after `elapsed` nanoseconds.
fn decay(elapsed: u64) -> f64 {
    (-(elapsed as f64) / TAU as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{MS, S};
    use super::*;

    const MANY: u32 = 1024;

    fn ejected(now: u64) -> EndpointState {
        let state = EndpointState::default();
        let ejections = (0..FAILURES).filter(|_| state.fails(now, || true)).count();
        assert_eq!(ejections, 1);
        state
    }

    /// Seconds until it may be tried, looked for in steps of one.
    fn out(state: &EndpointState, from: u64) -> u64 {
        (0..1000).find(|s| state.standing(from + s * S, MANY) == Standing::HalfOpen).unwrap()
    }

    #[test]
    fn the_average_peaks_at_once_and_decays_with_time() {
        let state = EndpointState::default();
        assert_eq!(state.latency(0), None);
        state.observe(0, 10 * MS);
        state.observe(0, 100 * MS);
        assert_eq!(state.latency(0), Some(100.0 * MS as f64));
        let after_tau = state.latency(TAU).unwrap_or_default();
        assert!((after_tau / MS as f64 - 100.0 / std::f64::consts::E).abs() < 0.01, "{after_tau}");
        state.observe(TAU, 0);
        let average = state.latency(TAU).unwrap_or_default();
        assert!((average - after_tau).abs() < 1.0, "an answer in no time adds nothing: {average}");
    }

    #[test]
    fn failures_in_a_row_eject_and_others_do_not() {
        let state = EndpointState::default();
        for _ in 0..10 {
            for _ in 1..FAILURES {
                assert!(!state.fails(S, || true));
            }
            state.succeeded(S, S);
        }
        assert_eq!(state.standing(S, MANY), Standing::Good);
        assert_eq!(ejected(S).standing(S, MANY), Standing::Out);
        let last = EndpointState::default();
        assert!((0..100).all(|_| !last.fails(S, || false)), "where there is no room, it stays");
    }

    #[test]
    fn one_trial_decides() {
        let state = ejected(S);
        assert_eq!(out(&state, S), 10);
        let later = 12 * S;
        assert!(state.claim(later));
        assert!(!state.claim(later), "one at a time");
        assert_eq!(state.standing(later, MANY), Standing::Out);
        assert!(state.fails(later + S, || false), "a trial that fails ejects again");
        assert_eq!(out(&state, later + S), 20);
        let later = later + 22 * S;
        assert!(state.claim(later));
        state.succeeded(later, 2 * S - S);
        assert_eq!(state.standing(later, MANY), Standing::Out, "it was sent before the ejection");
        state.succeeded(later + S, later);
        assert_eq!(state.standing(later + S, MANY), Standing::Good);
    }

    #[test]
    fn a_trial_without_an_end_is_followed_by_another() {
        let state = ejected(S);
        assert!(state.claim(12 * S));
        assert!(!state.claim(21 * S));
        assert!(state.claim(23 * S));
    }

    #[test]
    fn ejections_grow_to_a_limit_and_are_forgiven() {
        let state = ejected(S);
        let mut now = S;
        for n in 1..40u64 {
            assert_eq!(out(&state, now), (10 * n).min(300));
            now += 301 * S;
            assert!(state.claim(now));
            assert!(state.fails(now, || true));
        }
        assert!(state.claim(now + 301 * S));
        state.succeeded(now + 301 * S, now + 301 * S);
        let later = now + 301 * S + 3600 * S;
        assert_eq!((0..FAILURES).filter(|_| state.fails(later, || true)).count(), 1);
        assert_eq!(out(&state, later), 10);
    }

    #[test]
    fn what_fails_for_want_of_a_better_one_does_not_prolong() {
        let state = ejected(S);
        assert!((0..50).all(|_| !state.fails(2 * S, || true)));
        assert_eq!(out(&state, S), 10);
    }
}
