//! Requests for pods of other nodes, through a tunnel without a wire.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use meshgate_core::snapshot::{AppProtocol, HeadId};
use meshgate_node::proxy::PodHost;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::client::Client;
use crate::http::one_with;
use crate::mesh::{Direct, Options, context};
use crate::resources::{Resources, prefix};

/// A host on node n2 that knows a Service's endpoints there.
fn host(backend: &Backend) -> PodHost {
    let mut resources = Resources::default();
    resources.service("a", AppProtocol::Http1, &[(backend.address, Some("n2"))]);
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
    assert_eq!(far.connections(), 1, "the host keeps its connections");
    assert_eq!(mesh.context.metrics.totals().tunnel, 40);
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
