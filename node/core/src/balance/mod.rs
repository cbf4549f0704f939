//! Picks an endpoint: weighted backend first, then power of two choices on requests in flight and
//! peak-EWMA latency.
//!
//! Peak-EWMA jumps up to a latency above the average at once and forgets it with time, so a slow
//! endpoint is avoided after its first slow answer and tried again when nobody has asked it for a
//! while.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::snapshot::Backend;
use crate::table::{Endpoint, ServicePort};

/// Time in which an observation's weight falls to 1/e, in nanoseconds: 10 s.
pub const TAU: u64 = 10_000_000_000;

/// Latency below which endpoints count as equally fast, in nanoseconds: 1 µs. Keeps the requests
/// in flight in the comparison when an average has decayed to nothing.
const FLOOR: f64 = 1_000.0;

/// Live state of an endpoint as seen from this peer. Outlives tables.
#[derive(Debug, Default)]
pub struct EndpointState {
    /// Requests sent and not yet answered to their end.
    pub in_flight: AtomicU32,
    /// Peak-EWMA of the time to the response head in nanoseconds (bits of an f64); 0 before the
    /// first answer.
    pub ewma: AtomicU64,
    /// When `ewma` was last updated, nanoseconds on the caller's monotonic clock.
    pub updated: AtomicU64,
}

impl EndpointState {
    /// Records one answer that took `latency` nanoseconds, at `now` (nanoseconds on the caller's
    /// monotonic clock).
    ///
    /// Threads may record at once: each answer is counted, but with an age that may be off by the
    /// time between the two.
    pub fn observe(&self, now: u64, latency: u64) {
        // A latency above 2^53 ns (104 days) may lose its last digits.
        let latency = latency as f64;
        let weight = decay(now.saturating_sub(self.updated.fetch_max(now, Relaxed)));
        let next = |bits| {
            let average = f64::from_bits(bits);
            let new = if latency > average { latency } else { average * weight + latency * (1.0 - weight) };
            Some(new.to_bits())
        };
        // The closure always returns `Some`, so there is nothing to handle.
        let _ = self.ewma.fetch_update(Relaxed, Relaxed, next);
    }

    /// The average as it has decayed until `now`, in nanoseconds; `None` before the first answer.
    pub fn latency(&self, now: u64) -> Option<f64> {
        let average = f64::from_bits(self.ewma.load(Relaxed));
        if average <= 0.0 {
            return None;
        }
        Some((average * decay(now.saturating_sub(self.updated.load(Relaxed)))).max(FLOOR))
    }

    /// Whether this endpoint is the better choice of two at `now`.
    fn beats(&self, other: &Self, now: u64) -> bool {
        let load = |state: &Self| f64::from(state.in_flight.load(Relaxed)) + 1.0;
        match (self.latency(now), other.latency(now)) {
            (Some(mine), Some(theirs)) => load(self) * mine <= load(other) * theirs,
            // An endpoint that never answered is taken to be as fast as the other one: neither
            // flooded nor shunned.
            _ => load(self) <= load(other),
        }
    }
}

/// What is left of a weight after `elapsed` nanoseconds.
fn decay(elapsed: u64) -> f64 {
    (-(elapsed as f64) / TAU as f64).exp()
}

/// Chooses a backend by weight. `None` when all weights are zero or there is no backend.
///
/// `entropy` is uniform over all of its values.
pub fn choose_backend(backends: &[Backend], entropy: u64) -> Option<usize> {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    if total == 0 {
        return None;
    }
    let mut point = scale(entropy, total);
    for (index, backend) in backends.iter().enumerate() {
        let weight = u64::from(backend.weight);
        if point < weight {
            return Some(index);
        }
        point -= weight;
    }
    None
}

/// Picks an endpoint that is not in `exclude` (those that refused already), by power of two
/// choices. `now` is in nanoseconds on the caller's monotonic clock; `entropy` is uniform over
/// all of its values.
pub fn pick<'a>(port: &'a ServicePort, now: u64, entropy: u64, exclude: &[SocketAddr]) -> Option<&'a Endpoint> {
    let mut candidates = port.endpoints.iter().filter(|endpoint| !exclude.contains(&endpoint.address));
    let count = if exclude.is_empty() { port.endpoints.len() } else { candidates.clone().count() } as u64;
    if count < 2 {
        return candidates.next();
    }
    let first = scale(entropy << 32, count);
    let mut second = scale(entropy, count - 1);
    if second >= first {
        second += 1;
    }
    let (low, high) = (first.min(second) as usize, first.max(second) as usize);
    let one = candidates.nth(low)?;
    let Some(two) = candidates.nth(high - low - 1) else { return Some(one) };
    // Equal candidates are chosen between by position, which the entropy has mixed.
    let (one, two) = if first < second { (one, two) } else { (two, one) };
    Some(if one.state.beats(&two.state, now) { one } else { two })
}

/// Maps uniform entropy to `0..below` by its high bits.
fn scale(entropy: u64, below: u64) -> u64 {
    ((u128::from(entropy) * u128::from(below)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::{AppProtocol, BackendTarget, SessionAffinity};

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    /// A deterministic, evenly spread sequence.
    fn spread(count: u64) -> impl Iterator<Item = u64> {
        (1..=count).map(|n| {
            let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 31)
        })
    }

    fn backends(weights: &[u32]) -> Vec<Backend> {
        let target = BackendTarget::Invalid { reason: String::new() };
        weights.iter().map(|&weight| Backend { target: target.clone(), weight, filters: Vec::new() }).collect()
    }

    fn port(count: u8) -> ServicePort {
        let endpoint = |n| Endpoint {
            address: SocketAddr::from(([10, 0, 0, n], 80)),
            node: None,
            pod: None,
            state: Arc::default(),
        };
        let endpoints = (0..count).map(endpoint).collect();
        ServicePort { app: AppProtocol::Http1, affinity: SessionAffinity::None, endpoints }
    }

    fn picks(port: &ServicePort, now: u64, exclude: &[SocketAddr]) -> HashMap<SocketAddr, u32> {
        let mut picked = HashMap::new();
        for endpoint in spread(6_000).filter_map(|entropy| pick(port, now, entropy, exclude)) {
            *picked.entry(endpoint.address).or_default() += 1;
        }
        picked
    }

    #[test]
    fn backends_get_their_share() {
        let backends = backends(&[70, 30, 0]);
        let mut counts = [0u32; 3];
        spread(10_000).filter_map(|entropy| choose_backend(&backends, entropy)).for_each(|index| counts[index] += 1);
        assert!((6_800..7_200).contains(&counts[0]), "{counts:?}");
        assert_eq!(counts[0] + counts[1], 10_000);
        assert_eq!(counts[2], 0);
    }

    #[test]
    fn without_weight_there_is_no_backend() {
        assert_eq!(choose_backend(&[], 7), None);
        assert_eq!(choose_backend(&backends(&[0, 0]), 7), None);
        assert_eq!(choose_backend(&backends(&[0, 1]), u64::MAX), Some(1));
        assert_eq!(choose_backend(&backends(&[0, 1]), 0), Some(1));
    }

    #[test]
    fn idle_endpoints_share_evenly() {
        let picked = picks(&port(3), 0, &[]);
        assert_eq!(picked.len(), 3);
        assert!(picked.values().all(|count| (1_800..2_200).contains(count)), "{picked:?}");
    }

    #[test]
    fn the_slower_and_the_busier_lose_to_everyone() {
        let slow = port(3);
        slow.endpoints.iter().for_each(|endpoint| endpoint.state.observe(S, 10 * MS));
        slow.endpoints[1].state.observe(S, 100 * MS);
        assert_eq!(picks(&slow, S, &[]).get(&slow.endpoints[1].address), None);
        let busy = port(3);
        busy.endpoints[2].state.in_flight.store(5, Relaxed);
        assert_eq!(picks(&busy, S, &[]).get(&busy.endpoints[2].address), None);
    }

    #[test]
    fn a_slow_endpoint_is_tried_again_after_a_while() {
        let port = port(2);
        port.endpoints[0].state.observe(S, 2 * MS);
        port.endpoints[1].state.observe(S, 500 * MS);
        let later = 61 * S;
        port.endpoints[0].state.observe(later, 2 * MS);
        assert!(picks(&port, later, &[]).contains_key(&port.endpoints[1].address));
    }

    #[test]
    fn excluded_endpoints_are_skipped() {
        let port = port(3);
        let addresses: Vec<SocketAddr> = port.endpoints.iter().map(|endpoint| endpoint.address).collect();
        assert_eq!(picks(&port, 0, &addresses[..1]).len(), 2);
        assert_eq!(picks(&port, 0, &addresses[..2]).keys().collect::<Vec<_>>(), [&addresses[2]]);
        assert!(pick(&port, 0, 1, &addresses).is_none());
    }

    #[test]
    fn the_average_peaks_at_once_and_decays_with_time() {
        let state = EndpointState::default();
        assert_eq!(state.latency(0), None);
        state.observe(0, 10 * MS);
        state.observe(0, 100 * MS);
        assert_eq!(state.latency(0), Some(100.0 * MS as f64));
        let after_tau = state.latency(TAU).unwrap_or_default();
        assert!((after_tau / MS as f64 - 100.0 / std::f64::consts::E).abs() < 0.01, "{after_tau}");
        state.observe(TAU, 0);
        let average = state.latency(TAU).unwrap_or_default();
        assert!((average - after_tau).abs() < 1.0, "an answer in no time adds nothing: {average}");
    }

    proptest! {
        #[test]
        fn picking_never_returns_an_excluded_endpoint(count in 0u8..6, excluded in any::<u8>(), entropy: u64, now: u64) {
            let port = port(count);
            let all = port.endpoints.iter().enumerate();
            let exclude: Vec<SocketAddr> =
                all.filter(|(n, _)| excluded >> n & 1 == 1).map(|(_, endpoint)| endpoint.address).collect();
            let picked = pick(&port, now, entropy, &exclude);
            prop_assert_eq!(picked.is_some(), exclude.len() < port.endpoints.len());
            prop_assert!(picked.is_none_or(|endpoint| !exclude.contains(&endpoint.address)));
        }
    }
}
