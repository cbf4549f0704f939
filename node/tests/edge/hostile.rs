//! Clients and backends that misbehave.

use std::time::Instant;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use meshgate_core::snapshot::AppProtocol;

use crate::backend::Backend;
use crate::client::{Client, raw, read_to_end, until};
use crate::http::{one, one_with};
use crate::mesh::{Options, impatient};
use crate::resources::prefix;

#[tokio::test]
async fn requests_that_could_be_read_two_ways_are_refused() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    for (what, bytes) in [
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"),
        ("odd TE", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("authority", "GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        ("above root", "GET /../x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        ("CL list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nx"),
    ] {
        let answer = raw(address, bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 501"), "{what}: {answer}");
    }
    assert_eq!(a.requests(), 0);
    mesh.stop().await;
}

#[tokio::test]
async fn two_framings_are_refused_and_nothing_behind_them_is_read() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = raw(address, format!("{head}{smuggled}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("transfer_encoding_and_length"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    // Sent ahead of an answer: refused as well.
    let first = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = raw(address, format!("{first}{head}{smuggled}").as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{answer}");
    assert!(answer.contains("transfer_encoding_and_length") && !answer.contains("/smuggled"), "{answer}");
    mesh.stop().await;
}

#[tokio::test]
async fn slow_heads_are_cut_and_idle_connections_live_longer() {
    let a = Backend::start("a").await;
    let options = Options { config: impatient(), ..Options::default() };
    let (mesh, address) = one_with(options, &[("a", &a)], vec![prefix("/", "a")]).await;
    let began = Instant::now();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let mut patient = TcpStream::connect(address).await.unwrap();
    patient.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut buffer = [0; 4096];
    assert!(patient.read(&mut buffer).await.unwrap() > 0);
    read_to_end(&mut silent).await;
    read_to_end(&mut slow).await;
    let cut = began.elapsed();
    // It still takes requests, and its second head has its own deadline.
    patient.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(patient.read(&mut buffer).await.unwrap() > 0, "an idle connection was closed");
    let began = Instant::now();
    patient.write_all(b"GET /x HT").await.unwrap();
    read_to_end(&mut patient).await;
    assert!(began.elapsed() < impatient().idle_timeout, "a slow head counts as idle");
    assert!(cut >= impatient().header_timeout, "{cut:?}");
    let began = Instant::now();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_to_end(&mut idle).await;
    assert!(began.elapsed() >= impatient().idle_timeout);
    mesh.stop().await;
}

#[tokio::test]
async fn a_backend_that_breaks_off_is_a_502_and_its_connection_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Reads a request, says something that is no answer, and closes.
    let backend = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd").await;
        }
    });
    let unused = Backend::start("unused").await;
    let (mut mesh, edge) = one(&[("a", &unused)], vec![prefix("/", "a")]).await;
    mesh.resources.service("a", AppProtocol::Http1, &[(address, None)]);
    mesh.apply().await;
    let mut client = Client::h1(edge).await;
    for method in [Method::GET, Method::POST] {
        let answer = client.send(method, "http://s/x", &[], bytes::Bytes::new()).await.unwrap();
        assert_eq!(answer.status, 502, "{}", answer.text());
    }
    mesh.stop().await;
    backend.abort();
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_the_client_s_fault() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let head = "POST /x HTTP/1.1\r\nHost: s\r\n";
    let answer = raw(address, format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("client_broken"), "{answer}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}Content-Length: 100\r\n\r\nhalf").as_bytes()).await.unwrap();
    until("it is asked", || a.requests() == 1).await;
    drop(stream);
    until("both are counted", || mesh.context.metrics.totals().requests == 2).await;
    assert_eq!(mesh.context.metrics.totals().failed, 0);
    mesh.stop().await;
}

#[tokio::test]
async fn a_backend_that_switches_protocols_unasked_is_not_followed() {
    let a = Backend::start("a").await;
    let (mut mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    mesh.resources.service("a", AppProtocol::Http1, &[(listener.local_addr().unwrap(), None)]);
    mesh.apply().await;
    let backend = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw";
        let _ = stream.write_all(answer).await;
        stream
    });
    let headers = [("upgrade", "x"), ("connection", "upgrade")];
    let answer = Client::h1(address).await.send(Method::POST, "http://s/x", &headers, "".into()).await.unwrap();
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.text().starts_with("response_refused"), "{}", answer.text());
    drop(backend.await.unwrap());
    mesh.stop().await;
}
