//! What the tunnel counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Refusal, TunnelFailureKind, TunnelStats};

/// A peer's node name: as many as there are nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PeerLabel {
    pub peer: String,
}

/// One of a fixed set of words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub reason: &'static str,
}

type FloatGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

/// Counters of the tunnel; clones share them.
#[derive(Clone, Debug)]
pub struct TunnelMetrics {
    connections: Family<PeerLabel, Gauge>,
    streams_active: Family<PeerLabel, Gauge>,
    rtt_seconds: Family<PeerLabel, FloatGauge>,
    path_mtu_bytes: Family<PeerLabel, Gauge>,
    pub(super) cwnd_bytes: Family<PeerLabel, Gauge>,
    pub(super) lost_packets: Family<PeerLabel, Counter>,
    pub(super) gso_enabled: Gauge,
    pub(super) streams_opened: Counter,
    pub(super) stream_open_wait: Histogram,
    pub(super) dials: Family<ReasonLabel, Counter>,
    failures: Family<ReasonLabel, Counter>,
    hosted: Family<ReasonLabel, Counter>,
    pub(super) gossip_dropped: Counter,
}

impl Default for TunnelMetrics {
    fn default() -> Self {
        let waits = [0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0];
        TunnelMetrics {
            connections: Family::default(),
            streams_active: Family::default(),
            rtt_seconds: Family::default(),
            path_mtu_bytes: Family::default(),
            cwnd_bytes: Family::default(),
            lost_packets: Family::default(),
            gso_enabled: Gauge::default(),
            streams_opened: Counter::default(),
            stream_open_wait: Histogram::new(waits),
            dials: Family::default(),
            failures: Family::default(),
            hosted: Family::default(),
            gossip_dropped: Counter::default(),
        }
    }
}

impl TunnelMetrics {
    /// Puts them into a registry whose prefix is `meshgate`.
    pub fn register(&self, registry: &mut Registry) {
        let tunnel = registry.sub_registry_with_prefix("tunnel");
        tunnel.register("connections", "Connections open to a peer", self.connections.clone());
        tunnel.register("streams_active", "Streams in use to a peer", self.streams_active.clone());
        tunnel.register_with_unit("rtt", "Smoothed round-trip time", Unit::Seconds, self.rtt_seconds.clone());
        tunnel.register_with_unit("path_mtu", "Bytes in a packet", Unit::Bytes, self.path_mtu_bytes.clone());
        tunnel.register_with_unit("cwnd", "Congestion window", Unit::Bytes, self.cwnd_bytes.clone());
        tunnel.register("lost_packets", "Packets lost on the way to a peer", self.lost_packets.clone());
        tunnel.register("gso_enabled", "Whether the kernel segments packets", self.gso_enabled.clone());
        tunnel.register("streams_opened", "Streams opened", self.streams_opened.clone());
        let wait = self.stream_open_wait.clone();
        tunnel.register_with_unit("stream_open_wait", "Time until a stream could be opened", Unit::Seconds, wait);
        tunnel.register("dials", "Connections dialled, by result", self.dials.clone());
        tunnel.register("failures", "Requests that did not get through", self.failures.clone());
        tunnel.register("hosted", "Streams taken from peers, by result", self.hosted.clone());
        tunnel.register("gossip_dropped", "Gossip messages dropped", self.gossip_dropped.clone());
    }

    pub(super) fn failed(&self, kind: &TunnelFailureKind) {
        let reason = match kind {
            TunnelFailureKind::Refused(refusal) => refusal_reason(*refusal),
            TunnelFailureKind::Unreachable(_) => "unreachable",
            TunnelFailureKind::Broken(_) => "broken",
            TunnelFailureKind::Client(_) => "client",
        };
        self.failures.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn hosted(&self, reason: &'static str) {
        self.hosted.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn dialled(&self, reason: &'static str) {
        self.dials.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(super) fn show(&self, peer: &str, stats: &TunnelStats) {
        let label = PeerLabel { peer: peer.to_owned() };
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.connections.get_or_create(&label).set(whole(stats.connections));
        self.streams_active.get_or_create(&label).set(whole(stats.streams));
        self.rtt_seconds.get_or_create(&label).set(stats.rtt.as_secs_f64());
        self.path_mtu_bytes.get_or_create(&label).set(i64::from(stats.mtu));
    }

    pub(super) fn forget(&self, peer: &str) {
        let label = PeerLabel { peer: peer.to_owned() };
        self.connections.remove(&label);
        self.streams_active.remove(&label);
        self.rtt_seconds.remove(&label);
        self.path_mtu_bytes.remove(&label);
        self.cwnd_bytes.remove(&label);
        self.lost_packets.remove(&label);
    }
}

pub(super) fn refusal_reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotHere => "not_here",
        Refusal::Terminating => "terminating",
        Refusal::Denied => "denied",
        Refusal::Overloaded => "overloaded",
        Refusal::Draining => "draining",
    }
}
