//! Listeners come and go with the table.

use std::sync::atomic::Ordering;

use meshgate_core::snapshot::{GatewayAddress, HostPattern, Resource};
use meshgate_node::edge::EdgeConfig;
use tokio::net::TcpStream;

use crate::backend::Backend;
use crate::client::{Client, get, until};
use crate::http::{one, one_with};
use crate::mesh::Options;
use crate::resources::{gateway_key, listener, prefix};

#[tokio::test]
async fn a_listener_is_added_and_removed_live() {
    let a = Backend::start("a").await;
    let (mut mesh, first) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let mut old = Client::h1(first).await;
    assert_eq!(old.get("http://s/x").await.status, 200);
    let second = mesh.reserve();
    let listeners = vec![listener("http", first.port(), None, None), listener("two", second.port(), None, None)];
    mesh.resources.gateway(vec![first.ip()], listeners);
    mesh.resources.route("shop", &[("http", HostPattern::Any), ("two", HostPattern::Any)], vec![prefix("/", "a")]);
    mesh.apply().await;
    assert_eq!(get(second, "http://s/x").await.status, 200);
    assert_eq!(mesh.live.borrow().bound.len(), 2);
    mesh.resources.gateway(vec![first.ip()], vec![listener("two", second.port(), None, None)]);
    mesh.apply().await;
    assert!(TcpStream::connect(first).await.is_err(), "it listens still");
    let bound: Vec<_> = mesh.live.borrow().bound.iter().map(|bound| bound.address).collect();
    assert_eq!(bound, [second]);
    assert_eq!(get(second, "http://s/x").await.status, 200);
    mesh.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_reported_and_taken_once_it_is_free() {
    let a = Backend::start("a").await;
    let (mut mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let listeners = vec![listener("http", address.port(), None, None), listener("two", taken.port(), None, None)];
    mesh.resources.gateway(vec![address.ip()], listeners);
    mesh.apply().await;
    {
        let live = mesh.live.borrow();
        assert_eq!(live.bound.len(), 1);
        assert_eq!(live.errors[0].address, Some(taken));
        assert!(live.errors[0].message.contains("something else listens"), "{:?}", live.errors);
    }
    assert_eq!(get(address, "http://s/x").await.status, 200);
    drop(other);
    until("the free port is taken", || mesh.live.borrow().errors.is_empty()).await;
    assert_eq!(mesh.live.borrow().bound.len(), 2);
    mesh.stop().await;
}

#[tokio::test]
async fn loopback_gateways_listen_at_the_node_s_number() {
    let a = Backend::start("a").await;
    let config = EdgeConfig { node_number: Some(77), threads: 1, ..EdgeConfig::default() };
    let options = Options { config, ..Options::default() };
    let (mut mesh, _) = one_with(options, &[("a", &a)], vec![prefix("/", "a")]).await;
    let Some(Resource::Gateway(gateway)) = mesh.resources.all.get(&gateway_key()).map(|gateway| (**gateway).clone())
    else {
        panic!("no gateway")
    };
    let port = std::net::TcpListener::bind("127.77.3.1:0").unwrap().local_addr().unwrap().port();
    let moved = meshgate_core::snapshot::Gateway {
        address: GatewayAddress::Loopback(3),
        listeners: vec![listener("http", port, None, None)],
        ..gateway
    };
    mesh.resources.put(gateway_key(), Resource::Gateway(moved));
    mesh.apply().await;
    let address = format!("127.77.3.1:{port}").parse().unwrap();
    assert_eq!(mesh.live.borrow().bound[0].address, address);
    assert_eq!(get(address, "http://s/x").await.status, 200);
    mesh.stop().await;
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once() {
    let a = Backend::start("a").await;
    let config = EdgeConfig { max_connections: 2, threads: 1, ..EdgeConfig::default() };
    let options = Options { config, ..Options::default() };
    let (mesh, address) = one_with(options, &[("a", &a)], vec![prefix("/", "a")]).await;
    let mut one = Client::h1(address).await;
    let mut two = Client::h1(address).await;
    assert_eq!(one.get("http://s/x").await.status, 200);
    assert_eq!(two.get("http://s/x").await.status, 200);
    let mut three = TcpStream::connect(address).await.unwrap();
    crate::client::read_to_end(&mut three).await;
    assert_eq!(mesh.stats.over_limit.load(Ordering::Relaxed), 1);
    drop(one);
    until("a place is free", || mesh.stats.active.load(Ordering::Relaxed) == 1).await;
    assert_eq!(get(address, "http://s/x").await.status, 200);
    mesh.stop().await;
}
