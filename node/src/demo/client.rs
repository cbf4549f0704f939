//! A small HTTP client: one connection a request, every step bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::echo::Echo;
use super::via::Via;

/// Everything from connect to the body's last byte.
const TIMEOUT: Duration = Duration::from_secs(6);
/// The longest body that is read.
const MAX_BODY: usize = 1 << 20;

/// How a request reaches its address.
#[derive(Clone, Debug, Default)]
pub enum Transport {
    /// HTTP/1.1 in the clear.
    #[default]
    Plain,
    /// TLS with the host as server name; ALPN offers what the configuration lists.
    Tls(Arc<ClientConfig>),
}

/// A request to be made.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where to connect.
    pub address: SocketAddr,
    /// `Host`, and the server name in TLS.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// In the clear or not.
    pub transport: Transport,
}

impl Ask {
    /// A plain GET.
    pub fn get(address: SocketAddr, host: &str, path: &str) -> Self {
        Ask { address, host: host.to_owned(), path: path.to_owned(), headers: Vec::new(), transport: Transport::Plain }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Over TLS.
    #[must_use]
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.transport = Transport::Tls(config);
        self
    }

    /// `shop.example/cart` or `https://shop.example/cart`, as it is shown.
    pub fn shown(&self) -> String {
        let scheme = if matches!(self.transport, Transport::Tls(_)) { "https://" } else { "" };
        format!("{scheme}{}{}", self.host, self.path)
    }

    /// Makes the request.
    ///
    /// # Errors
    /// No connection, no valid certificate, no answer in time.
    pub async fn send(&self) -> anyhow::Result<Answer> {
        let start = Instant::now();
        let work = self.exchange();
        let mut answer = tokio::time::timeout(TIMEOUT, work)
            .await
            .with_context(|| format!("no answer within {} s", TIMEOUT.as_secs()))??;
        answer.took = start.elapsed();
        Ok(answer)
    }

    async fn exchange(&self) -> anyhow::Result<Answer> {
        let stream =
            TcpStream::connect(self.address).await.with_context(|| format!("cannot connect to {}", self.address))?;
        // Only latency suffers without it.
        let _ = stream.set_nodelay(true);
        match &self.transport {
            Transport::Plain => self.http1(stream).await,
            Transport::Tls(config) => {
                let name = ServerName::try_from(self.host.clone()).context("host is no server name")?;
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name, stream).await.context("TLS handshake")?;
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    self.http2(stream).await
                } else {
                    self.http1(stream).await
                }
            }
        }
    }

    async fn http1(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<Answer> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = self.request(&self.path, Some(&self.host))?;
        let exchange = async move { read(sender.send_request(request).await?).await };
        drive(connection, exchange).await
    }

    async fn http2(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<Answer> {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let request = self.request(&format!("https://{}{}", self.host, self.path), None)?;
        let exchange = async move { read(sender.send_request(request).await?).await };
        drive(connection, exchange).await
    }

    fn request(&self, uri: &str, host: Option<&str>) -> anyhow::Result<Request<Empty<Bytes>>> {
        let mut request = Request::builder().method(Method::GET).uri(uri);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Empty::new())?)
    }
}

/// Runs the connection until the exchange is through; no task outlives the request.
async fn drive<E: std::error::Error + Send + Sync + 'static>(
    connection: impl Future<Output = Result<(), E>>,
    exchange: impl Future<Output = anyhow::Result<Answer>>,
) -> anyhow::Result<Answer> {
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection may end just before its last answer is read.
        ended = &mut connection => match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(error),
            Err(_) => match ended {
                Err(error) => Err(error.into()),
                Ok(()) => bail!("the connection was closed without an answer"),
            },
        },
    }
}

async fn read(response: http::Response<hyper::body::Incoming>) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => bail!("cannot read the body: {error}"),
    };
    Ok(Answer { status: head.status, version: head.version, headers: head.headers, body, took: Duration::ZERO })
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Version of HTTP that was spoken.
    pub version: Version,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// From before the connect to after the last byte.
    pub took: Duration,
}

impl Answer {
    /// A header as text; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What the peer says about the way; `None` without a valid header.
    pub fn via(&self) -> Option<Via> {
        self.header("x-meshgate-via").parse().ok()
    }

    /// What the echo backend saw.
    ///
    /// # Errors
    /// Any other status than 200, or a body that no echo backend wrote.
    pub fn echo(&self) -> anyhow::Result<Echo> {
        ensure!(self.status == StatusCode::OK, "answered {}: {}", self.status, self.excerpt());
        serde_json::from_slice(&self.body).with_context(|| format!("no echo backend wrote this: {}", self.excerpt()))
    }

    /// The body's first line, shortened.
    pub fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        text.lines().next().unwrap_or_default().chars().take(120).collect()
    }
}

/// A TLS configuration that trusts one certificate and offers these protocols.
///
/// # Errors
/// The certificate can't be a trust anchor.
pub fn trusting(certificate: &CertificateDer<'static>, alpn: &[&[u8]]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
