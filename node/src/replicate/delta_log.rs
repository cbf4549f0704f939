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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use meshgate_core::snapshot::{Digest, Head, Key, Kind};
    use meshgate_wire::{LeafChange, SignedHead, encode_head};

    use super::*;

    fn commit(base: u64, rev: u64, bytes: usize) -> Arc<Commit> {
        let id = |rev| HeadId { epoch: 1, rev };
        let roots = Digest::default();
        let head = Head { mesh_id: String::new(), id: id(rev), routes_root: roots, endpoints_root: roots };
        let head = SignedHead::from_parts(encode_head(&head), Bytes::new(), Bytes::new()).unwrap();
        let key = Key::new(Kind::Service, "a", &format!("{}", rev % 2));
        let changes = vec![LeafChange { key, value: Some(vec![0; bytes].into()) }];
        Arc::new(Commit { head, base: id(base), changes })
    }

    fn since(log: &DeltaLog, rev: u64) -> Option<(u64, usize)> {
        let merged = log.since(HeadId { epoch: 1, rev })?;
        Some((merged.head.id().rev, merged.changes.len()))
    }

    #[test]
    fn merges_what_followed() {
        let mut log = DeltaLog::default();
        (0..10).for_each(|rev| log.push(commit(rev, rev + 1, 1)));
        assert_eq!(since(&log, 0), Some((10, 2)));
        assert_eq!(since(&log, 9), Some((10, 1)));
        assert_eq!(since(&log, 10), None);
        assert_eq!(since(&log, 11), None);
        // A gap starts it anew.
        log.push(commit(20, 21, 1));
        assert_eq!(since(&log, 9), None);
        assert_eq!(since(&log, 20), Some((21, 1)));
    }

    #[test]
    fn is_bounded() {
        let mut log = DeltaLog::default();
        (0..2 * MAX_DELTAS as u64).for_each(|rev| log.push(commit(rev, rev + 1, 1)));
        assert_eq!(log.deltas.len(), MAX_DELTAS);
        (2 * MAX_DELTAS as u64..).take(20).for_each(|rev| log.push(commit(rev, rev + 1, 1024 * 1024)));
        assert!(log.bytes <= MAX_BYTES && log.deltas.len() < 10);
        assert_eq!(log.bytes, log.deltas.iter().map(|commit| commit.bytes()).sum::<usize>());
    }
}
