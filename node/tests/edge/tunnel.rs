//! Requests for pods of other nodes, through a tunnel without a wire and through the real one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Response, request};
use meshgate_core::snapshot::{AppProtocol, HeadId};
use meshgate_node::drain::{self, DrainControl, Phase};
use meshgate_node::identity::{InstanceId, NodeIdentity, NodeName, RunDir};
use meshgate_node::proxy::{PodHost, Remote, RemoteError};
use meshgate_node::tunnel::{Attempt, Body, Host, RETAIN_TOTAL, Refusal, StreamHeader, Tunnel, TunnelConfig};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::client::{Client, PATIENCE, until};
use crate::http::one_with;
use crate::mesh::{Direct, NoTunnel, Options, context};
use crate::resources::{Resources, prefix};

/// A host on node n2 that knows a Service's endpoints there.
pub fn host(backend: &Backend) -> PodHost {
    host_of(backend.address, AppProtocol::Http1)
}

/// The same for any address.
pub fn host_of(pod: SocketAddr, app: AppProtocol) -> PodHost {
    let mut resources = Resources::default();
    resources.service("a", app, &[(pod, Some("n2"))]);
    let context = context("n2", resources.table(9), &Options::default(), &mut Registry::default());
    let (_, applied) = watch::channel(HeadId { epoch: 1, rev: 9 });
    PodHost::new(context, applied)
}

#[tokio::test]
async fn pods_of_other_nodes_are_reached_through_their_peer() {
    let (near, far) = (Backend::start("near").await, Backend::start("far").await);
    let options = Options { remote: Arc::new(Direct(host(&far))), expected: vec!["n2"], ..Options::default() };
    let (mut mesh, address) = one_with(options, &[("a", &near)], vec![prefix("/", "a")]).await;
    mesh.resources.service("a", AppProtocol::Http1, &[(far.address, Some("n2"))]);
    mesh.apply().await;
    for mut client in [Client::h1(address).await, Client::h2(address).await] {
        for _ in 0..20 {
            let body = Bytes::from(vec![b'f'; 200_000]);
            let answer = client.send(Method::POST, "http://s/echo", &[], body).await.unwrap();
            assert_eq!((answer.header("x-backend"), answer.body.len()), ("far", 200_000));
            assert!(answer.header("x-meshgate-via").starts_with("tunnel node=n1"));
        }
    }
    // Without a wire the host works on two threads: one may dial while the other ends its use.
    assert!(far.connections() < 10, "the host keeps its connections: {}", far.connections());
    until("all are counted", || mesh.context.metrics.totals().tunnel == 40).await;
    mesh.stop().await;
}

#[tokio::test]
async fn what_the_host_refuses_goes_elsewhere_and_so_does_what_a_dead_peer_would_get() {
    let (near, far, gone) = (Backend::start("near").await, Backend::start("far").await, Backend::start("gone").await);
    let options = Options { remote: Arc::new(Direct(host(&far))), expected: vec!["n2"], ..Options::default() };
    let (mut mesh, address) = one_with(options, &[("a", &near)], vec![prefix("/", "a")]).await;
    // The host does not know `gone`: it answers that it is not there.
    mesh.resources.service("a", AppProtocol::Http1, &[(gone.address, Some("n2")), (near.address, Some("n1"))]);
    mesh.apply().await;
    let mut client = Client::h1(address).await;
    for _ in 0..30 {
        let body = Bytes::from(vec![b'f'; 20_000]);
        let answer = client.send(Method::POST, "http://s/echo", &[], body).await.unwrap();
        assert_eq!((answer.header("x-backend"), answer.body.len()), ("near", 20_000));
    }
    assert_eq!(gone.requests(), 0);
    mesh.stop().await;
}

#[tokio::test]
async fn the_last_resort_is_a_direct_dial() {
    let (near, far) = (Backend::start("near").await, Backend::start("far").await);
    let options = Options { expected: vec!["n2"], ..Options::default() };
    let (mut mesh, address) = one_with(options, &[("a", &near)], vec![prefix("/", "a")]).await;
    mesh.resources.service("a", AppProtocol::Http1, &[(far.address, Some("n2"))]);
    mesh.apply().await;
    let mut client = Client::h1(address).await;
    let answer = client.send(Method::POST, "http://s/echo", &[], Bytes::from(vec![b'f'; 20_000])).await.unwrap();
    assert_eq!((answer.header("x-backend"), answer.body.len()), ("far", 20_000));
    assert!(answer.header("x-meshgate-via").starts_with("fallback"));
    assert!(mesh.metrics().contains("meshgate_picks_total{via=\"fallback\"} 1"));
    mesh.stop().await;
}

/// A peer that refuses everything for the same reason.
struct Refusing(Refusal);

impl Remote for Refusing {
    fn send<'a>(
        &'a self,
        _: &'a NodeName,
        _: StreamHeader,
        _: &'a request::Parts,
        _: Attempt,
    ) -> BoxFuture<'a, Result<Response<Body>, RemoteError>> {
        let refusal = self.0;
        Box::pin(async move { Err(RemoteError::Refused(refusal)) })
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_costs_no_request_however_many_pods_it_has() {
    let (near, far) = (Backend::start("near").await, Backend::start("far").await);
    let others = [Backend::start("b").await, Backend::start("c").await, Backend::start("d").await];
    let away: Vec<_> = others.iter().chain([&far]).map(|backend| (backend.address, Some("n2"))).collect();
    let peers: [Arc<dyn Remote>; 3] =
        [Arc::new(Refusing(Refusal::Draining)), Arc::new(Refusing(Refusal::Overloaded)), Arc::new(NoTunnel)];
    for (index, remote) in peers.into_iter().enumerate() {
        let options = Options { remote, expected: vec!["n2"], ..Options::default() };
        let (mut mesh, address) = one_with(options, &[("a", &near)], vec![prefix("/", "a")]).await;
        let all: Vec<_> = away.iter().copied().chain([(near.address, Some("n1"))]).collect();
        mesh.resources.endpoints("a", &all);
        mesh.apply().await;
        let mut client = Client::h1(address).await;
        for _ in 0..20 {
            let answer = client.send(Method::POST, "http://s/echo", &[], Bytes::from_static(b"x")).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.header("x-backend")), (200, "near"), "{}", answer.text());
        }
        // No other pod is left: those of a peer that is full are left alone, others are dialled.
        mesh.resources.endpoints("a", &away);
        mesh.apply().await;
        let answer = client.send(Method::POST, "http://s/echo", &[], Bytes::from_static(b"x")).await.unwrap();
        let status = if index == 1 { 503 } else { 200 };
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(index == 1 || answer.header("x-meshgate-via").starts_with("fallback"));
        mesh.stop().await;
    }
}

/// The tunnels of two nodes; n2 hosts.
pub struct Wire {
    pub near: Tunnel,
    end: DrainControl,
    runners: Vec<std::thread::JoinHandle<()>>,
    _run: tempfile::TempDir,
}

impl Wire {
    pub async fn between(near: PodHost, far: PodHost) -> Wire {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path().join("run")).unwrap();
        let (directory, peers) = watch::channel(Arc::new(HashMap::<NodeName, SocketAddr>::new()));
        let (end, drain) = drain::channel();
        let (mut tunnels, mut runners) = (Vec::new(), Vec::new());
        for (name, host) in [("n1", near), ("n2", far)] {
            let node = NodeName::from(name);
            let config = TunnelConfig {
                listen: "127.0.0.1:0".parse().unwrap(),
                dial_from: "127.0.0.1".parse().unwrap(),
                identity: NodeIdentity::issue(&run, node.clone(), InstanceId::random()).unwrap(),
                peers: peers.clone(),
                reset_secret: run.reset_secret(&node),
            };
            let (tunnel, _gossip, runner) = Tunnel::bind(config).unwrap();
            directory.send_modify(|all| {
                Arc::make_mut(all).insert(node.clone(), runner.listen());
            });
            let drain = drain.clone();
            runners.push(std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(runner.run(Arc::new(host), drain)).unwrap();
            }));
            tunnels.push(tunnel);
        }
        let near = tunnels.remove(0);
        until("the tunnel is up", || near.alive(&NodeName::from("n2"))).await;
        Wire { near, end, runners, _run: folder }
    }

    /// Ends both nodes' tunnels.
    pub async fn cut(self) {
        self.end.advance(Phase::Cut);
        let join = tokio::task::spawn_blocking(|| self.runners.into_iter().for_each(|runner| runner.join().unwrap()));
        tokio::time::timeout(PATIENCE, join).await.expect("a tunnel does not end").unwrap();
    }
}

#[tokio::test]
async fn the_real_tunnel_carries_bodies_both_ways_and_refusals() {
    let (near, far, gone) = (Backend::start("near").await, Backend::start("far").await, Backend::start("gone").await);
    let wire = Wire::between(host(&far), host(&far)).await;
    let options = Options { remote: Arc::new(wire.near.clone()), expected: vec!["n2"], ..Options::default() };
    let (mut mesh, address) = one_with(options, &[("a", &near)], vec![prefix("/", "a")]).await;
    mesh.resources.service("a", AppProtocol::Http1, &[(far.address, Some("n2")), (gone.address, Some("n2"))]);
    mesh.apply().await;
    let megabytes = 5 * 1024 * 1024;
    for mut client in [Client::h1(address).await, Client::h2(address).await] {
        for size in [0, 1, 60_000, 70_000, megabytes, 3] {
            let answer = client.send(Method::POST, "http://s/echo", &[], Bytes::from(vec![b'f'; size])).await.unwrap();
            assert_eq!((answer.header("x-backend"), answer.body.len()), ("far", size), "{}", answer.text());
        }
        assert_eq!(client.get(&format!("http://s/big?{megabytes}")).await.body.len(), megabytes);
        let head = client.send(Method::HEAD, "http://s/x", &[], Bytes::new()).await.unwrap();
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
        assert_eq!(client.get("http://s/status?204").await.status, 204);
    }
    // Where nothing may be kept, nothing is read before a host has accepted.
    mesh.context.retained.fetch_add(RETAIN_TOTAL, Ordering::Relaxed);
    let mut client = Client::h1(address).await;
    for _ in 0..12 {
        let body = Bytes::from(vec![b'f'; 200_000]);
        let answer = client.send(Method::POST, "http://s/echo", &[], body).await.unwrap();
        assert_eq!((answer.header("x-backend"), answer.body.len()), ("far", 200_000), "{}", answer.text());
    }
    assert_eq!(gone.requests(), 0, "the host does not know it");
    until("all are counted", || mesh.context.metrics.totals().tunnel == 30).await;
    assert!(!mesh.metrics().contains("client_gone"), "{}", mesh.metrics());
    // The peer is ending, then gone for good: its pods are dialled.
    mesh.resources.endpoints("a", &[(far.address, Some("n2"))]);
    mesh.apply().await;
    wire.end.advance(Phase::Draining);
    let mut client = Client::h1(address).await;
    let answer = client.get("http://s/x").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("x-meshgate-via").starts_with("fallback"));
    assert!(mesh.metrics().contains("reason=\"peer_draining\""), "{}", mesh.metrics());
    wire.cut().await;
    let mut client = Client::h1(address).await;
    let answer = client.get("http://s/x").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("x-meshgate-via").starts_with("fallback"));
    mesh.stop().await;
}

#[tokio::test]
async fn a_host_waits_for_the_head_that_chose_only_where_it_does_not_know_the_endpoint() {
    let (known, new) = (Backend::start("known").await, Backend::start("new").await);
    let mut resources = Resources::default();
    resources.service("a", AppProtocol::Http1, &[(known.address, Some("n2"))]);
    let context = context("n2", resources.table(9), &Options::default(), &mut Registry::default());
    let (newer, applied) = watch::channel(HeadId { epoch: 1, rev: 9 });
    let host = PodHost::new(Arc::clone(&context), applied);
    let header = |endpoint| StreamHeader {
        endpoint,
        client: "192.0.2.7:4711".parse().unwrap(),
        chosen_by: HeadId { epoch: 1, rev: 10 },
    };
    let sender = NodeName::from("n1");
    let started = Instant::now();
    assert!(host.connect(&sender, header(known.address)).await.is_ok());
    assert!(started.elapsed() < Duration::from_secs(1), "what is known need not wait: {:?}", started.elapsed());
    let waiting = tokio::spawn(host.connect(&sender, header(new.address)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "what is not known waits for the sender's head");
    resources.service("a", AppProtocol::Http1, &[(new.address, Some("n2"))]);
    context.table.store(Arc::new(resources.table(10)));
    newer.send_replace(HeadId { epoch: 1, rev: 10 });
    assert!(waiting.await.unwrap().is_ok());
    assert_eq!(host.connect(&sender, header(known.address)).await.err(), Some(Refusal::NotHere));
}
