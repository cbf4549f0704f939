//! Counters of connections, shared by all threads of the edge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;

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
