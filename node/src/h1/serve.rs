//! Serves a client's connection: head, answer, head, answer, until one side ends it.

mod answer;
mod wait;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::header::EXPECT;
use http::{Request, Response, Version, request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::decode::Decoder;
use super::encode::Wire;
use super::framing::{self, Framing};
use super::shared::{Inner, READ_HEAD, Shared};
use super::{AnswerBody, Body, Closing, Interim, Refused};
use crate::timer::{CoarseTimer, Deadline};

/// Bytes that a client may send ahead while it is answered.
const AHEAD: usize = 16 * 1024;

/// What answers requests.
pub trait Service: Sync {
    /// The bodies of answers.
    type Body: AnswerBody;

    /// Answers a request. Dropped, if the client has gone.
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Answers what is no request.
    fn refuse(&self, refused: Refused) -> Response<Self::Body>;

    /// The connection shall end with the answer whose head is being written.
    fn leaves(&self) -> bool;
}

/// Times of a connection, and what it works with.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The thread's timers.
    pub timer: &'a CoarseTimer,
    /// From the first byte of a request's head to its last; also for the first request's, from the
    /// connection's start on.
    pub header_timeout: Duration,
    /// How long a connection may be idle between requests, and how long a client may take nothing
    /// of what is written to it.
    pub idle_timeout: Duration,
    /// How long a connection may take to begin its first request once `closing` was cancelled.
    pub last_words: Duration,
    /// How long a client that has closed its side is served without a byte going out: it may have
    /// closed the other side as well, which can't be seen.
    pub half_closed: Duration,
    /// What runs is finished, nothing new is begun.
    pub closing: &'a Closing,
    /// Where interim responses for this connection's request are put.
    pub interim: &'a Interim,
}

/// A connection that is served.
struct Server<'a, S, V> {
    shared: Arc<Shared<S>>,
    service: &'a V,
    settings: Settings<'a>,
    /// The connection's one deadline; means something else in each phase.
    deadline: Deadline,
    /// Requests were served.
    served: bool,
    /// The end of the listener wakes this connection's task.
    watches: bool,
}

/// What came instead of a head.
enum Head {
    Request(request::Parts),
    Refused(Refused),
    /// The connection has ended, or shall end without a word.
    End,
}

/// Serves a connection to its end. `input` was read from it already.
///
/// # Errors
/// The connection broke.
pub async fn serve<S, V>(stream: S, input: BytesMut, settings: Settings<'_>, service: &V) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: Service,
{
    let deadline = settings.timer.after(settings.header_timeout);
    let shared = Arc::new(Shared::new(stream, input));
    let mut closing = pin!(settings.closing.closed());
    let mut server = Server { shared, service, settings: settings.clone(), deadline, served: false, watches: false };
    loop {
        let parts = match server.head(closing.as_mut()).await? {
            Head::End => return server.end(false).await,
            Head::Refused(refused) => return server.refuse(refused).await,
            Head::Request(parts) => parts,
        };
        let framing = framing::of_request(parts.version, &parts.headers);
        let keep = framing != Framing::Unknown && framing::keeps_alive(parts.version, &parts.headers);
        let wire = Wire { method: parts.method.clone(), version: parts.version, keep };
        let Some(response) = server.respond(parts, framing).await? else { return Ok(()) };
        if let Some(upgraded) = answer::upgraded(&response) {
            return server.upgrade(response, wire, upgraded).await;
        }
        if !server.answer(response, wire).await? {
            return Ok(());
        }
        server.served = true;
    }
}

impl<S, V> Server<'_, S, V>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: Service,
{
    /// Asks the service, while the client is watched. `None`: the client has gone.
    async fn respond(&mut self, parts: request::Parts, framing: Framing) -> io::Result<Option<Response<V::Body>>> {
        let (body, version) = (self.begin(&parts, framing), parts.version);
        let mut answer = pin!(self.service.call(Request::from_parts(parts, body)));
        let Server { shared, settings, deadline, .. } = self;
        if shared.lock().ended {
            deadline.push(settings.half_closed);
        }
        poll_fn(|cx| {
            let answered = answer.as_mut().poll(cx);
            let mut inner = shared.lock();
            // In order: those that came with the answer are queued before it.
            while let Some((status, headers)) = settings.interim.take() {
                if version == Version::HTTP_11 {
                    super::encode::interim(status, &headers, &mut inner.out);
                }
            }
            if let Poll::Ready(response) = answered {
                return Poll::Ready(Ok(Some(response)));
            }
            if !inner.out.is_empty()
                && let Poll::Ready(Err(error)) = inner.poll_write(cx)
            {
                return Poll::Ready(Err(error));
            }
            inner.poll_gone(deadline, settings.half_closed, cx).map(|()| Ok(None))
        })
        .await
    }

    /// Makes the connection read the request's body when it is asked for.
    fn begin(&mut self, parts: &request::Parts, framing: Framing) -> Body {
        self.settings.interim.begin();
        let mut inner = self.shared.lock();
        if framing == Framing::None {
            return Body::empty();
        }
        inner.turn += 1;
        inner.abandoned = false;
        inner.body = Decoder::new(framing);
        let continues = framing::has_token(&parts.headers, EXPECT, b"100-continue");
        inner.expects = continues && parts.version == Version::HTTP_11 && inner.input.is_empty();
        let turn = inner.turn;
        drop(inner);
        Body::of(Arc::clone(&self.shared) as Arc<_>, turn)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    /// Watches a client that waits for its answer; ready once it has gone. A client that has only
    /// closed its side is waited for as long as `half_closed`.
    fn poll_gone(&mut self, deadline: &mut Deadline, half_closed: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if !self.body.is_done() && !self.abandoned {
            // Whoever reads the body sees the client's end.
            if !self.waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                self.waiting = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        while !self.ended && self.input.len() < AHEAD {
            match self.poll_fill(READ_HEAD, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(0)) => deadline.push(half_closed),
                Poll::Ready(Ok(_)) => {}
            }
        }
        if self.ended { Pin::new(deadline).poll(cx) } else { Poll::Pending }
    }
}
