//! A request's body that can be sent again while nobody has accepted it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::{Body, BodyError};

/// What one request may keep. The frame that crosses it is still kept, then reading stops.
pub const MAX_RETAINED: usize = 64 * 1024;
/// What all requests of the process may keep together; beyond, bodies are not read before they
/// are accepted, which costs a round trip and loses nothing.
pub const MAX_RETAINED_TOTAL: usize = 64 * 1024 * 1024;

static RETAINED: AtomicUsize = AtomicUsize::new(0);

/// Keeps what it has yielded until [`ReplayBody::commit`], so that a refused request can be sent
/// to another endpoint.
pub struct ReplayBody {
    inner: Option<Body>,
    kept: Vec<Piece>,
    /// How many of `kept` were yielded since the last rewind.
    yielded: usize,
    kept_bytes: usize,
    /// More was yielded than could be kept: no way back.
    overflowed: bool,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl Piece {
    fn of(frame: &Frame<Bytes>) -> Option<Self> {
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Some(Piece::Data(data.clone())),
            (_, Some(trailers)) => Some(Piece::Trailers(trailers.clone())),
            _ => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Piece::Data(data) => data.len(),
            // Bounded by whoever read it; counted so that it is not free.
            Piece::Trailers(trailers) => trailers.len() * 64,
        }
    }

    fn frame(self) -> Frame<Bytes> {
        match self {
            Piece::Data(data) => Frame::data(data),
            Piece::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

impl ReplayBody {
    /// Wraps a body of which nothing was read.
    pub fn new(body: Body) -> Self {
        ReplayBody { inner: Some(body), kept: Vec::new(), yielded: 0, kept_bytes: 0, overflowed: false }
    }

    /// Starts again from the first byte. False if it can't: committed, or more was read than kept.
    pub fn rewind(&mut self) -> bool {
        let possible = self.inner.is_some() && !self.overflowed;
        if possible {
            self.yielded = 0;
        }
        possible
    }

    /// Whether another frame may be read without losing the way back. Who waits for `accepted`
    /// stops reading when this says no.
    pub fn has_room(&self) -> bool {
        self.yielded < self.kept.len()
            || (self.kept_bytes < MAX_RETAINED && RETAINED.load(Ordering::Relaxed) < MAX_RETAINED_TOTAL)
    }

    /// Gives up the way back, and returns the part that was not yielded since the last rewind.
    pub fn commit(&mut self) -> Body {
        let kept = std::mem::take(&mut self.kept);
        let rest: VecDeque<Piece> = kept.into_iter().skip(self.yielded).collect();
        self.release();
        let Some(inner) = self.inner.take() else {
            return empty();
        };
        if rest.is_empty() { inner } else { Rest { kept: rest, inner }.boxed_unsync() }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let fits = self.kept_bytes < MAX_RETAINED && RETAINED.load(Ordering::Relaxed) < MAX_RETAINED_TOTAL;
        match Piece::of(frame) {
            Some(piece) if fits && !self.overflowed => {
                self.kept_bytes += piece.len();
                RETAINED.fetch_add(piece.len(), Ordering::Relaxed);
                self.kept.push(piece);
                self.yielded = self.kept.len();
            }
            _ => {
                self.overflowed = true;
                self.kept.clear();
                self.yielded = 0;
                self.release();
            }
        }
    }

    fn release(&mut self) {
        RETAINED.fetch_sub(self.kept_bytes, Ordering::Relaxed);
        self.kept_bytes = 0;
        self.yielded = 0;
    }
}

impl Drop for ReplayBody {
    fn drop(&mut self) {
        self.release();
    }
}

impl std::fmt::Debug for ReplayBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplayBody").field("kept_bytes", &self.kept_bytes).finish_non_exhaustive()
    }
}

impl http_body::Body for ReplayBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(piece) = this.kept.get(this.yielded) {
            this.yielded += 1;
            return Poll::Ready(Some(Ok(piece.clone().frame())));
        }
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.keep(frame);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.yielded >= self.kept.len() && self.inner.as_ref().is_none_or(|inner| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let kept: u64 = self.kept.iter().skip(self.yielded).map(data_len).sum();
        add(self.inner.as_ref().map(|inner| inner.size_hint()).unwrap_or_else(|| SizeHint::with_exact(0)), kept)
    }
}

/// What was kept and not yielded, then what was never read.
struct Rest {
    kept: VecDeque<Piece>,
    inner: Body,
}

impl http_body::Body for Rest {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.kept.pop_front() {
            return Poll::Ready(Some(Ok(piece.frame())));
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        add(self.inner.size_hint(), self.kept.iter().map(data_len).sum())
    }
}

fn data_len(piece: &Piece) -> u64 {
    match piece {
        Piece::Data(data) => data.len() as u64,
        Piece::Trailers(_) => 0,
    }
}

fn add(hint: SizeHint, more: u64) -> SizeHint {
    let mut sum = SizeHint::new();
    sum.set_lower(hint.lower().saturating_add(more));
    if let Some(upper) = hint.upper() {
        sum.set_upper(upper.saturating_add(more));
    }
    sum
}

/// A body of nothing.
pub fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never: std::convert::Infallible| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    fn body(parts: &[&[u8]]) -> Body {
        let frames: Vec<Result<Frame<Bytes>, BodyError>> =
            parts.iter().map(|part| Ok(Frame::data(Bytes::copy_from_slice(part)))).collect();
        StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
    }

    async fn text(body: Body) -> Vec<u8> {
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn rewinding_gives_the_whole_body_again() {
        let mut replay = ReplayBody::new(body(&[b"one", b"two", b"three"]));
        for _ in 0..3 {
            for part in [&b"one"[..], b"two"] {
                let frame = replay.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), part);
            }
            assert!(replay.rewind());
        }
        assert_eq!(text(replay.commit()).await, b"onetwothree");
        assert!(!replay.rewind(), "committed");
    }

    #[tokio::test]
    async fn committing_gives_only_what_was_not_yielded() {
        let mut replay = ReplayBody::new(body(&[b"one", b"two", b"three"]));
        replay.frame().await.unwrap().unwrap();
        replay.frame().await.unwrap().unwrap();
        assert!(replay.rewind());
        replay.frame().await.unwrap().unwrap();
        assert_eq!(text(replay.commit()).await, b"twothree");
    }

    #[tokio::test]
    async fn there_is_no_room_and_then_no_way_back_past_the_limit() {
        let half = vec![1; MAX_RETAINED / 2 + 1];
        let mut replay = ReplayBody::new(body(&[&half, &half, &half]));
        assert!(replay.has_room());
        replay.frame().await.unwrap().unwrap();
        assert!(replay.has_room());
        replay.frame().await.unwrap().unwrap();
        assert!(!replay.has_room());
        assert!(replay.rewind(), "the frame that crosses the limit is kept");
        for _ in 0..3 {
            replay.frame().await.unwrap().unwrap();
        }
        assert!(!replay.rewind(), "who reads on without room loses the way back");
    }
}
