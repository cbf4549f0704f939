//! Bodies on their way to a pod and back.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{H1, Pool};
use crate::proxy::clean;
use crate::tunnel::{self, Attempt, BodyError};

/// A request's body.
pub enum RequestBody {
    /// None.
    Empty,
    /// Of a client.
    Attempt(Attempt),
    /// Of another peer.
    Other(tunnel::Body),
}

impl From<Attempt> for RequestBody {
    fn from(attempt: Attempt) -> Self {
        if attempt.is_empty() { RequestBody::Empty } else { RequestBody::Attempt(attempt) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Attempt(body) => clean(Pin::new(body).poll_frame(cx)),
            RequestBody::Other(body) => clean(Pin::new(body).poll_frame(cx)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Attempt(body) => body.is_end_stream(),
            RequestBody::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Attempt(body) => body.size_hint(),
            RequestBody::Other(body) => body.size_hint(),
        }
    }
}

/// What is held while an answer is read.
pub(super) enum Held {
    /// An HTTP/1 connection goes back to its pool when the answer was read to its end, else it
    /// is closed.
    H1(Pool, SocketAddr, H1),
    /// A stream of an HTTP/2 connection.
    H2 {
        /// Counts until dropped.
        _stream: Stream,
    },
}

/// Counts in a connection's streams while it lives.
pub(super) struct Stream(Arc<AtomicUsize>);

impl Stream {
    pub(super) fn open(streams: Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Stream(streams)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body. Holds its connection until its end.
pub struct PooledBody {
    incoming: Incoming,
    held: Option<Held>,
}

impl PooledBody {
    pub(super) fn new(incoming: Incoming, held: Held) -> Self {
        let mut body = PooledBody { incoming, held: Some(held) };
        if body.incoming.is_end_stream() {
            body.ended();
        }
        body
    }

    fn ended(&mut self) {
        if let Some(Held::H1(pool, address, connection)) = self.held.take() {
            pool.checkin(address, connection);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.ended(),
            Poll::Ready(Some(Ok(_))) if self.incoming.is_end_stream() => self.ended(),
            Poll::Ready(Some(Err(_))) => self.held = None,
            _ => {}
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use http::{HeaderMap, HeaderValue};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::tunnel::Replay;

    fn with_trailers() -> tunnel::Body {
        let mut trailers = HeaderMap::new();
        for name in ["x-sum", "authorization", "x-forwarded-for", "content-length"] {
            trailers.insert(name, HeaderValue::from_static("7"));
        }
        let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok::<_, BodyError>(Frame::trailers(trailers))];
        StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
    }

    #[tokio::test]
    async fn trailers_bring_a_pod_nothing_that_belongs_in_a_head() {
        let replay = Replay::new(with_trailers(), &Arc::new(AtomicUsize::new(0)));
        for body in [RequestBody::Attempt(replay.attempt().unwrap()), RequestBody::Other(with_trailers())] {
            let collected = body.collect().await.unwrap();
            let names: Vec<_> = collected.trailers().unwrap().keys().collect();
            assert_eq!(names, ["x-sum"]);
        }
    }
}
