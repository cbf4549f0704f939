//! The answer's body on its way to the client. Its end is the end of the exchange.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::clean;
use super::exchange::{Exchange, InFlight};
use super::pool::PooledBody;
use crate::h1::AnswerBody;
use crate::relay::Copied;
use crate::timer::Deadline;
use crate::tunnel::{self, BodyError};

/// An answer's body.
pub struct ResponseBody {
    inner: Inner,
    exchange: Option<Exchange>,
    in_flight: Option<InFlight>,
    deadline: Option<Deadline>,
    idle: Option<(Duration, Deadline)>,
    /// Bytes that must still come, where the head said how many: whoever writes the answer does
    /// not read on behind the last one.
    left: Option<u64>,
}

/// Where the bytes come from.
pub enum Inner {
    /// From the proxy itself.
    Own(Bytes),
    /// From a pod.
    Pooled(PooledBody),
    /// Through the tunnel.
    Remote(tunnel::Body),
    /// From nowhere: behind the head is another protocol, whose bytes are counted here.
    Switched(Arc<Copied>),
}

/// What an answer's body ends when it ends.
pub(super) struct Guards {
    /// The exchange.
    pub exchange: Exchange,
    /// The endpoint's load.
    pub in_flight: InFlight,
    /// When the body must have ended.
    pub deadline: Option<Deadline>,
    /// How long the backend may be silent, and until when.
    pub idle: Option<(Duration, Deadline)>,
}

impl ResponseBody {
    /// A body of the proxy itself.
    pub(super) fn own(bytes: Bytes, exchange: Exchange) -> Self {
        ResponseBody {
            inner: Inner::Own(bytes),
            exchange: Some(exchange),
            in_flight: None,
            deadline: None,
            idle: None,
            left: None,
        }
    }

    /// Of a stream that stopped speaking HTTP: empty, and the exchange lasts as long as it does. No
    /// deadline ends it.
    pub(super) fn upgraded(exchange: Exchange, in_flight: InFlight, copied: &Arc<Copied>) -> Self {
        let mut body = ResponseBody::own(Bytes::new(), exchange);
        body.inner = Inner::Switched(Arc::clone(copied));
        body.in_flight = Some(in_flight);
        body
    }

    /// Takes what the proxy itself has to say, if it is its answer.
    pub(super) fn take_own(&mut self) -> Option<Bytes> {
        match &mut self.inner {
            Inner::Own(bytes) => Some(std::mem::take(bytes)),
            _ => None,
        }
    }

    /// None, of nothing.
    pub fn none() -> Self {
        ResponseBody {
            inner: Inner::Own(Bytes::new()),
            exchange: None,
            in_flight: None,
            deadline: None,
            idle: None,
            left: None,
        }
    }

    /// A backend's body of `length` bytes, if that is known. Zero: its head is its end.
    pub(super) fn backend(inner: Inner, guards: Guards, length: Option<u64>) -> Self {
        let Guards { exchange, in_flight, deadline, idle } = guards;
        let mut body =
            ResponseBody { inner, exchange: Some(exchange), in_flight: Some(in_flight), deadline, idle, left: length };
        if length == Some(0) || body.is_end_stream() {
            body.ended();
        }
        body
    }

    fn ended(&mut self) {
        self.exchange = None;
        self.in_flight = None;
        self.deadline = None;
        self.idle = None;
    }

    fn broke(&mut self, reason: &'static str) {
        if let Some(exchange) = &mut self.exchange {
            exchange.broke(reason);
        }
        self.ended();
    }

    fn late(&mut self, cx: &mut Context<'_>) -> bool {
        let mut over = |deadline: &mut Deadline| Pin::new(deadline).poll(cx).is_ready();
        self.deadline.as_mut().is_some_and(&mut over) || self.idle.as_mut().is_some_and(|(_, silent)| over(silent))
    }
}

impl Body for Inner {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Inner::Switched(_) => Poll::Ready(None),
            Inner::Own(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Pooled(body) => Pin::new(body).poll_frame(cx),
            Inner::Remote(body) => Pin::new(body).poll_frame(cx),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Also where there is always more to read.
        let over = self.deadline.as_ref().is_some_and(Deadline::is_over);
        let polled = if over { Poll::Pending } else { clean(Pin::new(&mut self.inner).poll_frame(cx)) };
        match &polled {
            Poll::Pending if over || self.late(cx) => {
                self.broke("timeout");
                return Poll::Ready(Some(Err("the backend's answer took too long".into())));
            }
            Poll::Pending => {}
            Poll::Ready(None) => self.ended(),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some((idle, silent)) = &mut self.idle {
                    silent.push(*idle);
                }
                let read = frame.data_ref().map_or(0, |data| data.len() as u64);
                if let Some(exchange) = &mut self.exchange {
                    exchange.sent_bytes(read);
                }
                self.left = self.left.map(|left| left.saturating_sub(read));
                if self.left == Some(0) || self.inner_ended() {
                    self.ended();
                }
            }
            Poll::Ready(Some(Err(_))) => self.broke("upstream_broken"),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner_ended()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Switched(_) => SizeHint::with_exact(0),
            Inner::Pooled(body) => body.size_hint(),
            Inner::Remote(body) => body.size_hint(),
        }
    }
}

impl AnswerBody for ResponseBody {
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        // Other bodies have tasks that send their requests.
        if let Inner::Pooled(body) = &mut self.inner {
            body.poll_upload(cx);
        }
    }
}

impl ResponseBody {
    fn inner_ended(&self) -> bool {
        match &self.inner {
            Inner::Own(bytes) => bytes.is_empty(),
            Inner::Switched(_) => true,
            Inner::Pooled(body) => body.is_end_stream(),
            Inner::Remote(body) => body.is_end_stream(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let Some(exchange) = &mut self.exchange else { return };
        match &self.inner {
            Inner::Own(_) => {}
            Inner::Switched(copied) => {
                exchange.sent_bytes(copied.received.load(Ordering::Relaxed));
                if let Some(count) = exchange.count_body() {
                    count.fetch_add(copied.sent.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
            Inner::Pooled(_) | Inner::Remote(_) => exchange.abandoned(),
        }
    }
}
