//! WebSockets over HTTP/2 (RFC 8441), at the client's end and at the pod's.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};
use meshgate_core::snapshot::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::backend::{Backend, Speaks};
use crate::client::{PATIENCE, until};
use crate::h2c::{Pod, connect, exactly, next, send};
use crate::upgrade::{Switching, WEBSOCKET, ask, rest};
use crate::ways::Way;

/// Opens a WebSocket over HTTP/2.
async fn open(address: SocketAddr, path: &str, protocol: &'static str) -> (Response<RecvStream>, SendStream<Bytes>) {
    let mut sender = connect(address).await;
    let settled = async {
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("extended CONNECT is not allowed");
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://s{path}"))
        .extension(h2::ext::Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    let (response, stream) = sender.send_request(request, false).unwrap();
    let response = tokio::time::timeout(PATIENCE, response).await.expect("no answer in time").unwrap();
    (response, stream)
}

/// Speaks over an open WebSocket until both ends have closed it.
async fn talk(way: &Way, response: Response<RecvStream>, mut stream: SendStream<Bytes>) {
    assert_eq!(response.status(), 200, "{}", way.name);
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(name), "{}: {name}", way.name);
    }
    let mut body = response.into_body();
    for size in [5, 1_000_000, 1] {
        let sent = Bytes::from(vec![size as u8; size]);
        let (heard, ()) = tokio::join!(exactly(&mut body, size), send(&mut stream, sent.clone(), false));
        assert!(heard == sent, "{}: something else came back", way.name);
    }
    send(&mut stream, Bytes::new(), true).await;
    assert_eq!(exactly(&mut body, 3).await, b"bye", "{}", way.name);
    while let Some(piece) = next(&mut body).await {
        assert!(piece.unwrap().is_empty());
    }
    until("it is counted", || way.mesh.context.metrics.totals().requests == 1).await;
}

#[tokio::test]
async fn a_websocket_over_h2_is_an_upgrade_at_an_h1_pod() {
    let pod = Switching::start().await;
    for way in Way::all(pod.address, AppProtocol::Http1).await {
        let (response, stream) = open(way.address, "/", "websocket").await;
        talk(&way, response, stream).await;
        for path in ["/plain", "/other", "/bad-accept"] {
            let (response, _) = open(way.address, path, "websocket").await;
            assert_eq!(response.status(), 502, "{}: {path} would tell the client that it is open", way.name);
        }
        let (response, _) = open(way.address, "/", "connect-udp").await;
        assert_eq!(response.status(), 405, "{}", way.name);
        way.end().await;
    }
}

#[tokio::test]
async fn a_websocket_reaches_a_pod_that_speaks_h2_only() {
    let pod = Pod::start().await;
    for way in Way::all(pod.address, AppProtocol::H2c).await {
        let (response, stream) = open(way.address, "/", "websocket").await;
        talk(&way, response, stream).await;
        let (mut stream, head) = ask(way.address, "/", WEBSOCKET).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{}: {head}", way.name);
        assert!(head.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        stream.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await.expect("no echo").unwrap();
        assert_eq!(&heard, b"hello");
        stream.shutdown().await.unwrap();
        assert_eq!(rest(stream).await, b"bye", "{}", way.name);
        way.end().await;
    }
}

#[tokio::test]
async fn a_pod_that_forbids_extended_connect_is_a_502_with_a_reason() {
    let pod = Backend::speaking("h2", Speaks::H2c).await;
    for way in Way::all(pod.address, AppProtocol::H2c).await {
        let (mut stream, head) = ask(way.address, "/", WEBSOCKET).await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{}: {head}", way.name);
        let mut text = [0; 15];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"upgrade_refused");
        let (response, _) = open(way.address, "/", "websocket").await;
        assert_eq!(response.status(), 502, "{}", way.name);
        assert_eq!(pod.requests(), 0);
        way.end().await;
    }
}
