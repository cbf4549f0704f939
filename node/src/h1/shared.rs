//! A client's connection, as the task that serves it and the body of its request see it. The body
//! may be read by another task (of an HTTP/2 connection, of a tunnel); the lock is for that, and
//! nobody holds it across a wait.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::BodyError;
use super::body::Source;
use super::decode::{Decoded, Decoder};
use super::framing::Framing;
use super::input::poll_fill;
use super::out::Out;

/// Bytes of a read while a head is waited for.
pub(super) const READ_HEAD: usize = 8 * 1024;

/// Bytes of a read while a body is waited for.
const READ_BODY: usize = 32 * 1024;

/// What a client that waits before it sends a body is told (RFC 9110 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's connection.
pub(super) struct Shared<S>(Mutex<Inner<S>>);

/// What the lock is around.
pub(super) struct Inner<S> {
    pub(super) stream: S,
    pub(super) input: BytesMut,
    pub(super) out: Out,
    /// Reads the body of the request that is served.
    pub(super) body: Decoder,
    /// Which request that is: a body of an earlier one reads nothing.
    pub(super) turn: u64,
    /// The client waits for a 100 before it sends the body.
    pub(super) expects: bool,
    /// The client has said its last byte.
    pub(super) ended: bool,
    /// Nobody will read the body any more.
    pub(super) abandoned: bool,
    /// The connection's task, to be woken once the body was read and it must watch the client.
    pub(super) waiting: Option<Waker>,
}

impl<S> Shared<S> {
    pub(super) fn new(stream: S, input: BytesMut) -> Self {
        Shared(Mutex::new(Inner {
            stream,
            input,
            out: Out::default(),
            body: Decoder::new(Framing::None),
            turn: 0,
            expects: false,
            ended: false,
            abandoned: false,
            waiting: None,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_inner(self) -> Inner<S> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    /// Reads once into the input; an end is noted.
    pub(super) fn poll_fill(&mut self, size: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = ready!(poll_fill(&mut self.stream, &mut self.input, size, cx));
        self.ended |= matches!(read, Ok(0));
        Poll::Ready(read)
    }

    /// Writes all that waits.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_write(&mut self.stream, cx)
    }

    /// The next piece of the request's body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self.body.decode(&mut self.input) {
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Decoded::More) => {}
            }
            if std::mem::take(&mut self.expects) {
                self.out.buffer().extend_from_slice(CONTINUE);
                // Only the connection's task writes: a socket knows one task that waits to write.
                if let Some(waiting) = self.waiting.take() {
                    waiting.wake();
                }
            }
            match ready!(self.poll_fill(READ_BODY, cx)) {
                Ok(0) => {
                    if let Err(error) = self.body.end_of_input() {
                        return Poll::Ready(Some(Err(error.into())));
                    }
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Source for Shared<S> {
    fn poll_frame(&self, turn: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut inner = self.lock();
        if inner.turn != turn {
            return Poll::Ready(Some(Err("the request has been answered".into())));
        }
        let polled = inner.poll_body(cx);
        if inner.body.is_done()
            && let Some(waiting) = inner.waiting.take()
        {
            waiting.wake();
        }
        polled
    }

    fn abandon(&self, turn: u64) {
        let mut inner = self.lock();
        if inner.turn == turn && !inner.body.is_done() {
            inner.abandoned = true;
            if let Some(waiting) = inner.waiting.take() {
                waiting.wake();
            }
        }
    }

    fn size_hint(&self, turn: u64) -> SizeHint {
        let inner = self.lock();
        if inner.turn == turn { inner.body.size_hint() } else { SizeHint::new() }
    }

    fn is_end(&self, turn: u64) -> bool {
        let inner = self.lock();
        inner.turn == turn && inner.body.is_done()
    }
}
