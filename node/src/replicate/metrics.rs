//! What replication counts: the truth about configuration.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::types::Origin;

/// Bounds of the apply histogram, in seconds.
const APPLY_BUCKETS: [f64; 12] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

/// Why a head was refused whole. A fixed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    Signature,
    Mesh,
    Stale,
    Conflict,
    Base,
    Digest,
    Limit,
    Malformed,
    Panic,
}

impl Reason {
    pub(super) fn name(self) -> &'static str {
        match self {
            Reason::Signature => "signature",
            Reason::Mesh => "mesh",
            Reason::Stale => "stale",
            Reason::Conflict => "conflict",
            Reason::Base => "base",
            Reason::Digest => "digest",
            Reason::Limit => "limit",
            Reason::Malformed => "malformed",
            Reason::Panic => "panic",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// The handles. Clones count into the same series.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    applied_epoch: Gauge<u64, AtomicU64>,
    applied_rev: Gauge<u64, AtomicU64>,
    apply_seconds: Histogram,
    rejected: Family<ReasonLabel, Counter>,
    held: Gauge,
    resources: Gauge,
    bytes: Gauge,
    pub(super) persist_failed: Gauge,
    bootstrap: Family<SourceLabel, Counter>,
    pub(super) followers: Gauge,
    sent: Family<KindLabel, Counter>,
    pub(super) missing_keys: Gauge,
}

impl Metrics {
    /// Registers all series.
    pub(super) fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            applied_epoch: Gauge::default(),
            applied_rev: Gauge::default(),
            apply_seconds: Histogram::new(APPLY_BUCKETS),
            rejected: Family::default(),
            held: Gauge::default(),
            resources: Gauge::default(),
            bytes: Gauge::default(),
            persist_failed: Gauge::default(),
            bootstrap: Family::default(),
            followers: Gauge::default(),
            sent: Family::default(),
            missing_keys: Gauge::default(),
        };
        let m = &metrics;
        registry.register("meshgate_config_applied_epoch", "Epoch of the head in the table", m.applied_epoch.clone());
        registry.register("meshgate_config_applied_rev", "Rev of the head in the table", m.applied_rev.clone());
        registry.register(
            "meshgate_config_apply_duration_seconds",
            "From the receipt of a head to the swap of the table",
            m.apply_seconds.clone(),
        );
        registry.register("meshgate_config_rejected", "Heads refused whole", m.rejected.clone());
        registry.register("meshgate_config_held_resources", "Resources whose previous version serves", m.held.clone());
        registry.register("meshgate_config_resources", "Resources in the snapshot", m.resources.clone());
        registry.register("meshgate_config_snapshot_bytes", "Bytes of the snapshot", m.bytes.clone());
        registry.register(
            "meshgate_config_persist_failed",
            "1 while the configuration can't be kept on disk",
            m.persist_failed.clone(),
        );
        registry.register("meshgate_config_bootstrap", "Where the first head came from", m.bootstrap.clone());
        registry.register("meshgate_config_followers", "Peers that follow this one", m.followers.clone());
        registry.register("meshgate_config_sent", "Deltas and snapshots sent to followers", m.sent.clone());
        registry.register("meshgate_config_missing_keys", "Private keys that listeners lack", m.missing_keys.clone());
        for reason in [Reason::Signature, Reason::Stale, Reason::Conflict, Reason::Digest] {
            let _ = metrics.rejected.get_or_create(&ReasonLabel { reason: reason.name() });
        }
        metrics
    }

    /// A head is in the table.
    pub(super) fn applied(&self, applied: &super::Applied, first: bool) {
        self.applied_epoch.set(applied.id().epoch);
        self.applied_rev.set(applied.id().rev);
        self.apply_seconds.observe(applied.took.as_secs_f64());
        self.held.set(gauge(applied.held.len()));
        self.resources.set(gauge(applied.snapshot.len()));
        self.bytes.set(gauge(applied.snapshot.bytes()));
        if first {
            let source = match applied.origin {
                Origin::Own => "own",
                Origin::Leader => "leader",
                Origin::Peer => "peer",
                Origin::Disk => "disk",
            };
            self.bootstrap.get_or_create(&SourceLabel { source }).inc();
        }
    }

    /// A head was refused.
    pub(super) fn rejected(&self, reason: Reason) {
        self.rejected.get_or_create(&ReasonLabel { reason: reason.name() }).inc();
    }

    /// Something was sent to a follower.
    pub(super) fn sent(&self, kind: &'static str) {
        self.sent.get_or_create(&KindLabel { kind }).inc();
    }
}

/// A size as a gauge's value.
pub(super) fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
