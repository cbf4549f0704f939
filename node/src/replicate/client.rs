//! Keeps one Sync stream to the source that is chosen, and brings what comes to the replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meshgate_core::snapshot::HeadId;
use meshgate_wire::LeaderVerifier;
use tokio::sync::{mpsc, watch};

use super::acks::AckSource;
use super::inbound::{End, Inbound};
use super::metrics::Metrics;
use super::replica::Offer;
use super::rpc::connect;
use super::source::{Troubles, choose};
use super::types::{Applied, Dialer, LiveReport, PeerInfo, PeerView};
use super::{frames, types::Origin};
use crate::drain::{Drain, Phase};
use crate::identity::{InstanceId, NodeName};
use meshgate_core::replica::Held as HeldState;
use meshgate_wire::Snapshot;
use tokio_stream::wrappers::ReceiverStream;

/// How long a source may take to accept the stream.
const OPEN_WAIT: Duration = Duration::from_secs(2);
/// Requests that wait for a slow source.
const REQUESTS: usize = 4;
/// The choice of the source is thought over this often, besides on news.
const RECONSIDER_EVERY: Duration = Duration::from_secs(1);

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
        let mut troubles = Troubles::default();
        let mut want_full = false;
        loop {
            let Some(source) = self.choose(&troubles) else {
                self.wait_for_news(&troubles).await;
                continue;
            };
            let announced = watch::Sender::new(HeadId::default());
            let end = tokio::select! {
                end = self.session(&source, want_full, &announced) => end,
                () = self.better_source(&source, &troubles, &announced) => End::Switched,
            };
            tracing::info!(node = %source.node, ?end, "the stream from a source ended");
            let now = Instant::now();
            match end {
                End::Switched => {}
                End::Broken { worked } => {
                    if worked {
                        troubles.works(&source.node);
                        want_full = false;
                    }
                    troubles.unreachable(&source.node, now, rand::random());
                }
                End::False { ask_full } => {
                    troubles.sent_falsehood(&source.node, now);
                    want_full |= ask_full;
                }
            }
        }
    }

    fn held(&self) -> HeadId {
        self.applied.borrow().as_ref().map_or_else(HeadId::default, |applied| applied.id())
    }

    fn choose(&self, troubles: &Troubles) -> Option<PeerInfo> {
        let view = Arc::clone(&self.view.borrow());
        choose(&view, &self.node, self.held(), troubles, Instant::now(), rand::random())
    }

    /// Returns when the choice may differ: the view changed, or a source may be tried again.
    async fn wait_for_news(&self, troubles: &Troubles) {
        let mut view = self.view.clone();
        view.mark_unchanged();
        if self.choose(troubles).is_some() {
            return;
        }
        let retry = troubles.next_retry(Instant::now());
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

    /// Returns when another source should be followed: the leader, or one that is ahead while the
    /// one we follow has nothing for us.
    async fn better_source(&self, source: &PeerInfo, troubles: &Troubles, announced: &watch::Sender<HeadId>) {
        let mut view = self.view.clone();
        loop {
            let leader = view.borrow_and_update().leader.clone();
            if let Some(better) = self.choose(troubles)
                && better.node != source.node
                && leader.as_ref() != Some(&source.node)
            {
                let useless = *announced.borrow() <= self.held();
                if leader.as_ref() == Some(&better.node) {
                    return;
                }
                // Give the one we have the time to announce itself.
                tokio::time::sleep(RECONSIDER_EVERY).await;
                if useless && *announced.borrow() <= self.held() && better.head > self.held() {
                    return;
                }
            }
            tokio::select! {
                changed = view.changed() => if changed.is_err() { std::future::pending::<()>().await },
                () = tokio::time::sleep(RECONSIDER_EVERY) => {}
            }
        }
    }

    /// One stream, from its start to its end.
    async fn session(&self, source: &PeerInfo, want_full: bool, announced: &watch::Sender<HeadId>) -> End {
        let broken = End::Broken { worked: false };
        let mut client = match connect(self.dialer.as_ref(), &source.node, source.address).await {
            Ok(client) => client,
            Err(error) => {
                tracing::debug!(node = %source.node, %error, "a source can't be reached");
                return broken;
            }
        };
        let (requests, stream) = mpsc::channel(REQUESTS);
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
            announced,
            worked: false,
            resends: 0,
            assembly: None,
        };
        tokio::select! {
            end = inbound.read(frames) => end,
            () = self.acknowledge(requests) => End::Broken { worked: true },
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
