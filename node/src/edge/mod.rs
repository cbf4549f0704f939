//! The edge: where traffic from outside ends. Accepts, speaks TLS and HTTP, and hands every
//! request to the proxy.
//!
//! Way in: [`Edge::start`]. One acceptor thread owns the listening sockets ([`listen`]) and hands
//! connections to the least loaded of the worker threads ([`worker`]), each of which has a
//! runtime, timers and upstream connections of its own.

mod accept;
mod connect;
mod guard;
mod listen;
mod serve;
mod sniff;
mod sockets;
mod stats;
mod streams;
mod tls;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::BoxFuture;
use meshgate_core::sanitize::Cidr;
use meshgate_core::snapshot::{HeadId, Key, Protocol};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::drain::Drain;
use crate::identity::KeyStore;
use crate::proxy::ProxyContext;

use accept::Dispatcher;
use listen::Listeners;
use tls::Certificates;
use worker::Shared;

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
    /// How long a connection whose listener closes may take to begin its first request: it was
    /// taken from the listener's queue, or its client has only just connected.
    pub last_words: Duration,
    /// How long an HTTP/1 client that has closed its side is served without a byte going out.
    pub half_closed: Duration,
    /// Proxies in front of this one, whose forwarded headers are believed and continued.
    pub trusted_proxies: Arc<[Cidr]>,
}

impl EdgeConfig {
    /// The ranges of trusted hops, if the client is one.
    fn trusts(&self, client: IpAddr) -> Option<Arc<[Cidr]>> {
        let trusted = self.trusted_proxies.iter().any(|range| range.contains(client));
        trusted.then(|| Arc::clone(&self.trusted_proxies))
    }
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
            last_words: Duration::from_secs(1),
            half_closed: Duration::from_secs(5),
            trusted_proxies: Arc::default(),
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
    /// Certificates whose private key is not here: their listeners show what they showed before.
    pub missing_keys: Vec<Key>,
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

/// A socket that can't be had.
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
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            threads => threads,
        };
        let shared = Shared {
            config: Arc::new(config),
            proxy: deps.proxy,
            certificates: Arc::new(Certificates::new(deps.keys)),
            stats: Arc::default(),
            drain: deps.drain,
            abandoned: CancellationToken::new(),
        };
        // Cancels where a thread can't be started, and when `run` is dropped.
        let guard = shared.abandoned.clone().drop_guard();
        let (alive, ended) = mpsc::channel(1);
        let (mut workers, mut joins) = (Vec::new(), Vec::new());
        for index in 0..threads {
            let (worker, join) = worker::start(index, shared.clone(), alive.clone())?;
            workers.push(worker);
            joins.push(join);
        }
        let (report, live) = watch::channel(LiveReport::default());
        let stats = Arc::clone(&shared.stats);
        let dispatcher = Dispatcher::new(shared.clone(), workers);
        let listeners = Listeners::new(shared, deps.sockets, dispatcher, report);
        joins.push(start_acceptor(listeners, deps.table_changed, alive)?);
        Ok(Edge { live, stats, run: Box::pin(end(guard, ended, joins)) })
    }
}

/// The thread that owns the listening sockets.
fn start_acceptor(
    listeners: Listeners,
    changed: watch::Receiver<HeadId>,
    alive: mpsc::Sender<()>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("edge-accept".to_owned()).spawn(move || {
        runtime.block_on(listeners.run(changed));
        drop(runtime);
        drop(alive);
    })
}

/// Waits for the threads' ends.
async fn end(guard: DropGuard, mut ended: mpsc::Receiver<()>, joins: Vec<JoinHandle<()>>) {
    // Nothing is sent: it ends when the last thread drops its sender.
    let _ = ended.recv().await;
    for join in joins {
        let name = join.thread().name().unwrap_or("edge").to_owned();
        if join.join().is_err() {
            tracing::error!(thread = name, "a thread of the edge had panicked");
        }
    }
    drop(guard);
}
