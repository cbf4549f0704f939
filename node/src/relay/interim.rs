//! Interim responses (RFC 9110 15.2) on their way from a pod to the client.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, StatusCode};
use meshgate_core::sanitize;

use super::MAX_INTERIM;

/// The place for the interim responses of the request that a connection serves. Whoever waits for
/// its answer puts them in, from the task of the client's connection; the connection writes them.
/// Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct Interim(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    waiting: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(StatusCode, HeaderMap)>,
    /// Of this request, those written included.
    count: usize,
}

impl Interim {
    /// Passes an interim response on; what is beyond [`MAX_INTERIM`] of one request is dropped, as
    /// is what only concerns the connection it came on (100) or ends it (101).
    pub fn put(&self, status: StatusCode, mut headers: HeaderMap) {
        if !status.is_informational() || matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return;
        }
        // Neither framing nor what hops say to each other has a place in them.
        sanitize::trailers(&mut headers);
        let mut state = self.lock();
        if state.count < MAX_INTERIM {
            state.count += 1;
            state.queue.push_back((status, headers));
            self.0.waiting.store(state.queue.len(), Ordering::Relaxed);
        }
    }

    /// A new request begins.
    pub fn begin(&self) {
        let mut state = self.lock();
        state.count = 0;
        state.queue.clear();
        self.0.waiting.store(0, Ordering::Relaxed);
    }

    /// The next one to pass on.
    pub fn take(&self) -> Option<(StatusCode, HeaderMap)> {
        if self.0.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut state = self.lock();
        let next = state.queue.pop_front();
        self.0.waiting.store(state.queue.len(), Ordering::Relaxed);
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
