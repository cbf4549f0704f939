//! Request bodies that others watch: their bytes are counted for the log, and copied for mirrors.
//!
//! A copy is read at its reader's own pace, behind a queue of bounded size. Who falls further
//! behind loses the copy; the client's request never waits.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::lock;
use crate::tunnel::BodyError;

/// Bytes that a copy may be behind.
pub const MAX_LAG: usize = 256 * 1024;

/// A body that is watched.
pub struct Watched<B> {
    inner: B,
    copies: Vec<Writer>,
    count: Option<Arc<AtomicU64>>,
}

/// The end of a copy that is written.
struct Writer(Arc<Mutex<State>>);

/// A copy of a body.
pub struct Copy(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    end: Option<End>,
    /// What is still to be read, where the body's length was known.
    left: Option<u64>,
    reader: Option<Waker>,
    reader_gone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The body ended.
    Whole,
    /// The body broke off, or was not read to its end.
    Broken,
    /// The reader was too slow.
    Lagged,
}

impl<B: Body> Watched<B> {
    /// Watches `inner`: `count` grows with each byte that is read of it.
    pub fn new(inner: B, count: Option<Arc<AtomicU64>>) -> Self {
        Watched { inner, copies: Vec::new(), count }
    }

    /// One more copy.
    pub fn copy(&mut self) -> Copy {
        let left = self.inner.size_hint().exact();
        let state = Arc::new(Mutex::new(State { left, ..State::default() }));
        self.copies.push(Writer(Arc::clone(&state)));
        Copy(state)
    }
}

impl Copy {
    /// Of a body without bytes.
    pub fn empty() -> Self {
        Copy(Arc::new(Mutex::new(State { end: Some(End::Whole), left: Some(0), ..State::default() })))
    }

    /// Tells later whether the copy was lost because it was read too slowly.
    pub fn lagged(&self) -> impl Fn() -> bool + Send + 'static + use<> {
        let state = Arc::clone(&self.0);
        move || lock(&state).end == Some(End::Lagged)
    }
}

impl Writer {
    /// False once nobody reads any more.
    fn push(&self, data: &Bytes) -> bool {
        let mut state = lock(&self.0);
        if state.reader_gone || state.end.is_some() {
            return false;
        }
        if state.bytes + data.len() > MAX_LAG {
            state.queue.clear();
            state.bytes = 0;
            state.finish(End::Lagged);
            return false;
        }
        state.bytes += data.len();
        state.queue.push_back(data.clone());
        state.wake();
        true
    }
}

impl State {
    fn finish(&mut self, end: End) {
        self.end = self.end.or(Some(end));
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.0).finish(End::Broken);
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.reader_gone = true;
        state.queue.clear();
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    if let Some(count) = &self.count {
                        count.fetch_add(data.len() as u64, Ordering::Relaxed);
                    }
                    self.copies.retain(|copy| copy.push(data));
                }
                // Trailers are not copied: nobody reads the answer that may depend on them.
                if frame.is_trailers() || self.inner.is_end_stream() {
                    self.copies.drain(..).for_each(|copy| lock(&copy.0).finish(End::Whole));
                }
            }
            Poll::Ready(None) => self.copies.drain(..).for_each(|copy| lock(&copy.0).finish(End::Whole)),
            Poll::Ready(Some(Err(_))) => self.copies.clear(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Body for Copy {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = lock(&self.0);
        if let Some(data) = state.queue.pop_front() {
            state.bytes -= data.len();
            state.left = state.left.map(|left| left.saturating_sub(data.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match state.end {
            Some(End::Whole) => Poll::Ready(None),
            Some(End::Broken) => Poll::Ready(Some(Err("the request that is copied broke off".into()))),
            Some(End::Lagged) => Poll::Ready(Some(Err("the copy is too far behind".into()))),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.0);
        state.queue.is_empty() && state.end == Some(End::Whole)
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn chunks(sizes: &[usize]) -> impl Body<Data = Bytes, Error = BodyError> + Unpin {
        let frames: Vec<Result<Frame<Bytes>, BodyError>> =
            sizes.iter().map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; *size])))).collect();
        StreamBody::new(futures_util::stream::iter(frames))
    }

    #[tokio::test]
    async fn copies_get_what_the_first_reader_gets() {
        let count = Arc::new(AtomicU64::new(0));
        let mut watched = Watched::new(chunks(&[10, 20, 30]), Some(Arc::clone(&count)));
        let copies = [watched.copy(), watched.copy()];
        let abandoned = watched.copy();
        drop(abandoned);
        assert_eq!(watched.collect().await.unwrap().to_bytes().len(), 60);
        assert_eq!(count.load(Ordering::Relaxed), 60);
        for copy in copies {
            assert_eq!(copy.collect().await.unwrap().to_bytes().len(), 60);
        }
    }

    #[tokio::test]
    async fn a_copy_that_lags_is_lost_and_nobody_waits() {
        let mut watched = Watched::new(chunks(&[MAX_LAG, 1, 1]), None);
        let copy = watched.copy();
        let lagged = copy.lagged();
        assert_eq!(watched.collect().await.unwrap().to_bytes().len(), MAX_LAG + 2);
        assert!(copy.collect().await.is_err());
        assert!(lagged());
    }

    #[tokio::test]
    async fn a_body_that_is_not_read_to_its_end_is_no_whole_copy() {
        let mut watched = Watched::new(chunks(&[10, 20]), None);
        let mut copy = watched.copy();
        assert!(copy.frame().now_or_never().is_none());
        watched.frame().await.unwrap().unwrap();
        drop(watched);
        assert_eq!(copy.frame().await.unwrap().unwrap().into_data().unwrap().len(), 10);
        assert!(copy.frame().await.unwrap().is_err());
    }
}
