//! Bodies on their way to a pod and back.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::Pool;
use crate::h1;
use crate::proxy::{clean, poll_h2};
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

/// The client broke off. A pod that speaks HTTP/2 is told so, whatever the client speaks and the way
/// that the request came: the codec takes the reason from the source.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
struct Cancelled {
    why: BodyError,
    source: h2::Error,
}

impl Cancelled {
    fn of(why: BodyError) -> BodyError {
        Cancelled { why, source: h2::Reason::CANCEL.into() }.into()
    }
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
            RequestBody::Attempt(body) => clean(Pin::new(body).poll_frame(cx)).map_err(Cancelled::of),
            RequestBody::Other(body) => clean(Pin::new(body).poll_frame(cx)).map_err(Cancelled::of),
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

/// An answer's body. Holds its connection until its end: then an HTTP/1 connection goes back to
/// its pool, if it may be used again. Dropped before, it is closed.
pub struct PooledBody(Inner);

enum Inner {
    H1 { incoming: h1::Incoming<TcpStream, RequestBody>, pool: Pool, address: SocketAddr },
    H2 { incoming: Incoming, stream: Option<Stream> },
    None,
}

impl PooledBody {
    pub(super) fn h1(incoming: h1::Incoming<TcpStream, RequestBody>, pool: Pool, address: SocketAddr) -> Self {
        PooledBody::new(Inner::H1 { incoming, pool, address })
    }

    pub(super) fn h2(incoming: Incoming, stream: Stream) -> Self {
        PooledBody::new(Inner::H2 { incoming, stream: Some(stream) })
    }

    /// No body, of no connection.
    pub(super) fn none() -> Self {
        PooledBody(Inner::None)
    }

    fn new(inner: Inner) -> Self {
        let mut body = PooledBody(inner);
        if body.is_end_stream() {
            body.ended();
        }
        body
    }

    fn ended(&mut self) {
        match &mut self.0 {
            Inner::H1 { incoming, pool, address } => {
                if let Some(connection) = incoming.into_idle() {
                    pool.checkin(*address, connection);
                }
            }
            Inner::H2 { stream, .. } => *stream = None,
            Inner::None => {}
        }
    }

    /// Goes on with sending the request, where the answer came before its end and is not asked for
    /// more just now.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Inner::H1 { incoming, .. } = &mut self.0 {
            // What is wrong comes out when the answer is read on.
            let _ = incoming.poll_upload(cx);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.0 {
            Inner::H1 { incoming, .. } => Pin::new(incoming).poll_frame(cx),
            Inner::H2 { incoming, .. } => poll_h2(incoming, cx),
            Inner::None => Poll::Ready(None),
        };
        match &polled {
            Poll::Ready(None | Some(Err(_))) => self.ended(),
            Poll::Ready(Some(Ok(_))) if self.is_end_stream() => self.ended(),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::H1 { incoming, .. } => incoming.is_end_stream(),
            Inner::H2 { incoming, .. } => incoming.is_end_stream(),
            Inner::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::H1 { incoming, .. } => incoming.size_hint(),
            Inner::H2 { incoming, .. } => incoming.size_hint(),
            Inner::None => SizeHint::with_exact(0),
        }
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
