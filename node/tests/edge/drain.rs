//! The end of an edge.

use meshgate_node::drain::Phase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::Backend;
use crate::client::{Client, until};
use crate::http::one;
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
    until("it listens no more", || std::net::TcpStream::connect(address).is_err()).await;
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
