//! The end of an edge.

use meshgate_node::drain::Phase;
use meshgate_node::edge::EdgeConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::Backend;
use crate::client::{Client, PATIENCE, refused, until};
use crate::http::{one, one_with};
use crate::mesh::Options;
use crate::resources::prefix;

#[tokio::test]
async fn what_runs_finishes_and_what_is_new_is_refused() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let mut h1 = Client::h1(address).await;
    let mut h2 = Client::h2(address).await;
    let slow = [
        tokio::spawn(async move { h1.get("http://s/slow?400").await }),
        tokio::spawn(async move { h2.get("http://s/slow?400").await }),
    ];
    until("both are asked", || a.requests() == 2).await;
    mesh.drain.advance(Phase::Draining);
    refused(address).await;
    for slow in slow {
        let answer = slow.await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "slow"));
    }
    mesh.ended().await;
}

#[tokio::test]
async fn a_draining_edge_says_close() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /slow?200 HTTP/1.1\r\nHost: s\r\n\r\n").await.unwrap();
    until("it is asked", || a.requests() == 1).await;
    mesh.drain.advance(Phase::Draining);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    mesh.ended().await;
}

#[tokio::test]
async fn the_cut_ends_what_does_not_end() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let mut client = Client::h1(address).await;
    let hanging = tokio::spawn(async move { client.send(http::Method::GET, "http://s/hang", &[], "".into()).await });
    until("it is asked", || a.requests() == 1).await;
    mesh.drain.advance(Phase::Cut);
    mesh.ended().await;
    assert!(hanging.await.unwrap().is_err());
}

/// Reads an answer to the connection's end.
async fn answered(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(crate::client::PATIENCE, read).await.expect("it stays open");
    String::from_utf8_lossy(&answer).to_lowercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_unread_when_the_listener_closes_is_answered() {
    let a = Backend::start("a").await;
    for round in 0..4 {
        let config = EdgeConfig { threads: 1, last_words: PATIENCE, ..EdgeConfig::default() };
        let options = Options { config, ..Options::default() };
        let (mesh, address) = one_with(options, &[("a", &a)], vec![prefix("/", "a")]).await;
        // Blocking sockets, so that nothing of this runtime runs between connect, write and drain.
        let mut early: Vec<std::net::TcpStream> =
            (0..50).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        for stream in early.iter_mut().take(25) {
            std::io::Write::write_all(stream, b"GET /x HTTP/1.1\r\nHost: s\r\n\r\n").unwrap();
        }
        mesh.drain.advance(Phase::Draining);
        if round % 2 == 0 {
            refused(address).await;
        }
        // The others were connected, and send what they would have sent anyway.
        for stream in early.iter_mut().skip(25) {
            std::io::Write::write_all(stream, b"GET /x HTTP/1.1\r\nHost: s\r\n\r\n").unwrap();
        }
        for (index, stream) in early.into_iter().enumerate() {
            stream.set_nonblocking(true).unwrap();
            let answer = answered(TcpStream::from_std(stream).unwrap()).await;
            assert!(answer.starts_with("http/1.1 200"), "round {round}, connection {index}: {answer:?}");
            // What was answered before the close was noticed could not say so.
            let asked_late = round % 2 == 0 && index >= 25;
            assert!(!asked_late || answer.contains("connection: close"), "{answer}");
        }
        mesh.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_drain_clients_are_told_to_go_elsewhere() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    mesh.drain.advance(Phase::Lead);
    until("clients are told", || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /x HTTP/1.1\r\nHost: s\r\n\r\n").unwrap();
        let mut start = [0; 4096];
        let read = std::io::Read::read(&mut stream, &mut start).unwrap();
        let answer = String::from_utf8_lossy(&start[..read]).to_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        answer.contains("connection: close")
    })
    .await;
    let mut h2 = Client::h2(address).await;
    let answer = h2.get("http://s/x").await;
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, ""));
    mesh.stop().await;
}
