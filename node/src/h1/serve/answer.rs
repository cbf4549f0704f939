//! Writes answers.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONNECTION;
use http::{Method, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::wait::DRAINED;
use super::{Server, Service};
use crate::h1::encode::{self, Encoder, Wire};
use crate::h1::framing;
use crate::h1::prefixed::Prefixed;
use crate::h1::{AnswerBody, BodyError, Refused, Upgraded};
use crate::relay;

/// An answer on its way.
struct Writing<B> {
    body: B,
    encoder: Encoder,
    ended: bool,
    /// Why the body broke off: what was queued before is written, and nothing behind it.
    broken: Option<BodyError>,
}

/// How far an answer has come.
enum Step {
    /// All that is there was queued; the body gives no more for now.
    Waits,
    /// There is no more room.
    Full,
    /// That was all.
    Ended,
}

/// The stream that an answer switches to.
pub(super) fn upgraded<B>(response: &Response<B>) -> Option<Upgraded> {
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    response.extensions().get::<Upgraded>().filter(|_| switches).cloned()
}

impl<S, V> Server<'_, S, V>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: Service,
{
    /// Answers what is no request, and ends the connection.
    pub(super) async fn refuse(&mut self, refused: Refused) -> io::Result<()> {
        let response = self.service.refuse(refused);
        let mut wire = Wire { method: Method::GET, version: Version::HTTP_11, keep: false };
        self.write(response, &mut wire).await?;
        self.end(true).await
    }

    /// Writes an answer. Returns whether the connection lives on; if not, it has ended.
    pub(super) async fn answer(&mut self, response: Response<V::Body>, mut wire: Wire) -> io::Result<bool> {
        let asked_to_close = !wire.keep;
        wire.keep = wire.keep
            && !framing::has_token(response.headers(), CONNECTION, b"close")
            && !self.service.leaves()
            && !self.settings.closing.is_closed()
            && self.may_keep();
        self.write(response, &mut wire).await?;
        let (read, quiet) = {
            let mut inner = self.shared.lock();
            let read = inner.body.is_done();
            if !read {
                // A body that somebody still holds reads no more.
                inner.turn += 1;
            }
            (read, inner.input.is_empty())
        };
        if wire.keep && (read || self.drain().await) {
            return Ok(true);
        }
        self.end(!(read && quiet && asked_to_close)).await?;
        Ok(false)
    }

    /// Whether another request can follow, as far as the rest of this one is known.
    fn may_keep(&self) -> bool {
        let inner = self.shared.lock();
        if inner.body.is_done() {
            return !inner.ended || !inner.input.is_empty();
        }
        // Nobody will read it any more: only a short rest is worth the wait.
        let dropped = Arc::strong_count(&self.shared) == 1;
        let long = inner.body.size_hint().exact().is_some_and(|left| left > DRAINED);
        !(inner.expects || dropped && long)
    }

    /// Writes an answer's head and body.
    async fn write(&mut self, response: Response<V::Body>, wire: &mut Wire) -> io::Result<()> {
        let (parts, body) = response.into_parts();
        let (empty, exact) = (body.is_end_stream(), body.size_hint().exact());
        let encoder = {
            let mut inner = self.shared.lock();
            // Too late for a 100.
            inner.expects = false;
            encode::response(&parts, empty, exact, wire, &mut inner.out)
        };
        drop(parts);
        let mut writing = Writing { ended: encoder.is_full(), body, encoder, broken: None };
        self.deadline.push(self.settings.idle_timeout);
        poll_fn(|cx| self.poll_writing(&mut writing, cx)).await
    }

    fn poll_writing(&mut self, writing: &mut Writing<V::Body>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // The lock is not held while the body is asked: it may read this connection's request.
            let step = self.queue(writing, cx).unwrap_or_else(|error| {
                (writing.broken, writing.ended) = (Some(error), true);
                Step::Ended
            });
            let mut inner = self.shared.lock();
            let before = inner.out.total;
            let written = inner.poll_write(cx);
            let (progress, ended) = (inner.out.total > before, inner.ended);
            drop(inner);
            if progress {
                let patience = if ended { self.settings.half_closed } else { self.settings.idle_timeout };
                self.deadline.push(patience);
            }
            match (written, step) {
                (Poll::Ready(Err(error)), _) => return Poll::Ready(Err(error)),
                (Poll::Ready(Ok(())), Step::Ended) => {
                    return Poll::Ready(writing.broken.take().map_or(Ok(()), |error| Err(io::Error::other(error))));
                }
                (Poll::Ready(Ok(())), Step::Full) => {}
                (Poll::Ready(Ok(())), Step::Waits) => return self.poll_client(cx),
                (Poll::Pending, _) => {
                    writing.body.poll_upload(cx);
                    let late = std::future::Future::poll(Pin::new(&mut self.deadline), cx);
                    return late.map(|()| Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }

    /// The body gives nothing for now: the client is watched.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let gone = self.shared.lock().poll_gone(&mut self.deadline, self.settings.half_closed, cx);
        gone.map(|()| Err(io::ErrorKind::ConnectionAborted.into()))
    }

    /// Queues what the body gives, as far as there is room.
    fn queue(&self, writing: &mut Writing<V::Body>, cx: &mut Context<'_>) -> Result<Step, BodyError> {
        loop {
            if writing.ended {
                return Ok(Step::Ended);
            }
            if !self.shared.lock().out.has_room() {
                return Ok(Step::Full);
            }
            match Pin::new(&mut writing.body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => {
                    let frame = frame?;
                    writing.ended = writing.encoder.frame(frame, &mut self.shared.lock().out)?;
                }
                Poll::Ready(None) => {
                    writing.encoder.end(&mut self.shared.lock().out)?;
                    writing.ended = true;
                }
                Poll::Pending => return Ok(Step::Waits),
            }
        }
    }

    /// Writes a 101 and copies both ways until both ends are closed.
    pub(super) async fn upgrade(
        self,
        response: Response<V::Body>,
        mut wire: Wire,
        upgraded: Upgraded,
    ) -> io::Result<()> {
        let (parts, body) = response.into_parts();
        encode::response(&parts, true, None, &mut wire, &mut self.shared.lock().out);
        poll_fn(|cx| self.shared.lock().poll_write(cx)).await?;
        let Some(shared) = Arc::into_inner(self.shared) else { return Ok(()) };
        let inner = shared.into_inner();
        let client = Prefixed { prefix: inner.input, inner: inner.stream };
        let copied = relay::copy(client, &upgraded, self.settings.timer, relay::IDLE).await;
        // The exchange lasts as long as the streams do.
        drop(body);
        copied
    }
}
