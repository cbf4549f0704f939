//! What connections of a listener watch, to end with it.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Says that what runs is to be finished, and nothing new begun. To look costs no lock: every
/// request does, on every thread.
#[derive(Debug, Default)]
pub struct Closing {
    closed: AtomicBool,
    token: CancellationToken,
}

impl Closing {
    /// Says so, for good.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Whether it was said.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends once it was said.
    pub fn closed(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }
}
