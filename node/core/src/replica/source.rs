//! Whom to follow: the leader if it can be followed, else any peer that is ahead.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Held;
use crate::snapshot::HeadId;

/// How long a source is avoided that sent something false.
const AVOID_FALSE: Duration = Duration::from_secs(5);
/// The longest that a source is avoided that delivers nothing again and again.
const AVOID_USELESS_MAX: Duration = Duration::from_secs(60);
/// The first wait after a source could not be reached.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest. A stream that lived so long has worked.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Sources that are remembered as troublesome.
const MAX_REMEMBERED: usize = 1024;

/// A peer that could be synced from, as gossip shows it. Gossip is a hint: what it leads to is
/// still verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a, N> {
    /// Its node.
    pub node: &'a N,
    /// The head it says it has applied.
    pub announced: HeadId,
    /// It could not be reached, or sent what did not verify, a short while ago.
    pub failed: bool,
}

/// Chooses whom to sync from: the leader while it is known and reachable, whatever it announces;
/// else any peer that is ahead of `own` and not of an epoch below its fence, which would be refused;
/// nobody when there is none. `sources` is everyone but this peer, and `entropy` is uniform over all of its values.
///
/// All peers that are ahead are equally likely, not only those furthest ahead: a member that lies
/// about its head must not draw everyone.
pub fn choose_source<'a, N: PartialEq>(
    own: &Held,
    leader: Option<&N>,
    sources: &[Source<'a, N>],
    entropy: u64,
) -> Option<&'a N> {
    let usable = || sources.iter().filter(|source| !source.failed);
    if let Some(leader) = usable().find(|source| Some(source.node) == leader) {
        return Some(leader.node);
    }
    let ahead = |source: &&Source<'_, N>| source.announced > own.id && source.announced.epoch >= own.fence;
    let count = usable().filter(ahead).count();
    let chosen = (u128::from(entropy) * count as u128) >> 64;
    usable().filter(ahead).nth(usize::try_from(chosen).ok()?).map(|source| source.node)
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    until: Instant,
    failures: u32,
}

/// What went wrong with which source, and until when it is left alone.
#[derive(Clone, Debug)]
pub struct Troubles<N>(BTreeMap<N, Trouble>);

impl<N> Default for Troubles<N> {
    fn default() -> Self {
        Troubles(BTreeMap::new())
    }
}

impl<N: Ord + Clone> Troubles<N> {
    /// The source can't be reached, or its stream broke off. `jitter` is random.
    pub fn unreachable(&mut self, node: &N, now: Instant, jitter: u64) {
        let failures = self.failures(node);
        let full = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
        // Half of it, and a random part of the other half.
        let half = full / 2;
        let random = Duration::from_nanos(jitter % (half.as_nanos() as u64 + 1));
        self.note(node, Trouble { until: now + half + random, failures: failures.saturating_add(1) });
    }

    /// The source delivered nothing while others said that they are ahead. Longer each time, until
    /// something of it is applied: who only says that it is ahead draws us away less and less.
    pub fn useless(&mut self, node: &N, now: Instant) {
        let failures = self.failures(node);
        let avoid = AVOID_FALSE.saturating_mul(1 << failures.min(10)).min(AVOID_USELESS_MAX);
        self.note(node, Trouble { until: now + avoid, failures: failures.saturating_add(1) });
    }

    /// The source sent something false, or it leads and others say that they are ahead: for a short
    /// while, however often.
    pub fn avoid(&mut self, node: &N, now: Instant) {
        self.note(node, Trouble { until: now + AVOID_FALSE, failures: 0 });
    }

    /// The source works.
    pub fn works(&mut self, node: &N) {
        self.0.remove(node);
    }

    /// When the next source may be tried again.
    pub fn next_retry(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|trouble| trouble.until).filter(|until| *until > now).min()
    }

    /// The source is left alone for now.
    pub fn avoided(&self, node: &N, now: Instant) -> bool {
        self.0.get(node).is_some_and(|trouble| trouble.until > now)
    }

    fn failures(&self, node: &N) -> u32 {
        self.0.get(node).map_or(0, |trouble| trouble.failures)
    }

    fn note(&mut self, node: &N, trouble: Trouble) {
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(node) {
            self.0.pop_first();
        }
        self.0.insert(node.clone(), trouble);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(epoch: u64, rev: u64) -> HeadId {
        HeadId { epoch, rev }
    }

    fn source(node: &'static &'static str, announced: HeadId, failed: bool) -> Source<'static, &'static str> {
        Source { node, announced, failed }
    }

    /// Holds 1/5.
    fn own(fence: u64) -> Held {
        Held { id: id(1, 5), fence, ..Held::default() }
    }

    #[test]
    fn who_knows_less_of_epochs_is_no_source_unless_it_leads() {
        let sources = [source(&"a", id(1, 9), false), source(&"b", id(2, 9), false)];
        assert_eq!(choose_source(&own(1), None, &sources, 0), Some(&"a"));
        assert_eq!(choose_source(&own(2), None, &sources, 0), Some(&"b"));
        assert_eq!(choose_source(&own(3), None, &sources, 0), None);
        assert_eq!(choose_source(&own(3), Some(&"a"), &sources, 0), Some(&"a"));
    }

    #[test]
    fn the_leader_is_the_first_choice() {
        let sources = [source(&"a", id(1, 9), false), source(&"b", id(1, 1), false)];
        assert_eq!(choose_source(&own(0), Some(&"b"), &sources, 0), Some(&"b"));
        assert_eq!(choose_source(&own(0), None, &sources, 0), Some(&"a"));
        assert_eq!(choose_source(&own(0), Some(&"unknown"), &sources, 0), Some(&"a"));
        let failed = [source(&"a", id(1, 9), false), source(&"b", id(1, 9), true)];
        assert_eq!(choose_source(&own(0), Some(&"b"), &failed, u64::MAX), Some(&"a"));
    }

    #[test]
    fn without_anyone_ahead_there_is_no_source() {
        let sources = [source(&"a", id(1, 5), false), source(&"b", id(1, 4), false), source(&"c", id(1, 9), true)];
        assert_eq!(choose_source(&own(0), None, &sources, 0), None);
        assert_eq!(choose_source::<&str>(&own(0), None, &[], 0), None);
    }

    #[test]
    fn all_who_are_ahead_are_chosen_at_times() {
        let sources = [source(&"a", id(1, 6), false), source(&"b", id(9, 9), false), source(&"c", id(1, 7), false)];
        let chosen = |part: u64| choose_source(&own(0), None, &sources, u64::MAX / 6 * part);
        assert_eq!([chosen(1), chosen(3), chosen(5)], [Some(&"a"), Some(&"b"), Some(&"c")]);
    }

    #[test]
    fn who_delivers_nothing_is_avoided_longer_each_time() {
        let now = Instant::now();
        let mut troubles = Troubles::default();
        let wait = |troubles: &Troubles<&str>| troubles.next_retry(now).unwrap() - now;
        troubles.useless(&"a", now);
        assert_eq!(wait(&troubles), AVOID_FALSE);
        troubles.useless(&"a", now);
        assert_eq!(wait(&troubles), 2 * AVOID_FALSE);
        for _ in 0..50 {
            troubles.useless(&"a", now);
        }
        assert_eq!(wait(&troubles), AVOID_USELESS_MAX);
        troubles.works(&"a");
        troubles.useless(&"a", now);
        assert_eq!(wait(&troubles), AVOID_FALSE);
    }

    #[test]
    fn backoff_grows_and_is_bounded() {
        let now = Instant::now();
        let mut troubles = Troubles::default();
        let mut last = Duration::ZERO;
        for round in 0..20 {
            troubles.unreachable(&"a", now, u64::MAX / 3);
            let wait = troubles.next_retry(now).unwrap() - now;
            assert!(wait >= BACKOFF_MIN / 2 && wait <= BACKOFF_MAX, "round {round}: {wait:?}");
            last = wait;
        }
        assert!(last >= BACKOFF_MAX / 2);
        troubles.works(&"a");
        assert_eq!(troubles.next_retry(now), None);
    }
}
