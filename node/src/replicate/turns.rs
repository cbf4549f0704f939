//! Turns at full snapshots, for streams that wait for theirs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshgate_core::replica::{Turn, Turns};
use tokio::sync::watch;

/// Who sends a full snapshot now, and who waits.
#[derive(Debug, Default)]
pub(super) struct SnapshotTurns {
    turns: Mutex<Turns<u64>>,
    tickets: AtomicU64,
    moved: watch::Sender<()>,
}

impl SnapshotTurns {
    fn lock(&self) -> MutexGuard<'_, Turns<u64>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, to be kept until the snapshot is sent. `None`: too many wait.
    pub(super) fn ask(self: &Arc<Self>) -> Option<Place> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let turn = self.lock().ask(ticket);
        (turn != Turn::Elsewhere).then(|| Place { turns: Arc::clone(self), ticket })
    }
}

/// A place in the line; dropping it gives it up.
#[derive(Debug)]
pub(super) struct Place {
    turns: Arc<SnapshotTurns>,
    ticket: u64,
}

impl Place {
    /// Returns when it is this one's turn.
    pub(super) async fn comes(&self) {
        let mut moved = self.turns.moved.subscribe();
        while self.turns.lock().ask(self.ticket) != Turn::Now {
            if moved.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.turns.lock().leave(&self.ticket) {
            self.turns.moved.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meshgate_core::replica::{MAX_SNAPSHOTS, MAX_WAITING};

    use super::*;

    #[tokio::test]
    async fn a_place_that_is_given_up_is_the_next_ones() {
        let turns = Arc::new(SnapshotTurns::default());
        let mut places: Vec<Place> = std::iter::from_fn(|| turns.ask()).collect();
        assert_eq!(places.len(), MAX_SNAPSHOTS + MAX_WAITING);
        places[0].comes().await;
        let second = places.remove(MAX_SNAPSHOTS);
        let waiting = tokio::spawn(async move { second.comes().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(places.remove(0));
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        assert!(turns.ask().is_some());
    }
}
