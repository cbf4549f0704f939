//! Request bodies that can be sent again: what was read is kept, up to a limit, until the request
//! has arrived for good.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::BodyError;
use crate::relay::Interim;

/// Bytes kept of one body.
pub const RETAIN_BODY: usize = 64 * 1024;

/// Bytes kept of all bodies of the process.
pub const RETAIN_TOTAL: usize = 64 * 1024 * 1024;

/// A request body that each attempt reads from its start. Cheap to clone.
#[derive(Clone)]
pub struct Replay(Option<Arc<Mutex<State>>>);

struct State {
    body: super::Body,
    /// What was read, from the start.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// Bytes ever read.
    read: u64,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// More was asked for, and has not come: it is the sender that is waited for.
    awaited: bool,
    /// Nothing more is kept: the request has arrived, or the limit was reached.
    forgotten: bool,
    /// The body itself broke off.
    broke: bool,
    /// Which attempt may read.
    turn: u64,
    budget: Arc<AtomicUsize>,
    /// The client sends it when it is asked to, which is not before the request has arrived.
    waits: bool,
}

/// One attempt's reading of the body.
pub struct Attempt {
    state: Option<Arc<Mutex<State>>>,
    turn: u64,
    next: usize,
    /// The end, trailers included, was returned.
    done: bool,
    /// Where what comes before the answer is put.
    interim: Option<Interim>,
}

impl Replay {
    /// A replay of `body`; `budget` counts what all of them keep.
    pub fn new<B>(body: B, budget: &Arc<AtomicUsize>) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        if body.is_end_stream() {
            return Replay(None);
        }
        let body = body.map_err(Into::into).boxed_unsync();
        Replay(Some(Arc::new(Mutex::new(State {
            body,
            kept: Vec::new(),
            kept_bytes: 0,
            read: 0,
            trailers: None,
            ended: false,
            awaited: false,
            forgotten: false,
            broke: false,
            turn: 0,
            budget: Arc::clone(budget),
            waits: false,
        }))))
    }

    /// Whether the client waits for a 100 before it sends the body (RFC 9110 10.1.1): then nothing of
    /// it is read before the request has arrived.
    #[must_use]
    pub fn asked_for(self, waits: bool) -> Self {
        if waits && let Some(shared) = &self.0 {
            lock(shared).waits = true;
        }
        self
    }

    /// The body from its start; an earlier attempt can't read on. `None`: its start is gone.
    pub fn attempt(&self) -> Option<Attempt> {
        let Some(shared) = &self.0 else { return Some(Attempt::empty()) };
        let mut state = lock(shared);
        if state.forgotten {
            return None;
        }
        state.turn += 1;
        Some(Attempt { turn: state.turn, state: Some(Arc::clone(shared)), next: 0, done: false, interim: None })
    }

    /// The request has arrived: nothing is kept any more.
    pub fn forget(&self) {
        if let Some(shared) = &self.0 {
            lock(shared).forgotten = true;
        }
    }

    /// Another attempt could read it from its start.
    pub fn returns(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| !lock(shared).forgotten)
    }

    /// Bytes that were ever read of the body.
    pub fn read(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| lock(shared).read)
    }

    /// The body is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whoever sends the body is waited for; false where nobody reads what has come.
    pub fn awaited(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| lock(shared).awaited)
    }

    /// The body broke off: whoever sent it is to blame for what failed.
    pub fn broke(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| lock(shared).broke)
    }
}

impl Attempt {
    /// An attempt at a request without a body.
    pub fn empty() -> Self {
        Attempt { state: None, turn: 0, next: 0, done: true, interim: None }
    }

    /// Where interim responses go; without a place the host is not asked for them.
    #[must_use]
    pub fn interim(mut self, interim: Option<&Interim>) -> Self {
        self.interim = interim.cloned();
        self
    }

    /// Takes that place.
    pub(super) fn take_interim(&mut self) -> Option<Interim> {
        self.interim.take()
    }

    /// The request has no body.
    pub fn is_empty(&self) -> bool {
        self.state.is_none()
    }

    /// Whether another frame may be read without losing the way back. Who waits for `accepted`
    /// stops reading when this says no.
    pub fn has_room(&self) -> bool {
        let Some(shared) = &self.state else { return true };
        let state = lock(shared);
        self.next < state.kept.len() || state.ended || !state.forgotten && !state.waits && state.has_room()
    }

    /// This attempt has arrived: there is no way back, and only what it has not read is kept.
    #[must_use]
    pub fn commit(mut self) -> Self {
        if let Some(shared) = &self.state {
            let mut state = lock(shared);
            // An attempt that was taken over has nothing to give up.
            if state.turn == self.turn {
                state.forgotten = true;
                state.release(self.next);
                self.next = 0;
            }
        }
        self
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.kept_bytes < RETAIN_BODY && self.budget.load(Ordering::Relaxed) < RETAIN_TOTAL
    }

    fn keep(&mut self, data: &Bytes) {
        if self.forgotten {
            return;
        }
        // The piece that crosses the limit is still kept: who stops reading there can go back.
        if !self.has_room() {
            self.forgotten = true;
            self.release(self.kept.len());
            return;
        }
        self.budget.fetch_add(data.len(), Ordering::Relaxed);
        self.kept_bytes += data.len();
        self.kept.push(data.clone());
    }

    /// The attempt has read this many pieces; once there is no way back, they are let go. Returns
    /// the place of the next one.
    fn read_to(&mut self, next: usize) -> usize {
        if !self.forgotten {
            return next;
        }
        self.release(next);
        0
    }

    /// Gives the first pieces back to the budget. The attempt that reads is past them.
    fn release(&mut self, pieces: usize) {
        let bytes = self.kept.drain(..pieces.min(self.kept.len())).map(|data| data.len()).sum::<usize>();
        self.budget.fetch_sub(bytes, Ordering::Relaxed);
        self.kept_bytes -= bytes;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.awaited = polled.is_pending();
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let data = data.clone();
                    self.read += data.len() as u64;
                    self.keep(&data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.ended = true;
                    self.trailers = Some(trailers.clone());
                }
            }
            Poll::Ready(None) => self.ended = true,
            // A body that broke off can't be sent again.
            Poll::Ready(Some(Err(_))) => (self.forgotten, self.broke) = (true, true),
            Poll::Pending => {}
        }
        polled
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.release(self.kept.len());
    }
}

impl Body for Attempt {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(shared) = &this.state else { return Poll::Ready(None) };
        let mut state = lock(shared);
        if state.turn != this.turn {
            return Poll::Ready(Some(Err("another attempt took over".into())));
        }
        if let Some(data) = state.kept.get(this.next).cloned() {
            this.next = state.read_to(this.next + 1);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if this.done {
            return Poll::Ready(None);
        }
        if state.ended {
            this.done = true;
            return Poll::Ready(state.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = state.poll(cx);
        this.done = state.ended;
        let read = state.kept.len();
        this.next = state.read_to(read);
        polled
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.state else { return true };
        let state = lock(shared);
        self.done
            || self.next >= state.kept.len() && state.trailers.is_none() && (state.ended || state.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.state else { return SizeHint::with_exact(0) };
        let state = lock(shared);
        let unread = state.kept.iter().skip(self.next).map(|data| data.len() as u64).sum::<u64>();
        let rest = state.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + unread);
        // An exact size would say that nothing follows: trailers need a body that ends by itself.
        if let Some(upper) = rest.upper().filter(|_| state.trailers.is_none()) {
            hint.set_upper(upper + unread);
        }
        hint
    }
}

/// A body of nothing.
pub fn empty() -> super::Body {
    http_body_util::Empty::new().map_err(|never: std::convert::Infallible| match never {}).boxed_unsync()
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn chunks(chunks: &[usize], trailers: bool) -> impl Body<Data = Bytes, Error = BodyError> + Send + 'static {
        let mut frames: Vec<Result<Frame<Bytes>, BodyError>> =
            chunks.iter().map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; *size])))).collect();
        if trailers {
            frames.push(Ok(Frame::trailers(
                [(http::header::ETAG, http::HeaderValue::from_static("t"))].into_iter().collect(),
            )));
        }
        StreamBody::new(futures_util::stream::iter(frames))
    }

    #[tokio::test]
    async fn a_second_attempt_reads_everything_again() {
        let budget = Arc::new(AtomicUsize::new(0));
        let replay = Replay::new(chunks(&[10, 20], true), &budget);
        let mut first = replay.attempt().unwrap();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap().len(), 10);
        let second = replay.attempt().unwrap();
        assert!(first.frame().await.unwrap().is_err(), "the first attempt is over");
        let collected = second.collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap().len(), 1);
        assert_eq!(collected.to_bytes().len(), 30);
        let third = replay.attempt().unwrap();
        assert_eq!(third.size_hint().exact(), None, "trailers follow");
        let third = third.collect().await.unwrap();
        assert_eq!(third.trailers().unwrap().len(), 1);
        assert_eq!(third.to_bytes().len(), 30);
        drop((first, replay));
        assert_eq!(budget.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_long_body_is_forgotten_and_read_once() {
        let budget = Arc::new(AtomicUsize::new(0));
        let replay = Replay::new(chunks(&[RETAIN_BODY, 1, 7], false), &budget);
        let first = replay.attempt().unwrap();
        assert_eq!(first.collect().await.unwrap().to_bytes().len(), RETAIN_BODY + 8);
        assert!(replay.attempt().is_none());
        assert_eq!(budget.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_has_arrived_is_not_kept() {
        let budget = Arc::new(AtomicUsize::new(0));
        let replay = Replay::new(chunks(&[10, 20, 30], false), &budget);
        let _ = replay.attempt().unwrap().frame().await;
        let mut second = replay.attempt().unwrap();
        replay.forget();
        assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap().len(), 10);
        assert_eq!(second.collect().await.unwrap().to_bytes().len(), 50);
        assert_eq!(budget.load(Ordering::Relaxed), 0);
        assert!(replay.attempt().is_none());
    }

    #[tokio::test]
    async fn there_is_no_room_past_the_limit_and_the_way_back_stays() {
        let budget = Arc::new(AtomicUsize::new(0));
        let half = RETAIN_BODY / 2 + 1;
        let replay = Replay::new(chunks(&[half, half, half], true), &budget);
        let mut first = replay.attempt().unwrap();
        for _ in 0..2 {
            assert!(first.has_room());
            first.frame().await.unwrap().unwrap();
        }
        assert!(!first.has_room());
        let mut second = replay.attempt().unwrap();
        assert!(second.has_room(), "what is kept may be read");
        second.frame().await.unwrap().unwrap();
        let rest = second.commit();
        assert!(replay.attempt().is_none(), "it has arrived");
        assert_eq!(budget.load(Ordering::Relaxed), half, "only what is unread is kept");
        let rest = rest.collect().await.unwrap();
        assert_eq!(rest.trailers().unwrap().len(), 1);
        assert_eq!(rest.to_bytes().len(), 2 * half);
        assert_eq!(budget.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_full_budget_leaves_no_room_before_a_byte_is_read() {
        let budget = Arc::new(AtomicUsize::new(RETAIN_TOTAL));
        let replay = Replay::new(chunks(&[1], false), &budget);
        assert!(!replay.attempt().unwrap().has_room());
        let again = replay.attempt().unwrap().commit();
        assert_eq!(again.collect().await.unwrap().to_bytes().len(), 1);
        assert!(Attempt::empty().has_room() && Attempt::empty().is_end_stream());
    }
}
