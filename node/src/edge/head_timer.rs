//! The deadline of a request's head. hyper starts it when it begins to wait for a head, so that
//! an idle connection would count as a slow one; this timer tells them apart by the bytes read.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

use super::EdgeConfig;
use super::head_copy::HeadCopy;
use crate::proxy::meter::Counts;
use crate::proxy::{CoarseTimer, Deadline};

/// hyper's timer for one HTTP/1 connection.
#[derive(Clone)]
pub struct HeadTimer(Arc<Shared>);

struct Shared {
    timer: CoarseTimer,
    counts: Arc<Counts>,
    copy: HeadCopy,
    header: Duration,
    idle: Duration,
    /// The first head was waited for.
    first: AtomicBool,
}

/// One wait for a head.
struct HeadSleep {
    shared: Arc<Shared>,
    deadline: Deadline,
    /// Bytes read when the wait began, while no more were.
    idle_at: Option<u64>,
}

impl HeadTimer {
    /// A timer for the connection whose bytes `counts` counts. It knows when a head begins and
    /// ends, and tells `copy`.
    pub fn new(timer: CoarseTimer, counts: Arc<Counts>, copy: HeadCopy, config: &EdgeConfig) -> Self {
        let (header, idle) = (config.header_timeout, config.idle_timeout);
        HeadTimer(Arc::new(Shared { timer, counts, copy, header, idle, first: AtomicBool::new(true) }))
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let first = self.0.first.swap(false, Ordering::Relaxed);
        let (at, idle_at) =
            if first { (deadline, None) } else { (Instant::now() + self.0.idle, Some(self.0.counts.now().0)) };
        self.0.copy.begin();
        Box::pin(HeadSleep { shared: Arc::clone(&self.0), deadline: self.0.timer.at(at), idle_at })
    }
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.idle_at.is_some_and(|read| read != this.shared.counts.now().0) {
            this.idle_at = None;
            this.deadline.reset(Instant::now() + this.shared.header);
        }
        Pin::new(&mut this.deadline).poll(cx)
    }
}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        self.shared.copy.end();
    }
}

impl Sleep for HeadSleep {}
