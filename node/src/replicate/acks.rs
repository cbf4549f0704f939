//! Who follows, and how far: acknowledgements as the serving side knows them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meshgate_core::snapshot::{HeadId, Key};
use meshgate_core::table::Held;
use tokio::sync::watch;

use super::types::BindError;
use crate::identity::{InstanceId, NodeName};

/// Where a peer says it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// The head in its table.
    pub applied: HeadId,
    /// The newest head for which its listeners are bound and served, at most `applied`.
    pub live: HeadId,
    /// From the receipt of the head to the swap of the table.
    pub took: Duration,
    /// Resources whose previous version goes on serving (the first of them).
    pub held: Vec<Held>,
    /// How many are held back in all.
    pub held_total: usize,
    /// Listeners that are not bound (the first of them).
    pub bind_errors: Vec<BindError>,
    /// It has a table that it can serve from.
    pub table_ok: bool,
}

impl Ack {
    /// The resource is held back there.
    pub fn holds(&self, key: &Key) -> bool {
        self.held.iter().any(|held| held.key == *key)
    }
}

/// A peer that follows this one, by its newest instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Follower {
    /// The process.
    pub instance: InstanceId,
    /// Its stream is open.
    pub connected: bool,
    /// The highest epoch that it has accepted.
    pub fence: u64,
    /// What it acknowledged last; default before the first.
    pub ack: Ack,
    /// When it did.
    pub acked_at: Option<Instant>,
}

/// Followers by node. What is here is told by authenticated peers about themselves.
pub type FollowerMap = BTreeMap<NodeName, Follower>;

/// Reads followers, and waits for changes of them.
#[derive(Clone, Debug)]
pub struct Followers(watch::Receiver<FollowerMap>);

impl Followers {
    /// All as they are now.
    pub fn snapshot(&self) -> FollowerMap {
        self.0.borrow().clone()
    }

    /// Returns as soon as `done` holds. Bound it with a timeout.
    pub async fn wait_for(&mut self, mut done: impl FnMut(&FollowerMap) -> bool) {
        if self.0.wait_for(|map| done(map)).await.is_err() {
            // The writer is gone: the process is ending, and nothing will change any more.
            std::future::pending::<()>().await;
        }
    }

    /// Returns after the next change.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
