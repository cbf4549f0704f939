//! gRPC over HTTP/2, directly and through the tunnel.

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response, Version};
use meshgate_core::snapshot::AppProtocol;

use crate::client::{PATIENCE, until};
use crate::h2c::{Pod, connect, exactly, next, send};
use crate::ways::Way;

fn call(path: &str) -> Request<()> {
    Request::builder()
        .method("POST")
        .version(Version::HTTP_2)
        .uri(format!("http://s{path}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .header("x-user_id", "7")
        .header("x-large", "m".repeat(8 * 1024))
        .body(())
        .unwrap()
}

async fn answer(response: h2::client::ResponseFuture) -> Response<h2::RecvStream> {
    tokio::time::timeout(PATIENCE, response).await.expect("no answer in time").unwrap()
}

#[tokio::test]
async fn streams_go_both_ways_and_end_with_trailers() {
    let pod = Pod::start().await;
    for way in Way::all(pod.address, AppProtocol::H2c).await {
        let mut sender = connect(way.address).await;
        let (response, mut stream) = sender.send_request(call("/echo"), false).unwrap();
        let response = answer(response).await;
        assert_eq!(response.headers().get("x-te").unwrap(), "trailers", "{}", way.name);
        let mut body = response.into_body();
        // Each message waits for the one before: nothing may be held back.
        for round in 0..50_u8 {
            send(&mut stream, Bytes::from(vec![round; 9]), false).await;
            assert_eq!(exactly(&mut body, 9).await, [round; 9], "{}", way.name);
        }
        // More than all windows together, both ways at once.
        let large = Bytes::from(vec![1; 4_000_000]);
        let (heard, ()) = tokio::join!(exactly(&mut body, large.len()), send(&mut stream, large.clone(), true));
        assert!(heard == large, "{}", way.name);
        assert!(next(&mut body).await.is_none_or(|piece| piece.unwrap().is_empty()));
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers.get("grpc-status").unwrap(), "0");
        assert_eq!(trailers.get("x-large").unwrap().len(), 4 * 1024);
        way.end().await;
    }
}

#[tokio::test]
async fn heads_without_bodies_and_large_metadata_pass() {
    let pod = Pod::start().await;
    for way in Way::all(pod.address, AppProtocol::H2c).await {
        let mut sender = connect(way.address).await;
        let response = answer(sender.send_request(call("/only"), true).unwrap().0).await;
        assert_eq!(response.headers().get("grpc-status").unwrap(), "5", "{}", way.name);
        assert!(response.body().is_end_stream(), "{}: trailers only", way.name);
        let response = answer(sender.send_request(call("/meta"), true).unwrap().0).await;
        assert_eq!(response.headers().get("x-large_one").unwrap().len(), 8 * 1024, "{}", way.name);
        way.end().await;
    }
}

#[tokio::test]
async fn who_breaks_off_is_heard_on_the_other_side() {
    let pod = Pod::start().await;
    for (round, way) in Way::all(pod.address, AppProtocol::H2c).await.into_iter().enumerate() {
        let mut sender = connect(way.address).await;
        // The pod does, after its first bytes.
        for path in ["/reset", "/reset?no_error"] {
            let (response, mut stream) = sender.send_request(call(path), false).unwrap();
            let mut body = answer(response).await.into_body();
            assert_eq!(exactly(&mut body, 4).await, b"some", "{}: what came before it", way.name);
            send(&mut stream, Bytes::from_static(b"x"), false).await;
            match next(&mut body).await {
                Some(Err(error)) => assert!(error.is_reset(), "{} {path}: {error}", way.name),
                other => panic!("{} {path} looks whole: {other:?}", way.name),
            }
        }
        // The client does.
        let (response, mut stream) = sender.send_request(call("/hang"), false).unwrap();
        until("the pod is asked", || way.mesh.context.metrics.totals().requests == 2).await;
        send(&mut stream, Bytes::from_static(b"x"), false).await;
        stream.send_reset(Reason::CANCEL);
        drop(response);
        until("the pod hears of it", || pod.resets.lock().unwrap().len() > round).await;
        way.end().await;
    }
    let resets = pod.resets.lock().unwrap();
    assert!(resets.iter().all(|reason| *reason == Reason::CANCEL), "{resets:?}");
}

#[tokio::test]
async fn errors_of_our_own_are_a_grpc_status() {
    let pod = Pod::start().await;
    let mut way = Way::direct(pod.address, AppProtocol::H2c).await;
    way.mesh.resources.endpoints("a", &[]);
    way.mesh.apply().await;
    let mut sender = connect(way.address).await;
    for (path, code, reason) in [("/x", "14", "no_endpoints"), ("/%00", "13", "path_control")] {
        let response = answer(sender.send_request(call(path), true).unwrap().0).await;
        assert_eq!(response.status(), 200);
        let field = |name: &str| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!((field("grpc-status").as_str(), field("content-type").as_str()), (code, "application/grpc"));
        assert!(field("grpc-message").starts_with(reason), "{}", field("grpc-message"));
        assert!(response.body().is_end_stream(), "trailers only");
    }
    let plain = Request::builder().uri("http://s/x").body(()).unwrap();
    assert_eq!(answer(sender.send_request(plain, true).unwrap().0).await.status(), 503);
    way.end().await;
}
