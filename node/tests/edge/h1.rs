//! HTTP/1.1 at the edge, byte by byte.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meshgate_core::snapshot::AppProtocol;
use meshgate_node::edge::EdgeConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::backend::Backend;
use crate::client::{PATIENCE, raw, read_to_end, until};
use crate::http::{one, one_with};
use crate::mesh::{Mesh, Options, impatient};
use crate::resources::prefix;

/// Reads until what was read ends so.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        while !all.ends_with(end.as_bytes()) {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "it ended before {end:?}: {}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&buffer[..read]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("not in time");
    String::from_utf8(all).unwrap()
}

/// A mesh whose one backend does with each connection what it is told.
async fn with_backend<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> (Mesh, SocketAddr)
where
    F: Future<Output = ()> + Send + 'static,
{
    let unused = Backend::start("unused").await;
    let (mut mesh, address) = one(&[("a", &unused)], vec![prefix("/", "a")]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    mesh.resources.service("a", AppProtocol::Http1, &[(listener.local_addr().unwrap(), None)]);
    mesh.apply().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    (mesh, address)
}

/// Reads a head, byte by byte, so that nothing behind it is taken.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn what_is_no_request_is_answered_counted_and_ends_the_connection() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let long = "a".repeat(9000);
    for (bytes, status, reason) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned(), 400, "head_bare_lf"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400, "field_name_bad"),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n".to_owned(), 400, "field_name_bad"),
        ("GET / HTTP/1.1\r\nA: b\0\r\n\r\n".to_owned(), 400, "field_value_bad"),
        ("GET / HTTP/1.2\r\n\r\n".to_owned(), 505, "version_unknown"),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 414, "target_too_long"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101)), 431, "headers_too_large"),
        (format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", long.repeat(8)), 431, "headers_too_large"),
    ] {
        let answer = raw(address, format!("{bytes}GET /behind HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {answer}");
        assert!(answer.contains(&format!("\r\n\r\n{reason}: ")), "{reason}: {answer}");
        assert!(answer.contains("connection: close") && answer.contains("date: "), "{answer}");
        assert_eq!(answer.matches("\r\ndate: ").count(), 1, "{answer}");
        until("it is counted", || mesh.metrics().contains(&format!("reason=\"{reason}\""))).await;
    }
    assert_eq!(a.requests(), 0);
    assert_eq!(mesh.context.metrics.totals().failed, 0, "all of it is the clients' fault");
    mesh.stop().await;
}

#[tokio::test]
async fn a_slow_head_is_told_and_an_idle_connection_is_not() {
    let a = Backend::start("a").await;
    let options = Options { config: impatient(), ..Options::default() };
    let (mesh, address) = one_with(options, &[("a", &a)], vec![prefix("/", "a")]).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let dripping = async {
        for byte in b"GET /x HTTP/1.1\r\nA: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" {
            if slow.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        read_to_end(&mut slow).await
    };
    let answer = dripping.await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("head_late"), "{answer:?}");
    let answer = read_to_end(&mut idle).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    mesh.stop().await;
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let post = "POST /2 HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n";
    let all = format!(
        "GET /slow?50 HTTP/1.1\r\nHost: s\r\n\r\n{post}\r\nHEAD /3 HTTP/1.1\r\nHost: s\r\n\r\n\
         GET /4 HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\nGET /5 HTTP/1.1\r\nHost: s\r\n\r\n"
    );
    let answer = raw(address, all.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 4, "{answer}");
    let place = |text: &str| answer.find(text).unwrap_or_else(|| panic!("no {text}: {answer}"));
    assert!(place("\r\n\r\nslow") < place("a POST /2\nbody 3") && place("a POST /2") < place("a GET /4"), "{answer}");
    assert_eq!(a.requests(), 4);
    mesh.stop().await;
}

#[tokio::test]
async fn clients_of_1_0_get_what_they_understand() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let answer = raw(address, b"GET /trailers HTTP/1.0\r\nHost: s\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\nbody") && answer.contains("connection: close"), "{answer}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /status?200 HTTP/1.0\r\nHost: s\r\nConnection: keep-alive\r\n\r\n").await.unwrap();
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.contains("connection: keep-alive") && answer.contains("content-length: 0"), "{answer}");
    }
    mesh.stop().await;
}

#[tokio::test]
async fn trailers_and_chunks_reach_a_client_of_1_1() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let answer =
        raw(address, b"GET /trailers HTTP/1.1\r\nHost: s\r\nTE: trailers\r\nConnection: close, te\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    mesh.stop().await;
}

#[tokio::test]
async fn who_expects_100_gets_it_when_the_body_is_wanted_and_not_before() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/a", "a")]).await;
    let head =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: s\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(head("/a/echo").as_bytes()).await.unwrap();
        // The answer's head may come right behind: the backend echoes.
        let mut told = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
        stream.read_exact(&mut told).await.unwrap();
        assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"ok").await.unwrap();
        let answer = read_until(&mut stream, "\r\n\r\nok").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // Nobody wants this one: the answer says so at once, and nothing behind it is a request.
    stream.write_all(head("/nowhere").as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close"), "{answer}");
    mesh.stop().await;
}

#[tokio::test]
async fn an_early_answer_is_read_by_a_client_that_still_sends() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/a", "a")]).await;
    // A short rest is read, and the connection goes on.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /no HTTP/1.1\r\nHost: s\r\nContent-Length: 30000\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "\n").await.starts_with("HTTP/1.1 404"));
    stream.write_all(&vec![b'G'; 30_000]).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.contains("HTTP/1.1 200") && answer.contains("a GET /a"), "{answer}");
    // A long one is not, but the answer arrives although the client is busy sending.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /no HTTP/1.1\r\nHost: s\r\nContent-Length: 30000000\r\n\r\n").await.unwrap();
    stream.write_all(&vec![b'G'; 20_000]).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(a.requests(), 1);
    mesh.stop().await;
}

#[tokio::test]
async fn a_client_that_closed_its_side_gets_its_answer_and_one_that_reset_ends_its_request() {
    let a = Backend::start("a").await;
    let config = EdgeConfig { half_closed: PATIENCE, ..EdgeConfig::default() };
    let (mesh, address) =
        one_with(Options { config, ..Options::default() }, &[("a", &a)], vec![prefix("/", "a")]).await;
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /slow?200 HTTP/1.1\r\nHost: s\r\n\r\n").await.unwrap();
    half.shutdown().await.unwrap();
    let answer = read_to_end(&mut half).await;
    assert!(answer.ends_with("\r\n\r\nslow") && answer.contains("connection: close"), "{answer}");
    let mut reset = TcpStream::connect(address).await.unwrap();
    reset.write_all(b"GET /hang HTTP/1.1\r\nHost: s\r\n\r\n").await.unwrap();
    until("it is asked", || a.requests() == 2).await;
    let began = Instant::now();
    socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
    drop(reset);
    until("it is counted", || mesh.metrics().contains("reason=\"client_gone\"")).await;
    assert!(began.elapsed() < PATIENCE / 2);
    mesh.stop().await;
}

#[tokio::test]
async fn interim_answers_come_first_and_other_bytes_of_a_backend_never() {
    let (mesh, address) = with_backend(|mut stream| async move {
        while !read_head(&mut stream).await.is_empty() {
            let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n";
            let answer = format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nPOISON");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    for _ in 0..3 {
        let answer = raw(address, b"GET / HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
        let old = raw(address, b"GET / HTTP/1.0\r\nHost: s\r\n\r\n").await;
        assert!(old.starts_with("HTTP/1.1 200"), "{old}");
    }
    mesh.stop().await;
}

#[tokio::test]
async fn a_backend_may_answer_while_it_is_sent_to() {
    let (mesh, address) = with_backend(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await.unwrap();
        let mut line = [0; 3];
        stream.read_exact(&mut line).await.unwrap();
        stream.read_exact(&mut [0; 6]).await.unwrap();
        assert_eq!(read_head(&mut stream).await, "0\r\n\r\n");
        stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    read_until(&mut stream, "5\r\nfirst\r\n").await;
    stream.write_all(b"4\r\nbody\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "0\r\n\r\n").await, "4\r\nlast\r\n0\r\n\r\n");
    mesh.stop().await;
}
