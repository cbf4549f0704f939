//! Counters of connections, shared by all threads of the edge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of connections. Each is monotonic but `active`.
#[derive(Debug, Default)]
pub struct EdgeStats {
    /// Open now.
    pub active: AtomicUsize,
    /// Accepted.
    pub accepted: AtomicU64,
    /// Closed at once: the process has its limit of connections.
    pub over_limit: AtomicU64,
    /// Closed at once: the worker's queue was full.
    pub queue_full: AtomicU64,
    /// `accept` failed for want of file descriptors or memory.
    pub no_descriptors: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: AtomicU64,
    /// HTTP/2 connections that were closed for a flood: of control frames, or of requests that broke off
    /// before they were answered.
    pub floods: AtomicU64,
}

impl EdgeStats {
    /// Exports the counters.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register_collector(Box::new(Exported(Arc::clone(self))));
    }
}

/// The counters as metrics, read when scraped.
#[derive(Debug)]
struct Exported(Arc<EdgeStats>);

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let read = |counter: &AtomicU64| ConstCounter::new(counter.load(Ordering::Relaxed));
        let accepted = read(&self.0.accepted);
        let help = "Connections of clients that were accepted";
        let descriptor = encoder.encode_descriptor("meshgate_connections_accepted", help, None, accepted.metric_type());
        accepted.encode(descriptor?)?;
        let failed = read(&self.0.handshakes_failed);
        let help = "TLS handshakes of clients that failed or took too long";
        let descriptor = encoder.encode_descriptor("meshgate_tls_handshakes_failed", help, None, failed.metric_type());
        failed.encode(descriptor?)?;
        let refused = [
            ("over_limit", &self.0.over_limit),
            ("queue_full", &self.0.queue_full),
            ("no_descriptors", &self.0.no_descriptors),
        ];
        let help = "Connections of clients that were closed at once, or could not be accepted";
        let kind = accepted.metric_type();
        let mut family = encoder.encode_descriptor("meshgate_connections_refused", help, None, kind)?;
        for (reason, counter) in refused {
            read(counter).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One open connection: counts for as long as it lives.
#[derive(Debug)]
pub(super) struct Open {
    stats: Arc<EdgeStats>,
    load: Arc<AtomicUsize>,
    gauge: Gauge,
}

impl Open {
    /// One more connection of the process and of the worker whose load is given.
    pub(super) fn new(stats: &Arc<EdgeStats>, load: &Arc<AtomicUsize>, gauge: &Gauge) -> Self {
        stats.active.fetch_add(1, Ordering::Relaxed);
        load.fetch_add(1, Ordering::Relaxed);
        gauge.inc();
        Open { stats: Arc::clone(stats), load: Arc::clone(load), gauge: gauge.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.active.fetch_sub(1, Ordering::Relaxed);
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}
