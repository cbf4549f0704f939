//! Who is there: membership and small facts by gossip.
//!
//! A hint, never an authority: a lying member can delay, never change, what is served. Nodes sign
//! what they say of themselves, because gossip relays values and any member may rewrite another's.

mod facts;
mod members;
mod metrics;
mod runner;
mod transport;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::identity::NodeIdentity;

pub use facts::{Facts, LeaderClaim, MAX_FACTS, Roles};
pub use members::{MAX_MEMBERS, Member, Members};
pub use metrics::ClusterMetrics;
pub use runner::ClusterRunner;

/// How often a node gossips.
pub const INTERVAL: Duration = Duration::from_millis(200);
/// Addresses that wait to be introduced.
const INTRODUCTIONS: usize = 64;

/// How a node takes part in gossip.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Who it is; also names the mesh, and signs.
    pub identity: NodeIdentity,
    /// Where peers reach it: where its tunnel listens.
    pub gossip_addr: SocketAddr,
    /// Peers to begin with.
    pub seeds: Vec<SocketAddr>,
    /// How often it gossips; [`INTERVAL`] outside tests.
    pub interval: Duration,
}

/// A node's part in the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    facts: Arc<watch::Sender<Facts>>,
    members: watch::Receiver<Arc<Members>>,
    introduce: mpsc::Sender<SocketAddr>,
    metrics: ClusterMetrics,
}

impl Cluster {
    /// Sets up a node's part; the runner makes it go. Messages leave by `outgoing` and come by
    /// `incoming`, each with the gossip address of the other side.
    pub fn start(
        config: ClusterConfig,
        outgoing: mpsc::Sender<(SocketAddr, Bytes)>,
        incoming: mpsc::Receiver<(SocketAddr, Bytes)>,
        facts: Facts,
    ) -> (Cluster, ClusterRunner) {
        let metrics = ClusterMetrics::default();
        let (facts, published) = watch::channel(facts);
        let (seen, members) = watch::channel(Arc::default());
        let (introduce, introduced) = mpsc::channel(INTRODUCTIONS);
        let transport = transport::Channels::new(outgoing, incoming, metrics.clone());
        let runner = ClusterRunner::new(config, transport, published, seen, introduced, metrics.clone());
        (Cluster { facts: Arc::new(facts), members, introduce, metrics }, runner)
    }

    /// Changes what this node says of itself; peers are told at once.
    pub fn publish(&self, change: impl FnOnce(&mut Facts)) {
        self.facts.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
    }

    /// Everyone who is or recently was there, this node included.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// Gossips with an address now: for peers that something else has found. Dropped when many wait.
    pub fn introduce(&self, address: SocketAddr) {
        let _ = self.introduce.try_send(address);
    }

    /// What is counted.
    pub fn metrics(&self) -> &ClusterMetrics {
        &self.metrics
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("members", &self.members.borrow().all().len()).finish_non_exhaustive()
    }
}
