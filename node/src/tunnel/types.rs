//! What the tunnel is told and what it tells.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Refusal;
use crate::identity::{NodeIdentity, NodeName};

/// Where each peer's tunnel listens.
pub type PeerDirectory = watch::Receiver<Arc<HashMap<NodeName, SocketAddr>>>;

/// How a tunnel is set up.
#[derive(Clone, Debug)]
pub struct TunnelConfig {
    /// Where it listens; also this node's gossip address.
    pub listen: SocketAddr,
    /// The address it dials from; its ports are never shared.
    pub dial_from: IpAddr,
    /// Who this node is.
    pub identity: NodeIdentity,
    /// Whom it may dial. This node's own entry is ignored.
    pub peers: PeerDirectory,
    /// Keys stateless resets; the same after a restart, so that peers notice one at once.
    pub reset_secret: [u8; 32],
}

/// Why a request did not get through a tunnel.
#[derive(Debug, thiserror::Error)]
#[error("tunnel: {kind}")]
pub struct TunnelFailure {
    /// What happened.
    pub kind: TunnelFailureKind,
    /// The host had said `accepted`, and did not take it back: the pod may have seen the request.
    pub accepted: bool,
}

/// What happened to a request.
#[derive(Debug, thiserror::Error)]
pub enum TunnelFailureKind {
    /// The host refused; it wrote nothing to the pod.
    #[error("the peer refused: {0:?}")]
    Refused(Refusal),
    /// No connection to the peer, or no room on one; nothing was sent.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    /// The stream broke after something was sent.
    #[error("the stream broke: {0}")]
    Broken(String),
    /// The client's own body broke.
    #[error("the client's body broke: {0}")]
    Client(String),
}

impl TunnelFailure {
    /// Whether the pod has certainly seen nothing, so that any request may be sent elsewhere.
    ///
    /// `Broken` without `accepted` is not certain: the peer may have accepted while its answer was
    /// lost. Send such a request again only if it is idempotent, or if the mesh's operator
    /// prefers a possible repetition to a certain failure.
    pub fn certainly_unsent(&self) -> bool {
        matches!(self.kind, TunnelFailureKind::Refused(_) | TunnelFailureKind::Unreachable(_)) && !self.accepted
    }
}

/// What a tunnel cannot start without.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// A socket could not be had.
    #[error("UDP socket on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The TLS or QUIC configuration does not work out.
    #[error("tunnel configuration: {0}")]
    Config(String),
}

/// The state of the connections to one peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TunnelStats {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Packets lost, of those sent, in percent.
    pub lost_percent: f64,
    /// Bytes in a packet.
    pub mtu: u16,
    /// Connections that are open.
    pub connections: usize,
    /// Streams in use.
    pub streams: usize,
    /// Whether the kernel segments packets (UDP GSO).
    pub gso: bool,
    /// How long nothing was heard.
    pub silent_for: Duration,
}
