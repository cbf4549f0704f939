//! Which replicated state wins, and what a peer does about it. Pure: the shell brings what happened
//! and does what it is told.
//!
//! - [`Replica`] owns the state: every check of an offered head, and the order of fence, marker,
//!   apply and disk.
//! - [`Follow`] follows: from whom, when to ask for everything, whom to leave and for how long.
//! - [`Serving`] and [`Turns`] pass on: what a follower gets, and who gets a full snapshot now.
//! - [`Election`] leads: the lease, when to step down, the epoch of a term.
//! - [`Suspects`] counts deaths while applying, up to the quarantine.
//!
//! `tests/simulation` runs all of them under faults.

mod election;
mod follow;
mod owner;
mod quarantine;
mod serve;
mod source;

pub use election::{Attempt, DIRECTORY_TIMES, Election, LeaseTimes, Record, first_rev};
pub use follow::{After, End, Follow, PATIENCE, SILENCE, Sources, Stay};
pub use owner::{Event, Next, Offered, Outcome, Refusal, Replica, Roots};
pub use quarantine::{Death, Pair, Suspects};
pub use serve::{MAX_SNAPSHOTS, MAX_WAITING, Serve, Serving, Turn, Turns};
pub use source::{Source, Troubles, choose_source};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: (Digest, Digest) = (Digest([1; 32]), Digest([2; 32]));
    const B: (Digest, Digest) = (Digest([1; 32]), Digest([3; 32]));

    fn id(epoch: u64, rev: u64) -> HeadId {
        HeadId { epoch, rev }
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
