//! What a rule's timeouts do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Method;
use meshgate_core::snapshot::{AppProtocol, Rule, Timeouts};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::backend::Backend;
use crate::client::{Client, get, read_to_end, until};
use crate::http::one;
use crate::mesh::Mesh;
use crate::resources::prefix;
use crate::shaky::{Act, Shaky};

async fn timed(request: Option<u64>, backend_request: Option<u64>, act: Act) -> (Mesh, SocketAddr, Shaky) {
    let (a, shaky) = (Backend::start("a").await, Shaky::start(&[act]).await);
    let ms = |ms: Option<u64>| ms.map(Duration::from_millis);
    let timeouts = Timeouts { request: ms(request), backend_request: ms(backend_request), ..Timeouts::default() };
    let (mut mesh, address) = one(&[("a", &a)], vec![Rule { timeouts, ..prefix("/", "a") }]).await;
    mesh.resources.service("a", AppProtocol::Http1, &[(shaky.address, None)]);
    mesh.apply().await;
    (mesh, address, shaky)
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_a_504() {
    for (request, backend_request) in [(Some(150), None), (None, Some(150)), (Some(0), Some(150)), (Some(150), Some(0))]
    {
        let (mesh, address, shaky) = timed(request, backend_request, Act::Hang).await;
        let started = Instant::now();
        let answer = get(address, "http://s/x").await;
        assert_eq!(answer.status, 504);
        assert!(answer.text().starts_with("timeout"), "{}", answer.text());
        assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
        assert_eq!(shaky.requests(), 1);
        until("it is counted", || mesh.metrics().contains("reason=\"timeout\"")).await;
        mesh.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_sends_too_slowly_is_a_408_and_no_fault_of_the_backend() {
    let (mesh, address, shaky) = timed(Some(150), None, Act::Hang).await;
    for _ in 0..6 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST /x HTTP/1.1\r\nHost: s\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("client_slow"), "{answer}");
    }
    assert_eq!(shaky.requests(), 6, "it was never left out");
    until("it is counted", || mesh.metrics().contains("reason=\"client_slow\"} 6")).await;
    // All of it came: the backend is what is waited for.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let whole = b"POST /x HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: 4\r\n\r\nhalf";
    stream.write_all(whole).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    mesh.stop().await;
}

#[tokio::test]
async fn an_answer_that_goes_on_for_too_long_is_cut() {
    for (request, backend_request) in [(Some(300), None), (None, Some(300))] {
        let (mesh, address, _shaky) = timed(request, backend_request, Act::Drip).await;
        for mut client in [Client::h1(address).await, Client::h2(address).await] {
            let started = Instant::now();
            let cut = client.send(Method::GET, "http://s/x", &[], "".into()).await;
            assert!(cut.is_err(), "{cut:?}");
            assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
        }
        mesh.stop().await;
    }
}

#[tokio::test]
async fn zero_is_no_timeout() {
    let a = Backend::start("a").await;
    let timeouts =
        Timeouts { request: Some(Duration::ZERO), backend_request: Some(Duration::ZERO), ..Timeouts::default() };
    let (mesh, address) = one(&[("a", &a)], vec![Rule { timeouts, ..prefix("/", "a") }]).await;
    assert_eq!(get(address, "http://s/slow?300").await.text(), "slow");
    mesh.stop().await;
}

#[tokio::test]
async fn silence_is_bounded_and_slow_progress_is_not() {
    let (a, shaky) = (Backend::start("a").await, Shaky::start(&[Act::Hang]).await);
    let timeouts = Timeouts { idle: Some(Duration::from_millis(200)), ..Timeouts::default() };
    let (mut mesh, address) = one(&[("a", &a)], vec![Rule { timeouts, ..prefix("/", "a") }]).await;
    // A body that comes slowly, for longer than silence may last: the time begins anew with each part.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: 14\r\n\r\n")
        .await
        .unwrap();
    for _ in 0..14 {
        stream.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("xxxxxxxxxxxxxx"), "{answer}");
    mesh.resources.service("a", AppProtocol::Http1, &[(shaky.address, None)]);
    mesh.apply().await;
    let started = Instant::now();
    assert_eq!(get(address, "http://s/x").await.status, 504);
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
    // A byte every 20 ms is no silence: the client leaves first.
    shaky.act(&[Act::Drip]);
    let mut client = Client::h1(address).await;
    let dripping = tokio::time::timeout(Duration::from_millis(700), client.get("http://s/x")).await;
    assert!(dripping.is_err(), "{dripping:?}");
    mesh.stop().await;
}

#[tokio::test]
async fn an_answer_that_never_pauses_is_cut_too() {
    let (mesh, address, _shaky) = timed(Some(200), None, Act::Flood).await;
    let mut client = Client::h1(address).await;
    let cut = client.send(Method::GET, "http://s/x", &[], "".into()).await;
    assert!(cut.is_err(), "it ended");
    mesh.stop().await;
}
