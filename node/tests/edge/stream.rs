//! Bodies as streams: nothing is kept of what is not taken, and what is cut off does not look whole.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use meshgate_core::snapshot::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::client::{Client, PATIENCE, raw, until};
use crate::upgrade::read_head;
use crate::ways::Way;

/// Bytes of a large body.
const LARGE: usize = 256 * 1024 * 1024;

/// Bytes that may be on the way: windows, buffers, and those of four sockets in the kernel, which
/// sizes them as its settings say.
const ON_THE_WAY: usize = 96 * 1024 * 1024;

/// How much larger the process may get, other tests that run beside it included.
const GROWTH: usize = 192 * 1024 * 1024;

/// A pod that speaks bytes. `GET /down` sends a large body, `POST /up` takes one when it is told to;
/// `/cut` and `/cut-chunk` break off, and a `HEAD` is answered with a length.
struct Pod {
    address: SocketAddr,
    moved: Arc<AtomicUsize>,
    go: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pod {
    async fn start() -> Pod {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (moved, go) = (Arc::<AtomicUsize>::default(), Arc::new(Notify::new()));
        let (count, told) = (Arc::clone(&moved), Arc::clone(&go));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                open.spawn(serve(stream, Arc::clone(&count), Arc::clone(&told)));
            }
        });
        Pod { address, moved, go, task }
    }

    fn moved(&self) -> usize {
        self.moved.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, moved: Arc<AtomicUsize>, go: Arc<Notify>) {
    let head = read_head(&mut stream).await;
    let mut parts = head.split(' ');
    let answer = match (parts.next().unwrap(), parts.next().unwrap()) {
        ("HEAD", _) => "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nConnection: close\r\n\r\n".to_owned(),
        (_, "/cut") => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome".to_owned(),
        (_, "/cut-chunk") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n".to_owned(),
        (_, "/down") => format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"),
        _ => String::new(),
    };
    let _ = stream.write_all(answer.as_bytes()).await;
    let mut piece = vec![7; 64 * 1024];
    if head.starts_with("GET /down") {
        for _ in 0..LARGE / piece.len() {
            if stream.write_all(&piece).await.is_err() {
                return;
            }
            moved.fetch_add(piece.len(), Ordering::SeqCst);
        }
    } else if head.starts_with("POST") {
        go.notified().await;
        let mut left = LARGE;
        while left > 0 {
            match stream.read(&mut piece).await {
                Ok(read @ 1..) => left -= read,
                _ => return,
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    }
}

/// Bytes of memory that the process holds.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Waits until a counter has begun to count and stands still.
async fn settled(counter: impl Fn() -> usize) -> usize {
    let started = Instant::now();
    let mut last = counter();
    let mut since = Instant::now();
    while last == 0 || since.elapsed() < Duration::from_millis(500) {
        assert!(started.elapsed() < PATIENCE, "it does not stop: {last}");
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = counter();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_costs_no_memory_however_slow_its_reader_is() {
    let pod = Pod::start().await;
    for way in Way::all(pod.address, AppProtocol::Http1).await {
        let before = resident();
        let grown = |what: &str| {
            let grown = resident().saturating_sub(before);
            assert!(grown < GROWTH, "{} {what}: {grown} bytes", way.name);
        };
        // Down: nothing is read for a while.
        pod.moved.store(0, Ordering::SeqCst);
        let mut stream = TcpStream::connect(way.address).await.unwrap();
        stream.write_all(b"GET /down HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n").await.unwrap();
        read_head(&mut stream).await;
        let held = settled(|| pod.moved()).await;
        assert!(held < ON_THE_WAY, "{} down: {held} bytes are on the way", way.name);
        let mut piece = vec![0; 256 * 1024];
        let mut read = 0;
        while let Ok(more @ 1..) = tokio::time::timeout(PATIENCE, stream.read(&mut piece)).await.expect("it stops") {
            read += more;
            grown("down");
        }
        assert_eq!(read, LARGE, "{}", way.name);
        // Up: the pod reads nothing for a while.
        let sent = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&sent);
        let (mut read, mut write) = TcpStream::connect(way.address).await.unwrap().into_split();
        let writing = tokio::spawn(async move {
            let head = format!("POST /up HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: {LARGE}\r\n\r\n");
            write.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![7; 64 * 1024];
            for _ in 0..LARGE / piece.len() {
                write.write_all(&piece).await.unwrap();
                count.fetch_add(piece.len(), Ordering::SeqCst);
            }
            write
        });
        let held = settled(|| sent.load(Ordering::SeqCst)).await;
        assert!(0 < held && held < ON_THE_WAY, "{} up: {held} bytes are on the way", way.name);
        pod.go.notify_one();
        let mut answer = String::new();
        tokio::time::timeout(4 * PATIENCE, read.read_to_string(&mut answer)).await.expect("no answer").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{}: {answer}", way.name);
        grown("up");
        drop(writing.await.unwrap());
        way.end().await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_passed_on_as_broken() {
    let pod = Pod::start().await;
    for way in Way::all(pod.address, AppProtocol::Http1).await {
        for path in ["/cut", "/cut-chunk"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: s\r\n\r\n");
            let all = raw(way.address, request.as_bytes()).await;
            assert!(all.starts_with("HTTP/1.1 200 "), "{} {path}: {all}", way.name);
            assert!(all.contains("some") && !all.contains("0\r\n\r\n0"), "{} {path}: {all}", way.name);
            assert!(!all.ends_with("\r\n0\r\n\r\n"), "{} {path} looks whole: {all}", way.name);
            let mut client = Client::h2(way.address).await;
            let answer = client.send(Method::GET, &format!("http://s{path}"), &[], "".into()).await;
            assert!(answer.is_err(), "{} {path} looks whole: {answer:?}", way.name);
        }
        until("both are failures", || way.mesh.metrics().contains("upstream_broken")).await;
        way.end().await;
    }
}

#[tokio::test]
async fn a_head_has_a_length_and_no_body_and_a_closed_side_gets_its_answer() {
    let pod = Pod::start().await;
    for way in Way::all(pod.address, AppProtocol::Http1).await {
        let mut stream = TcpStream::connect(way.address).await.unwrap();
        for _ in 0..3 {
            stream.write_all(b"HEAD /x HTTP/1.1\r\nHost: s\r\n\r\n").await.unwrap();
            let head = read_head(&mut stream).await.to_lowercase();
            assert!(head.contains("content-length: 12345\r\n"), "{}: {head}", way.name);
        }
        stream.write_all(b"HEAD /x HTTP/1.1\r\nHost: s\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut last = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut last)).await.expect("no end").unwrap();
        assert!(last.starts_with("HTTP/1.1 200 "), "{}: {last}", way.name);
        way.end().await;
    }
}
