//! What the tests of balancing share.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::snapshot::{AppProtocol, SessionAffinity};
use crate::table::{Endpoint, ServicePort};

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;

/// Nanoseconds of a second.
pub const S: u64 = 1_000 * MS;

/// A deterministic, evenly spread sequence.
pub fn spread(count: u64) -> impl Iterator<Item = u64> {
    (1..=count).map(|n| super::pick::mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// A port with so many endpoints, none preferred.
pub fn port(count: u8) -> ServicePort {
    let endpoint =
        |n| Endpoint { address: SocketAddr::from(([10, 0, 0, n], 80)), node: None, pod: None, state: Arc::default() };
    let endpoints = (0..count).map(endpoint).collect();
    ServicePort {
        app: AppProtocol::Http1,
        affinity: SessionAffinity::None,
        endpoints,
        preferred: usize::from(count),
        retries: Arc::default(),
    }
}
