//! Puts the parts together, and runs the owner of the state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use meshgate_core::replica::{Outcome, Replica as Rules};
use meshgate_core::table::Table;
use meshgate_wire::{Commit, LeafChange, SignedHead, Snapshot};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

use super::acks::{AckSource, FollowerRegistry, Followers};
use super::apply;
use super::client::ClientTask;
use super::delta_log::DeltaLog;
use super::metrics::{Metrics, Reason};
use super::replica::{Content, KeyLook, Offer, Outlets, Published, Replica, look_for_keys};
use super::server::{MeshService, ServerTask};
use super::store::Store;
use super::types::{Applied, LiveReport, Origin, RefusedCommit, ReplicaConfig};
use crate::drain::{Drain, Phase};
use crate::identity::{InstanceId, NodeName};

/// Commits of the own reconciler that may wait.
const COMMITS: usize = 16;
/// Heads of sources that may wait; there is one source at a time.
const OFFERS: usize = 2;
/// How often private keys are looked for, and missing ones asked for.
const KEYS_RETRY: Duration = Duration::from_secs(1);

/// What others read, and the one way in for the reconciler.
pub struct Handles {
    /// The table that answers requests, swapped whole.
    pub table: Arc<ArcSwap<Table>>,
    /// What is applied; `None` before the first head.
    pub applied: watch::Receiver<Option<Arc<Applied>>>,
    /// Commits of this process's reconciler, while it leads. `base` must be what is applied.
    pub commits: mpsc::Sender<Commit>,
    /// The last of those commits that was not applied.
    pub refused: watch::Receiver<Option<RefusedCommit>>,
    /// The highest epoch ever accepted (disk included): a new leader takes a higher one.
    pub fence: watch::Receiver<u64>,
    /// Who follows this peer, itself included, and how far.
    pub followers: Followers,
    /// The state can't be kept on disk (the reason); serving goes on.
    pub persist_failed: watch::Receiver<Option<String>>,
}

/// Futures for `app` to spawn. Each ends on [`Phase::Cut`].
pub struct Tasks {
    /// Owns the state.
    pub replica: ReplicaTask,
    /// Follows the leader or another peer.
    pub client: ClientTask,
    /// Serves followers.
    pub server: ServerTask,
}

/// Owns the state.
pub struct ReplicaTask {
    node: NodeName,
    instance: InstanceId,
    replica: Replica,
    commits: mpsc::Receiver<Commit>,
    offers: mpsc::Receiver<Offer>,
    refused: watch::Sender<Option<RefusedCommit>>,
    registry: Arc<FollowerRegistry>,
    live: watch::Receiver<LiveReport>,
}

/// Starts replication: reads the state folder (blocking: call it aside, or before the runtime is
/// busy) and applies what it holds, so that a peer that has nobody to ask serves at once.
pub fn start(config: ReplicaConfig, registry: &mut Registry) -> (Handles, Tasks) {
    let metrics = Metrics::register(registry);
    let begun = Instant::now();
    let (store, loaded) = Store::open(&config.state_dir, &config.mesh_id, config.verifier.as_ref());
    let outlets = Outlets {
        table: Arc::new(ArcSwap::from_pointee(Table::at(config.place))),
        applied: watch::Sender::new(None),
        published: watch::Sender::new(None),
        fence: watch::Sender::new(loaded.fence),
    };
    let followers = FollowerRegistry::new(metrics.clone());
    let (commits, commits_in) = mpsc::channel(COMMITS);
    let (offers, offers_in) = mpsc::channel(OFFERS);
    let refused = watch::Sender::new(None);
    let handles = Handles {
        table: Arc::clone(&outlets.table),
        applied: outlets.applied.subscribe(),
        commits,
        refused: refused.subscribe(),
        fence: outlets.fence.subscribe(),
        followers: followers.followers(),
        persist_failed: store.failed(),
    };
    let client = ClientTask {
        node: config.node.clone(),
        instance: config.instance,
        dialer: config.dialer,
        verifier: Arc::clone(&config.verifier),
        view: config.view,
        applied: outlets.applied.subscribe(),
        fence: outlets.fence.subscribe(),
        live: config.live.clone(),
        offers,
        metrics: metrics.clone(),
    };
    let published: watch::Receiver<Option<Arc<Published>>> = outlets.published.subscribe();
    let service =
        MeshService::new(published, Arc::clone(&followers), metrics.clone(), config.key_lookup, config.forward);
    let mut replica = Replica {
        rules: Rules::start(None, loaded.fence, Snapshot::default().roots()),
        mesh_id: config.mesh_id,
        verifier: config.verifier,
        ensurer: config.key_ensurer,
        store,
        quarantine: Arc::new(loaded.quarantine),
        outlets,
        metrics,
        current: None,
        held: Default::default(),
        log: DeltaLog::default(),
        missing_keys: Vec::new(),
    };
    if let Some((head, snapshot)) = loaded.state {
        replica.bootstrap(head, snapshot, begun);
    }
    let replica = ReplicaTask {
        node: config.node,
        instance: config.instance,
        replica,
        commits: commits_in,
        offers: offers_in,
        refused,
        registry: followers,
        live: config.live,
    };
    (handles, Tasks { replica, client, server: ServerTask { service } })
}

impl Replica {
    /// Applies what was on disk; it is verified already.
    fn bootstrap(&mut self, head: SignedHead, snapshot: Snapshot, begun: Instant) {
        let changes: Vec<LeafChange> = Snapshot::default().diff(&snapshot);
        let (decoded, held) = apply::decode_changes(&changes, &self.quarantine);
        let Some(built) = apply::build(&self.outlets.table.load(), head.id(), &decoded) else { return };
        // Asked for by the task, so that nothing waits for them here.
        self.missing_keys = apply::key_hashes(&decoded);
        self.note_held(&changes, held.into_iter().chain(built.held));
        let stored = Some((head.id(), snapshot.roots()));
        self.rules = Rules::start(stored, self.rules.held().fence, Snapshot::default().roots());
        tracing::info!(head = %head.id(), resources = snapshot.len(), "serving the configuration from disk");
        self.publish(head, snapshot, built.table, Origin::Disk, begun);
        self.announce();
    }
}

impl ReplicaTask {
    /// Runs until the drain's cut; then what is not yet on disk is written.
    pub async fn run(mut self, drain: Drain) {
        let acknowledging = acknowledge(
            Arc::clone(&self.registry),
            self.node.clone(),
            self.instance,
            AckSource::new(self.replica.outlets.applied.subscribe(), self.live.clone()),
        );
        tokio::select! {
            () = self.own(&drain) => {}
            () = acknowledging => {}
        }
        self.replica.store.close().await;
    }

    /// Takes what comes, one at a time. An apply that has begun is finished before the end.
    async fn own(&mut self, drain: &Drain) {
        let mut alarm = self.replica.store.failed();
        alarm.mark_changed();
        let mut keys = self.next_keys(Duration::ZERO);
        loop {
            tokio::select! {
                biased;
                () = drain.reached(Phase::Cut) => return,
                Some(commit) = self.commits.recv() => self.commit(commit).await,
                Some(offer) = self.offers.recv() => self.offer(offer).await,
                look = &mut keys => {
                    self.replica.looked(look);
                    keys = self.next_keys(KEYS_RETRY);
                }
                Ok(()) = alarm.changed() => {
                    let failed = alarm.borrow_and_update().is_some();
                    self.replica.metrics.persist_failed.set(i64::from(failed));
                }
            }
        }
    }

    async fn commit(&mut self, commit: Commit) {
        let head = commit.head.id();
        let content = Content::Delta { base: commit.base, changes: commit.changes };
        let offer = Offer {
            head: commit.head,
            content,
            origin: Origin::Own,
            source: None,
            received: Instant::now(),
            reply: None,
        };
        let reason = match self.replica.take(offer).await {
            Outcome::Applied | Outcome::Same => return,
            Outcome::NeedFull => {
                self.replica.metrics.rejected(Reason::Base);
                format!("it starts from {}, applied is {}", commit.base, self.replica.rules.held().id)
            }
            Outcome::Refused(refusal) => refusal.to_string(),
        };
        tracing::warn!(%head, reason, "a commit of this process was not applied");
        self.refused.send_replace(Some(RefusedCommit { head, reason }));
    }

    async fn offer(&mut self, mut offer: Offer) {
        let reply = offer.reply.take();
        let outcome = self.replica.take(offer).await;
        if let Some(reply) = reply {
            // The stream may be gone meanwhile; what was applied stays applied.
            let _ = reply.send(outcome);
        }
    }

    /// The next look whether every key is here.
    fn next_keys(&self, delay: Duration) -> BoxFuture<'static, KeyLook> {
        let (ensurer, table) = (Arc::clone(&self.replica.ensurer), Arc::clone(&self.replica.outlets.table));
        Box::pin(look_for_keys(ensurer, table, delay))
    }
}

/// This peer's own acknowledgements, so that it is a follower of itself.
async fn acknowledge(registry: Arc<FollowerRegistry>, node: NodeName, instance: InstanceId, mut acks: AckSource) {
    let follower = registry.open(node, instance, 0);
    loop {
        follower.ack(acks.next().await);
    }
}
