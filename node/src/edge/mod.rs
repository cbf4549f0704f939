//! The edge: where traffic from outside ends. Accepts, speaks TLS and HTTP, and hands every
//! request to the proxy.
//!
//! Way in: [`Edge::start`]. One acceptor thread owns the listening sockets ([`listen`]) and hands
//! connections to the least loaded of the worker threads ([`worker`]), each of which has a
//! runtime, timers and upstream connections of its own.

mod accept;
mod listen;
mod serve;
mod sniff;
mod sockets;
mod stats;
mod tls;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use meshgate_core::snapshot::{HeadId, Key, Protocol};
use tokio::sync::watch;

use crate::drain::Drain;
use crate::identity::KeyStore;
use crate::proxy::ProxyContext;

pub use sockets::SocketStore;
pub use stats::EdgeStats;

/// Connections a process accepts at the same time; what comes beyond is closed at once.
pub const MAX_CONNECTIONS: usize = 16_384;

/// What the edge must know at its start.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// n of the loopback mode: Gateway g listens on 127.n.g.1. `None`: no loopback Gateways here.
    pub node_number: Option<u8>,
    /// Worker threads; 0 is one a core.
    pub threads: usize,
    /// Where a port below 1024 may not be bound, it is bound at port + this; 0: report an error.
    pub port_offset_below_1024: u16,
    /// Connections at the same time.
    pub max_connections: usize,
    /// From the first byte of a request's head to its last.
    pub header_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// From accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        EdgeConfig {
            node_number: None,
            threads: 0,
            port_offset_below_1024: 0,
            max_connections: MAX_CONNECTIONS,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// What the edge works with.
pub struct EdgeDeps {
    /// Says that the proxy's table was swapped.
    pub table_changed: watch::Receiver<HeadId>,
    /// Private keys of listeners.
    pub keys: Arc<KeyStore>,
    /// What requests are handed to; holds the table.
    pub proxy: Arc<ProxyContext>,
    /// Listening sockets that were opened before the start.
    pub sockets: SocketStore,
    /// When to stop.
    pub drain: Drain,
}

/// What is live on this peer, for the acknowledgement to the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveReport {
    /// The head whose sockets these are.
    pub head: HeadId,
    /// Sockets that listen.
    pub bound: Vec<BoundListener>,
    /// What the table wants and this node can't give.
    pub errors: Vec<BindError>,
}

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundListener {
    /// The Gateway.
    pub gateway: Key,
    /// The logical port.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// The real address.
    pub address: SocketAddr,
}

/// A socket, or a certificate of it, that can't be served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BindError {
    /// The Gateway.
    pub gateway: Key,
    /// The logical port.
    pub port: u16,
    /// Where it should have been; `None` where the Gateway has no address on this node.
    pub address: Option<SocketAddr>,
    /// What is wrong and what to check.
    pub message: String,
}

/// A running edge.
pub struct Edge {
    /// What is live; changes after every table change.
    pub live: watch::Receiver<LiveReport>,
    /// Counters of connections.
    pub stats: Arc<EdgeStats>,
    /// Ends when the edge has ended (drained, or cut). Dropping it cuts at once.
    pub run: BoxFuture<'static, ()>,
}

impl Edge {
    /// Starts the threads. Sockets are bound from the first table on.
    ///
    /// # Errors
    /// A thread or a runtime can't be made.
    pub fn start(config: EdgeConfig, deps: EdgeDeps) -> io::Result<Edge> {
        let _ = (config, deps);
        Err(io::Error::other("not yet"))
    }
}
