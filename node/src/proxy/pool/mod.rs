//! Connections to pods: idle HTTP/1 connections, last used first, and shared HTTP/2 ones.
//!
//! One pool a thread at the edge, one for the hosting side of the tunnel. An HTTP/1 connection is
//! driven by whoever uses it; an HTTP/2 connection's task runs on the runtime that dialled it and
//! ends with the connection.

mod body;
mod connect;
mod lease;
mod websocket;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use meshgate_core::snapshot::AppProtocol;
use tokio::net::TcpStream;

pub use body::{PooledBody, RequestBody};
pub use lease::{Lease, SendError};

use super::lock;
use crate::h1::Connection;

/// Idle HTTP/1 connections kept an endpoint: as many as a thread's clients use at once, or each
/// burst would dial anew.
const MAX_IDLE: usize = 512;

/// How long a connection stays idle before it is closed. Below the 60 s and more that servers use.
const IDLE: Duration = Duration::from_secs(30);

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// HTTP/2 connections an endpoint.
const MAX_H2_CONNECTIONS: usize = 4;

/// Streams on an HTTP/2 connection before another one is opened.
const H2_STREAMS: usize = 100;

/// Where to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The endpoint.
    pub address: SocketAddr,
    /// What it speaks.
    pub app: AppProtocol,
}

/// A pool. Clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    source: Option<IpAddr>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    h1: HashMap<SocketAddr, Vec<Idle>>,
    h2: HashMap<SocketAddr, Vec<Shared>>,
    swept: Option<Instant>,
}

/// An HTTP/1 connection.
type H1 = Connection<TcpStream>;

/// An idle HTTP/1 connection.
struct Idle {
    connection: H1,
    since: Instant,
}

/// An HTTP/2 connection.
#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    streams: Arc<AtomicUsize>,
    used: Instant,
}

impl Pool {
    /// An empty pool whose dials come from `source`.
    pub fn new(source: Option<IpAddr>) -> Self {
        Pool(Arc::new(Inner { source, state: Mutex::new(State::default()) }))
    }

    /// A live connection for one request: an idle one, else a new one.
    ///
    /// # Errors
    /// The endpoint does not accept connections.
    pub async fn checkout(&self, target: Target) -> io::Result<Lease<'static>> {
        match self.idle(target) {
            Some(lease) => Ok(lease),
            None => self.fresh(target).await,
        }
    }

    /// A new connection for one request.
    ///
    /// # Errors
    /// The endpoint does not accept connections.
    pub async fn fresh(&self, target: Target) -> io::Result<Lease<'static>> {
        match target.app {
            AppProtocol::Http1 => {
                let connection = connect::http1(target.address, self.0.source).await?;
                Ok(Lease::h1(self.clone(), target.address, connection, false))
            }
            AppProtocol::H2c => {
                let sender = connect::http2(target.address, self.0.source).await?;
                let shared = Shared { sender, streams: Arc::default(), used: Instant::now() };
                let (sender, streams) = (shared.sender.clone(), Arc::clone(&shared.streams));
                let lease = Lease::h2(self.clone(), target.address, sender, streams, false);
                self.share(target.address, shared);
                Ok(lease)
            }
        }
    }

    /// Closes what was idle for too long; does nothing where it was called a moment ago.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut state = lock(&self.0.state);
        if state.swept.is_some_and(|swept| now.duration_since(swept) < SWEEP) {
            return;
        }
        state.swept = Some(now);
        state.h1.retain(|_, idle| {
            idle.retain(|idle| idle.connection.is_idle() && now.duration_since(idle.since) < IDLE);
            !idle.is_empty()
        });
        state.h2.retain(|_, shared| {
            shared.retain(|shared| !shared.sender.is_closed() && shared.wanted(now));
            !shared.is_empty()
        });
    }

    /// Open connections that no request uses: (HTTP/1, HTTP/2).
    pub fn idle_connections(&self) -> (usize, usize) {
        let state = lock(&self.0.state);
        let unused = |shared: &&Shared| shared.streams.load(Ordering::Relaxed) == 0;
        (state.h1.values().map(Vec::len).sum(), state.h2.values().flatten().filter(unused).count())
    }

    fn idle(&self, target: Target) -> Option<Lease<'static>> {
        match target.app {
            AppProtocol::Http1 => {
                let connection = self.idle_h1(target.address)?;
                Some(Lease::h1(self.clone(), target.address, connection, true))
            }
            AppProtocol::H2c => {
                let (sender, streams) = self.shared_h2(target.address)?;
                Some(Lease::h2(self.clone(), target.address, sender, streams, true))
            }
        }
    }

    /// The connection used last that is still good for a request.
    fn idle_h1(&self, address: SocketAddr) -> Option<H1> {
        let mut state = lock(&self.0.state);
        let idle = state.h1.get_mut(&address)?;
        while let Some(last) = idle.pop() {
            if last.connection.is_idle() {
                return Some(last.connection);
            }
        }
        None
    }

    /// The connection with the fewest streams, where that is few or no more may be opened.
    fn shared_h2(&self, address: SocketAddr) -> Option<(http2::SendRequest<RequestBody>, Arc<AtomicUsize>)> {
        let mut state = lock(&self.0.state);
        let shared = state.h2.get_mut(&address)?;
        shared.retain(|shared| !shared.sender.is_closed());
        let full = shared.len() >= MAX_H2_CONNECTIONS;
        let least = shared.iter_mut().min_by_key(|shared| shared.streams.load(Ordering::Relaxed))?;
        if least.streams.load(Ordering::Relaxed) >= H2_STREAMS && !full {
            return None;
        }
        least.used = Instant::now();
        Some((least.sender.clone(), Arc::clone(&least.streams)))
    }

    fn share(&self, address: SocketAddr, connection: Shared) {
        let mut state = lock(&self.0.state);
        let shared = state.h2.entry(address).or_default();
        // Dials that raced: the surplus connection serves the request it was made for.
        if shared.len() < MAX_H2_CONNECTIONS {
            shared.push(connection);
        }
    }

    /// Takes an HTTP/1 connection back.
    fn checkin(&self, address: SocketAddr, connection: H1) {
        let mut state = lock(&self.0.state);
        let idle = state.h1.entry(address).or_default();
        if idle.len() >= MAX_IDLE {
            idle.remove(0);
        }
        idle.push(Idle { connection, since: Instant::now() });
    }
}

impl Shared {
    fn wanted(&self, now: Instant) -> bool {
        self.streams.load(Ordering::Relaxed) > 0 || now.duration_since(self.used) < IDLE
    }
}
