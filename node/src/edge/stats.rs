//! Counters of connections, shared by all threads of the edge.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters of connections. Each is monotonic but `active`.
#[derive(Debug, Default)]
pub struct EdgeStats {
    /// Open now.
    pub active: AtomicUsize,
    /// Accepted.
    pub accepted: AtomicU64,
    /// Closed at once: the process has its limit of connections.
    pub over_limit: AtomicU64,
    /// Closed at once: every worker's queue was full.
    pub queue_full: AtomicU64,
    /// `accept` failed for want of file descriptors.
    pub no_descriptors: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: AtomicU64,
}

impl EdgeStats {
    /// Adds one to a counter.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One open connection: counts in a load for as long as it lives.
#[derive(Debug)]
pub struct Counted(Vec<std::sync::Arc<AtomicUsize>>);

impl Counted {
    /// Adds one to each of the gauges until dropped.
    pub fn new(gauges: Vec<std::sync::Arc<AtomicUsize>>) -> Self {
        for gauge in &gauges {
            gauge.fetch_add(1, Ordering::Relaxed);
        }
        Counted(gauges)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for gauge in &self.0 {
            gauge.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
