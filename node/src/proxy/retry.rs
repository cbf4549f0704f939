//! Which attempts are followed by another one, and after what pause.
//!
//! Without a rule's own `retry`, only what no pod has seen goes elsewhere, and a request that
//! changes nothing and has no body once more where a connection broke off without an answer. With
//! it (HTTPRoute `retry`, GEP-1731 as of v1.7), `attempts` bounds all further attempts: those that
//! the rule's codes ask for, whatever the method; and after lost connections and timeouts of one
//! attempt, where no answer came and the method is idempotent (RFC 9110 9.2.2).

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use meshgate_core::snapshot::Retry;
use meshgate_core::table::{Endpoint, ServicePort};

use super::answer::Answer;
use super::attempt::NodeFailure;
use super::metrics::Via;

/// Endpoints that are tried for one request where the rule does not say.
const OWN_ATTEMPTS: u32 = 3;

/// Further attempts at most, whatever a rule says.
const MAX_RETRIES: u32 = 32;

/// The first pause where the rule does not say.
const BACKOFF: Duration = Duration::from_millis(25);

/// The longest pause, where the first is not longer.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// As how slow an endpoint counts that refused, in nanoseconds. A refusal is quick; without this,
/// it would make its endpoint the best one.
const PENALTY: u64 = 1_000_000_000;

/// When a rule wants a request to be tried again.
#[derive(Clone, Copy)]
pub struct Policy<'a>(Option<&'a Retry>);

impl<'a> Policy<'a> {
    /// The rule's, or the peer's own.
    pub fn new(rule: Option<&'a Retry>) -> Self {
        Policy(rule)
    }

    /// Attempts at most.
    pub fn attempts(self) -> u32 {
        self.0.map_or(OWN_ATTEMPTS, |retry| retry.attempts.min(MAX_RETRIES) + 1)
    }

    /// The rule itself asks for retries.
    pub fn asked(self) -> bool {
        self.0.is_some_and(|retry| retry.attempts > 0)
    }

    /// The rule asks for it after this status.
    pub fn covers(self, status: u16) -> bool {
        self.asked() && self.0.is_some_and(|retry| retry.codes.contains(&status))
    }

    /// A request with this method may be sent again though a pod may have seen it.
    pub fn repeats(self, method: &Method, has_body: bool) -> bool {
        match self.0 {
            Some(_) => self.asked() && method.is_idempotent(),
            None => method.is_safe() && !has_body,
        }
    }

    /// The pause before the next attempt, after so many. `random` is uniform over all of its values.
    /// At least the base, doubled each time, and up to half more.
    pub fn pause(self, attempts: u32, random: u32) -> Duration {
        let base = self.0.and_then(|retry| retry.backoff).unwrap_or(BACKOFF);
        let doubled = base.saturating_mul(1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX));
        let pause = doubled.min(MAX_BACKOFF.max(base));
        pause.saturating_add(pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0))
    }

    /// The rule says how long to pause.
    pub fn has_backoff(self) -> bool {
        self.0.is_some_and(|retry| retry.backoff.is_some())
    }
}

/// Endpoints that were tried, and what the next attempt may do.
#[derive(Default)]
pub struct Tried<'a> {
    /// Attempts that count.
    pub attempts: u32,
    /// Endpoints that shall not be asked again.
    pub refused: Vec<SocketAddr>,
    /// Its peer takes nothing, but it may be reached without it.
    pub unreached: Option<&'a Endpoint>,
    /// Why there must be another attempt: the answer, if none succeeds.
    pub last: Option<Answer>,
    /// An idle connection was of no use: the next attempt dials.
    pub dial: bool,
    /// Peers that took nothing.
    nodes: u32,
}

impl<'a> Tried<'a> {
    /// No more attempts, but for one at an endpoint whose peer takes nothing.
    pub fn over(&self, policy: Policy<'_>) -> bool {
        self.attempts >= policy.attempts() || self.nodes >= OWN_ATTEMPTS
    }

    /// An idle connection to the endpoint was of no use.
    pub fn redial(&mut self, endpoint: &'a Endpoint, via: Via) {
        self.dial = true;
        if via == Via::Fallback {
            self.unreached = Some(endpoint);
        }
    }

    /// The endpoint is not asked again, and others are preferred for a while.
    pub fn refused(&mut self, endpoint: &Endpoint, now: u64) {
        endpoint.state.observe(now, PENALTY);
        self.refused.push(endpoint.address);
    }

    /// The peer takes nothing: no endpoint on its node is asked through it again. No pod was asked,
    /// so this is no attempt.
    pub fn node(&mut self, why: NodeFailure, endpoint: &'a Endpoint, port: &ServicePort, now: u64) {
        self.nodes += 1;
        for other in port.endpoints.iter().filter(|other| other.node == endpoint.node) {
            self.refused(other, now);
        }
        match why {
            NodeFailure::Draining => self.unreached = Some(endpoint),
            // What is known to run is dialled rather than what may be gone.
            NodeFailure::Dead => self.unreached = self.unreached.or(Some(endpoint)),
            NodeFailure::Full => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(attempts: u32, backoff: Option<Duration>) -> Retry {
        Retry { codes: vec![500, 503], attempts, backoff }
    }

    #[test]
    fn a_rule_says_which_statuses_and_how_often() {
        let three = retry(3, None);
        let policy = Policy::new(Some(&three));
        assert_eq!(policy.attempts(), 4);
        assert!(policy.covers(503) && !policy.covers(502));
        assert!(policy.repeats(&Method::PUT, true) && !policy.repeats(&Method::POST, false));
        let never = retry(0, None);
        let policy = Policy::new(Some(&never));
        assert_eq!(policy.attempts(), 1);
        assert!(!policy.covers(503) && !policy.repeats(&Method::GET, false));
        let own = Policy::new(None);
        assert!(own.repeats(&Method::GET, false) && !own.repeats(&Method::GET, true));
        assert!(!own.repeats(&Method::PUT, false) && !own.covers(503));
        assert_eq!(Policy::new(Some(&retry(u32::MAX, None))).attempts(), MAX_RETRIES + 1);
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let hundred = retry(9, Some(Duration::from_millis(100)));
        let policy = Policy::new(Some(&hundred));
        for random in [0, u32::MAX / 2, u32::MAX] {
            for (attempts, base) in [(1, 100), (2, 200), (3, 400), (10, 5_000), (200, 5_000)] {
                let pause = policy.pause(attempts, random);
                let base = Duration::from_millis(base);
                assert!(pause >= base && pause <= base * 3 / 2, "{attempts}: {pause:?}");
            }
        }
        let long = retry(1, Some(Duration::from_secs(60)));
        assert!(Policy::new(Some(&long)).pause(3, 0) >= Duration::from_secs(60));
    }
}
