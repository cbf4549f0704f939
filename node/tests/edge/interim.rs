//! What comes before an answer: interim responses, and the 100 that a client waits for.

use std::net::SocketAddr;
use std::sync::Arc;

use meshgate_core::snapshot::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::backend::Backend;
use crate::client::{Client, PATIENCE, raw, read_to_end};
use crate::upgrade::read_head;
use crate::ways::Way;

/// A pod that says hints before it answers; the answer to `/wait` waits to be asked for.
struct Hinting {
    address: SocketAddr,
    answers: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Hinting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hinting {
    async fn start(hints: usize) -> Hinting {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(Notify::new());
        let asked = Arc::clone(&answers);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let asked = Arc::clone(&asked);
                tokio::spawn(async move {
                    let head = read_head(&mut stream).await;
                    let hint = |n| format!("HTTP/1.1 103 Early Hints\r\nLink: </{n}>\r\nContent-Length: 7\r\n\r\n");
                    let hints = (0..hints).map(hint).collect::<String>();
                    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                    if head.starts_with("GET /wait") {
                        stream.write_all(hints.as_bytes()).await.unwrap();
                        asked.notified().await;
                        stream.write_all(last.as_bytes()).await.unwrap();
                    } else {
                        stream.write_all((hints + last).as_bytes()).await.unwrap();
                    }
                });
            }
        });
        Hinting { address, answers, task }
    }
}

#[tokio::test]
async fn hints_reach_the_client_in_order_and_before_the_answer() {
    let pod = Hinting::start(2).await;
    for way in Way::all(pod.address, AppProtocol::Http1).await {
        let mut stream = TcpStream::connect(way.address).await.unwrap();
        stream.write_all(b"GET /wait HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n").await.unwrap();
        for number in 0..2 {
            let hint = read_head(&mut stream).await;
            assert!(hint.starts_with("HTTP/1.1 103 "), "{}: {hint}", way.name);
            assert!(hint.contains(&format!("</{number}>")) && !hint.contains("ength"), "{}: {hint}", way.name);
        }
        pod.answers.notify_one();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{}: {answer}", way.name);
        // All at once.
        let all = raw(way.address, b"GET / HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n").await;
        let statuses: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).collect();
        let statuses: Vec<&str> = statuses.iter().map(|line| &line[..3]).collect();
        assert_eq!(statuses, ["103", "103", "200"], "{}: {all}", way.name);
        // Whom none can be sent gets the answer.
        assert_eq!(Client::h2(way.address).await.get("http://s/").await.text(), "ok", "{}", way.name);
        let old = raw(way.address, b"GET / HTTP/1.0\r\nHost: s\r\n\r\n").await;
        assert!(old.starts_with("HTTP/1.1 200 "), "{}: {old}", way.name);
        way.end().await;
    }
}

#[tokio::test]
async fn only_so_many_hints_are_passed_on() {
    let pod = Hinting::start(40).await;
    for way in Way::all(pod.address, AppProtocol::Http1).await {
        let all = raw(way.address, b"GET / HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n").await;
        assert_eq!(all.matches("HTTP/1.1 103 ").count(), 16, "{}", way.name);
        assert!(all.ends_with("ok"), "{}: {all}", way.name);
        way.end().await;
    }
}

const EXPECTS: &[u8] =
    b"POST /x HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

#[tokio::test]
async fn a_client_that_waits_is_told_to_go_on_once_the_body_has_a_taker() {
    let pod = Backend::start("a").await;
    for mut way in Way::all(pod.address, AppProtocol::Http1).await {
        let mut stream = TcpStream::connect(way.address).await.unwrap();
        stream.write_all(EXPECTS).await.unwrap();
        assert_eq!(read_head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n", "{}", way.name);
        stream.write_all(b"hello").await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("body 5"), "{}: {answer}", way.name);
        // Nobody takes it: the answer is the first word.
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let node = (way.name == "tunnel").then_some("n2");
        way.mesh.resources.endpoints("a", &[(nobody, node)]);
        way.mesh.apply().await;
        let mut stream = TcpStream::connect(way.address).await.unwrap();
        stream.write_all(EXPECTS).await.unwrap();
        let answer = read_head(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{}: {answer}", way.name);
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it waits for the body").unwrap();
        way.end().await;
    }
}
