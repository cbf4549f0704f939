//! Echo backends: they say what reached them, and accept connections of their own node's peer only.
//!
//! The refusal is the demo's proof: a request that is answered by a pod of another node can only
//! have come through that node's peer, so through the tunnel.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::base_address;

/// Connections that one backend serves at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// The longest request body that is read.
const MAX_BODY: usize = 1 << 20;
/// The longest delay that a request may ask for with `?delay-ms=`.
const MAX_DELAY: Duration = Duration::from_secs(5);
/// Pause after an accept error (out of file descriptors), so that it can't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// One backend: a pod's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod that it plays.
    pub pod: String,
    /// Its Service, `namespace/name`.
    pub service: String,
    /// The node it runs on, by name.
    pub node: String,
    /// The same by number: only 127.n.0.1 may connect.
    pub number: u8,
}

/// What a backend answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The pod that answered.
    pub pod: String,
    /// Its node.
    pub node: String,
    /// Its Service, `namespace/name`.
    pub service: String,
    /// Method as it arrived.
    pub method: String,
    /// Path and query as they arrived.
    pub path: String,
    /// Authority as it arrived.
    pub host: String,
    /// Headers as they arrived; several values are joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// Bytes of the request's body.
    pub body_bytes: usize,
    /// Who connected: the address of the node's own peer.
    pub client: String,
}

/// Counters over all backends.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were accepted.
    pub accepted: AtomicU64,
    /// Connections from elsewhere than the backend's own node, closed unread.
    pub refused: AtomicU64,
    /// Requests that arrived.
    pub requests: AtomicU64,
    /// Those of them that asked for a delay.
    pub slow: AtomicU64,
}

/// Running backends. They end when this is dropped.
#[derive(Debug)]
pub struct Echoes {
    counters: Arc<Counters>,
    tasks: JoinSet<()>,
    backends: Vec<Backend>,
}

impl Echoes {
    /// Binds and starts all backends.
    ///
    /// # Errors
    /// An address that is in use, by name.
    pub async fn start(backends: Vec<Backend>) -> anyhow::Result<Self> {
        let counters = Arc::new(Counters::default());
        let mut tasks = JoinSet::new();
        for backend in &backends {
            let listener = TcpListener::bind(backend.address)
                .await
                .with_context(|| format!("cannot start the echo backend {} on {}", backend.pod, backend.address))?;
            tasks.spawn(accept(listener, Arc::new(backend.clone()), Arc::clone(&counters)));
        }
        Ok(Echoes { counters, tasks, backends })
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The backends, in the order of the manifests.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Stops all backends and frees their addresses.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn accept(listener: TcpListener, backend: Arc<Backend>, counters: Arc<Counters>) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if from.ip() != base_address(backend.number) {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        let (backend, counters) = (Arc::clone(&backend), Arc::clone(&counters));
        connections.spawn(async move {
            serve(stream, from, backend, counters).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, from: SocketAddr, backend: Arc<Backend>, counters: Arc<Counters>) {
    // Only latency suffers without it.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        counters.requests.fetch_add(1, Ordering::Relaxed);
        if delay(request.uri().query()).is_some() {
            counters.slow.fetch_add(1, Ordering::Relaxed);
        }
        answer(request, from, Arc::clone(&backend))
    });
    // A connection that the peer cuts is its own affair.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    from: SocketAddr,
    backend: Arc<Backend>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Ok(respond(StatusCode::PAYLOAD_TOO_LARGE, Bytes::new()));
    };
    if let Some(delay) = delay(head.uri.query()) {
        tokio::time::sleep(delay).await;
    }
    let mut headers = BTreeMap::new();
    for (name, value) in &head.headers {
        let text = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|all: &mut String| {
                all.push_str(", ");
                all.push_str(&text);
            })
            .or_insert_with(|| text.clone().into_owned());
    }
    let echo = Echo {
        pod: backend.pod.clone(),
        node: backend.node.clone(),
        service: backend.service.clone(),
        method: head.method.to_string(),
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        host: headers.get(header::HOST.as_str()).cloned().unwrap_or_default(),
        headers,
        body_bytes: body.to_bytes().len(),
        client: from.to_string(),
    };
    // One line that ends in a line feed, so that a shell's prompt starts on a new one.
    let Ok(mut text) = serde_json::to_vec(&echo) else {
        return Ok(respond(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()));
    };
    text.push(b'\n');
    Ok(respond(StatusCode::OK, text.into()))
}

/// The delay that `?delay-ms=` asks for, at most [`MAX_DELAY`].
fn delay(query: Option<&str>) -> Option<Duration> {
    let value = query?.split('&').find_map(|pair| pair.strip_prefix("delay-ms="))?;
    Some(Duration::from_millis(value.parse().ok()?).min(MAX_DELAY))
}

fn respond(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::*;

    async fn echoes() -> (Echoes, SocketAddr) {
        // An address of its own, so that tests don't meet: the port is the kernel's choice.
        let free = std::net::TcpListener::bind("127.9.9.9:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let backend =
            Backend { address, pod: "cart-1".into(), service: "edge/cart".into(), node: "node-i".into(), number: 9 };
        (Echoes::start(vec![backend]).await.unwrap(), address)
    }

    /// Sends a request from an address, and reads to the end.
    async fn ask(from: &str, to: SocketAddr, head: &str) -> String {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(to).await.unwrap();
        // Either may fail on a connection that was refused.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8(text).unwrap()
    }

    const HEAD: &str = "POST /a%20b?x=1 HTTP/1.1\r\nHost: shop.example\r\nx-a: 1\r\nX-A: 2\r\n\
                        Content-Length: 5\r\nConnection: close\r\n\r\nhello";

    #[tokio::test]
    async fn answers_its_own_node_with_what_arrived() {
        let (echoes, address) = echoes().await;
        let text = ask("127.9.0.1", address, HEAD).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let echo: Echo = serde_json::from_str(body).unwrap();
        assert_eq!((echo.pod.as_str(), echo.node.as_str(), echo.service.as_str()), ("cart-1", "node-i", "edge/cart"));
        assert_eq!((echo.method.as_str(), echo.path.as_str()), ("POST", "/a%20b?x=1"));
        assert_eq!((echo.host.as_str(), echo.body_bytes), ("shop.example", 5));
        assert_eq!(echo.headers["x-a"], "1, 2");
        assert!(echo.client.starts_with("127.9.0.1:"), "{}", echo.client);
        assert_eq!(echoes.counters().requests.load(Ordering::Relaxed), 1);
        assert_eq!(echoes.counters().refused.load(Ordering::Relaxed), 0);
        echoes.stop().await;
        assert!(std::net::TcpListener::bind(address).is_ok(), "the address is free again");
    }

    #[tokio::test]
    async fn refuses_every_other_source_unread_and_counts_it() {
        let (echoes, address) = echoes().await;
        for from in ["127.0.0.1", "127.8.0.1", "127.9.1.1"] {
            assert_eq!(ask(from, address, HEAD).await, "", "from {from}");
        }
        assert_eq!(echoes.counters().refused.load(Ordering::Relaxed), 3);
        assert_eq!(echoes.counters().accepted.load(Ordering::Relaxed), 0);
        assert_eq!(echoes.counters().requests.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let (_echoes, address) = echoes().await;
        let backend =
            Backend { address, pod: "cart-2".into(), service: "edge/cart".into(), node: "node-i".into(), number: 9 };
        let message = format!("{:#}", Echoes::start(vec![backend]).await.unwrap_err());
        assert!(message.contains("cart-2") && message.contains(&address.to_string()), "{message}");
    }

    #[test]
    fn a_delay_is_bounded() {
        assert_eq!(delay(Some("a=1&delay-ms=250")), Some(Duration::from_millis(250)));
        assert_eq!(delay(Some("delay-ms=99999999")), Some(MAX_DELAY));
        assert_eq!(delay(Some("delay-ms=soon")), None);
        assert_eq!(delay(None), None);
    }
}
