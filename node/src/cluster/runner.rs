//! Keeps gossip going: starts it, publishes, reads, and starts it anew when it breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use rand::seq::IteratorRandom as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::facts::{self, Facts, Life, Signed};
use super::members::{CERTIFICATE_KEY, FACTS_KEY, Members, Reader};
use super::metrics::ClusterMetrics;
use super::transport::Channels;
use super::{ClusterConfig, MAX_MEMBERS};
use crate::drain::{Drain, Phase};

/// How long dead instances and deleted keys are remembered. The digest of every message holds them
/// for half of it, so a rollout doubles its size for so long.
const GRACE: Duration = Duration::from_secs(600);
/// The failure detector's guess before it has heard enough, and what it takes for an outage.
const FIRST_INTERVAL: Duration = Duration::from_millis(400);
const MAX_INTERVAL: Duration = Duration::from_secs(2);
const PHI_THRESHOLD: f64 = 8.0;
const PHI_WINDOW: usize = 1000;
/// Peers that are told of a change at once; the others hear it in the next rounds.
const TOLD_AT_ONCE: usize = 16;
/// A new life begins at the earliest so long after the last one ended.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// A version of our own values that only a hostile member can have made.
const ABSURD_VERSION: u64 = 1 << 48;
/// Instances in gossip's state from which on it is dropped: its messages would soon be too long.
const MAX_STATES: usize = 2 * MAX_MEMBERS - 100;

/// A node's part in gossip that does not run yet.
pub struct ClusterRunner {
    config: ClusterConfig,
    transport: Channels,
    facts: watch::Receiver<Facts>,
    members: watch::Sender<Arc<Members>>,
    introduced: mpsc::Receiver<SocketAddr>,
    metrics: ClusterMetrics,
    generation: u64,
    serial: u64,
}

/// Why one life of gossip ended.
enum End {
    Drained,
    Broken(String),
}

impl ClusterRunner {
    pub(super) fn new(
        config: ClusterConfig,
        transport: Channels,
        facts: watch::Receiver<Facts>,
        members: watch::Sender<Arc<Members>>,
        introduced: mpsc::Receiver<SocketAddr>,
        metrics: ClusterMetrics,
    ) -> Self {
        ClusterRunner { config, transport, facts, members, introduced, metrics, generation: 0, serial: 0 }
    }

    /// Gossips until the process is cut. The library's own task is watched: when it ends or holds
    /// absurd state, gossip starts anew as a new generation. Whoever was believed stays so meanwhile.
    pub async fn run(mut self, drain: Drain) {
        loop {
            self.generation = now_ms().max(self.generation + 1);
            let end = self.live(&drain).await;
            let End::Broken(reason) = end else { return };
            self.metrics.restarts.inc();
            tracing::warn!(%reason, "gossip broke; starting anew");
            tokio::select! {
                () = drain.reached(Phase::Cut) => return,
                () = tokio::time::sleep(RESTART_PAUSE) => {}
            }
        }
    }

    async fn live(&mut self, drain: &Drain) -> End {
        let mut published = match self.signed() {
            Ok(signed) => signed,
            Err(end) => return end,
        };
        let initial = pairs(&published);
        let handle = match spawn_chitchat(self.chitchat_config(), initial, &self.transport).await {
            Ok(handle) => handle,
            Err(error) => return End::Broken(error.to_string()),
        };
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let _listener = handle
            .with_chitchat(|chitchat| {
                let notify = notify.clone();
                chitchat.subscribe_event(FACTS_KEY, move |_| notify.notify_one())
            })
            .await;
        let mut reader = Reader::default();
        let mut tick = tokio::time::interval(self.config.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut terminated = std::pin::pin!(handle.termination_watcher());
        let mut introduced_open = true;
        loop {
            tokio::select! {
                () = drain.reached(Phase::Cut) => {
                    let _ = handle.shutdown().await;
                    return End::Drained;
                }
                ended = &mut terminated => return End::Broken(match ended {
                    Ok(()) => "it ended".into(),
                    Err(error) => error.to_string(),
                }),
                Ok(()) = self.facts.changed() => {
                    published = match self.signed() {
                        Ok(signed) => signed,
                        Err(end) => return end,
                    };
                    if let Err(end) = self.publish(&handle, &published, true).await { return end }
                }
                address = self.introduced.recv(), if introduced_open => match address {
                    Some(address) => drop(handle.gossip(address)),
                    None => introduced_open = false,
                },
                () = changed.notified() => {}
                _ = tick.tick() => {
                    // A renewed certificate is published; a value that another member rewrote, again.
                    if published.certificate != self.certificate() {
                        published = match self.signed() {
                            Ok(signed) => signed,
                            Err(end) => return end,
                        };
                    }
                    if let Err(end) = self.publish(&handle, &published, false).await { return end }
                }
            }
            self.read(&handle, &mut reader).await;
        }
    }

    fn certificate(&self) -> String {
        facts::encoded(&self.config.identity.certificate_der())
    }

    /// The facts of now, signed for this life.
    fn signed(&mut self) -> Result<Signed, End> {
        self.serial += 1;
        let facts = self.facts.borrow_and_update().clone();
        let life = Life { generation: self.generation, address: self.config.gossip_addr };
        facts::sign(&self.config.identity, &facts, life, self.serial).map_err(|error| End::Broken(error.to_string()))
    }

    /// Puts our values where gossip reads them, unless they are there, and tells peers if it matters.
    async fn publish(&self, handle: &ChitchatHandle, signed: &Signed, urgent: bool) -> Result<(), End> {
        let peers = handle
            .with_chitchat(|chitchat| {
                if chitchat.node_states().len() > MAX_STATES {
                    return Err(format!("it holds more than {MAX_STATES} instances"));
                }
                let state = chitchat.self_node_state();
                if state.max_version() > ABSURD_VERSION {
                    // To set a value would overflow, and panic.
                    return Err("a member has rewritten our values with an absurd version".into());
                }
                let wanted = pairs(signed);
                let rewritten = wanted.iter().any(|(key, value)| state.get(key) != Some(value));
                for (key, value) in wanted {
                    state.set(key, value);
                }
                if !urgent && !rewritten {
                    return Ok(Vec::new());
                }
                let me = chitchat.self_chitchat_id();
                let others = chitchat.live_nodes().filter(|id| *id != me).map(|id| id.gossip_advertise_addr);
                Ok(others.sample(&mut rand::rng(), TOLD_AT_ONCE))
            })
            .await
            .map_err(End::Broken)?;
        for peer in peers {
            // An error means that its task has ended, which is noticed by itself.
            let _ = handle.gossip(peer);
        }
        Ok(())
    }

    async fn read(&self, handle: &ChitchatHandle, reader: &mut Reader) {
        let trust = self.config.identity.trust();
        let members = handle.with_chitchat(|chitchat| reader.read(chitchat, trust, &self.metrics)).await;
        self.members.send_if_modified(|now| {
            let different = **now != members;
            if different {
                *now = Arc::new(members);
            }
            different
        });
    }

    fn chitchat_config(&self) -> ChitchatConfig {
        let id = facts::gossip_id(self.config.identity.node());
        ChitchatConfig {
            chitchat_id: ChitchatId::new(id, self.generation, self.config.gossip_addr),
            cluster_id: self.config.identity.trust().mesh_id().to_owned(),
            gossip_interval: self.config.interval,
            listen_addr: self.config.gossip_addr,
            seed_nodes: self.config.seeds.iter().map(SocketAddr::to_string).collect(),
            failure_detector_config: FailureDetectorConfig::new(
                PHI_THRESHOLD,
                PHI_WINDOW,
                MAX_INTERVAL,
                FIRST_INTERVAL,
                GRACE,
            ),
            marked_for_deletion_grace_period: GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        }
    }
}

fn pairs(signed: &Signed) -> Vec<(String, String)> {
    vec![(CERTIFICATE_KEY.to_owned(), signed.certificate.clone()), (FACTS_KEY.to_owned(), signed.facts.clone())]
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
