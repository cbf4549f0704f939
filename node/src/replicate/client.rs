//! Keeps one Sync stream to the source that is chosen, and brings what comes to the replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meshgate_core::replica::Held as HeldState;
use meshgate_core::snapshot::HeadId;
use meshgate_wire::{LeaderVerifier, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::acks::AckSource;
use super::inbound::{End, Inbound, Progress};
use super::metrics::Metrics;
use super::replica::Offer;
use super::rpc::connect;
use super::source::{BACKOFF_MAX, Troubles, choose};
use super::types::{Applied, Dialer, LiveReport, PeerInfo, PeerView};
use super::{frames, types::Origin};
use crate::drain::{Drain, Phase};
use crate::identity::{InstanceId, NodeName};

/// How long a source may take to accept the stream.
const OPEN_WAIT: Duration = Duration::from_secs(2);
/// Requests that wait for a slow source.
const REQUESTS: usize = 4;
/// A source that brings nothing for so long is left, if another one says that it is ahead.
const PATIENCE: Duration = Duration::from_secs(2);
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
            let progress = Progress::begin();
            let begun = Instant::now();
            let end = tokio::select! {
                end = self.session(&source, want_full, &progress) => end,
                end = self.better_source(&source, &troubles, &progress) => end,
            };
            tracing::info!(node = %source.node, ?end, "the stream from a source ended");
            let now = Instant::now();
            if progress.worked() {
                want_full = false;
            }
            if progress.worked() || (end != End::Useless && now - begun > BACKOFF_MAX) {
                troubles.works(&source.node);
            }
            match end {
                End::Switched => {}
                End::Useless => troubles.useless(&source.node, now),
                End::Broken => troubles.unreachable(&source.node, now, rand::random()),
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
        self.choose_except(&[&self.node], troubles)
    }

    fn choose_except(&self, except: &[&NodeName], troubles: &Troubles) -> Option<PeerInfo> {
        let view = Arc::clone(&self.view.borrow());
        choose(&view, except, self.held(), troubles, Instant::now(), rand::random())
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
    /// one we follow, even the leader, has brought nothing for a while.
    async fn better_source(&self, source: &PeerInfo, troubles: &Troubles, progress: &Progress) -> End {
        let mut view = self.view.clone();
        let mut ahead_since = None;
        loop {
            let (leader, gone) = {
                let view = view.borrow_and_update();
                (view.leader.clone(), view.peers.iter().all(|peer| peer.node != source.node))
            };
            if gone {
                return End::Switched;
            }
            let now = Instant::now();
            let mut again = now + RECONSIDER_EVERY;
            match self.choose_except(&[&self.node, &source.node], troubles) {
                Some(better) if leader.as_ref() == Some(&better.node) => return End::Switched,
                Some(_) => {
                    let since = *ahead_since.get_or_insert(now);
                    let useless_at = progress.useless_at(PATIENCE).max(since + PATIENCE);
                    if useless_at <= now {
                        return End::Useless;
                    }
                    again = again.min(useless_at);
                }
                None => ahead_since = None,
            }
            tokio::select! {
                changed = view.changed() => if changed.is_err() { std::future::pending::<()>().await },
                () = tokio::time::sleep_until(again.into()) => {}
            }
        }
    }

    /// One stream, from its start to its end.
    async fn session(&self, source: &PeerInfo, want_full: bool, progress: &Progress) -> End {
        let broken = End::Broken;
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
            progress,
            resends: 0,
            assembly: None,
            held: self.held(),
            transfer: None,
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
