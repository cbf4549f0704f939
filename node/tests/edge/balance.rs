//! Which endpoints get requests: ejection, limits, affinity, topology.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use meshgate_core::snapshot::{AppProtocol, Resource, Service, SessionAffinity, TrafficDistribution};

use crate::backend::Backend;
use crate::client::{Client, get, until};
use crate::http::{one, one_with};
use crate::mesh::{Mesh, Options};
use crate::resources::{prefix, service_key};
use crate::shaky::{Act, Shaky};

/// Changes what is declared of Service `a`.
fn declare(mesh: &mut Mesh, change: impl FnOnce(&mut Service)) {
    let Some(Resource::Service(service)) = mesh.resources.all.get(&service_key("a")).map(|found| (**found).clone())
    else {
        panic!("no Service");
    };
    let mut service = service;
    change(&mut service);
    mesh.resources.all.insert(service_key("a"), Arc::new(Resource::Service(service)));
}

async fn of_three() -> (Mesh, SocketAddr, [Backend; 3]) {
    let backends = [Backend::start("a").await, Backend::start("b").await, Backend::start("c").await];
    let (mut mesh, address) = one(&[("a", &backends[0])], vec![prefix("/", "a")]).await;
    let endpoints: Vec<_> = backends.iter().map(|backend| (backend.address, None)).collect();
    mesh.resources.service("a", AppProtocol::Http1, &endpoints);
    mesh.apply().await;
    (mesh, address, backends)
}

#[tokio::test]
async fn an_endpoint_that_fails_again_and_again_is_left_out_across_tables() {
    let (mut mesh, address, [a, b, _]) = of_three().await;
    let shaky = Shaky::start(&[Act::Status(503)]).await;
    let endpoints = [(shaky.address, None), (a.address, None), (b.address, None)];
    mesh.resources.endpoints("a", &endpoints);
    mesh.apply().await;
    let mut client = Client::h1(address).await;
    // The others are slow, so that whoever fails quickly is preferred.
    let mut seen = 0;
    for _ in 0..200 {
        seen += usize::from(client.get("http://s/slow?50").await.status == 503);
        if seen == 5 {
            break;
        }
    }
    assert_eq!((seen, shaky.requests()), (5, 5), "five in a row eject");
    mesh.apply().await;
    for _ in 0..100 {
        assert_eq!(client.get("http://s/x").await.status, 200);
    }
    assert_eq!(shaky.requests(), 5);
    let metrics = mesh.metrics();
    assert!(metrics.contains("meshgate_endpoint_ejections_total{backend=\"default/a:80\"} 1"), "{metrics}");
    mesh.stop().await;
}

#[tokio::test]
async fn the_last_endpoint_is_not_left_out() {
    let (mut mesh, address, _) = of_three().await;
    let shaky = Shaky::start(&[Act::Status(503)]).await;
    mesh.resources.endpoints("a", &[(shaky.address, None)]);
    mesh.apply().await;
    for _ in 0..12 {
        assert_eq!(get(address, "http://s/x").await.status, 503);
    }
    assert_eq!(shaky.requests(), 12);
    shaky.act(&[Act::Status(200)]);
    assert_eq!(get(address, "http://s/x").await.status, 200);
    mesh.stop().await;
}

#[tokio::test]
async fn above_the_limit_others_are_picked_and_then_none() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let options = Options { max_requests_per_endpoint: 2, ..Options::default() };
    let (mut mesh, address) = one_with(options, &[("a", &a)], vec![prefix("/", "a")]).await;
    mesh.resources.endpoints("a", &[(a.address, None), (b.address, None)]);
    mesh.apply().await;
    let mut hanging = tokio::task::JoinSet::new();
    for asked in 1..=4 {
        let mut client = Client::h1(address).await;
        hanging.spawn(async move { client.send(Method::GET, "http://s/hang", &[], Bytes::new()).await.is_ok() });
        until("it is asked", || a.requests() + b.requests() == asked).await;
    }
    assert_eq!((a.requests(), b.requests()), (2, 2));
    let answer = get(address, "http://s/x").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    assert!(answer.text().starts_with("overloaded"), "{}", answer.text());
    until("it is counted", || mesh.metrics().contains("reason=\"overloaded\"")).await;
    hanging.shutdown().await;
    until("they are given up", || mesh.context.metrics.totals().requests == 5).await;
    assert_eq!(get(address, "http://s/x").await.status, 200);
    mesh.stop().await;
}

#[tokio::test]
async fn a_client_stays_with_its_endpoint_until_that_goes() {
    let (mut mesh, address, backends) = of_three().await;
    declare(&mut mesh, |service| {
        service.affinity = SessionAffinity::ClientIp { timeout: Duration::from_secs(10_800) };
    });
    mesh.apply().await;
    let mut asked = BTreeSet::new();
    for _ in 0..20 {
        asked.insert(get(address, "http://s/x").await.header("x-backend").to_owned());
    }
    assert_eq!(asked.len(), 1, "{asked:?}");
    let left: Vec<_> = backends
        .iter()
        .zip(["a", "b", "c"])
        .filter(|(_, name)| !asked.contains(*name))
        .map(|(backend, _)| (backend.address, None))
        .collect();
    mesh.resources.endpoints("a", &left);
    mesh.apply().await;
    let mut others = BTreeSet::new();
    for _ in 0..20 {
        others.insert(get(address, "http://s/x").await.header("x-backend").to_owned());
    }
    assert!(others.len() == 1 && others.is_disjoint(&asked), "{others:?}");
    mesh.stop().await;
}

#[tokio::test]
async fn the_own_node_is_preferred_and_others_stand_in() {
    let (mut mesh, address, [a, b, _]) = of_three().await;
    declare(&mut mesh, |service| service.distribution = TrafficDistribution::PreferSameNode);
    mesh.resources.endpoints("a", &[(a.address, Some("n1")), (b.address, Some("n9"))]);
    mesh.apply().await;
    let mut client = Client::h1(address).await;
    for _ in 0..20 {
        assert_eq!(client.get("http://s/x").await.header("x-backend"), "a");
    }
    let refusing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    mesh.resources.endpoints("a", &[(refusing, Some("n1")), (b.address, Some("n9"))]);
    mesh.apply().await;
    for _ in 0..10 {
        assert_eq!(client.get("http://s/x").await.header("x-backend"), "b");
    }
    mesh.stop().await;
}
