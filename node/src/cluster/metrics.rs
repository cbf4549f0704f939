//! What gossip counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Counters of gossip; clones share them.
#[derive(Clone, Debug, Default)]
pub struct ClusterMetrics {
    peers: Family<StateLabel, Gauge>,
    bytes: Family<DirectionLabel, Counter>,
    messages: Family<DirectionLabel, Counter>,
    dropped: Family<ReasonLabel, Counter>,
    unverified: Family<ReasonLabel, Counter>,
    pub(super) restarts: Counter,
    pub(super) over_limit: Gauge,
}

impl ClusterMetrics {
    /// Puts them into a registry whose prefix is `meshgate`.
    pub fn register(&self, registry: &mut Registry) {
        let gossip = registry.sub_registry_with_prefix("gossip");
        gossip.register("peers", "Instances that gossip knows, by state", self.peers.clone());
        gossip.register_with_unit("traffic", "Gossip sent and received", Unit::Bytes, self.bytes.clone());
        gossip.register("messages", "Gossip messages sent and received", self.messages.clone());
        gossip.register("dropped", "Gossip messages dropped", self.dropped.clone());
        gossip.register("unverified_values", "Values that their node did not sign", self.unverified.clone());
        gossip.register("restarts", "Times that gossip had to start anew", self.restarts.clone());
        gossip.register("over_limit", "Instances beyond what gossip may hold", self.over_limit.clone());
    }

    /// Values that were ignored, over all reasons.
    pub fn unverified_values(&self) -> u64 {
        ["unreadable", "signature", "foreign", "generation", "stale"]
            .iter()
            .map(|reason| self.unverified.get_or_create(&ReasonLabel { reason }).get())
            .sum()
    }

    /// Times that gossip had to start anew.
    pub fn restarts(&self) -> u64 {
        self.restarts.get()
    }

    pub(super) fn message(&self, direction: &'static str, bytes: usize) {
        self.messages.get_or_create(&DirectionLabel { direction }).inc();
        self.bytes.get_or_create(&DirectionLabel { direction }).inc_by(bytes as u64);
    }

    pub(super) fn dropped(&self, reason: &'static str) {
        self.dropped.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn ignored(&self, reason: &'static str) {
        self.unverified.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn peers(&self, alive: usize, dead: usize) {
        for (state, count) in [("alive", alive), ("dead", dead)] {
            self.peers.get_or_create(&StateLabel { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
