//! Gossip messages: one unidirectional stream each, on connections of their own.
//!
//! A message is a hint and may be lost: whatever is full drops it and counts.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::CONNECT_LIMIT;
use super::metrics::TunnelMetrics;

/// Largest message.
pub const MAX_GOSSIP_MESSAGE: usize = 65_507;
/// Messages that wait between the tunnel and gossip, either way.
const QUEUE: usize = 256;
/// Messages that wait for one address.
const PEER_QUEUE: usize = 16;
/// Addresses that are gossiped with at once.
const MAX_ADDRESSES: usize = 512;
/// A connection that gossip has not used for so long is closed.
const UNUSED: Duration = Duration::from_secs(30);
/// How long an address that could not be reached is left alone.
const RETRY: Duration = Duration::from_millis(200);
/// How long a message may take on its way in or out.
const MESSAGE_LIMIT: Duration = Duration::from_secs(2);

/// What gossip sends and receives through the tunnel. Addresses are gossip addresses: where the
/// peer's tunnel listens. Senders are nodes of the mesh, though not necessarily the nodes that a
/// message speaks of.
#[derive(Debug)]
pub struct GossipChannel {
    /// To an address; `try_send`, and drop the message when it is full.
    pub outgoing: Sender<(SocketAddr, Bytes)>,
    /// From an address.
    pub incoming: Receiver<(SocketAddr, Bytes)>,
}

/// The tunnel's ends of the channel.
pub(super) struct GossipEnds {
    pub outgoing: Receiver<(SocketAddr, Bytes)>,
    pub incoming: Sender<(SocketAddr, Bytes)>,
}

pub(super) fn channel() -> (GossipChannel, GossipEnds) {
    let (outgoing, to_send) = mpsc::channel(QUEUE);
    let (received, incoming) = mpsc::channel(QUEUE);
    (GossipChannel { outgoing, incoming }, GossipEnds { outgoing: to_send, incoming: received })
}

/// Sends what gossip wants sent, until its channel closes. Its tasks end with it.
pub(super) struct Sending {
    pub endpoint: Endpoint,
    pub config: ClientConfig,
    pub me: SocketAddr,
    pub metrics: TunnelMetrics,
}

impl Sending {
    pub(super) async fn run(self, mut outgoing: Receiver<(SocketAddr, Bytes)>) {
        let mut queues: HashMap<SocketAddr, Sender<Bytes>> = HashMap::new();
        let mut tasks: JoinSet<SocketAddr> = JoinSet::new();
        loop {
            tokio::select! {
                message = outgoing.recv() => match message {
                    Some((to, message)) => self.pass_on(to, message, &mut queues, &mut tasks),
                    None => return,
                },
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Ok(address) = ended {
                        queues.remove(&address);
                    }
                }
            }
        }
    }

    fn pass_on(
        &self,
        to: SocketAddr,
        message: Bytes,
        queues: &mut HashMap<SocketAddr, Sender<Bytes>>,
        tasks: &mut JoinSet<SocketAddr>,
    ) {
        if message.len() > MAX_GOSSIP_MESSAGE || to == self.me {
            self.metrics.gossip_dropped.inc();
            return;
        }
        if !queues.contains_key(&to) {
            if queues.len() >= MAX_ADDRESSES {
                self.metrics.gossip_dropped.inc();
                return;
            }
            let (sender, receiver) = mpsc::channel(PEER_QUEUE);
            queues.insert(to, sender);
            let (endpoint, config) = (self.endpoint.clone(), self.config.clone());
            let (port, metrics) = (self.me.port(), self.metrics.clone());
            tasks.spawn(async move {
                send_all(to, port, endpoint, config, receiver, metrics).await;
                to
            });
        }
        if queues.get(&to).is_none_or(|queue| queue.try_send(message).is_err()) {
            self.metrics.gossip_dropped.inc();
        }
    }
}

/// Sends to one address over one connection, until it breaks or is not used.
async fn send_all(
    to: SocketAddr,
    port: u16,
    endpoint: Endpoint,
    config: ClientConfig,
    mut messages: Receiver<Bytes>,
    metrics: TunnelMetrics,
) {
    let Some(connection) = connect(&endpoint, config, to).await else {
        metrics.dialled("gossip_failed");
        tokio::time::sleep(RETRY).await;
        return;
    };
    metrics.dialled("gossip");
    loop {
        let message = tokio::select! {
            message = timeout(UNUSED, messages.recv()) => message,
            _ = connection.closed() => return,
        };
        let Ok(Some(message)) = message else {
            return;
        };
        if !matches!(timeout(MESSAGE_LIMIT, send(&connection, port, message)).await, Ok(Some(()))) {
            metrics.gossip_dropped.inc();
            return;
        }
    }
}

async fn connect(endpoint: &Endpoint, config: ClientConfig, to: SocketAddr) -> Option<Connection> {
    let connecting = endpoint.connect_with(config, to, super::runner::SERVER_NAME).ok()?;
    timeout(CONNECT_LIMIT, connecting).await.ok()?.ok()
}

async fn send(connection: &Connection, port: u16, message: Bytes) -> Option<()> {
    let mut stream = connection.open_uni().await.ok()?;
    let mut head = BytesMut::with_capacity(2);
    head.put_u16(port);
    stream.write_all_chunks(&mut [head.freeze(), message]).await.ok()?;
    stream.finish().ok()
}

/// Reads one message from a peer at `from`.
pub(super) async fn receive(
    mut stream: RecvStream,
    from: SocketAddr,
    incoming: Sender<(SocketAddr, Bytes)>,
    metrics: TunnelMetrics,
) {
    let Ok(Ok(message)) = timeout(MESSAGE_LIMIT, stream.read_to_end(MAX_GOSSIP_MESSAGE + 2)).await else {
        metrics.gossip_dropped.inc();
        return;
    };
    let mut message = Bytes::from(message);
    if message.len() < 2 {
        metrics.gossip_dropped.inc();
        return;
    }
    let from = SocketAddr::new(from.ip(), message.get_u16());
    if incoming.try_send((from, message)).is_err() {
        metrics.gossip_dropped.inc();
    }
}
