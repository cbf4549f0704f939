//! The retry budget: repeating what may have reached a pod must not double the load on pods that
//! are in trouble (GEP-3388). What is provably unsent is not limited by it.

use std::sync::{Mutex, PoisonError};

use crate::table::ServicePort;

/// Time over which requests and retries are compared, in nanoseconds: 10 s.
const WINDOW: u64 = 10_000_000_000;

/// Of so many requests one may be repeated.
const SHARE: u64 = 5;

/// Retries that a window always has: 10 a second.
const MINIMUM: u64 = 100;

/// The budget of one port of a Service on this peer. Outlives tables. Requests cost it nothing:
/// they are counted at the endpoints anyway, and summed when something is to be repeated.
#[derive(Debug, Default)]
pub struct RetryBudget(Mutex<Windows>);

#[derive(Debug, Default)]
struct Windows {
    /// When the current window began, and how many requests there had been.
    start: u64,
    base: u64,
    retries: u64,
    /// What the window before had.
    before: (u64, u64),
}

impl RetryBudget {
    /// May one more request to `port` be repeated at `now` (nanoseconds on the caller's monotonic
    /// clock)? Counts it, if so.
    pub fn withdraw(&self, port: &ServicePort, now: u64) -> bool {
        let requests = port.endpoints.iter().map(|endpoint| u64::from(endpoint.state.begun())).sum();
        // Whoever panicked left numbers behind, nothing else.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).withdraw(requests, now)
    }
}

impl Windows {
    fn withdraw(&mut self, requests: u64, now: u64) -> bool {
        let mut elapsed = now.saturating_sub(self.start);
        if elapsed >= WINDOW {
            let recent = elapsed < 2 * WINDOW;
            let rate = requests.saturating_sub(self.base) / (elapsed / WINDOW).max(1);
            self.before = (rate, if recent { self.retries } else { 0 });
            (self.start, self.base, self.retries) = (now, requests, 0);
            elapsed = 0;
        }
        // The window before counts less and less.
        let left = |count: u64| count.saturating_mul((WINDOW - elapsed) / 1_000) / (WINDOW / 1_000);
        let requests = requests.saturating_sub(self.base) + left(self.before.0);
        let allowed = self.retries + left(self.before.1) < MINIMUM.max(requests / SHARE);
        self.retries += u64::from(allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{S, port};
    use super::*;

    fn repeated(port: &ServicePort, now: u64) -> u64 {
        (0..100_000).take_while(|_| port.retries.withdraw(port, now)).count() as u64
    }

    fn requests(port: &ServicePort, count: u32) {
        for index in 0..count {
            let state = &port.endpoints[index as usize % port.endpoints.len()].state;
            state.begins();
            state.ends();
        }
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_repeated_and_a_few_always() {
        let port = port(3);
        assert_eq!(repeated(&port, S), MINIMUM);
        requests(&port, 5_000);
        assert_eq!(repeated(&port, 2 * S), 1_000 - MINIMUM);
        assert_eq!(repeated(&port, 3 * S), 0);
    }

    #[test]
    fn what_was_spent_comes_back_with_time() {
        let port = port(3);
        assert_eq!(repeated(&port, 20 * S), MINIMUM);
        assert_eq!(repeated(&port, 31 * S), 0, "the window before counts in full at first");
        let half = repeated(&port, 36 * S);
        assert!((MINIMUM / 2 - 1..=MINIMUM / 2 + 1).contains(&half), "{half}");
        assert_eq!(repeated(&port, 90 * S), MINIMUM);
    }

    #[test]
    fn a_burst_long_ago_is_no_credit() {
        let port = port(3);
        assert_eq!(repeated(&port, S), MINIMUM);
        requests(&port, 100_000);
        assert!(repeated(&port, 1_000 * S) <= MINIMUM.max(100_000 / 99 / SHARE + 1));
    }
}
