//! Both ends of an upgrade.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::h1::{BodyError, Connection, Upgraded};
use crate::relay::copy;
use crate::timer::CoarseTimer;

#[tokio::test]
async fn a_101_leaves_the_stream_and_what_came_behind_its_head() {
    let (near, mut far) = duplex(1024);
    let pod = tokio::spawn(async move {
        let _ = far.read(&mut [0; 512]).await.unwrap();
        far.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nfirst").await.unwrap();
        let mut said = String::new();
        far.read_to_string(&mut said).await.unwrap();
        far.write_all(b" last").await.unwrap();
        said
    });
    let (parts, ()) =
        http::Request::builder().method(Method::GET).header("upgrade", "x").body(()).unwrap().into_parts();
    let body = Empty::<Bytes>::new().map_err(|never| -> BodyError { match never {} });
    let answer = Connection::new(near).send(&parts, Box::pin(body), None).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = answer.extensions().get::<Upgraded>().unwrap().clone();

    let (mut client, near) = duplex(1024);
    let copied = upgraded.copied().clone();
    let timer = CoarseTimer::default();
    let copying = tokio::spawn(async move { copy(near, &upgraded, &timer, Duration::from_secs(60)).await });
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "first last", "the other way stays open");
    assert_eq!(pod.await.unwrap(), "hello");
    copying.await.unwrap().unwrap();
    assert_eq!((copied.sent.load(Ordering::Relaxed), copied.received.load(Ordering::Relaxed)), (5, 10));
}

#[tokio::test]
async fn silence_ends_an_upgraded_connection() {
    let (far, near) = duplex(64);
    let (_client, client) = duplex(64);
    let upgraded = Upgraded::new(near);
    let timer = CoarseTimer::default();
    let ticks = timer.clone();
    let mut copying = Box::pin(copy(client, &upgraded, &timer, Duration::from_millis(10)));
    let ended = loop {
        tokio::select! {
            ended = &mut copying => break ended,
            () = tokio::time::sleep(Duration::from_millis(5)) => ticks.tick(),
        }
    };
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(upgraded.take().is_none(), "it is taken once");
    drop(far);
}
