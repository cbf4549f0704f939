//! Turns at full snapshots, for streams that wait for theirs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshgate_core::replica::{Turn, Turns};
use tokio::sync::watch;

use crate::identity::NodeName;

/// Who sends a full snapshot now, and who waits: at most one stream of each node, so that no node
/// takes the turns of others.
#[derive(Debug, Default)]
pub(super) struct SnapshotTurns {
    line: Mutex<Line>,
    moved: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Line {
    turns: Turns<u64>,
    tickets: u64,
    /// The ticket of each node that sends or waits.
    nodes: BTreeMap<NodeName, u64>,
}

impl SnapshotTurns {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for `node`, to be kept until the snapshot is sent; it loses the one that it had.
    /// `None`: too many wait.
    pub(super) fn ask(self: &Arc<Self>, node: &NodeName) -> Option<Place> {
        let mut line = self.lock();
        line.tickets = line.tickets.wrapping_add(1);
        let ticket = line.tickets;
        if let Some(older) = line.nodes.remove(node) {
            line.turns.leave(&older);
            // Also for the older one, which learns that it is none any more.
            self.moved.send_replace(());
        }
        if line.turns.ask(ticket) == Turn::Elsewhere {
            return None;
        }
        line.nodes.insert(node.clone(), ticket);
        drop(line);
        Some(Place { turns: Arc::clone(self), node: node.clone(), ticket })
    }
}

/// A place in the line; dropping it gives it up.
#[derive(Debug)]
pub(super) struct Place {
    turns: Arc<SnapshotTurns>,
    node: NodeName,
    ticket: u64,
}

impl Place {
    /// Returns when it is this one's turn. False: the node asked anew, and this place is gone.
    pub(super) async fn comes(&self) -> bool {
        let mut moved = self.turns.moved.subscribe();
        loop {
            match self.now() {
                Some(Turn::Now) => return true,
                Some(_) => {}
                None => return false,
            }
            if moved.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Returns when the node asks anew.
    pub(super) async fn lost(&self) {
        let mut moved = self.turns.moved.subscribe();
        while self.now().is_some() && moved.changed().await.is_ok() {}
    }

    fn now(&self) -> Option<Turn> {
        let mut line = self.turns.lock();
        (line.nodes.get(&self.node) == Some(&self.ticket)).then(|| line.turns.ask(self.ticket))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.turns.lock();
        if line.nodes.get(&self.node) != Some(&self.ticket) {
            return;
        }
        line.nodes.remove(&self.node);
        if line.turns.leave(&self.ticket) {
            self.turns.moved.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meshgate_core::replica::{MAX_SNAPSHOTS, MAX_WAITING};

    use super::*;

    fn node(number: usize) -> NodeName {
        NodeName::from(format!("node-{number}").as_str())
    }

    #[tokio::test]
    async fn a_place_that_is_given_up_is_the_next_ones() {
        let turns = Arc::new(SnapshotTurns::default());
        let mut places: Vec<Place> = (0..).map_while(|number| turns.ask(&node(number))).collect();
        assert_eq!(places.len(), MAX_SNAPSHOTS + MAX_WAITING);
        assert!(places[0].comes().await);
        let second = places.remove(MAX_SNAPSHOTS);
        let waiting = tokio::spawn(async move { second.comes().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(places.remove(0));
        assert!(tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap());
        assert!(turns.ask(&node(usize::MAX)).is_some());
    }

    #[tokio::test]
    async fn a_node_has_one_place_however_often_it_asks() {
        let turns = Arc::new(SnapshotTurns::default());
        let places: Vec<Place> =
            (0..MAX_SNAPSHOTS + MAX_WAITING + 1).map(|_| turns.ask(&node(1)).expect("it has a place")).collect();
        for number in 2..=MAX_SNAPSHOTS {
            assert!(turns.ask(&node(number)).expect("free").comes().await);
        }
        let within = |wait| tokio::time::timeout(Duration::from_secs(5), wait);
        let (newest, older) = places.split_last().unwrap();
        for place in older {
            assert!(!within(place.comes()).await.unwrap(), "it was replaced");
            tokio::time::timeout(Duration::from_secs(5), place.lost()).await.unwrap();
        }
        assert!(within(newest.comes()).await.unwrap());
    }
}
