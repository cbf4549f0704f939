//! Connections that stop speaking HTTP (RFC 9110 7.8).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::timer::CoarseTimer;

/// How long nothing may come from either side. Far longer than between requests: who switches
/// protocols means to stay, and has means of its own to find out whether the other side lives.
pub const IDLE: Duration = Duration::from_secs(60 * 60);

/// Any stream.
trait Io: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

type Stream = Pin<Box<dyn Io>>;

/// The stream that a 101 leaves, in the extensions of the response. It is taken out once; what was
/// read behind the head comes first. Not taken, it is closed with the response.
#[derive(Clone)]
pub struct Upgraded {
    stream: Arc<Mutex<Option<Stream>>>,
    copied: Arc<Copied>,
}

/// Bytes that were copied between an upgraded stream and a client.
#[derive(Debug, Default)]
pub struct Copied {
    /// From the client to the stream.
    pub sent: AtomicU64,
    /// From the stream to the client.
    pub received: AtomicU64,
}

impl Upgraded {
    /// A stream; anything else than a socket will do as well, for instance a stream of a tunnel.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let stream: Stream = Box::pin(stream);
        Upgraded { stream: Arc::new(Mutex::new(Some(stream))), copied: Arc::default() }
    }

    /// The stream, for whoever comes first.
    pub fn take(&self) -> Option<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Bytes copied, up to now.
    pub fn copied(&self) -> &Arc<Copied> {
        &self.copied
    }
}

impl std::fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgraded").field("copied", &self.copied).finish_non_exhaustive()
    }
}

/// Copies both ways until both ends are closed; an end on one side is passed on to the other, whose
/// own way stays open.
///
/// # Errors
/// A side broke off, or nothing was copied for `idle`.
pub async fn copy<S>(client: S, upgraded: &Upgraded, timer: &CoarseTimer, idle: Duration) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(stream) = upgraded.take() else { return Ok(()) };
    let mut client = Counting { inner: client, read: &upgraded.copied.sent };
    let mut stream = Counting { inner: stream, read: &upgraded.copied.received };
    let mut both = pin!(tokio::io::copy_bidirectional(&mut client, &mut stream));
    let mut deadline = timer.after(idle);
    let total = || upgraded.copied.sent.load(Ordering::Relaxed) + upgraded.copied.received.load(Ordering::Relaxed);
    let mut before = 0;
    poll_fn(|cx| {
        if let Poll::Ready(copied) = both.as_mut().poll(cx) {
            return Poll::Ready(copied.map(|_| ()));
        }
        let now = total();
        if now != before {
            before = now;
            deadline.push(idle);
        }
        Pin::new(&mut deadline).poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await
}

/// Counts what is read.
struct Counting<'a, T> {
    inner: T,
    read: &'a AtomicU64,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counting<'_, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counting<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
