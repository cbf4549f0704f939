//! Accepts connections of one listening socket and hands them to the least loaded worker.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meshgate_core::snapshot::{Key, Protocol};
use tokio::io::unix::AsyncFd;

use super::stats::{Open, count};
use super::worker::{Shared, WorkerHandle};
use crate::h1::Closing;

/// How long accepting rests when file descriptors run out.
const REST: Duration = Duration::from_millis(100);

/// Connections accepted in a row before others get their turn.
const BATCH: usize = 64;

/// Batches accepted from a socket that is to be closed: as many as its queue holds.
const LAST_BATCHES: usize = 16;

/// A listening socket, as its connections see it.
#[derive(Debug)]
pub struct Bound {
    /// The Gateway.
    pub gateway: Key,
    /// The logical port.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// The real address.
    pub address: SocketAddr,
    /// No more connections; those that are may finish.
    pub closing: Closing,
}

/// An accepted connection.
pub struct Accepted {
    /// The socket.
    pub stream: TcpStream,
    /// The client.
    pub client: SocketAddr,
    /// What it came in on.
    pub bound: Arc<Bound>,
    /// Counts it.
    pub open: Open,
}

/// Hands connections to workers.
pub struct Dispatcher {
    shared: Shared,
    workers: Vec<WorkerHandle>,
}

impl Dispatcher {
    /// A dispatcher over the workers. When it is dropped, they end with their last connection.
    pub fn new(shared: Shared, workers: Vec<WorkerHandle>) -> Self {
        Dispatcher { shared, workers }
    }

    /// Accepts until the socket is to be closed, and then what waits already: closing a socket
    /// resets the connections in its queue.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, bound: Arc<Bound>) -> io::Result<()> {
        let listener = watched(listener)?;
        loop {
            let mut ready = tokio::select! {
                ready = listener.readable() => ready?,
                () = bound.closing.closed() => break,
            };
            match self.drain_queue(listener.get_ref(), &bound) {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => self.rest(&error, &bound).await,
            }
        }
        for _ in 0..LAST_BATCHES {
            if self.drain_queue(listener.get_ref(), &bound).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Accepts a batch. The error that ended it is returned.
    fn drain_queue(&self, listener: &TcpListener, bound: &Arc<Bound>) -> io::Result<()> {
        for _ in 0..BATCH {
            match listener.accept() {
                Ok((stream, client)) => self.hand_over(stream, client, bound),
                Err(error) if transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn rest(&self, error: &io::Error, bound: &Bound) {
        count(&self.shared.stats.no_descriptors);
        tracing::warn!(address = %bound.address, %error, "connections can't be accepted; check the limit of open files");
        tokio::time::sleep(REST).await;
    }

    /// Gives a connection to the worker with the fewest, of those whose thread runs. Dropping it
    /// closes it.
    fn hand_over(&self, stream: TcpStream, client: SocketAddr, bound: &Arc<Bound>) {
        let stats = &self.shared.stats;
        count(&stats.accepted);
        if stats.active.load(Ordering::Relaxed) >= self.shared.config.max_connections {
            count(&stats.over_limit);
            return;
        }
        let running = self.workers.iter().filter(|worker| !worker.queue.is_closed());
        let least = running.min_by_key(|worker| worker.load.load(Ordering::Relaxed));
        let Some(worker) = least else { return };
        let open = Open::new(stats, &worker.load, &self.shared.proxy.metrics.connections);
        let accepted = Accepted { stream, client, bound: Arc::clone(bound), open };
        if worker.queue.try_send(accepted).is_err() {
            count(&stats.queue_full);
        }
    }
}

/// Tells when connections wait. Not tokio's listener, which would enter and leave each connection
/// in this thread's poll.
#[expect(deprecated, reason = "the successor is unsafe; a listener of std owns its descriptor, as it demands")]
fn watched(listener: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    AsyncFd::new(listener)
}

/// The connection is to blame, not the socket.
fn transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}
