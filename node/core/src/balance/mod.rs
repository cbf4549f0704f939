//! Picks an endpoint: weighted backend first, then power of two choices on requests in flight and
//! peak-EWMA latency.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::snapshot::Backend;
use crate::table::{Endpoint, ServicePort};

/// Live state of an endpoint as seen from this peer. Outlives tables.
#[derive(Debug, Default)]
pub struct EndpointState {
    /// Requests sent and not yet answered to their end.
    pub in_flight: AtomicU32,
    /// Peak-EWMA of the time to the response head in nanoseconds (bits of an f64).
    pub ewma: AtomicU64,
    /// When `ewma` was last updated, nanoseconds on the caller's monotonic clock.
    pub updated: AtomicU64,
}

impl EndpointState {
    /// Records one answer that took `latency` nanoseconds, at `now`.
    pub fn observe(&self, now: u64, latency: u64) {
        let _ = (now, latency);
    }
}

/// Chooses a backend by weight. `None` when all weights are zero or there is no backend.
pub fn choose_backend(backends: &[Backend], entropy: u64) -> Option<usize> {
    let _ = (backends, entropy);
    None
}

/// Picks an endpoint that is not in `exclude` (those that refused already), by power of two
/// choices. `now` is in nanoseconds on the caller's monotonic clock.
pub fn pick<'a>(port: &'a ServicePort, now: u64, entropy: u64, exclude: &[SocketAddr]) -> Option<&'a Endpoint> {
    let _ = (port, now, entropy, exclude);
    None
}
