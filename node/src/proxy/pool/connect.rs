//! Dials a pod and shakes hands.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http2 as h2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpSocket, TcpStream};

use super::{H1, RequestBody};
use crate::h1::Connection;

/// How long a dial may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a pod may take to say what it allows.
const SETTINGS: Duration = Duration::from_secs(1);

/// Bytes of an answer's head.
const MAX_HEAD: usize = 64 * 1024;

/// HTTP/2 windows: of a stream, of a connection.
const WINDOWS: (u32, u32) = (256 * 1024, 4 * 1024 * 1024);

/// How often an HTTP/2 connection is asked whether it is alive.
const PING: Duration = Duration::from_secs(10);

/// A new HTTP/1 connection.
pub(super) async fn http1(address: SocketAddr, source: Option<IpAddr>) -> io::Result<H1> {
    Ok(Connection::new(dial(address, source).await?))
}

/// A new HTTP/2 connection, by prior knowledge.
pub(super) async fn http2(address: SocketAddr, source: Option<IpAddr>) -> io::Result<H2Sender> {
    let (sender, connection) = shake_hands(address, source).await?;
    drive(address, connection);
    Ok(sender)
}

/// A new HTTP/2 connection to a pod that allows extended CONNECT. `None`: it does not say so in time.
pub(super) async fn http2_connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<Option<H2Sender>> {
    let (sender, mut connection) = shake_hands(address, source).await?;
    let settled = poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx).is_ready();
        let allows = connection.is_extended_connect_protocol_enabled();
        if ended || allows { Poll::Ready(allows && !ended) } else { Poll::Pending }
    });
    if !tokio::time::timeout(SETTINGS, settled).await.unwrap_or(false) {
        return Ok(None);
    }
    drive(address, connection);
    Ok(Some(sender))
}

/// What requests are sent by.
type H2Sender = h2::SendRequest<RequestBody>;

/// What must be polled.
type H2Connection = h2::Connection<TokioIo<TcpStream>, RequestBody, TokioExecutor>;

async fn shake_hands(address: SocketAddr, source: Option<IpAddr>) -> io::Result<(H2Sender, H2Connection)> {
    let stream = dial(address, source).await?;
    h2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)
}

fn drive(address: SocketAddr, connection: H2Connection) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%address, %error, "upstream connection ended");
        }
    });
}

async fn dial(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    if let Some(source) = source.filter(|source| fits(*source, address.ip())) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    match tokio::time::timeout(CONNECT, socket.connect(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to the dial")),
    }
}

/// A loopback source reaches loopback addresses only.
fn fits(source: IpAddr, target: IpAddr) -> bool {
    source.is_ipv4() == target.is_ipv4() && source.is_loopback() == target.is_loopback()
}
