//! The retry budget: repeating what may have reached a pod must not double the load on pods that
//! are in trouble. What is provably unsent is not limited by it.

use std::sync::atomic::{AtomicU32, Ordering};

/// Tokens a retry costs; a request brings one, so retries are at most a fifth of the requests.
const COST: u32 = 5;

/// Tokens at most.
const CAPACITY: u32 = 500;

/// A bucket of tokens, one a thread.
#[derive(Debug)]
pub struct RetryBudget(AtomicU32);

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget(AtomicU32::new(CAPACITY / 10))
    }
}

impl RetryBudget {
    /// A request came in.
    pub fn deposit(&self) {
        let tokens = self.0.load(Ordering::Relaxed);
        if tokens < CAPACITY {
            self.0.store(tokens + 1, Ordering::Relaxed);
        }
    }

    /// May one more request be repeated?
    pub fn withdraw(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| tokens.checked_sub(COST)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_repeated() {
        let budget = RetryBudget::default();
        while budget.withdraw() {}
        for _ in 0..100 {
            budget.deposit();
        }
        let mut repeated = 0;
        while budget.withdraw() {
            repeated += 1;
        }
        assert_eq!(repeated, 20);
    }
}
