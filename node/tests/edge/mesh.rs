//! One node's edge with its table in the test's hand.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::{Request, Response, request};
use http_body_util::BodyExt;
use meshgate_core::snapshot::HeadId;
use meshgate_core::table::Table;
use meshgate_node::drain::{self, DrainControl, Phase};
use meshgate_node::edge::{Edge, EdgeConfig, EdgeDeps, EdgeStats, LiveReport, SocketStore};
use meshgate_node::identity::{KeyStore, NodeName};
use meshgate_node::proxy::{AccessLog, Clock, PodHost, ProxyContext, ProxyMetrics, Remote, RemoteError};
use meshgate_node::tunnel::{Attempt, Body, Host, StreamHeader};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::PATIENCE;
use crate::resources::Resources;

/// A node's edge.
pub struct Mesh {
    pub resources: Resources,
    pub context: Arc<ProxyContext>,
    pub keys: Arc<KeyStore>,
    pub live: watch::Receiver<LiveReport>,
    pub stats: Arc<EdgeStats>,
    pub drain: DrainControl,
    pub run: JoinHandle<()>,
    pub registry: Registry,
    changed: watch::Sender<HeadId>,
    sockets: SocketStore,
    rev: u64,
    _keys: tempfile::TempDir,
}

/// How a mesh differs from the usual one.
pub struct Options {
    pub config: EdgeConfig,
    pub access_log: AccessLog,
    pub remote: Arc<dyn Remote>,
    pub expected: Vec<&'static str>,
    pub max_requests_per_endpoint: u32,
}

impl Default for Options {
    fn default() -> Self {
        let config = EdgeConfig { threads: 2, ..EdgeConfig::default() };
        Options {
            config,
            access_log: AccessLog::default(),
            remote: Arc::new(NoTunnel),
            expected: Vec::new(),
            max_requests_per_endpoint: 1_024,
        }
    }
}

/// A tunnel that reaches nobody.
pub struct NoTunnel;

impl Remote for NoTunnel {
    fn send<'a>(
        &'a self,
        _: &'a NodeName,
        _: StreamHeader,
        _: &'a request::Parts,
        _: Attempt,
    ) -> BoxFuture<'a, Result<Response<Body>, RemoteError>> {
        Box::pin(async { Err(RemoteError::Unreachable("no tunnel".into())) })
    }
}

/// A tunnel without a wire: asks another node's host.
pub struct Direct(pub PodHost);

impl Remote for Direct {
    fn send<'a>(
        &'a self,
        node: &'a NodeName,
        header: StreamHeader,
        head: &'a request::Parts,
        body: Attempt,
    ) -> BoxFuture<'a, Result<Response<Body>, RemoteError>> {
        let connected = self.0.connect(node, header);
        Box::pin(async move {
            let hosted = connected.await.map_err(RemoteError::Refused)?;
            let request = Request::from_parts(head.clone(), body.boxed_unsync());
            hosted.send(request).await.map_err(RemoteError::Broken)
        })
    }
}

/// What requests are handed to on a node.
pub fn context(node: &str, table: Table, options: &Options, registry: &mut Registry) -> Arc<ProxyContext> {
    Arc::new(ProxyContext {
        node: NodeName::from(node),
        source: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        table: Arc::new(ArcSwap::from_pointee(table)),
        remote: Arc::clone(&options.remote),
        expected: Arc::new(ArcSwap::from_pointee(
            options.expected.iter().map(|node| NodeName::from(*node)).collect::<HashSet<_>>(),
        )),
        metrics: Arc::new(ProxyMetrics::new(registry)),
        clock: Clock::start(),
        access_log: options.access_log.clone(),
        max_requests_per_endpoint: options.max_requests_per_endpoint,
        debug_headers: true,
        retained: Arc::default(),
    })
}

impl Mesh {
    pub fn start(options: Options) -> Mesh {
        let resources = Resources::at("n1");
        let mut registry = Registry::default();
        let context = context("n1", resources.table(1), &options, &mut registry);
        let folder = tempfile::tempdir().unwrap();
        let keys = Arc::new(KeyStore::in_folder(folder.path().join("keys")).unwrap());
        let (changed, table_changed) = watch::channel(HeadId { epoch: 1, rev: 1 });
        let (control, drain) = drain::channel();
        let sockets = SocketStore::default();
        let deps = EdgeDeps {
            table_changed,
            keys: Arc::clone(&keys),
            proxy: Arc::clone(&context),
            sockets: sockets.clone(),
            drain,
        };
        let edge = Edge::start(options.config, deps).unwrap();
        Mesh {
            resources,
            context,
            keys,
            live: edge.live,
            stats: edge.stats,
            drain: control,
            run: tokio::spawn(edge.run),
            registry,
            changed,
            sockets,
            rev: 1,
            _keys: folder,
        }
    }

    /// A port of 127.0.0.1 that the edge will get from the store.
    pub fn reserve(&self) -> SocketAddr {
        let listener = self.sockets.take_or_bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        self.sockets.put(listener).unwrap();
        address
    }

    /// Makes the resources live and waits until the sockets are.
    pub async fn apply(&mut self) {
        self.swap();
        let head = HeadId { epoch: 1, rev: self.rev };
        let live = self.live.wait_for(|live| live.head == head);
        let _ = tokio::time::timeout(PATIENCE, live).await.expect("the edge does not follow").unwrap();
    }

    /// Makes the resources live, without waiting.
    pub fn swap(&mut self) {
        self.rev += 1;
        let next = self.resources.update(&self.context.table.load(), self.rev);
        self.context.table.store(Arc::new(next));
        self.changed.send_replace(HeadId { epoch: 1, rev: self.rev });
    }

    /// Metrics as text.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// Drains and waits for the end.
    pub async fn stop(self) {
        self.drain.advance(Phase::Draining);
        self.ended().await;
    }

    pub async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.run).await.expect("the edge does not end").unwrap();
    }
}

/// Times that tests can wait for.
pub fn impatient() -> EdgeConfig {
    EdgeConfig {
        threads: 1,
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(1200),
        handshake_timeout: Duration::from_millis(300),
        ..EdgeConfig::default()
    }
}
