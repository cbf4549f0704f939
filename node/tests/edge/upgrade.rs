//! Connections that stop speaking HTTP, directly and through the tunnel.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meshgate_core::snapshot::{AppProtocol, Rule, Timeouts};
use meshgate_node::drain::Phase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::client::{PATIENCE, raw, until};
use crate::http::one_with;
use crate::mesh::Options;
use crate::resources::prefix;
use crate::ways::Way;

/// A pod that switches protocols. What is sent is echoed, and `bye` follows the end; where the path
/// ends in `first`, it speaks and ends first, and then reads on.
pub struct Switching {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Switching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Switching {
    pub async fn start() -> Switching {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                open.spawn(serve(stream));
            }
        });
        Switching { address, task }
    }
}

async fn serve(mut stream: TcpStream) {
    let sent = read_head(&mut stream).await;
    let head = sent.to_lowercase();
    let line = |name: &str| {
        let found = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        found.unwrap_or("none").to_owned()
    };
    let (upgrade, connection) = (line("upgrade"), line("connection"));
    let path = head.split(' ').nth(1).unwrap_or_default();
    let key = sent
        .lines()
        .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")));
    let accept = key.filter(|_| path != "/bad-accept").map_or("none".to_owned(), |(_, key)| accept(key));
    let switch = |protocol: &str| {
        let fields = format!("Upgrade: {protocol}\r\nX-Saw: {connection}\r\nSec-WebSocket-Accept: {accept}");
        format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{fields}\r\n\r\n")
    };
    let answer = match path {
        "/other" => switch("other"),
        "/plain" => format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Saw: {upgrade}\r\n\r\nok"),
        "/first" => switch(&upgrade) + "first",
        "/unasked" => switch("x"),
        "/cut" => switch(&upgrade) + "some",
        _ => switch(&upgrade),
    };
    stream.write_all(answer.as_bytes()).await.unwrap();
    match path {
        "/plain" | "/cut" => {}
        "/first" => {
            stream.shutdown().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            HEARD.lock().unwrap().push(String::from_utf8_lossy(&all).into_owned());
        }
        _ => {
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
            let _ = stream.write_all(b"bye").await;
        }
    }
}

/// RFC 6455 4.2.2.
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

static HEARD: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("no head in time").unwrap());
    }
    String::from_utf8(head).unwrap()
}

pub async fn ask(address: SocketAddr, path: &str, fields: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\n{fields}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    (stream, head)
}

pub const WEBSOCKET: &str =
    "Upgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13";

pub async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it stays open").unwrap();
    all
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_way_has_an_end_of_its_own() {
    let pod = Switching::start().await;
    for way in Way::all(pod.address, AppProtocol::Http1).await {
        for (before, fields) in [WEBSOCKET, "Upgrade: SPDY/3.1"].into_iter().enumerate() {
            let before = before as u64;
            let (mut stream, head) = ask(way.address, "/", fields).await;
            assert!(head.starts_with("HTTP/1.1 101 "), "{}: {head}", way.name);
            let lower = head.to_lowercase();
            assert!(lower.contains("connection: upgrade\r\n") && lower.contains("x-saw: upgrade\r\n"), "{head}");
            // More than any window on the way, both ways at once.
            let sent: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
            let (mut read, mut write) = stream.split();
            let mut heard = vec![0; sent.len()];
            let both = async { tokio::join!(write.write_all(&sent), read.read_exact(&mut heard)) };
            let (written, read) = tokio::time::timeout(PATIENCE, both).await.expect("it hangs");
            written.unwrap();
            read.unwrap();
            assert!(heard == sent, "{}: something else came back", way.name);
            assert_eq!(way.mesh.context.metrics.totals().requests, before, "it is still in use");
            stream.shutdown().await.unwrap();
            assert_eq!(rest(stream).await, b"bye", "{}: the other way stays open", way.name);
            until("it is counted", || way.mesh.context.metrics.totals().requests == before + 1).await;
        }
        way.end().await;
    }
}

#[tokio::test]
async fn a_pod_that_ends_first_hears_the_rest() {
    let pod = Switching::start().await;
    for way in Way::all(pod.address, AppProtocol::Http1).await {
        let (mut stream, head) = ask(way.address, "/first", WEBSOCKET).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{}: {head}", way.name);
        let mut first = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut first)).await.expect("no end").unwrap();
        assert_eq!(first, "first");
        let last = format!("last by {}", way.name);
        stream.write_all(last.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        until("the pod has heard it", || HEARD.lock().unwrap().contains(&last)).await;
        until("it is counted", || way.mesh.context.metrics.totals().requests == 1).await;
        way.end().await;
    }
}

#[tokio::test]
async fn what_is_no_upgrade_stays_http() {
    let pod = Switching::start().await;
    for way in Way::all(pod.address, AppProtocol::Http1).await {
        // The pod does not want to: its answer is an answer, and the connection goes on.
        let (mut stream, head) = ask(way.address, "/plain", WEBSOCKET).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.to_lowercase().contains("x-saw: websocket"), "{head}");
        let mut body = [0; 2];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"ok");
        // It is not asked to, where the client does not ask for what it may.
        for fields in [
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
            "Upgrade: websocket",
            "Upgrade: websocket, x",
            "Upgrade: x\r\nUpgrade: y",
            "Upgrade: TLS/1.0",
        ] {
            let (_, head) = ask(way.address, "/plain", fields).await;
            assert!(head.to_lowercase().contains("x-saw: none"), "{}: {fields}: {head}", way.name);
        }
        // It switches to something else, or unasked.
        let (_, head) = ask(way.address, "/other", WEBSOCKET).await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{}: {head}", way.name);
        let unasked = raw(way.address, b"GET /unasked HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n").await;
        assert!(unasked.starts_with("HTTP/1.1 502 "), "{}: {unasked}", way.name);
        assert!(unasked.contains("response_refused"), "{}: {unasked}", way.name);
        way.end().await;
    }
}

#[tokio::test]
async fn no_timeout_of_a_request_ends_an_upgraded_connection_but_the_cut_does() {
    let pod = Switching::start().await;
    let timeouts = Timeouts { request: Some(Duration::from_millis(300)), ..Timeouts::default() };
    let rules = vec![Rule { timeouts, ..prefix("/", "a") }];
    let (mut mesh, address) = one_with(Options::default(), &[], rules).await;
    mesh.resources.service("a", AppProtocol::Http1, &[(pod.address, None)]);
    mesh.apply().await;
    let (mut stream, head) = ask(address, "/", WEBSOCKET).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // Longer than the request may take.
    tokio::time::sleep(Duration::from_millis(700)).await;
    stream.write_all(b"still").await.unwrap();
    let mut heard = [0; 5];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await.expect("no echo").unwrap();
    assert_eq!(&heard, b"still");
    mesh.drain.advance(Phase::Draining);
    crate::client::refused(address).await;
    stream.write_all(b"going").await.unwrap();
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await.expect("no echo").unwrap();
    assert_eq!(mesh.stats.active.load(std::sync::atomic::Ordering::Relaxed), 1, "it counts while it lasts");
    mesh.drain.advance(Phase::Cut);
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut heard)).await.expect("the cut spares it");
    assert!(matches!(ended, Ok(0) | Err(_)));
    mesh.ended().await;
}
