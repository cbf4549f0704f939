//! Whom to follow: the leader if it can be followed, else any peer that is ahead.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meshgate_core::replica as rules;
use meshgate_core::snapshot::HeadId;

use super::types::{PeerInfo, PeerView};
use crate::identity::NodeName;

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

#[derive(Clone, Copy, Debug)]
struct Trouble {
    until: Instant,
    failures: u32,
}

/// What went wrong with which source, and until when it is left alone.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<NodeName, Trouble>);

impl Troubles {
    /// The source can't be reached, or its stream broke off. `jitter` is random.
    pub(super) fn unreachable(&mut self, node: &NodeName, now: Instant, jitter: u64) {
        let failures = self.0.get(node).map_or(0, |trouble| trouble.failures);
        let full = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
        // Half of it, and a random part of the other half.
        let half = full / 2;
        let random = Duration::from_nanos(jitter % (half.as_nanos() as u64 + 1));
        self.note(node, Trouble { until: now + half + random, failures: failures.saturating_add(1) });
    }

    /// The source delivered nothing while others said that they are ahead. Longer each time, until
    /// something of it is applied: who only says that it is ahead draws us away less and less.
    pub(super) fn useless(&mut self, node: &NodeName, now: Instant) {
        let failures = self.0.get(node).map_or(0, |trouble| trouble.failures);
        let avoid = AVOID_FALSE.saturating_mul(1 << failures.min(10)).min(AVOID_USELESS_MAX);
        self.note(node, Trouble { until: now + avoid, failures: failures.saturating_add(1) });
    }

    /// The source sent something false.
    pub(super) fn sent_falsehood(&mut self, node: &NodeName, now: Instant) {
        self.note(node, Trouble { until: now + AVOID_FALSE, failures: 0 });
    }

    /// The source works.
    pub(super) fn works(&mut self, node: &NodeName) {
        self.0.remove(node);
    }

    /// When the next source may be tried again.
    pub(super) fn next_retry(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|trouble| trouble.until).filter(|until| *until > now).min()
    }

    fn note(&mut self, node: &NodeName, trouble: Trouble) {
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(node) {
            self.0.pop_first();
        }
        self.0.insert(node.clone(), trouble);
    }

    fn avoided(&self, node: &NodeName, now: Instant) -> bool {
        self.0.get(node).is_some_and(|trouble| trouble.until > now)
    }
}

/// Chooses a source, never one of `except`, by the rules of the core. `entropy` is random. `None`:
/// nobody has anything for us, or everybody who has is left alone for now.
pub(super) fn choose(
    view: &PeerView,
    except: &[&NodeName],
    held: HeadId,
    troubles: &Troubles,
    now: Instant,
    entropy: u64,
) -> Option<PeerInfo> {
    let peers = view.peers.iter().filter(|peer| !except.contains(&&peer.node));
    let sources: Vec<rules::Source<'_>> = peers
        .map(|peer| rules::Source {
            node: &peer.node.0,
            announced: peer.head,
            failed: troubles.avoided(&peer.node, now),
        })
        .collect();
    let leader = view.leader.as_ref().map(|leader| &*leader.0);
    let chosen = rules::choose_source(held, leader, &sources, entropy)?;
    view.peers.iter().find(|peer| &*peer.node.0 == chosen).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node: &str, rev: u64) -> PeerInfo {
        let address = "127.0.0.1:1".parse().unwrap();
        PeerInfo { node: node.into(), address, head: HeadId { epoch: 1, rev } }
    }

    fn chosen(view: &PeerView, troubles: &Troubles, now: Instant) -> Option<String> {
        let held = HeadId { epoch: 1, rev: 5 };
        choose(view, &[&"me".into()], held, troubles, now, 0).map(|peer| peer.node.to_string())
    }

    #[test]
    fn leader_first_then_who_is_ahead() {
        let now = Instant::now();
        let mut troubles = Troubles::default();
        let mut view = PeerView {
            leader: Some("a".into()),
            peers: vec![peer("a", 1), peer("b", 6), peer("c", 7), peer("d", 5), peer("me", 9)],
        };
        assert_eq!(chosen(&view, &troubles, now).as_deref(), Some("a"));
        troubles.unreachable(&"a".into(), now, 0);
        assert_eq!(chosen(&view, &troubles, now).as_deref(), Some("b"));
        troubles.sent_falsehood(&"b".into(), now);
        assert_eq!(chosen(&view, &troubles, now).as_deref(), Some("c"));
        assert_eq!(chosen(&view, &troubles, now + Duration::from_millis(100)).as_deref(), Some("a"));
        view.leader = None;
        view.peers.retain(|peer| peer.node == "d".into());
        assert_eq!(chosen(&view, &troubles, now), None);
    }

    #[test]
    fn who_delivers_nothing_is_avoided_longer_each_time() {
        let now = Instant::now();
        let mut troubles = Troubles::default();
        let wait = |troubles: &Troubles| troubles.next_retry(now).unwrap() - now;
        troubles.useless(&"a".into(), now);
        assert_eq!(wait(&troubles), AVOID_FALSE);
        troubles.useless(&"a".into(), now);
        assert_eq!(wait(&troubles), 2 * AVOID_FALSE);
        for _ in 0..50 {
            troubles.useless(&"a".into(), now);
        }
        assert_eq!(wait(&troubles), AVOID_USELESS_MAX);
        troubles.works(&"a".into());
        troubles.useless(&"a".into(), now);
        assert_eq!(wait(&troubles), AVOID_FALSE);
    }

    #[test]
    fn backoff_grows_and_is_bounded() {
        let now = Instant::now();
        let mut troubles = Troubles::default();
        let mut last = Duration::ZERO;
        for round in 0..20 {
            troubles.unreachable(&"a".into(), now, u64::MAX / 3);
            let wait = troubles.next_retry(now).unwrap() - now;
            assert!(wait >= BACKOFF_MIN / 2 && wait <= BACKOFF_MAX, "round {round}: {wait:?}");
            last = wait;
        }
        assert!(last >= BACKOFF_MAX / 2);
        troubles.works(&"a".into());
        assert_eq!(troubles.next_retry(now), None);
    }
}
