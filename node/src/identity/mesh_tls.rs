//! Mutually authenticated TLS over TCP between peers, for replication.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{IdentityError, NodeIdentity, NodeName};

/// The protocol that these connections carry.
pub const SYNC_ALPN: &[u8] = b"meshgate-sync/1";

/// How long a connect, and then a handshake, may take.
const LIMIT: Duration = Duration::from_secs(3);

/// Opens and accepts connections of the mesh. Cheap to clone.
#[derive(Clone)]
pub struct MeshTls {
    identity: NodeIdentity,
    acceptor: TlsAcceptor,
}

impl MeshTls {
    /// For one identity; its renewals are followed.
    pub fn new(identity: NodeIdentity) -> Result<Self, IdentityError> {
        let acceptor = TlsAcceptor::from(identity.server_config(&[SYNC_ALPN])?);
        Ok(MeshTls { identity, acceptor })
    }

    /// Performs the server's side of the handshake; returns who called.
    pub async fn accept(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, NodeName), IdentityError> {
        let _ = stream.set_nodelay(true);
        let stream = limited(self.acceptor.accept(stream)).await?;
        self.named(stream.into())
    }

    /// Connects from `bind_ip`, if given, to `node`, or to whichever node answers at the address.
    pub async fn dial(
        &self,
        node: Option<&NodeName>,
        address: SocketAddr,
        bind_ip: Option<IpAddr>,
    ) -> Result<(TlsStream<TcpStream>, NodeName), IdentityError> {
        let config = self.identity.client_config(node, SYNC_ALPN)?;
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(tls)?;
        if let Some(ip) = bind_ip {
            socket.bind(SocketAddr::new(ip, 0)).map_err(tls)?;
        }
        let stream = limited(socket.connect(address)).await?;
        let _ = stream.set_nodelay(true);
        let name = ServerName::IpAddress(address.ip().into());
        let stream = limited(TlsConnector::from(config).connect(name, stream)).await?;
        self.named(stream.into())
    }

    fn named(&self, stream: TlsStream<TcpStream>) -> Result<(TlsStream<TcpStream>, NodeName), IdentityError> {
        let (_, connection) = stream.get_ref();
        if connection.alpn_protocol() != Some(SYNC_ALPN) {
            return Err(IdentityError::Tls("the peer speaks another protocol".into()));
        }
        let node = self.identity.trust().peer_node(connection.peer_certificates().unwrap_or_default())?;
        Ok((stream, node))
    }
}

async fn limited<T>(work: impl Future<Output = std::io::Result<T>>) -> Result<T, IdentityError> {
    timeout(LIMIT, work).await.map_err(|_| IdentityError::Timeout(LIMIT))?.map_err(tls)
}

fn tls(error: std::io::Error) -> IdentityError {
    IdentityError::Tls(error.to_string())
}
