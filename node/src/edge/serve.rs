//! One connection of a client: TLS if its listener wants it, then HTTP until it ends.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use meshgate_core::snapshot::Protocol;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::accept::Accepted;
use super::head_copy::HeadCopy;
use super::head_timer::HeadTimer;
use super::sniff::sniff;
use super::tls::shake_hands;
use super::worker::Worker;
use crate::proxy::meter::Meter;
use crate::proxy::{ConnectionInfo, FramedTwice, handle};

/// Bytes of a request's head.
const MAX_HEAD: usize = 64 * 1024;

/// HTTP/2 streams at the same time on a connection.
const MAX_STREAMS: u32 = 100;

/// HTTP/2 windows: of a stream, of a connection.
const WINDOWS: (u32, u32) = (64 * 1024, 1024 * 1024);

/// Bytes of answers that wait on an HTTP/2 stream.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that a client's errors may make us reset before the connection is closed.
const MAX_ERROR_RESETS: usize = 32;

/// Streams that a client may reset before they were looked at.
const MAX_PENDING_RESETS: usize = 20;

/// How often an HTTP/2 client is asked whether it is alive, and how long it may take to answer.
const PING: Duration = Duration::from_secs(30);

/// Serves a connection to its end.
pub async fn serve(worker: Arc<Worker>, accepted: Accepted) {
    let Accepted { stream, client, bound, open } = accepted;
    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    let Ok(stream) = stream else { return };
    let _ = stream.set_nodelay(true);
    let mut info = ConnectionInfo {
        gateway: bound.gateway.clone(),
        port: bound.port,
        tls: bound.protocol == Protocol::Https,
        client,
        sni: None,
        certificate: None,
        trusted: worker.config.trusts(client.ip()),
    };
    let ended = match bound.protocol {
        Protocol::Http => plain(&worker, &bound.closing, info, stream).await,
        Protocol::Https => match shake_hands(&worker, &mut info, stream).await {
            Ok(stream) => tls(&worker, &bound.closing, info, stream).await,
            Err(error) => Err(error),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%client, %error, "a client's connection ended");
    }
    drop(open);
}

async fn plain(
    worker: &Arc<Worker>,
    closing: &CancellationToken,
    info: ConnectionInfo,
    stream: TcpStream,
) -> io::Result<()> {
    let deadline = worker.local.timer.at(Instant::now() + worker.config.header_timeout);
    let (is_h2, stream) = tokio::select! {
        biased;
        sniffed = sniff(stream) => sniffed?,
        () = deadline => return Err(io::ErrorKind::TimedOut.into()),
        () = last_words(worker, closing) => return Ok(()),
    };
    if is_h2 { h2(worker, closing, info, stream).await } else { h1(worker, closing, info, stream).await }
}

/// Ends some time after the listener began to close.
async fn last_words(worker: &Worker, closing: &CancellationToken) {
    closing.cancelled().await;
    worker.local.timer.at(Instant::now() + worker.config.last_words).await;
}

async fn tls(
    worker: &Arc<Worker>,
    closing: &CancellationToken,
    info: ConnectionInfo,
    stream: TlsStream<TcpStream>,
) -> io::Result<()> {
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if is_h2 { h2(worker, closing, info, stream).await } else { h1(worker, closing, info, stream).await }
}

async fn h1<S>(worker: &Arc<Worker>, closing: &CancellationToken, info: ConnectionInfo, stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let copy = HeadCopy::default();
    let (stream, counts) = Meter::new(copy.of(stream));
    let config = &worker.config;
    let timer = HeadTimer::new(worker.local.timer.clone(), Arc::clone(&counts), copy.clone(), config);
    let (by, info) = (Arc::clone(worker), Arc::new(info));
    let service = service_fn(move |mut request: Request<Incoming>| {
        if request.headers().contains_key(header::TRANSFER_ENCODING) && copy.has(b"content-length") {
            request.extensions_mut().insert(FramedTwice);
        }
        let (by, info) = (Arc::clone(&by), Arc::clone(&info));
        async move {
            let mut answer = handle(Arc::clone(&by.local), info, request).await;
            if by.leaving.load(Ordering::Relaxed) {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    // At most 100 fields, hyper's default: to set it costs an allocation a request.
    let connection = http1::Builder::new()
        .timer(timer)
        .header_read_timeout(config.header_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let (mut closing, mut unused) = (pin!(closing.cancelled()), pin!(last_words(worker, closing)));
    let (mut is_closing, mut told) = (false, false);
    // The connection comes first, so that it has read what was there when the listener closed.
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            is_closing = is_closing || closing.as_mut().poll(cx).is_ready();
            // Told before its first byte, hyper would close it at once.
            let ready = is_closing && !told && (counts.now().0 > 0 || unused.as_mut().poll(cx).is_ready());
            if !ready {
                return Poll::Pending;
            }
            connection.as_mut().graceful_shutdown();
            told = true;
        }
    });
    ended.await.map_err(io::Error::other)
}

/// When an HTTP/2 connection last did something.
struct Activity {
    streams: AtomicUsize,
    last: AtomicU64,
}

/// A stream in use.
struct Busy {
    activity: Arc<Activity>,
    worker: Arc<Worker>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.streams.fetch_sub(1, Ordering::Relaxed);
        self.activity.last.store(self.worker.local.context().clock.now(), Ordering::Relaxed);
    }
}

async fn h2<S>(worker: &Arc<Worker>, closing: &CancellationToken, info: ConnectionInfo, stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let now = worker.local.context().clock.now();
    let activity = Arc::new(Activity { streams: AtomicUsize::new(0), last: AtomicU64::new(now) });
    let (served, by, info) = (Arc::clone(&activity), Arc::clone(worker), Arc::new(info));
    let service = service_fn(move |request| {
        served.streams.fetch_add(1, Ordering::Relaxed);
        let busy = Busy { activity: Arc::clone(&served), worker: Arc::clone(&by) };
        let answer = handle(Arc::clone(&by.local), Arc::clone(&info), request);
        async move {
            let answer = answer.await;
            drop(busy);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_header_list_size(MAX_HEAD as u32)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
        () = idle(worker, &activity) => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(io::Error::other)
}

/// Ends once a connection has had no stream for as long as a connection may be idle.
async fn idle(worker: &Worker, activity: &Activity) {
    let limit = u64::try_from(worker.config.idle_timeout.as_nanos()).unwrap_or(u64::MAX);
    loop {
        let since = worker.local.context().clock.now().saturating_sub(activity.last.load(Ordering::Relaxed));
        let unused = activity.streams.load(Ordering::Relaxed) == 0;
        if unused && since >= limit {
            return;
        }
        let rest = if unused { limit - since } else { limit };
        worker.local.timer.at(Instant::now() + Duration::from_nanos(rest)).await;
    }
}
