//! Who follows, and how far: acknowledgements as the serving side knows them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meshgate_core::snapshot::{HeadId, Key};
use meshgate_core::table::Held;
use tokio::sync::watch;

use super::metrics::{Metrics, gauge};
use super::types::{Applied, BindError, LiveReport};
use crate::identity::{InstanceId, NodeName};

/// How long an acknowledgement waits for the edge to serve what the table has.
const LIVE_WAIT: Duration = Duration::from_secs(1);

/// Nodes that are remembered; beyond, those that left first are forgotten.
const MAX_FOLLOWERS: usize = 1024;

/// Resources and listeners that one acknowledgement names; it counts them all.
pub(super) const MAX_NAMED: usize = 256;

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
    /// Which stream this is of; a later one of the same node takes over.
    pub(super) session: u64,
}

#[cfg(test)]
impl Follower {
    /// One for tests of who reads them.
    pub(crate) fn of(instance: InstanceId, connected: bool, ack: Ack) -> Self {
        Follower { instance, connected, fence: 0, ack, acked_at: None, session: 0 }
    }
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

/// Writes followers. Each entry is written by the session of its node's newest stream only.
#[derive(Debug)]
pub(super) struct FollowerRegistry {
    map: watch::Sender<FollowerMap>,
    sessions: AtomicU64,
    metrics: Metrics,
}

impl FollowerRegistry {
    pub(super) fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(FollowerRegistry { map: watch::Sender::default(), sessions: AtomicU64::new(1), metrics })
    }

    pub(super) fn followers(&self) -> Followers {
        Followers(self.map.subscribe())
    }

    /// A stream of `node` is open. The entry stays when it closes, as not connected.
    pub(super) fn open(self: &Arc<Self>, node: NodeName, instance: InstanceId, fence: u64) -> FollowerSession {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        self.map.send_modify(|map| {
            // The same process on a new stream: what it acknowledged still holds.
            let before = map.get(&node).filter(|before| before.instance == instance);
            let (ack, acked_at) = before.map_or((Ack::default(), None), |before| (before.ack.clone(), before.acked_at));
            map.insert(node.clone(), Follower { instance, connected: true, fence, ack, acked_at, session });
            evict(map);
        });
        self.count();
        FollowerSession { registry: Arc::clone(self), node, session }
    }

    fn modify(&self, node: &NodeName, session: u64, change: impl FnOnce(&mut Follower)) {
        self.map.send_if_modified(|map| {
            let follower = map.get_mut(node).filter(|follower| follower.session == session);
            follower.map(change).is_some()
        });
    }

    fn count(&self) {
        let connected = self.map.borrow().values().filter(|follower| follower.connected).count();
        self.metrics.followers.set(gauge(connected));
    }
}

/// Forgets who left first, when there are too many.
fn evict(map: &mut FollowerMap) {
    while map.len() > MAX_FOLLOWERS {
        let oldest = map.iter().min_by_key(|(_, follower)| (follower.connected, follower.session));
        let Some(node) = oldest.map(|(node, _)| node.clone()) else { return };
        map.remove(&node);
    }
}

/// One stream of a follower; dropping it marks the follower as not connected.
#[derive(Debug)]
pub(super) struct FollowerSession {
    registry: Arc<FollowerRegistry>,
    node: NodeName,
    session: u64,
}

impl FollowerSession {
    /// Notes an acknowledgement.
    pub(super) fn ack(&self, ack: Ack) {
        self.registry.modify(&self.node, self.session, |follower| {
            follower.fence = follower.fence.max(ack.applied.epoch);
            follower.ack = ack;
            follower.acked_at = Some(Instant::now());
        });
    }
}

impl Drop for FollowerSession {
    fn drop(&mut self) {
        self.registry.modify(&self.node, self.session, |follower| follower.connected = false);
        self.registry.count();
    }
}

/// Makes this peer's acknowledgements: from what is applied, and what the edge serves of it.
#[derive(Debug)]
pub(super) struct AckSource {
    applied: watch::Receiver<Option<Arc<Applied>>>,
    live: watch::Receiver<LiveReport>,
    last: Option<Ack>,
    /// Since when there is something to tell that waits for the edge.
    waiting: Option<Instant>,
}

impl AckSource {
    pub(super) fn new(applied: watch::Receiver<Option<Arc<Applied>>>, live: watch::Receiver<LiveReport>) -> Self {
        AckSource { applied, live, last: None, waiting: None }
    }

    /// The next acknowledgement that differs from the one before. Never ends.
    pub(super) async fn next(&mut self) -> Ack {
        loop {
            let ack = self.compose();
            let now = Instant::now();
            let due = self.due(ack.as_ref(), now);
            if let Some(ack) = ack
                && due == Some(now)
            {
                self.last = Some(ack.clone());
                self.waiting = None;
                return ack;
            }
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.applied.changed() => if changed.is_err() { std::future::pending::<()>().await },
                // Without an edge any more, the timer tells what is known.
                Ok(()) = self.live.changed() => {}
                () = timer => {}
            }
        }
    }

    /// When `ack` is to be sent: `now`, later, or never as there is nothing new.
    fn due(&mut self, ack: Option<&Ack>, now: Instant) -> Option<Instant> {
        let ack = ack?;
        let same = |last: &Ack| Ack { took: ack.took, ..last.clone() } == *ack;
        if self.last.as_ref().is_some_and(same) {
            self.waiting = None;
            return None;
        }
        let known_live = self.last.as_ref().map_or_else(HeadId::default, |last| last.live);
        if ack.live >= ack.applied || ack.live > known_live {
            return Some(now);
        }
        let since = *self.waiting.get_or_insert(now);
        Some((since + LIVE_WAIT).max(now))
    }

    fn compose(&mut self) -> Option<Ack> {
        let applied = self.applied.borrow_and_update().clone()?;
        let live = self.live.borrow_and_update();
        Some(Ack {
            applied: applied.id(),
            live: live.head.min(applied.id()),
            took: applied.took,
            held: live.held.iter().chain(applied.held.iter()).take(MAX_NAMED).cloned().collect(),
            held_total: applied.held.len() + live.held.len(),
            bind_errors: live.bind_errors.iter().take(MAX_NAMED).cloned().collect(),
            table_ok: true,
        })
    }
}
