//! The owner of a peer's replicated state, as a machine: an offered head goes through every check
//! and every step in one order, and nothing of it is in effect before its turn.

use std::fmt;

use super::{Held, Verdict, judge};
use crate::snapshot::{Digest, HeadId};

/// The digests of a whole state: routes, endpoints.
pub type Roots = (Digest, Digest);

/// A head that someone offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// It is of this mesh.
    pub own_mesh: bool,
    /// What it says it is.
    pub id: HeadId,
    /// What it says that its resources amount to.
    pub roots: Roots,
    /// Where its changes start; `None`: it comes with everything.
    pub base: Option<HeadId>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A head came in.
    Offered(Offered),
    /// Its signature was checked; was it a leader's of its epoch?
    Verified(bool),
    /// What it leads to was computed.
    Resolved {
        /// The digests of that.
        roots: Roots,
        /// It keeps the limits.
        fits: bool,
    },
    /// The fence is on disk, or the alarm says that it is not: trouble with the disk stops no apply.
    Fenced,
    /// What is about to be applied is noted on disk, as far as that goes.
    Marked,
    /// The table was swapped; false: making it panicked, and nothing is in effect.
    Applied(bool),
    /// It was given to the disk and announced.
    Kept,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Check the signature, then [`Event::Verified`].
    Verify,
    /// Compute what the head leads to and its digests, then [`Event::Resolved`].
    Resolve,
    /// Bring this epoch on disk as the lowest that is accepted, then [`Event::Fenced`].
    Fence(u64),
    /// Note what is about to be applied, then [`Event::Marked`].
    Mark,
    /// Make the table and swap it, then [`Event::Applied`].
    Apply,
    /// Append it to the log on disk, remove the mark, tell followers, acknowledge; then
    /// [`Event::Kept`].
    Keep,
    /// Nothing.
    Done(Outcome),
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the table.
    Applied,
    /// It was already.
    Same,
    /// It is newer, but starts elsewhere.
    NeedFull,
    /// It is refused whole; the state is as before.
    Refused(Refusal),
}

/// Why a head is refused whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is of another mesh.
    Mesh,
    /// No leader of its epoch signed it.
    Signature,
    /// It is older than what is held.
    Stale(Held),
    /// It is newer than what is held, but of an epoch that is over: whoever sent it knows no better.
    Fenced(Held),
    /// Two leaders signed the same head with other roots.
    Conflict,
    /// Its roots do not match its resources.
    Digest,
    /// It is over a limit.
    Limit,
    /// Making a table of it panicked.
    Panic,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Mesh => f.write_str("it is of another mesh"),
            Refusal::Signature => f.write_str("no leader of its epoch signed it"),
            Refusal::Stale(held) | Refusal::Fenced(held) => {
                write!(f, "{} is applied, epoch {} is the lowest accepted", held.id, held.fence)
            }
            Refusal::Conflict => f.write_str("the same head with other roots is applied: two leaders signed it"),
            Refusal::Digest => f.write_str("its roots do not match its resources"),
            Refusal::Limit => f.write_str("it is over a limit"),
            Refusal::Panic => f.write_str("applying it panicked"),
        }
    }
}

/// How far the current offer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Verifying,
    Resolving,
    Fencing,
    Marking,
    Applying,
    Keeping,
}

/// What is held, and the offer that is worked on.
#[derive(Clone, Debug)]
pub struct Replica {
    held: Held,
    work: Option<(Offered, Stage)>,
}

impl Replica {
    /// A start with what the disk held: the newest state that verifies, and the fence.
    /// `empty`: the digests of nothing.
    pub fn start(stored: Option<(HeadId, Roots)>, fence: u64, empty: Roots) -> Self {
        let (id, roots) = stored.unwrap_or((HeadId::default(), empty));
        Replica { held: Held { id, roots, fence: fence.max(id.epoch) }, work: None }
    }

    /// What is applied.
    pub fn held(&self) -> Held {
        self.held
    }

    /// What to do after `event`. One offer at a time: a new one before [`Next::Done`] drops what was
    /// worked on, and an event that is not awaited ends it, refused.
    pub fn next(&mut self, event: Event) -> Next {
        let (offered, stage) = match (event, self.work.take()) {
            (Event::Offered(offered), _) => return self.offered(offered),
            (_, None) => return Next::Done(Outcome::Refused(Refusal::Panic)),
            (_, Some(work)) => work,
        };
        let next = match (stage, event) {
            (Stage::Verifying, Event::Verified(good)) => self.verified(&offered, good),
            (Stage::Resolving, Event::Resolved { roots, fits }) => self.resolved(&offered, roots, fits),
            (Stage::Fencing, Event::Fenced) => {
                self.held.fence = self.held.fence.max(offered.id.epoch);
                Next::Mark
            }
            (Stage::Marking, Event::Marked) => Next::Apply,
            (Stage::Applying, Event::Applied(true)) => {
                self.held.id = offered.id;
                self.held.roots = offered.roots;
                Next::Keep
            }
            (Stage::Keeping, Event::Kept) => Next::Done(Outcome::Applied),
            _ => Next::Done(Outcome::Refused(Refusal::Panic)),
        };
        self.expects(offered, next)
    }

    fn offered(&mut self, offered: Offered) -> Next {
        let next = if offered.own_mesh { Next::Verify } else { Next::Done(Outcome::Refused(Refusal::Mesh)) };
        self.expects(offered, next)
    }

    fn verified(&self, offered: &Offered, good: bool) -> Next {
        if !good {
            return Next::Done(Outcome::Refused(Refusal::Signature));
        }
        // Whoever sends everything starts from wherever we are.
        let base = offered.base.unwrap_or(self.held.id);
        Next::Done(match judge(&self.held, offered.id, offered.roots, Some(base)) {
            Verdict::Apply => return Next::Resolve,
            Verdict::Same => Outcome::Same,
            Verdict::FetchFull => Outcome::NeedFull,
            Verdict::Stale if offered.id > self.held.id => Outcome::Refused(Refusal::Fenced(self.held)),
            Verdict::Stale => Outcome::Refused(Refusal::Stale(self.held)),
            Verdict::Conflict => Outcome::Refused(Refusal::Conflict),
        })
    }

    fn resolved(&self, offered: &Offered, roots: Roots, fits: bool) -> Next {
        if roots != offered.roots {
            return Next::Done(Outcome::Refused(Refusal::Digest));
        }
        if !fits {
            return Next::Done(Outcome::Refused(Refusal::Limit));
        }
        // On disk before anything of a new epoch is in effect.
        if offered.id.epoch > self.held.fence { Next::Fence(offered.id.epoch) } else { Next::Mark }
    }

    /// Remembers which event follows.
    fn expects(&mut self, offered: Offered, next: Next) -> Next {
        let stage = match next {
            Next::Verify => Stage::Verifying,
            Next::Resolve => Stage::Resolving,
            Next::Fence(_) => Stage::Fencing,
            Next::Mark => Stage::Marking,
            Next::Apply => Stage::Applying,
            Next::Keep => Stage::Keeping,
            Next::Done(_) => return next,
        };
        self.work = Some((offered, stage));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Roots = (Digest([1; 32]), Digest([2; 32]));
    const B: Roots = (Digest([1; 32]), Digest([3; 32]));

    fn id(epoch: u64, rev: u64) -> HeadId {
        HeadId { epoch, rev }
    }

    fn replica() -> Replica {
        Replica::start(Some((id(1, 5), A)), 1, A)
    }

    fn offer(epoch: u64, rev: u64) -> Event {
        Event::Offered(Offered { own_mesh: true, id: id(epoch, rev), roots: B, base: Some(id(1, 5)) })
    }

    #[test]
    fn a_new_epoch_is_fenced_before_it_is_applied() {
        let mut replica = replica();
        let resolved = Event::Resolved { roots: B, fits: true };
        let steps = [
            (offer(2, 6), Next::Verify),
            (Event::Verified(true), Next::Resolve),
            (resolved, Next::Fence(2)),
            (Event::Fenced, Next::Mark),
            (Event::Marked, Next::Apply),
            (Event::Applied(true), Next::Keep),
            (Event::Kept, Next::Done(Outcome::Applied)),
        ];
        for (event, next) in steps {
            assert_eq!(replica.next(event), next, "after {event:?}");
        }
        assert_eq!(replica.held(), Held { id: id(2, 6), roots: B, fence: 2 });
        // The fence is kept when the apply fails.
        replica.next(Event::Offered(Offered { own_mesh: true, id: id(3, 7), roots: A, base: None }));
        for event in [Event::Verified(true), Event::Resolved { roots: A, fits: true }, Event::Fenced, Event::Marked] {
            replica.next(event);
        }
        assert_eq!(replica.next(Event::Applied(false)), Next::Done(Outcome::Refused(Refusal::Panic)));
        assert_eq!(replica.held(), Held { id: id(2, 6), roots: B, fence: 3 });
    }

    #[test]
    fn each_check_refuses_whole() {
        let refused = |refusal| Next::Done(Outcome::Refused(refusal));
        let held = replica().held();
        let good = Event::Verified(true);
        let foreign = Offered { own_mesh: false, id: id(1, 6), roots: B, base: None };
        let cases: [(&[Event], Next); 7] = [
            (&[Event::Offered(foreign)], refused(Refusal::Mesh)),
            (&[offer(1, 6), Event::Verified(false)], refused(Refusal::Signature)),
            (&[offer(1, 4), good], refused(Refusal::Stale(held))),
            (&[offer(1, 5), good], refused(Refusal::Conflict)),
            (&[offer(1, 6), good, Event::Resolved { roots: A, fits: true }], refused(Refusal::Digest)),
            (&[offer(1, 6), good, Event::Resolved { roots: B, fits: false }], refused(Refusal::Limit)),
            (&[offer(1, 6), Event::Applied(true)], refused(Refusal::Panic)),
        ];
        for (events, expected) in cases {
            let mut replica = replica();
            let last = events.iter().map(|event| replica.next(*event)).last();
            assert_eq!(last, Some(expected), "{events:?}");
            assert_eq!(replica.held(), held, "{events:?}");
        }
        assert_eq!(replica().next(Event::Kept), refused(Refusal::Panic));
        let mut fenced = Replica::start(Some((id(1, 5), A)), 2, A);
        fenced.next(offer(1, 6));
        assert_eq!(fenced.next(good), refused(Refusal::Fenced(fenced.held())));
    }
}
