//! Percentiles.

use serde_json::{Value, json};

/// Samples in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, ms: f64) {
        self.0.push(ms);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that is not below `percent` of all (nearest rank); 0 without samples.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "counts of samples"
    )]
    pub fn percentile(&self, percent: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
    }

    /// Everything of it.
    pub fn json(&self) -> Value {
        json!({
            "p50": self.percentile(50.0), "p90": self.percentile(90.0), "p99": self.percentile(99.0),
            "max": self.percentile(100.0), "samples": self.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentile(50.0).to_bits(), 0);
        for ms in (1..=200).rev() {
            samples.add(f64::from(ms));
        }
        let all = [50.0, 90.0, 99.0, 100.0].map(|percent| samples.percentile(percent).to_string());
        assert_eq!(all, ["100", "180", "198", "200"]);
    }
}
