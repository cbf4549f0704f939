//! Clients: hyper's for what is well-formed, bytes for what is not.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub trailers: Option<HeaderMap>,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A client's connection.
pub enum Client {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub async fn h1(address: SocketAddr) -> Client {
        Client::h1_over(TcpStream::connect(address).await.unwrap()).await
    }

    pub async fn h1_over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Client {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client::H1(sender)
    }

    pub async fn h2(address: SocketAddr) -> Client {
        Client::h2_over(TcpStream::connect(address).await.unwrap()).await
    }

    pub async fn h2_over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Client {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client::H2(sender)
    }

    pub async fn get(&mut self, url: &str) -> Answer {
        self.send(Method::GET, url, &[], Bytes::new()).await.unwrap()
    }

    pub async fn send(
        &mut self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, hyper::Error> {
        let url: http::Uri = url.parse().unwrap();
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = async {
            let response = match self {
                Client::H1(sender) => {
                    let request = request.uri(url.path_and_query().unwrap().as_str());
                    let request = request.header("host", url.authority().unwrap().as_str());
                    sender.ready().await?;
                    sender.send_request(request.body(Full::new(body)).unwrap()).await?
                }
                Client::H2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request.uri(url).body(Full::new(body)).unwrap()).await?
                }
            };
            let (parts, body) = response.into_parts();
            let collected = body.collect().await?;
            let trailers = collected.trailers().cloned();
            Ok(Answer { status: parts.status, headers: parts.headers, trailers, body: collected.to_bytes() })
        };
        tokio::time::timeout(PATIENCE, sent).await.expect("no answer in time")
    }
}

/// One request on a connection of its own.
pub async fn get(address: SocketAddr, url: &str) -> Answer {
    Client::h1(address).await.get(url).await
}

/// Writes bytes and reads until the other side closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

/// Reads until the other side closes.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset is an end as well.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it stays open");
    String::from_utf8_lossy(&all).into_owned()
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits until nothing listens there. A SYN that meets the listener's end is dropped without an
/// answer and sent again a second later, so a connect may not take that long.
pub async fn refused(address: std::net::SocketAddr) {
    let is_refused = || {
        let connected = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50));
        connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    until("it listens no more", is_refused).await;
}
