//! Tunnels between nodes on loopback, over real sockets.
#![allow(clippy::unwrap_used)]

mod tunnel_nodes;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use meshgate_core::snapshot::HeadId;
use meshgate_node::tunnel::{
    self, Attempt, Body, BodyError, RETAIN_BODY, Refusal, Replay, StreamHeader, Tunnel, TunnelFailure,
    TunnelFailureKind,
};
use tunnel_nodes::{Mesh, eventually};

const LONG: Duration = Duration::from_secs(60);
const MEGABYTE: usize = 1024 * 1024;

fn header() -> StreamHeader {
    StreamHeader {
        endpoint: "10.0.0.1:8080".parse().unwrap(),
        client: "192.0.2.7:4711".parse().unwrap(),
        chosen_by: HeadId::default(),
    }
}

fn to_port(port: u16) -> StreamHeader {
    let mut header = header();
    header.endpoint.set_port(port);
    header
}

fn head(method: &str, path: &str) -> request::Parts {
    Request::builder().method(method).uri(path).header("x-asked", "yes").body(()).unwrap().into_parts().0
}

fn replay(body: impl http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static) -> Replay {
    Replay::new(body, &std::sync::Arc::default())
}

fn full(bytes: impl Into<Bytes>) -> Replay {
    replay(http_body_util::Full::new(bytes.into()).map_err(|never| match never {}))
}

/// A body of `count` pieces, each of `size` bytes, then trailers.
fn pieces(count: usize, size: usize) -> Body {
    let data = (0..count).map(move |index| Ok(Frame::data(Bytes::from(vec![index as u8; size]))));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    let frames = data.chain([Ok::<_, BodyError>(Frame::trailers(trailers))]);
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

async fn get(tunnel: &Tunnel, node: &str, path: &str) -> Result<Response<Body>, TunnelFailure> {
    tunnel.http(&node.into(), header(), &head("GET", path), Attempt::empty()).await
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_and_its_response_pass() {
    let mesh = Mesh::of(&["a", "b"]).await;
    let response = get(mesh.tunnel("a"), "b", "/hello?x=1").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-node"], "b");
    assert_eq!(text(response).await, "GET /hello?x=1 for a from 192.0.2.7:4711 at 10.0.0.1:8080 yes");
    let response = get(mesh.tunnel("b"), "a", "/none").await.unwrap();
    assert_eq!(response.status(), 204);
    assert_eq!(text(response).await, "");
    eventually("the slots are free", || mesh.tunnel("a").stats(&"b".into()).is_some_and(|stats| stats.streams == 0))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_stream_both_ways_at_once_with_trailers() {
    let mesh = Mesh::of(&["a", "b"]).await;
    let body = replay(pieces(160, 64 * 1024));
    let response =
        mesh.tunnel("a").http(&"b".into(), header(), &head("POST", "/echo"), body.attempt().unwrap()).await.unwrap();
    let collected = tokio::time::timeout(LONG, response.into_body().collect()).await.unwrap().unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
    let bytes = collected.to_bytes();
    assert_eq!(bytes.len(), 10 * MEGABYTE);
    assert!(bytes.chunks(64 * 1024).enumerate().all(|(index, part)| part.iter().all(|byte| *byte == index as u8)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_goes_elsewhere_with_its_body_whole() {
    let mesh = Mesh::of(&["a", "b", "c"]).await;
    for (port, refusal) in
        [(1, Refusal::NotHere), (2, Refusal::Terminating), (3, Refusal::Denied), (4, Refusal::Overloaded)]
    {
        let body = replay(pieces(30, 10_000));
        let parts = head("POST", "/echo");
        let failure =
            mesh.tunnel("a").http(&"b".into(), to_port(port), &parts, body.attempt().unwrap()).await.unwrap_err();
        assert!(matches!(failure.kind, TunnelFailureKind::Refused(got) if got == refusal), "{failure:?}");
        assert!(failure.certainly_unsent());
        let response = mesh.tunnel("a").http(&"c".into(), header(), &parts, body.attempt().unwrap()).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes.len(), 300_000);
        assert!(bytes.chunks(10_000).enumerate().all(|(index, part)| part.iter().all(|byte| *byte == index as u8)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_read_from_the_client_than_can_be_kept_until_accepted() {
    let mesh = Mesh::of(&["a", "b"]).await;
    let read = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = read.clone();
    let frames = futures_util::stream::iter((0..100).map(move |_| {
        counted.fetch_add(10_000, Ordering::SeqCst);
        Ok::<_, BodyError>(Frame::data(Bytes::from(vec![7; 10_000])))
    }));
    let body = replay(StreamBody::new(frames).boxed_unsync());
    let tunnel = mesh.tunnel("a").clone();
    let waiting = mesh.node("b").host.hold_connects();
    let parts = head("POST", "/echo");
    let node = "b".into();
    let mut request = std::pin::pin!(tunnel.http(&node, header(), &parts, body.attempt().unwrap()));
    tokio::select! {
    _ = &mut request => panic!("nobody has accepted"),
    () = eventually("the body is read as far as it may be", || read.load(Ordering::SeqCst) >= RETAIN_BODY) => {}
    }
    tokio::select! {
        _ = &mut request => panic!("nobody has accepted"),
        () = tokio::time::sleep(Duration::from_millis(300)) => {}
    }
    assert!(read.load(Ordering::SeqCst) <= RETAIN_BODY + 10_000, "{read:?}");
    drop(waiting);
    let response = request.await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 1_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_peer_breaks_the_body_and_is_not_alive() {
    let mut mesh = Mesh::of(&["a", "b"]).await;
    let response = get(mesh.tunnel("a"), "b", "/endless").await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    let killed = Instant::now();
    mesh.kill("b");
    eventually("the peer counts as dead", || !mesh.tunnel("a").alive(&"b".into())).await;
    assert!(killed.elapsed() < Duration::from_secs(4), "{:?}", killed.elapsed());
    let failure = get(mesh.tunnel("a"), "b", "/x").await.unwrap_err();
    assert!(failure.certainly_unsent(), "{failure:?}");
    mesh.restart("b").await;
    // The new process resets the old one's connections, so this need not wait for 15 s of silence.
    let end = async {
        loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                other => break other.is_some(),
            }
        }
    };
    let broke = tokio::time::timeout(Duration::from_secs(5), end).await.expect("the body must break, not hang");
    assert!(broke, "a body that broke must not look whole");
    eventually("the peer is back", || mesh.tunnel("a").alive(&"b".into())).await;
    assert_eq!(get(mesh.tunnel("a"), "b", "/x").await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waits_when_its_peer_dies_can_be_sent_again() {
    let mut mesh = Mesh::of(&["a", "b", "c"]).await;
    let _held = mesh.node("b").host.hold_connects();
    let tunnel = mesh.tunnel("a").clone();
    let request = tokio::spawn(async move {
        let body = full("precious");
        let parts = head("POST", "/echo");
        let failure = tunnel.http(&"b".into(), header(), &parts, body.attempt().unwrap()).await.unwrap_err();
        assert!(!failure.accepted && !failure.certainly_unsent(), "{failure:?}");
        text(tunnel.http(&"c".into(), header(), &parts, body.attempt().unwrap()).await.unwrap()).await
    });
    eventually("the request is there", || mesh.node("b").host.connects.load(Ordering::SeqCst) == 1).await;
    mesh.kill("b");
    assert_eq!(tokio::time::timeout(Duration::from_secs(4), request).await.unwrap().unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_after_acceptance_say_so() {
    let mesh = Mesh::of(&["a", "b"]).await;
    let failure = get(mesh.tunnel("a"), "b", "/fail").await.unwrap_err();
    assert!(failure.accepted && matches!(failure.kind, TunnelFailureKind::Broken(_)), "{failure:?}");
    let failure = get(mesh.tunnel("a"), "b", "/unsent").await.unwrap_err();
    assert!(failure.certainly_unsent(), "{failure:?}");
    let response = get(mesh.tunnel("a"), "b", "/break").await.unwrap();
    assert!(response.into_body().collect().await.is_err(), "a broken body must not look like a whole one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_drops_its_upstream_when_the_client_goes() {
    let mesh = Mesh::of(&["a", "b"]).await;
    let dropped = || mesh.node("b").host.dropped.load(Ordering::SeqCst);
    let response = get(mesh.tunnel("a"), "b", "/endless").await.unwrap();
    drop(response);
    eventually("the endless body is dropped", || dropped() == 1).await;
    let tunnel = mesh.tunnel("a").clone();
    let request = tokio::spawn(async move { get(&tunnel, "b", "/never").await.map(|_| ()) });
    eventually("the request is there", || mesh.node("b").host.connects.load(Ordering::SeqCst) == 2).await;
    request.abort();
    eventually("the waiting upstream is dropped", || dropped() == 2).await;
    // A client's body that breaks off must not look whole to the pod.
    let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(BodyError::from("client gone"))];
    let body = replay(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync());
    let result = mesh.tunnel("a").http(&"b".into(), header(), &head("POST", "/count"), body.attempt().unwrap()).await;
    assert!(result.is_err(), "{:?}", result.map(|response| response.status()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_wrong_names_are_refused() {
    let mesh = Mesh::of(&["a"]).await;
    let other = Mesh::of(&["b"]).await;
    let imposter = mesh.join("c").await;
    mesh.introduce(&[("b", other.node("b").listen), ("d", imposter.listen), ("c", imposter.listen)]);
    assert_eq!(get(mesh.tunnel("a"), "c", "/x").await.unwrap().status(), 200);
    for node in ["b", "d"] {
        let failure = get(mesh.tunnel("a"), node, "/x").await.unwrap_err();
        assert!(matches!(failure.kind, TunnelFailureKind::Unreachable(_)), "{failure:?}");
        assert!(!mesh.tunnel("a").alive(&node.into()));
    }
    other.introduce(&[("a", mesh.node("a").listen)]);
    assert!(get(other.tunnel("b"), "a", "/x").await.is_err(), "a stranger may not come in either");
    assert_eq!(mesh.node("a").host.connects.load(Ordering::SeqCst), 0);
    assert!(get(mesh.tunnel("a"), "nobody", "/x").await.unwrap_err().certainly_unsent());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_readers_do_not_stop_other_streams() {
    let mesh = Mesh::of(&["a", "b"]).await;
    let mut stalled = Vec::new();
    for _ in 0..100 {
        stalled.push(get(mesh.tunnel("a"), "b", "/endless").await.unwrap());
    }
    // Time for the stalled streams to fill their windows.
    let endless = || mesh.node("b").host.endless.load(Ordering::SeqCst);
    let mut before = usize::MAX;
    while before != endless() {
        before = endless();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for _ in 0..20 {
        let body = replay(pieces(10, 64 * 1024));
        let response = mesh
            .tunnel("a")
            .http(&"b".into(), header(), &head("POST", "/echo"), body.attempt().unwrap())
            .await
            .unwrap();
        let read = tokio::time::timeout(LONG, response.into_body().collect()).await.expect("not stopped").unwrap();
        assert_eq!(read.to_bytes().len(), 640 * 1024);
    }
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_at_once() {
    let mesh = Mesh::of(&["a", "b"]).await;
    let requests: Vec<_> = (0..1000)
        .map(|index| {
            let tunnel = mesh.tunnel("a").clone();
            tokio::spawn(async move {
                let body = full(format!("body {index}"));
                let response =
                    tunnel.http(&"b".into(), header(), &head("POST", "/echo"), body.attempt().unwrap()).await.unwrap();
                assert_eq!(text(response).await, format!("body {index}"));
            })
        })
        .collect();
    for request in requests {
        request.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_messages_pass_by_address_alone() {
    let mut mesh = Mesh::of(&["a", "b"]).await;
    let (a, b) = (mesh.node("a").listen, mesh.node("b").listen);
    let [mut from_a, mut from_b] = ["a", "b"].map(|node| mesh.gossip(node));
    for (sender, to, receiver, from) in
        [(&from_a.outgoing, b, &mut from_b.incoming, a), (&from_b.outgoing, a, &mut from_a.incoming, b)]
    {
        for length in [0, 1, tunnel::MAX_GOSSIP_MESSAGE] {
            sender.try_send((to, Bytes::from(vec![5; length]))).unwrap();
            let (address, message) = tokio::time::timeout(LONG, receiver.recv()).await.unwrap().unwrap();
            assert_eq!((address, message.len()), (from, length));
        }
    }
}
