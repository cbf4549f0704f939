//! The load: clients that ask again as soon as they have their answer, on the backend's thread.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use meshgate_bench::random::Random;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::certificate::HOST;
use crate::scenario::{Asks, Shape};

/// Connections that ask at the same time.
const CONNECTIONS: u64 = 64;
/// The same, where each request has a connection of its own.
const HANDSHAKES: u64 = 16;
/// The largest head of an answer; a buffer also holds a whole body.
const BUFFER: usize = 16 * 1024;
/// One answer may take this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked, and of whom.
#[derive(Debug)]
pub struct Plan {
    address: SocketAddr,
    shape: Shape,
    requests: Vec<Vec<u8>>,
    config: Arc<ClientConfig>,
}

impl Plan {
    /// All requests of a shape.
    ///
    /// # Errors
    /// TLS can't be had.
    pub fn new(address: SocketAddr, shape: Shape) -> anyhow::Result<Self> {
        let start = if shape.body > 128 { crate::backend::LARGE_PATH } else { "" };
        let end = if shape.asks == Asks::Handshakes { "\r\nConnection: close\r\n\r\n" } else { "\r\n\r\n" };
        let request = |path: &str, host: &str| {
            format!("GET {start}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*{end}").into_bytes()
        };
        let prefixed = |host: u32| ["/a/x", "/b/x"].map(|path| request(path, &host_name(host)));
        let requests =
            if shape.hosts == 0 { vec![request("/", HOST)] } else { (0..shape.hosts).flat_map(prefixed).collect() };
        Ok(Plan { address, shape, requests, config: Arc::new(client_config()?) })
    }

    /// Asks once, on a connection of its own, as all others will be asked.
    ///
    /// # Errors
    /// Nothing listens there, or the answer is not the backend's.
    pub async fn ask(&self) -> anyhow::Result<()> {
        let asked = async {
            let mut stream = self.connect().await?;
            let request = self.requests.last().context("nothing to ask")?;
            exchange(&mut stream, request, &mut [0; BUFFER], self.shape.body).await
        };
        tokio::time::timeout(PATIENCE, asked).await.context("no answer in time")?
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        if !self.shape.tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(HOST).context("a bad server name")?;
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await;
        Ok(Box::new(stream.context("no TLS")?))
    }
}

/// A host of scenario `routes`.
pub fn host_name(index: u32) -> String {
    format!("h{index:05}.{HOST}")
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What the clients have seen.
#[derive(Debug, Default)]
struct Seen {
    answers: AtomicU64,
    errors: AtomicU64,
    first_error: Mutex<Option<String>>,
}

/// A running load. Dropping it ends it.
#[derive(Debug)]
pub struct Load {
    seen: Arc<Seen>,
    _clients: JoinSet<()>,
}

impl Load {
    /// Starts to ask, on a runtime's thread.
    pub fn start(plan: &Arc<Plan>, on: &Handle) -> Self {
        let seen = Arc::new(Seen::default());
        let count = if plan.shape.asks == Asks::Handshakes { HANDSHAKES } else { CONNECTIONS };
        let mut clients = JoinSet::new();
        for client in 0..count {
            let (plan, seen) = (Arc::clone(plan), Arc::clone(&seen));
            let followed = async move {
                if let Err(error) = follow(&plan, &seen, client).await {
                    seen.report(&error);
                }
            };
            clients.spawn_on(followed, on);
        }
        Load { seen, _clients: clients }
    }

    /// Answers so far.
    pub fn answers(&self) -> u64 {
        self.seen.answers.load(Ordering::Relaxed)
    }

    /// Requests that failed so far, and why the first one did.
    pub fn errors(&self) -> (u64, String) {
        let first = self.seen.first_error.lock().map(|first| first.clone().unwrap_or_default()).unwrap_or_default();
        (self.seen.errors.load(Ordering::Relaxed), first)
    }
}

impl Seen {
    fn report(&self, error: &anyhow::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut first) = self.first_error.lock() {
            first.get_or_insert(format!("{error:#}"));
        }
    }
}

/// One client. It ends with its first error: all must be well.
async fn follow(plan: &Plan, seen: &Seen, seed: u64) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    let mut buffer = [0; BUFFER];
    let last = (plan.requests.len() - 1) as u64;
    let mut stream = plan.connect().await?;
    loop {
        let index = usize::try_from(random.between(0, last))?;
        exchange(&mut stream, &plan.requests[index], &mut buffer, plan.shape.body).await?;
        seen.answers.fetch_add(1, Ordering::Relaxed);
        if plan.shape.asks == Asks::Handshakes {
            stream = plan.connect().await?;
        }
    }
}

/// One request and its answer, which must be 200 with a body of so many bytes.
async fn exchange(stream: &mut Box<dyn Stream>, request: &[u8], buffer: &mut [u8], body: usize) -> anyhow::Result<()> {
    stream.write_all(request).await.context("cannot send")?;
    stream.flush().await.context("cannot send")?;
    let mut filled = 0;
    let mut expected = None;
    while expected.is_none_or(|expected| filled < expected) {
        ensure!(filled < buffer.len(), "an answer of over {} bytes", buffer.len());
        let read = stream.read(&mut buffer[filled..]).await.context("no answer")?;
        ensure!(read > 0, "the connection was closed");
        filled += read;
        if expected.is_none()
            && let Some(head) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n")
        {
            check(&buffer[..head], body)?;
            expected = Some(head + 4 + body);
        }
    }
    ensure!(expected == Some(filled), "an answer of {filled} bytes instead of {expected:?}");
    Ok(())
}

/// The head of an answer must be as expected.
fn check(head: &[u8], body: usize) -> anyhow::Result<()> {
    const LENGTH: &[u8] = b"content-length:";
    if !head.starts_with(b"HTTP/1.1 200 ") {
        bail!("not 200: {}", String::from_utf8_lossy(&head[..head.len().min(60)]));
    }
    let mut lines = head.split(|byte| *byte == b'\n');
    let named = |line: &&[u8]| line.len() > LENGTH.len() && line[..LENGTH.len()].eq_ignore_ascii_case(LENGTH);
    let length = lines.find(named).map(|line| line[LENGTH.len()..].trim_ascii());
    let length: Option<usize> = length.and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
    ensure!(length == Some(body), "a body of {length:?} bytes instead of {body}");
    Ok(())
}

/// TLS 1.3 with X25519, as all peers offer it, and without a look at the certificate, so that a
/// handshake costs the client little.
fn client_config() -> anyhow::Result<ClientConfig> {
    let provider = CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate)).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Believes everybody.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        let head = |text: &str| check(text.as_bytes(), 128).map_err(|error| error.to_string());
        assert_eq!(head("HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH:  128"), Ok(()));
        assert!(head("HTTP/1.1 502 Bad\r\nContent-Length: 128").unwrap_err().contains("502"));
        assert!(head("HTTP/1.1 200 OK\r\nContent-Length: 12").is_err());
        assert!(head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked").is_err());
    }
}
