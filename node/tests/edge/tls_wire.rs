//! What clients send in place of a good ClientHello.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshgate_node::edge::EdgeConfig;
use rustls::ClientConnection;
use rustls::version::TLS13;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::Backend;
use crate::client::{raw, read_to_end, until};
use crate::mesh::{Mesh, Options, impatient};
use crate::tls::{client, failed, shown, two_hosts};

/// A ClientHello for `a.example`, as one record.
fn hello() -> Vec<u8> {
    let config = Arc::new(client(&TLS13, &[]).with_no_client_auth());
    let mut connection = ClientConnection::new(config, ServerName::try_from("a.example").unwrap()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// Does the server answer these pieces with a ServerHello?
async fn greeted(address: SocketAddr, pieces: impl Iterator<Item = Vec<u8>>) -> bool {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(&piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut head = [0; 6];
    stream.read_exact(&mut head).await.is_ok() && head[0] == 22 && head[5] == 2
}

async fn counted(mesh: &Mesh, reason: &str, times: u32) {
    until(reason, || mesh.metrics().contains(&failed(reason, times))).await;
}

#[tokio::test]
async fn a_hello_may_come_in_pieces() {
    let backend = Backend::start("a").await;
    let (mesh, address, _) = two_hosts(Options::default(), &backend).await;
    assert!(greeted(address, hello().into_iter().map(|byte| vec![byte])).await, "byte by byte");
    // Two records, as RFC 8446 5.1 allows.
    let whole = hello();
    let (head, tail) = whole[5..].split_at(40);
    let record = |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
    assert!(greeted(address, [record(head), record(tail)].into_iter()).await, "two records");
    mesh.stop().await;
}

#[tokio::test]
async fn who_speaks_no_tls_is_told_or_cut_and_others_go_on() {
    let backend = Backend::start("a").await;
    let config = EdgeConfig { handshake_timeout: Duration::from_secs(1), ..impatient() };
    let options = Options { config, ..Options::default() };
    let (mesh, address, certificates) = two_hosts(options, &backend).await;
    let answer = raw(address, b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("wants TLS\n"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    counted(&mesh, "protocol", 1).await;
    raw(address, b"\x16\x03\x01\x00\x05garbage and more of it").await;
    counted(&mesh, "protocol", 2).await;
    raw(address, b"\x05\x01\x00\x05\x01\x00").await;
    counted(&mesh, "protocol", 3).await;
    // Half a hello: cut after the time for handshakes, or when the client leaves.
    let whole = hello();
    raw(address, &whole[..whole.len() / 2]).await;
    counted(&mesh, "timeout", 1).await;
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(&whole[..whole.len() / 2]).await.unwrap();
    half.shutdown().await.unwrap();
    read_to_end(&mut half).await;
    counted(&mesh, "other", 1).await;
    drop(TcpStream::connect(address).await.unwrap());
    counted(&mesh, "other", 2).await;
    assert_eq!(shown(address, "a.example").await, certificates[0].chain[0]);
    mesh.stop().await;
}
