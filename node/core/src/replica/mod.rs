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
