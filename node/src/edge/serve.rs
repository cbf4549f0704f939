//! One connection of a client: TLS if its listener wants it, then HTTP until it ends.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use meshgate_core::snapshot::Protocol;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::accept::Accepted;
use super::connect;
use super::guard::Guard;
use super::sniff::sniff;
use super::stats::count;
use super::streams::{Busy, Impatient, Sent, Streams};
use super::tls::shake_hands;
use super::worker::Worker;
use crate::h1::{self, Closing, Interim};
use crate::proxy::{ClientBody, ConnectionInfo, ResponseBody, handle, refuse};

/// Bytes of a request's head over HTTP/2.
const MAX_HEAD: usize = h1::MAX_HEAD;

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
        tls_version: None,
        interim: None,
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

async fn plain(worker: &Arc<Worker>, closing: &Closing, info: ConnectionInfo, stream: TcpStream) -> io::Result<()> {
    let deadline = worker.local.timer.at(Instant::now() + worker.config.header_timeout);
    let (is_h2, stream) = tokio::select! {
        biased;
        sniffed = sniff(stream) => sniffed?,
        () = deadline => return Err(io::ErrorKind::TimedOut.into()),
        () = last_words(worker, closing) => return Ok(()),
    };
    if is_h2 {
        h2(worker, closing, info, stream).await
    } else {
        h1(worker, closing, info, stream.inner, stream.prefix).await
    }
}

/// Ends some time after the listener began to close.
async fn last_words(worker: &Worker, closing: &Closing) {
    closing.closed().await;
    worker.local.timer.at(Instant::now() + worker.config.last_words).await;
}

async fn tls(
    worker: &Arc<Worker>,
    closing: &Closing,
    info: ConnectionInfo,
    stream: TlsStream<TcpStream>,
) -> io::Result<()> {
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if is_h2 {
        h2(worker, closing, info, stream).await
    } else {
        h1(worker, closing, info, stream, BytesMut::new()).await
    }
}

async fn h1<S>(
    worker: &Arc<Worker>,
    closing: &Closing,
    mut info: ConnectionInfo,
    stream: S,
    input: BytesMut,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let interim = Interim::default();
    info.interim = Some(interim.clone());
    let settings = h1::Settings {
        timer: &worker.local.timer,
        header_timeout: worker.config.header_timeout,
        idle_timeout: worker.config.idle_timeout,
        last_words: worker.config.last_words,
        half_closed: worker.config.half_closed,
        closing,
        interim: &interim,
    };
    let client = Client { worker: Arc::clone(worker), info: Arc::new(info) };
    h1::serve(stream, input, settings, &client).await
}

/// What answers a client's requests over HTTP/1.
struct Client {
    worker: Arc<Worker>,
    info: Arc<ConnectionInfo>,
}

impl h1::Service for Client {
    type Body = ResponseBody;

    fn call(&self, request: Request<h1::Body>) -> impl Future<Output = Response<ResponseBody>> + Send {
        handle(Arc::clone(&self.worker.local), Arc::clone(&self.info), request.map(ClientBody::H1))
    }

    fn refuse(&self, refused: h1::Refused) -> Response<ResponseBody> {
        refuse(&self.worker.local, &self.info, refused)
    }

    fn leaves(&self) -> bool {
        self.worker.leaving.load(Ordering::Relaxed)
    }
}

async fn h2<S>(worker: &Arc<Worker>, closing: &Closing, info: ConnectionInfo, stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streams = Streams::new(worker.local.context().clock.now());
    let (served, by, info) = (Arc::clone(&streams), Arc::clone(worker), Arc::new(info));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let connects = connect::arrives(&mut request);
        let busy = Busy::new(&served, &by);
        let answer = handle(Arc::clone(&by.local), Arc::clone(&info), request.map(ClientBody::H2));
        async move {
            let answer = answer.await;
            let busy = busy.answered();
            Ok::<_, std::convert::Infallible>(match connects {
                Some(client) => connect::leaves(answer, client, busy),
                None => answer.map(|body| Sent::new(body, Some(busy))),
            })
        }
    });
    let executor = Impatient { timer: worker.local.timer.clone(), limit: worker.config.idle_timeout };
    let connection = http2::Builder::new(executor)
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
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(Guard::new(stream, Arc::clone(&worker.stats))), service);
    let mut connection = pin!(connection);
    let mut idled = false;
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = streams.abused.cancelled() => return flooded(worker),
        () = closing.closed() => {}
        () = idle(worker, &streams) => idled = true,
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended.map_err(io::Error::other),
        () = streams.abused.cancelled() => flooded(worker),
        // All answers were given; a client that does not take the last of them has had its time.
        () = worker.local.timer.after(worker.config.idle_timeout), if idled => Ok(()),
    }
}

fn flooded(worker: &Worker) -> io::Result<()> {
    count(&worker.stats.floods);
    Err(io::Error::other("too many requests broke off before they were answered"))
}

/// Ends once a connection has had no stream for as long as a connection may be idle.
async fn idle(worker: &Worker, streams: &Streams) {
    let limit = u64::try_from(worker.config.idle_timeout.as_nanos()).unwrap_or(u64::MAX);
    loop {
        let since = worker.local.context().clock.now().saturating_sub(streams.last.load(Ordering::Relaxed));
        let unused = streams.open.load(Ordering::Relaxed) == 0;
        if unused && since >= limit {
            return;
        }
        let rest = if unused { limit - since } else { limit };
        worker.local.timer.at(Instant::now() + Duration::from_nanos(rest)).await;
    }
}
