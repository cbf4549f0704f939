//! The tunnel between two nodes: QUIC, mutually authenticated, one stream a request.
//!
//! A stream opens with a header; the hosting peer answers `accepted` before it writes a byte to
//! the pod, or refuses, and then the sender picks again.
//!
//! [`Tunnel::bind`] gives a handle, gossip's channel and a runner. The runner drives every QUIC
//! connection on a runtime of its own; handles and the streams they open work on any.

mod client;
mod codec;
mod endpoint;
mod frame;
mod gossip;
mod host;
mod metrics;
mod peers;
mod raw;
mod replay;
mod runner;
mod types;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use meshgate_core::snapshot::HeadId;

use crate::identity::NodeName;
use peers::Peers;
use tokio::sync::{Semaphore, mpsc};

pub use gossip::{GossipChannel, MAX_GOSSIP_MESSAGE};
pub use metrics::TunnelMetrics;
pub use replay::{Attempt, RETAIN_BODY, RETAIN_TOTAL, Replay, empty};
pub use runner::TunnelRunner;
pub use types::{PeerDirectory, TunnelConfig, TunnelError, TunnelFailure, TunnelFailureKind, TunnelStats};

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// What [`Hosted::send`] fails with where provably nothing was sent to the pod after all.
#[derive(Debug, thiserror::Error)]
#[error("nothing was sent: {0}")]
pub struct Unsent(pub BodyError);

/// A body of any origin.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// What opens an HTTP stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// The endpoint wanted, on the receiving node.
    pub endpoint: SocketAddr,
    /// The client's address, for logs.
    pub client: SocketAddr,
    /// The head whose table chose; a host that does not know the endpoint and has not applied it
    /// yet waits at most 2 s for it.
    pub chosen_by: HeadId,
}

/// The hosting peer's refusal: nothing reached the pod, another endpoint may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No such endpoint on this node, or it does not accept connections.
    NotHere,
    /// The endpoint is going away.
    Terminating,
    /// Policy forbids it.
    Denied,
    /// This peer has no room now.
    Overloaded,
    /// This peer is ending; its pods can still be dialled.
    Draining,
}

/// Implemented by the proxy: reaches pods of this node for streams that come in.
pub trait Host: Send + Sync + 'static {
    /// Gets a live connection to the endpoint, or refuses. Nothing is written to the pod yet.
    fn connect(&self, peer: &NodeName, header: StreamHeader) -> BoxFuture<'static, Result<Box<dyn Hosted>, Refusal>>;
}

/// A live upstream connection, checked out for one request.
pub trait Hosted: Send {
    /// Sends the request and returns the response head and body.
    fn send(self: Box<Self>, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, BodyError>>;
}

/// A node's tunnels, for sending. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Tunnel {
    shared: Arc<Shared>,
}

/// What handles and the runner share.
struct Shared {
    peers: Peers,
    directory: PeerDirectory,
    dial: mpsc::Sender<runner::Dial>,
    metrics: TunnelMetrics,
    gso: AtomicBool,
    /// A permit for each stream that may be served.
    hosted: Arc<Semaphore>,
}

impl Shared {
    fn new(directory: PeerDirectory, dial: mpsc::Sender<runner::Dial>) -> Self {
        let (peers, metrics, gso) = (Peers::new(), TunnelMetrics::default(), AtomicBool::new(false));
        let hosted = Arc::new(Semaphore::new(host::MAX_HOSTED));
        Shared { peers, directory, dial, metrics, gso, hosted }
    }

    fn started(&self, gso: bool) {
        self.gso.store(gso, Ordering::Relaxed);
        self.metrics.gso_enabled.set(i64::from(gso));
    }

    /// Looks at every connection.
    fn tick(&self, gauges: bool) {
        for peer in self.peers.all() {
            peer.tick(&self.metrics);
            if let Some(stats) = gauges.then(|| peer.stats(self.gso.load(Ordering::Relaxed))).flatten() {
                self.metrics.show(&peer.node.0, &stats);
            }
        }
    }
}

impl Tunnel {
    /// Whether a connection to the node is open and was heard from within 1.5 s.
    pub fn alive(&self, node: &NodeName) -> bool {
        self.shared.peers.get(node).is_some_and(|peer| peer.alive())
    }

    /// The connections to one node, if there are any.
    pub fn stats(&self, node: &NodeName) -> Option<TunnelStats> {
        self.shared.peers.get(node)?.stats(self.shared.gso.load(Ordering::Relaxed))
    }

    /// Streams of other peers that this node serves now: what a drain waits for.
    pub fn hosted(&self) -> usize {
        host::MAX_HOSTED.saturating_sub(self.shared.hosted.available_permits())
    }

    /// What is counted.
    pub fn metrics(&self) -> &TunnelMetrics {
        &self.shared.metrics
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}
