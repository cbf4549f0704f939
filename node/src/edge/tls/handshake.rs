//! The TLS handshake of one connection, and why it fails.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::Refusal;
use crate::edge::stats::count;
use crate::edge::worker::Worker;
use crate::proxy::ConnectionInfo;

/// First byte of every TLS connection: a record of the handshake (RFC 8446 5.1).
const HANDSHAKE: u8 = 22;

/// For who speaks HTTP without TLS.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 48\r\n\
    connection: close\r\n\r\nclient sent plain HTTP to a port that wants TLS\n";

/// Bytes read from such a client before the connection is closed.
const MAX_PLAIN: u64 = 64 * 1024;

/// How long a handshake keeps its place. What costs is done at once; a client that then says nothing
/// may go on without, for as long as the whole handshake may take.
const HELD: Duration = Duration::from_secs(2);

/// Why a handshake failed.
#[derive(Debug)]
struct Failure {
    /// Label of the metric.
    reason: &'static str,
    error: io::Error,
}

impl Refusal {
    /// Label, alert (RFC 8446 6.2: `unrecognized_name`, `internal_error`) and words.
    fn told(self) -> (&'static str, u8, &'static str) {
        match self {
            Refusal::UnknownName => ("unknown_sni", 112, "no listener for the name that the client asked for"),
            Refusal::NoCertificate => ("no_certificate", 80, "the listener has no usable certificate"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        let reason = match cause {
            Some(InvalidCertificate(_) | NoCertificatesPresented) => "client_certificate",
            Some(_) => "protocol",
            None => "other",
        };
        Failure { reason, error }
    }
}

/// The handshake, within its time and with few others at the same time. Notes in `info` what is
/// learnt of the client.
///
/// # Errors
/// It failed, and was counted.
pub async fn shake_hands(
    worker: &Arc<Worker>,
    info: &mut ConnectionInfo,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let handshake = tokio::time::timeout(worker.config.handshake_timeout, handshake(worker, info, stream));
    let timeout = |_| Err(Failure { reason: "timeout", error: io::ErrorKind::TimedOut.into() });
    handshake.await.unwrap_or_else(timeout).map_err(|Failure { reason, error }| {
        count(&worker.stats.handshakes_failed);
        worker.local.context().metrics.handshake_failed(reason);
        error
    })
}

async fn handshake(
    worker: &Arc<Worker>,
    info: &mut ConnectionInfo,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Failure> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE] && first[0].is_ascii_uppercase() {
        return Err(plain_http(worker, stream).await);
    }
    let mut start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    // Only now: who says nothing takes no place.
    let place = worker.handshakes.acquire().await.map_err(io::Error::other)?;
    let name = start.client_hello().server_name().unwrap_or_default().to_ascii_lowercase();
    let table = worker.local.table();
    let selected = worker.certificates.select(&table, &info.gateway, info.port, Some(&name));
    // Also without a name: such a client is on the listener for every host, and on no other.
    info.sni = Some(name);
    match selected {
        Ok(made) => {
            let mut accepting = pin!(start.into_stream(Arc::clone(&made.config)));
            let stream = match tokio::time::timeout(HELD, &mut accepting).await {
                Ok(accepted) => accepted?,
                Err(_) => {
                    drop(place);
                    accepting.await?
                }
            };
            let session = stream.get_ref().1;
            info.tls_version = session.protocol_version().map(version_name);
            let chain = session.peer_certificates();
            info.certificate = made.clients.as_ref().and_then(|clients| clients.verified(chain)).map(Arc::new);
            Ok(stream)
        }
        Err(refusal) => {
            let (reason, alert, words) = refusal.told();
            start.io.write_all(&[21, 3, 3, 0, 2, 2, alert]).await?;
            start.io.shutdown().await?;
            Err(Failure { reason, error: io::Error::other(words) })
        }
    }
}

fn version_name(version: rustls::ProtocolVersion) -> &'static str {
    match version {
        rustls::ProtocolVersion::TLSv1_3 => "1.3",
        rustls::ProtocolVersion::TLSv1_2 => "1.2",
        _ => "unknown",
    }
}

/// Tells a client that it forgot TLS.
async fn plain_http(worker: &Worker, mut stream: TcpStream) -> Failure {
    let told = async {
        stream.write_all(PLAIN_HTTP).await?;
        stream.shutdown().await?;
        // Closed with bytes unread, the connection would be reset and the answer lost.
        tokio::io::copy(&mut (&mut stream).take(MAX_PLAIN), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(worker.config.last_words, told).await;
    Failure { reason: "protocol", error: io::Error::other("the client sent plain HTTP") }
}
