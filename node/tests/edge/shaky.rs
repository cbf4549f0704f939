//! A backend that fails as it is told: a script of answers, the last one for ever.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// An answer with this status.
    Status(u16),
    /// The connection is closed without an answer.
    Close,
    /// There is no answer.
    Hang,
    /// A head, and then a byte every 20 ms for ever.
    Drip,
    /// A head, and then bytes for ever.
    Flood,
}

/// A backend on a port of its own. It closes its connection after each answer.
pub struct Shaky {
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<usize>>>,
    script: Arc<Mutex<Vec<Act>>>,
    task: JoinHandle<()>,
}

impl Drop for Shaky {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shaky {
    pub async fn start(script: &[Act]) -> Shaky {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, bodies) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let script = Arc::new(Mutex::new(script.to_vec()));
        let (counted, noted, acts) = (Arc::clone(&requests), Arc::clone(&bodies), Arc::clone(&script));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                open.spawn(serve(stream, Arc::clone(&counted), Arc::clone(&noted), Arc::clone(&acts)));
            }
        });
        Shaky { address, requests, bodies, script, task }
    }

    /// Requests whose head came.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Lengths of the bodies that came whole.
    pub fn bodies(&self) -> Vec<usize> {
        self.bodies.lock().unwrap().clone()
    }

    /// Another script, from now on.
    pub fn act(&self, script: &[Act]) {
        *self.script.lock().unwrap() = script.to_vec();
    }
}

async fn serve(
    mut stream: TcpStream,
    requests: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<usize>>>,
    script: Arc<Mutex<Vec<Act>>>,
) {
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    };
    requests.fetch_add(1, Ordering::SeqCst);
    let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    while read.len() < head + length {
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    bodies.lock().unwrap().push(read.len() - head);
    let act = {
        let mut script = script.lock().unwrap();
        if script.len() > 1 { script.remove(0) } else { script[0] }
    };
    match act {
        Act::Status(status) => {
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\nConnection: close\r\n\r\nshaky");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        Act::Close => {}
        Act::Hang => {
            let _ = stream.read_buf(&mut read).await;
        }
        Act::Drip => {
            let _ = stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n").await;
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Act::Flood => {
            let _ = stream.write_all(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n").await;
            while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
        }
    }
}
