//! Waits for a request's head, and for a client to be done.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::WaitForCancellationFuture;

use super::{Head, Server, Service};
use crate::h1::head::{self, Scan};
use crate::h1::refused;
use crate::h1::shared::READ_HEAD;
use crate::h1::spare;

/// Bytes of a request's body that are read and dropped to save the connection.
pub(super) const DRAINED: u64 = 64 * 1024;

/// Bytes that are read and dropped behind the last answer, to save that.
const LINGERED: u64 = 4 * 1024 * 1024;

/// How long either may take.
const DRAIN: Duration = Duration::from_secs(1);

impl<S, V> Server<'_, S, V>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: Service,
{
    /// The next head.
    pub(super) async fn head(&mut self, mut closing: Pin<&mut WaitForCancellationFuture<'_>>) -> io::Result<Head> {
        let mut scan = Scan::default();
        let mut phase = Phase::Idle;
        if self.served {
            self.deadline.push(self.settings.idle_timeout);
        }
        poll_fn(|cx| self.poll_head(&mut scan, &mut phase, closing.as_mut(), cx)).await
    }

    fn poll_head(
        &mut self,
        scan: &mut Scan,
        phase: &mut Phase,
        closing: Pin<&mut WaitForCancellationFuture<'_>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Head>> {
        let mut inner = self.shared.lock();
        loop {
            match head::take_request(scan, &mut inner.input) {
                Ok(Some(parts)) => return Poll::Ready(Ok(Head::Request(parts))),
                Ok(None) => {}
                Err(refused) => return Poll::Ready(Ok(Head::Refused(refused))),
            }
            if inner.ended {
                return Poll::Ready(Ok(Head::End));
            }
            match inner.poll_fill(READ_HEAD, cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        let idle = inner.input.is_empty();
        if idle {
            // Not kept while the client thinks: one buffer serves many connections.
            spare::give(&mut inner.input);
            inner.out.release();
        }
        drop(inner);
        if !idle && *phase != Phase::Begun {
            // The first head's time began with the connection.
            if self.served || *phase == Phase::Closing {
                self.deadline.push(self.settings.header_timeout);
            }
            *phase = Phase::Begun;
        }
        if idle && *phase == Phase::Idle && self.closes(closing, cx) {
            if self.served {
                return Poll::Ready(Ok(Head::End));
            }
            *phase = Phase::Closing;
            self.deadline.push(self.settings.last_words);
        }
        Pin::new(&mut self.deadline).poll(cx).map(|()| {
            let late = *phase == Phase::Begun;
            Ok(if late { Head::Refused(refused::HEAD_LATE) } else { Head::End })
        })
    }

    /// Whether the listener has closed. Its end wakes this task from the first look on.
    fn closes(&mut self, closing: Pin<&mut WaitForCancellationFuture<'_>>, cx: &mut Context<'_>) -> bool {
        if self.settings.closing.is_closed() {
            return true;
        }
        !std::mem::replace(&mut self.watches, true) && closing.poll(cx).is_ready()
    }

    /// Reads what is left of a request's body and drops it. Returns whether that was all of it.
    pub(super) async fn drain(&mut self) -> bool {
        self.deadline.push(DRAIN);
        let mut left = DRAINED;
        poll_fn(|cx| {
            let mut inner = self.shared.lock();
            loop {
                match inner.poll_body(cx) {
                    Poll::Ready(None) => return Poll::Ready(true),
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                    Poll::Ready(Some(Ok(frame))) => {
                        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                        match left.checked_sub(length) {
                            Some(rest) => left = rest,
                            None => return Poll::Ready(false),
                        }
                    }
                    Poll::Pending => break,
                }
            }
            drop(inner);
            Pin::new(&mut self.deadline).poll(cx).map(|()| false)
        })
        .await
    }

    /// Ends the connection. What the client still sends is read for a while: to close a socket
    /// with unread bytes resets it, and a reset destroys an answer on its way (RFC 9112 9.6).
    pub(super) async fn end(&mut self, linger: bool) -> io::Result<()> {
        self.deadline.push(DRAIN);
        let shut = poll_fn(|cx| {
            let shut = Pin::new(&mut self.shared.lock().stream).poll_shutdown(cx);
            if shut.is_ready() {
                return shut;
            }
            Pin::new(&mut self.deadline).poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
        });
        shut.await?;
        if !linger {
            return Ok(());
        }
        let mut left = LINGERED;
        poll_fn(|cx| {
            let mut inner = self.shared.lock();
            while !inner.ended && left > 0 {
                inner.input.clear();
                match inner.poll_fill(READ_HEAD, cx) {
                    Poll::Ready(Ok(read)) => left = left.saturating_sub(read as u64),
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {
                        drop(inner);
                        return Pin::new(&mut self.deadline).poll(cx);
                    }
                }
            }
            Poll::Ready(())
        })
        .await;
        Ok(())
    }
}

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// For a head's first byte.
    Idle,
    /// For the first head's first byte, although its listener has closed.
    Closing,
    /// For a head's end.
    Begun,
}
