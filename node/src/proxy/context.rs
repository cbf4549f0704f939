//! What the proxy works with: once a process ([`ProxyContext`]), once a thread ([`Local`]), once
//! a connection ([`ConnectionInfo`]).

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use http::HeaderMap;
use meshgate_core::sanitize::{self, Cidr};
use meshgate_core::snapshot::Key;
use meshgate_core::table::Table;

use super::access_log::AccessLog;
use super::clock::Clock;
use super::lock;
use super::metrics::ProxyMetrics;
use super::mirror::Mirrors;
use super::pool::Pool;
use super::remote::Remote;
use super::view::View;
use crate::h1::Interim;
use crate::identity::{ClientCertificate, NodeName};
use crate::timer::CoarseTimer;

/// Nodes whose peer is expected: endpoints on them are reached by tunnel.
pub type ExpectedPeers = Arc<ArcSwap<HashSet<NodeName>>>;

/// What all threads share.
pub struct ProxyContext {
    /// This node.
    pub node: NodeName,
    /// Where direct dials come from (loopback mode: 127.n.0.1).
    pub source: Option<IpAddr>,
    /// The table; a request loads it once.
    pub table: Arc<ArcSwap<Table>>,
    /// The tunnel to other nodes.
    pub remote: Arc<dyn Remote>,
    /// Nodes reached by tunnel.
    pub expected: ExpectedPeers,
    /// Counters.
    pub metrics: Arc<ProxyMetrics>,
    /// The monotonic clock of `EndpointState`.
    pub clock: Clock,
    /// Where finished requests are written.
    pub access_log: AccessLog,
    /// Responses say how they came (`x-meshgate-via`). For demos and tests.
    pub debug_headers: bool,
    /// Requests in flight that an endpoint may have from this peer.
    pub max_requests_per_endpoint: u32,
    /// Bytes of request bodies that are kept for another attempt, in the whole process.
    pub retained: Arc<AtomicUsize>,
}

/// What one thread has for itself.
pub struct Local {
    context: Arc<ProxyContext>,
    /// Connections to pods.
    pub pool: Pool,
    /// Deadlines.
    pub timer: CoarseTimer,
    /// Copies of requests that are on their way.
    pub(super) mirrors: Mirrors,
    view: Mutex<Arc<View>>,
}

/// What is known of a client's connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The Gateway whose address was dialled.
    pub gateway: Key,
    /// The listener's logical port.
    pub port: u16,
    /// TLS ended here.
    pub tls: bool,
    /// The client.
    pub client: SocketAddr,
    /// Server name of the TLS handshake, empty where the client named nobody; `None` without TLS.
    pub sni: Option<String>,
    /// The client's certificate, where the listener verified one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Version of TLS, as logs show it.
    pub tls_version: Option<&'static str>,
    /// The ranges of trusted hops, where the client is one of them.
    pub trusted: Option<Arc<[Cidr]>>,
    /// Where interim responses of a backend are put, if the client can be sent any.
    pub interim: Option<Interim>,
}

impl Local {
    /// A thread's share. Whoever owns it calls [`Local::tick`] every [`crate::timer::TICK`].
    pub fn new(context: Arc<ProxyContext>) -> Self {
        Local {
            pool: Pool::new(context.source),
            timer: CoarseTimer::default(),
            mirrors: Mirrors::default(),
            view: Mutex::new(Arc::new(View::new(context.table.load_full()))),
            context,
        }
    }

    /// What all threads share. Reached through the thread's share, so that requests of different
    /// threads don't count references in one place.
    pub fn context(&self) -> &ProxyContext {
        &self.context
    }

    /// The table of now.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.view().table)
    }

    /// Fires what is due and closes what was idle for too long.
    pub fn tick(&self) {
        self.timer.tick();
        self.pool.sweep();
    }

    /// The table for one request, with this thread's own counter of references.
    pub(super) fn view(&self) -> Arc<View> {
        let current = self.context.table.load();
        let mut view = lock(&self.view);
        if !Arc::ptr_eq(&view.table, &current) {
            *view = Arc::new(View::new(Arc::clone(&current)));
        }
        Arc::clone(&view)
    }
}

impl ConnectionInfo {
    /// As `sanitize` wants it.
    pub(super) fn canonical(&self) -> sanitize::Connection {
        sanitize::Connection {
            client: self.client.ip(),
            tls: self.tls,
            port: self.port,
            trusted: self.trusted.is_some(),
        }
    }

    /// The client's address as trusted hops tell it, for logs and session affinity.
    pub fn client_address(&self, headers: &HeaderMap) -> IpAddr {
        match &self.trusted {
            Some(trusted) => sanitize::client_address(self.client.ip(), headers, trusted),
            None => self.client.ip(),
        }
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}
