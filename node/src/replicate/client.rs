//! Keeps one Sync stream to the source that is chosen, and brings what comes to the replica.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use meshgate_core::replica::{End, Follow, Held as HeldState, Sources, Stay};
use meshgate_core::snapshot::HeadId;
use meshgate_wire::{LeaderVerifier, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::acks::AckSource;
use super::inbound::Inbound;
use super::metrics::Metrics;
use super::replica::Offer;
use super::rpc::connect;
use super::types::{Applied, Dialer, LiveReport, PeerInfo, PeerView};
use super::{frames, types::Origin};
use crate::drain::{Drain, Phase};
use crate::identity::{InstanceId, NodeName};

/// How long a source may take to accept the stream.
const OPEN_WAIT: Duration = Duration::from_secs(2);
/// Requests that wait for a slow source.
const REQUESTS: usize = 4;

/// The rules of following, which the reading and the thinking of one stream share. Locked only to
/// ask or tell.
#[derive(Debug, Default)]
pub(super) struct Following(Mutex<Follow<NodeName>>);

impl Following {
    pub(super) fn lock(&self) -> MutexGuard<'_, Follow<NodeName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the leader or another peer.
pub struct ClientTask {
    pub(super) node: NodeName,
    pub(super) instance: InstanceId,
    pub(super) dialer: Arc<dyn Dialer>,
    pub(super) verifier: Arc<dyn LeaderVerifier>,
    pub(super) view: watch::Receiver<Arc<PeerView>>,
    pub(super) applied: watch::Receiver<Option<Arc<Applied>>>,
    pub(super) fence: watch::Receiver<u64>,
    pub(super) live: watch::Receiver<LiveReport>,
    pub(super) offers: mpsc::Sender<Offer>,
    pub(super) metrics: Metrics,
}

impl ClientTask {
    /// Follows until the drain's cut.
    pub async fn run(self, drain: Drain) {
        tokio::select! {
            () = self.follow() => {}
            () = drain.reached(Phase::Cut) => {}
        }
    }

    async fn follow(&self) {
        let following = Following::default();
        loop {
            let Some(source) = self.pick(&following) else {
                self.wait_for_news(&following).await;
                continue;
            };
            following.lock().begin(source.node.clone(), Instant::now());
            let end = tokio::select! {
                end = self.session(&source, &following) => end,
                end = self.better_source(&following) => end,
            };
            tracing::info!(node = %source.node, ?end, "the stream from a source ended");
            following.lock().ended(end, Instant::now(), rand::random());
        }
    }

    fn held(&self) -> HeadId {
        self.applied.borrow().as_ref().map_or_else(HeadId::default, |applied| applied.id())
    }

    fn pick(&self, following: &Following) -> Option<PeerInfo> {
        let view = Arc::clone(&self.view.borrow());
        let sources = self.sources(&view);
        let node = following.lock().pick(&self.held_state(), &sources, Instant::now(), rand::random())?;
        view.peers.iter().find(|peer| peer.node == node).cloned()
    }

    /// Everyone but this peer.
    fn sources<'a>(&self, view: &'a PeerView) -> Sources<'a, NodeName> {
        let others = view.peers.iter().filter(|peer| peer.node != self.node);
        Sources { leader: view.leader.as_ref(), peers: others.map(|peer| (&peer.node, peer.head)).collect() }
    }

    /// Returns when the choice may differ: the view changed, or a source may be tried again.
    async fn wait_for_news(&self, following: &Following) {
        let mut view = self.view.clone();
        view.mark_unchanged();
        if self.pick(following).is_some() {
            return;
        }
        let retry = following.lock().next_retry(Instant::now());
        let timer = async {
            match retry {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = view.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = timer => {}
        }
    }

    /// Returns when another source should be followed.
    async fn better_source(&self, following: &Following) -> End {
        let mut view = self.view.clone();
        loop {
            let now = Arc::clone(&view.borrow_and_update());
            let sources = self.sources(&now);
            let stay = following.lock().reconsider(&self.held_state(), &sources, Instant::now(), rand::random());
            let again = match stay {
                Stay::Until(again) => again,
                Stay::Leave(end) => return end,
            };
            tokio::select! {
                changed = view.changed() => if changed.is_err() { std::future::pending::<()>().await },
                () = tokio::time::sleep_until(again.into()) => {}
            }
        }
    }

    /// One stream, from its start to its end.
    async fn session(&self, source: &PeerInfo, following: &Following) -> End {
        let broken = End::Broken;
        let mut client = match connect(self.dialer.as_ref(), &source.node, source.address).await {
            Ok(client) => client,
            Err(error) => {
                tracing::debug!(node = %source.node, %error, "a source can't be reached");
                return broken;
            }
        };
        let (requests, stream) = mpsc::channel(REQUESTS);
        let want_full = following.lock().want_full();
        let hello = frames::hello(&self.node, self.instance, &self.held_state(), want_full);
        if requests.try_send(hello).is_err() {
            return broken;
        }
        let opening = tokio::time::timeout(OPEN_WAIT, client.sync(ReceiverStream::new(stream))).await;
        let frames = match opening {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(error)) => {
                tracing::debug!(node = %source.node, %error, "a source refuses the stream");
                return broken;
            }
            Err(_) => return broken,
        };
        tracing::info!(node = %source.node, "following a source");
        let is_leader = self.view.borrow().leader.as_ref() == Some(&source.node);
        let mut inbound = Inbound {
            source: source.node.clone(),
            origin: if is_leader { Origin::Leader } else { Origin::Peer },
            verifier: Arc::clone(&self.verifier),
            offers: self.offers.clone(),
            metrics: self.metrics.clone(),
            requests: requests.clone(),
            following,
            assembly: None,
            held: self.held(),
        };
        tokio::select! {
            end = inbound.read(frames) => end,
            () = self.acknowledge(requests) => End::Broken,
        }
    }

    /// Sends acknowledgements as long as the stream takes them.
    async fn acknowledge(&self, requests: mpsc::Sender<meshgate_proto::replication::SyncRequest>) {
        let mut acks = AckSource::new(self.applied.clone(), self.live.clone());
        loop {
            let ack = acks.next().await;
            if requests.send(frames::ack(&ack)).await.is_err() {
                return;
            }
        }
    }

    fn held_state(&self) -> HeldState {
        let fence = *self.fence.borrow();
        match self.applied.borrow().as_ref() {
            Some(applied) => HeldState { id: applied.id(), roots: applied.snapshot.roots(), fence },
            None => HeldState { id: HeadId::default(), roots: Snapshot::default().roots(), fence },
        }
    }
}
