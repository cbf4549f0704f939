//! Which replicated state wins. Pure: the shell brings heads and asks what to do.

use crate::snapshot::{Digest, HeadId};

/// What a replica has: head and roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Held {
    /// The head applied last; zero before the first.
    pub id: HeadId,
    /// Its roots: routes, endpoints.
    pub roots: (Digest, Digest),
    /// The highest epoch ever accepted and persisted, which may be above `id.epoch`.
    pub fence: u64,
}

/// What to do with a head that someone offers (its signature is already verified).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It follows what is here: apply the delta.
    Apply,
    /// It is newer, but its delta starts elsewhere: fetch a full snapshot.
    FetchFull,
    /// It is what is here already.
    Same,
    /// It is older, or of an epoch below the fence: refuse.
    Stale,
    /// It has the same (epoch, rev) with other roots: someone lies or forked. Refuse, alarm.
    Conflict,
}

/// Judges an offered head against what is held. `base` is the id that its delta starts from.
pub fn judge(held: &Held, offered: HeadId, roots: (Digest, Digest), base: Option<HeadId>) -> Verdict {
    if offered.epoch < held.fence.max(held.id.epoch) || offered < held.id {
        return Verdict::Stale;
    }
    if offered == held.id {
        return if roots == held.roots { Verdict::Same } else { Verdict::Conflict };
    }
    if base == Some(held.id) { Verdict::Apply } else { Verdict::FetchFull }
}

/// A peer that could be synced from, as gossip shows it. Gossip is a hint: what it leads to is
/// still verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// Its node's name.
    pub node: &'a str,
    /// The head it says it has applied.
    pub announced: HeadId,
    /// It could not be reached, or sent what did not verify, a short while ago.
    pub failed: bool,
}

/// Chooses whom to sync from: the leader while it is known and reachable, whatever it announces;
/// else any peer that is ahead of `own`; nobody when there is none. `sources` is everyone but
/// this peer, and `entropy` is uniform over all of its values.
///
/// All peers that are ahead are equally likely, not only those furthest ahead: a member that lies
/// about its head must not draw everyone.
pub fn choose_source<'a>(own: HeadId, leader: Option<&str>, sources: &[Source<'a>], entropy: u64) -> Option<&'a str> {
    let usable = sources.iter().filter(|source| !source.failed);
    if let Some(leader) = usable.clone().find(|source| Some(source.node) == leader) {
        return Some(leader.node);
    }
    let ahead = |source: &&Source<'_>| source.announced > own;
    let count = usable.clone().filter(ahead).count();
    let chosen = (u128::from(entropy) * count as u128) >> 64;
    usable.filter(ahead).nth(usize::try_from(chosen).ok()?).map(|source| source.node)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: (Digest, Digest) = (Digest([1; 32]), Digest([2; 32]));
    const B: (Digest, Digest) = (Digest([1; 32]), Digest([3; 32]));

    fn id(epoch: u64, rev: u64) -> HeadId {
        HeadId { epoch, rev }
    }

    fn source(node: &str, announced: HeadId, failed: bool) -> Source<'_> {
        Source { node, announced, failed }
    }

    #[test]
    fn heads_are_judged_by_epoch_then_rev() {
        let held = Held { id: id(2, 10), roots: A, fence: 2 };
        let fenced = Held { fence: 4, ..held };
        let cases = [
            (held, id(2, 11), B, Some(id(2, 10)), Verdict::Apply),
            (held, id(2, 11), B, Some(id(2, 9)), Verdict::FetchFull),
            (held, id(2, 12), B, None, Verdict::FetchFull),
            (held, id(3, 11), B, Some(id(2, 10)), Verdict::Apply),
            (held, id(3, 1), B, None, Verdict::FetchFull),
            (held, id(2, 10), A, None, Verdict::Same),
            (held, id(2, 10), B, None, Verdict::Conflict),
            (held, id(2, 9), B, None, Verdict::Stale),
            (held, id(1, 99), B, None, Verdict::Stale),
            (fenced, id(3, 11), B, Some(id(2, 10)), Verdict::Stale),
            (fenced, id(2, 10), A, None, Verdict::Stale),
            (fenced, id(4, 11), B, Some(id(2, 10)), Verdict::Apply),
            (Held::default(), id(1, 1), B, None, Verdict::FetchFull),
            (Held::default(), id(1, 1), B, Some(id(0, 0)), Verdict::Apply),
        ];
        for (held, offered, roots, base, expected) in cases {
            assert_eq!(judge(&held, offered, roots, base), expected, "{held:?} is offered {offered} from {base:?}");
        }
    }

    #[test]
    fn the_leader_is_the_first_choice() {
        let sources = [source("a", id(1, 9), false), source("b", id(1, 1), false)];
        assert_eq!(choose_source(id(1, 5), Some("b"), &sources, 0), Some("b"));
        assert_eq!(choose_source(id(1, 5), None, &sources, 0), Some("a"));
        assert_eq!(choose_source(id(1, 5), Some("unknown"), &sources, 0), Some("a"));
        let failed = [source("a", id(1, 9), false), source("b", id(1, 9), true)];
        assert_eq!(choose_source(id(1, 5), Some("b"), &failed, u64::MAX), Some("a"));
    }

    #[test]
    fn without_anyone_ahead_there_is_no_source() {
        let sources = [source("a", id(1, 5), false), source("b", id(1, 4), false), source("c", id(1, 9), true)];
        assert_eq!(choose_source(id(1, 5), None, &sources, 0), None);
        assert_eq!(choose_source(id(1, 5), None, &[], 0), None);
    }

    #[test]
    fn all_who_are_ahead_are_chosen_at_times() {
        let sources = [source("a", id(1, 6), false), source("b", id(9, 9), false), source("c", id(1, 7), false)];
        let chosen = |part: u64| choose_source(id(1, 5), None, &sources, u64::MAX / 6 * part);
        assert_eq!([chosen(1), chosen(3), chosen(5)], [Some("a"), Some("b"), Some("c")]);
    }

    fn ids() -> impl Strategy<Value = HeadId> {
        (0u64..4, 0u64..4).prop_map(|(epoch, rev)| id(epoch, rev))
    }

    proptest! {
        /// Whatever is offered, in whatever order, a replica never steps back.
        #[test]
        fn no_sequence_of_heads_rolls_a_replica_back(
            offers in proptest::collection::vec((ids(), proptest::option::of(ids()), any::<bool>()), 0..20),
        ) {
            let mut held = Held::default();
            for (offered, base, which) in offers {
                let roots = if which { A } else { B };
                if matches!(judge(&held, offered, roots, base), Verdict::Apply | Verdict::FetchFull) {
                    prop_assert!(offered > held.id && offered.epoch >= held.fence);
                    held = Held { id: offered, roots, fence: held.fence.max(offered.epoch) };
                }
            }
        }
    }
}
