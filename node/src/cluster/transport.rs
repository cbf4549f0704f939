//! Gossip's transport: messages pass through bounded channels, whose other end is authenticated.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable as _, Serializable as _};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::metrics::ClusterMetrics;

/// Largest message that the library means to send.
const MAX_MESSAGE: usize = 65_507;

/// The two channels; opened again by each life of gossip.
#[derive(Clone)]
pub(super) struct Channels {
    outgoing: Sender<(SocketAddr, Bytes)>,
    incoming: Arc<Mutex<Receiver<(SocketAddr, Bytes)>>>,
    metrics: ClusterMetrics,
}

impl Channels {
    pub(super) fn new(
        outgoing: Sender<(SocketAddr, Bytes)>,
        incoming: Receiver<(SocketAddr, Bytes)>,
        metrics: ClusterMetrics,
    ) -> Self {
        Channels { outgoing, incoming: Arc::new(Mutex::new(incoming)), metrics }
    }
}

#[async_trait]
impl Transport for Channels {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let incoming = self.incoming.clone().lock_owned().await;
        Ok(Box::new(Open { outgoing: self.outgoing.clone(), incoming, metrics: self.metrics.clone() }))
    }
}

struct Open {
    outgoing: Sender<(SocketAddr, Bytes)>,
    incoming: OwnedMutexGuard<Receiver<(SocketAddr, Bytes)>>,
    metrics: ClusterMetrics,
}

#[async_trait]
impl Socket for Open {
    /// Never waits: gossip's loop must not, and a lost message is made up for by the next round.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let bytes = message.serialize_to_vec();
        if bytes.len() > MAX_MESSAGE {
            self.metrics.dropped("too_long");
            return Ok(());
        }
        self.metrics.message("out", bytes.len());
        if self.outgoing.try_send((to, bytes.into())).is_err() {
            self.metrics.dropped("queue_full");
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let Some((from, bytes)) = self.incoming.recv().await else {
                anyhow::bail!("the channel of incoming gossip is closed");
            };
            self.metrics.message("in", bytes.len());
            if bytes.len() > MAX_MESSAGE {
                self.metrics.dropped("too_long");
                continue;
            }
            match ChitchatMessage::deserialize(&mut &bytes[..]) {
                Ok(message) => return Ok((from, message)),
                Err(_) => self.metrics.dropped("unreadable"),
            }
        }
    }
}
