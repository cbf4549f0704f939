//! What operators look at: the admin API, metrics, health.

pub mod http;

/// Tells the truth about readiness.
pub trait Readiness: Send + Sync {
    /// Why the peer is not ready; `None` when it is.
    fn not_ready(&self) -> Option<String>;
}
