//! The last deltas, for followers that are a little behind. Bounded; whoever is further behind
//! gets a full snapshot.

use std::collections::VecDeque;
use std::sync::Arc;

use meshgate_core::snapshot::HeadId;
use meshgate_wire::Commit;

/// Deltas that are kept.
const MAX_DELTAS: usize = 512;
/// Bytes of changes that are kept.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The largest merged delta; more goes as a full snapshot.
pub(super) const MAX_DELTA_BYTES: usize = 4 * 1024 * 1024;

/// Deltas that follow one another. Cloning copies at most [`MAX_DELTAS`] pointers.
#[derive(Clone, Debug, Default)]
pub(super) struct DeltaLog {
    deltas: VecDeque<Arc<Commit>>,
    bytes: usize,
}

impl DeltaLog {
    /// Adds the newest delta.
    pub(super) fn push(&mut self, commit: Arc<Commit>) {
        if self.deltas.back().is_some_and(|last| last.head.id() != commit.base) {
            *self = DeltaLog::default();
        }
        self.bytes += commit.bytes();
        self.deltas.push_back(commit);
        while self.deltas.len() > MAX_DELTAS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.deltas.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.bytes());
        }
    }

    /// One delta from `held` to the newest head; `None` when that is not known or too large.
    pub(super) fn since(&self, held: HeadId) -> Option<Commit> {
        let start = self.deltas.iter().rposition(|commit| commit.base == held)?;
        let mut rest = self.deltas.iter().skip(start);
        let first = Commit::clone(rest.next()?);
        let rest: Vec<&Arc<Commit>> = rest.collect();
        let merged = rest.into_iter().fold(first, |merged, next| merged.merge(Commit::clone(next)));
        (merged.bytes() <= MAX_DELTA_BYTES).then_some(merged)
    }
}
