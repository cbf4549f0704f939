//! What happens when endpoints refuse or break off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Method;
use meshgate_core::snapshot::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::backend::Backend;
use crate::client::{Client, get, until};
use crate::http::one;
use crate::resources::prefix;

/// An address that refuses connections.
async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn another_endpoint_takes_what_one_refuses() {
    let a = Backend::start("a").await;
    let (mut mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let dead = [refusing().await, refusing().await];
    mesh.resources.service("a", AppProtocol::Http1, &[(dead[0], None), (a.address, None), (dead[1], None)]);
    mesh.apply().await;
    let mut client = Client::h1(address).await;
    for _ in 0..50 {
        let body = Bytes::from(vec![b'r'; 10_000]);
        let answer = client.send(Method::POST, "http://s/echo", &[], body).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 10_000));
    }
    assert!(mesh.metrics().contains("meshgate_http_retries_total{reason=\"connect\""), "{}", mesh.metrics());
    mesh.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_at_once_is_not_the_fastest() {
    let a = Backend::start("a").await;
    let (mut mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    mesh.resources.endpoints("a", &[(refusing().await, None), (a.address, None)]);
    mesh.apply().await;
    let mut client = Client::h1(address).await;
    for _ in 0..100 {
        assert_eq!(client.get("http://s/x").await.status, 200);
    }
    let metrics = mesh.metrics();
    let line = metrics.lines().find(|line| line.starts_with("meshgate_http_retries_total{reason=\"connect\""));
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{line:?}");
    mesh.stop().await;
}

#[tokio::test]
async fn no_endpoint_is_a_503_that_says_so() {
    let a = Backend::start("a").await;
    let (mut mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    mesh.resources.endpoints("a", &[]);
    mesh.apply().await;
    let answer = get(address, "http://s/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().starts_with("no_endpoints"), "{}", answer.text());
    mesh.resources.endpoints("a", &[(refusing().await, None)]);
    mesh.apply().await;
    let answer = get(address, "http://s/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().starts_with("endpoints_refused"), "{}", answer.text());
    until("both are counted", || mesh.context.metrics.totals().failed == 2).await;
    mesh.stop().await;
}

/// Answers one request a connection, keep-alive, then closes it without a word.
async fn forgetful() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&closed);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                if stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                }
                drop(stream);
                counted.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (address, closed)
}

#[tokio::test]
async fn stale_connections_cost_no_request() {
    let a = Backend::start("a").await;
    let (mut mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let (backend, closed) = forgetful().await;
    mesh.resources.service("a", AppProtocol::Http1, &[(backend, None)]);
    mesh.apply().await;
    let mut client = Client::h1(address).await;
    for round in 1..=200 {
        let (method, body) = match round % 2 {
            0 => (Method::GET, Bytes::new()),
            _ => (Method::POST, Bytes::from_static(b"x")),
        };
        if method == Method::POST {
            // A request that may do harm twice is only safe once the close has been seen.
            until("the last connection is closed", || closed.load(Ordering::SeqCst) == round - 1).await;
        }
        let answer = client.send(method, "http://s/x", &[], body).await.unwrap();
        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
    }
    mesh.stop().await;
}

#[tokio::test]
async fn endpoints_come_and_go_under_traffic_without_a_failure() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let (mut mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let done = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..8 {
        let done = Arc::clone(&done);
        clients.spawn(async move {
            let mut client = if number % 2 == 0 { Client::h1(address).await } else { Client::h2(address).await };
            for _ in 0..200 {
                let answer = client.get("http://s/x").await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                done.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for (round, endpoints) in [&a, &b, &a, &b].into_iter().cycle().take(40).enumerate() {
        mesh.resources.endpoints("a", &[(endpoints.address, None)]);
        mesh.apply().await;
        until("traffic goes on", || done.load(Ordering::SeqCst) >= (round * 30).min(1600)).await;
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    assert!(a.requests() > 0 && b.requests() > 0);
    mesh.stop().await;
}

#[tokio::test]
async fn a_pool_full_of_stale_connections_costs_no_request() {
    let a = Backend::start("a").await;
    let (mut mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    let end = tokio_util::sync::CancellationToken::new();
    let first = tokio::spawn(serve_until(listener, end.clone()));
    mesh.resources.service("a", AppProtocol::Http1, &[(backend, None)]);
    mesh.apply().await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        clients.spawn(async move { get(address, "http://s/x").await.status });
    }
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    // All connections end at once, while requests go on: a pod that is replaced in place.
    end.cancel();
    let listener = first.await.unwrap();
    let second = tokio::spawn(serve_until(listener, tokio_util::sync::CancellationToken::new()));
    for _ in 0..16 {
        assert_eq!(get(address, "http://s/x").await.status, 200);
    }
    mesh.stop().await;
    second.abort();
}

/// Answers slowly, so that many connections are open at the same time; closes all at the end.
async fn serve_until(listener: TcpListener, end: tokio_util::sync::CancellationToken) -> TcpListener {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (mut stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            () = end.cancelled() => return listener,
        };
        connections.spawn(async move {
            let mut buffer = vec![0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }
        });
    }
}
