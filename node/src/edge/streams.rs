//! The streams of one HTTP/2 connection: how many are in use, which of them stand still, and how
//! many were asked for in vain.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio_util::sync::CancellationToken;

use super::worker::Worker;
use crate::proxy::ResponseBody;
use crate::timer::{CoarseTimer, Deadline};
use crate::tunnel::BodyError;

/// Requests that may break off before they were answered, beyond those that were. Who is reset by
/// an error of its own making (MadeYouReset, CVE-2025-8671) has its request dropped as well, so that
/// nothing but the number of requests begun tells it from a client.
const IN_VAIN: i64 = 256;

/// A connection's streams.
pub struct Streams {
    /// In use: a request is answered, or its answer's body is sent.
    pub open: AtomicUsize,
    /// When one was last in use, in nanoseconds of the context's clock.
    pub last: AtomicU64,
    /// Requests that may still break off.
    patience: AtomicI64,
    /// Too many have.
    pub abused: CancellationToken,
}

impl Streams {
    /// Of a connection that begins now.
    pub fn new(now: u64) -> Arc<Self> {
        Arc::new(Streams {
            open: AtomicUsize::new(0),
            last: AtomicU64::new(now),
            patience: AtomicI64::new(IN_VAIN),
            abused: CancellationToken::new(),
        })
    }

    fn ended(&self, answered: bool) {
        if answered {
            let _ = self
                .patience
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left < IN_VAIN).then_some(left + 1));
        } else if self.patience.fetch_sub(1, Ordering::Relaxed) <= 1 {
            self.abused.cancel();
        }
    }
}

/// A stream in use.
pub struct Busy {
    streams: Arc<Streams>,
    pub(super) worker: Arc<Worker>,
    answered: bool,
}

impl Busy {
    /// One more.
    pub fn new(streams: &Arc<Streams>, worker: &Arc<Worker>) -> Self {
        streams.open.fetch_add(1, Ordering::Relaxed);
        Busy { streams: Arc::clone(streams), worker: Arc::clone(worker), answered: false }
    }

    /// It has its answer.
    pub fn answered(mut self) -> Self {
        self.answered = true;
        self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.streams.open.fetch_sub(1, Ordering::Relaxed);
        self.streams.last.store(self.worker.local.context().clock.now(), Ordering::Relaxed);
        self.streams.ended(self.answered);
    }
}

tokio::task_local! {
    /// The stream whose task this is.
    static STREAM: Arc<Flow>;
}

/// How a stream's answer flows.
#[derive(Default)]
struct Flow {
    /// What was given to the codec was not taken yet: it waits for the client.
    waits: AtomicBool,
    /// Pieces that were asked for.
    asked: AtomicUsize,
}

/// An answer's body on its way into the codec.
pub struct Sent {
    body: ResponseBody,
    flow: Option<Arc<Flow>>,
    _busy: Option<Busy>,
}

impl Sent {
    /// A body; the stream is in use until its end.
    pub fn new(body: ResponseBody, busy: Option<Busy>) -> Self {
        let flow = STREAM.try_with(Arc::clone).ok();
        if let Some(flow) = &flow {
            // The codec asks for the first piece once the client takes it.
            flow.waits.store(true, Ordering::Relaxed);
        }
        Sent { body, flow, _busy: busy }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(flow) = &self.flow {
            flow.asked.fetch_add(1, Ordering::Relaxed);
            flow.waits.store(polled.is_ready(), Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Spawns the tasks of a connection. One whose client takes nothing of its answer for `limit` ends,
/// which resets its stream and frees what it holds.
#[derive(Clone)]
pub struct Impatient {
    /// The thread's timers.
    pub timer: CoarseTimer,
    /// How long a client may take nothing.
    pub limit: Duration,
}

impl<F> Executor<F> for Impatient
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let flow = Arc::<Flow>::default();
        let watched = Watched {
            task: Box::pin(task),
            flow: Arc::clone(&flow),
            asked: 0,
            deadline: None,
            timer: self.timer.clone(),
            limit: self.limit,
        };
        tokio::spawn(STREAM.scope(flow, watched));
    }
}

struct Watched<F> {
    task: Pin<Box<F>>,
    flow: Arc<Flow>,
    asked: usize,
    deadline: Option<Deadline>,
    timer: CoarseTimer,
    limit: Duration,
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !this.flow.waits.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let asked = this.flow.asked.load(Ordering::Relaxed);
        let deadline = this.deadline.get_or_insert_with(|| this.timer.after(this.limit));
        if this.asked != asked {
            this.asked = asked;
            deadline.push(this.limit);
        }
        Pin::new(deadline).poll(cx)
    }
}
