//! Picks an endpoint: weighted backend first, then power of two choices on requests in flight and
//! peak-EWMA latency ([`pick()`]), past endpoints that failed lately or are full ([`state`]).
//!
//! Peak-EWMA jumps up to a latency above the average at once and forgets it with time, so a slow
//! endpoint is avoided after its first slow answer and tried again when nobody has asked it for a
//! while.

mod budget;
mod pick;
mod state;
#[cfg(test)]
mod testing;

pub use budget::RetryBudget;
pub use pick::{Asked, Picked, failed, pick};
pub use state::{EJECTION, EJECTION_MAX, EndpointState, FAILURES, TAU};

use crate::snapshot::Backend;

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

/// Maps uniform entropy to `0..below` by its high bits.
fn scale(entropy: u64, below: u64) -> u64 {
    ((u128::from(entropy) * u128::from(below)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::testing::spread;
    use super::*;
    use crate::snapshot::BackendTarget;

    fn backends(weights: &[u32]) -> Vec<Backend> {
        let target = BackendTarget::Invalid { reason: String::new() };
        weights.iter().map(|&weight| Backend { target: target.clone(), weight, filters: Vec::new() }).collect()
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
}
