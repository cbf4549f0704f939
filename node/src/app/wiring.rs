//! Channels between parts, and the threads and small tasks that keep them moving.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use meshgate_core::snapshot::{HeadId, Key, Kind, Resource};
use meshgate_core::table::Held;
use meshgate_wire::{Snapshot, decode};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, error};

use super::{Tasks, views};
use crate::admin::http::Health;
use crate::admin::{self, AdminContext};
use crate::cluster::{Cluster, Members};
use crate::config::{Config, base_address};
use crate::drain::{Drain, Phase};
use crate::edge;
use crate::identity::{KeyStore, MeshTls, NodeName};
use crate::proxy::{ExpectedPeers, PodHost};
use crate::replicate::{self, Applied, BoxedIo, ForwardError, ForwardHandler, PeerView};
use crate::tunnel::TunnelRunner;

/// Handshakes of replication connections under way at once, and connections that wait to be served.
const MAX_HANDSHAKES: usize = 64;

/// A listener key that no table has needed for this long is forgotten.
const KEY_GRACE: Duration = Duration::from_secs(2);

/// How often a peer that starts greets its seeds, and for how long.
const INTRODUCE_EVERY: Duration = Duration::from_millis(100);
const INTRODUCE_FOR: Duration = Duration::from_secs(5);

/// How long calls of the admin API may go on once everything is cut.
const ADMIN_END: Duration = Duration::from_secs(1);

/// Where gossip is greeted first.
pub(super) fn seeds(config: &Config) -> Vec<SocketAddr> {
    let others = config.seeds.iter().filter(|number| **number != config.number);
    others.map(|number| SocketAddr::new(base_address(*number), config.ports.tunnel)).collect()
}

/// Gossips with the seeds at once and again until somebody is heard: gossip's own rounds are slower,
/// and a peer that starts is behind until it knows whom to follow.
pub(super) async fn introduce(cluster: Cluster, own: NodeName, seeds: Vec<SocketAddr>, drain: Drain) {
    let mut members = cluster.members();
    let heard = async {
        let heard = |members: &Arc<Members>| members.alive().any(|member| member.facts.node != own);
        // Err: gossip is gone.
        let _ = members.wait_for(heard).await;
    };
    let introducing = async {
        let mut tick = tokio::time::interval(INTRODUCE_EVERY);
        loop {
            tick.tick().await;
            seeds.iter().for_each(|seed| cluster.introduce(*seed));
        }
    };
    tokio::select! {
        () = heard => {}
        () = introducing => {}
        () = tokio::time::sleep(INTRODUCE_FOR) => {}
        () = drain.reached(Phase::Cut) => {}
    }
}

/// Forwards admin calls to a handler that is known only after replication was built.
#[derive(Clone, Default)]
pub(super) struct LateForward(Arc<OnceLock<Arc<dyn ForwardHandler>>>);

impl LateForward {
    pub(super) fn set(&self, handler: Arc<dyn ForwardHandler>) {
        // Set once, in `build`; a second handler would be a bug without effect.
        let _ = self.0.set(handler);
    }
}

impl ForwardHandler for LateForward {
    fn forward(&self, peer: &NodeName, method: &str, body: Bytes) -> BoxFuture<'static, Result<Bytes, ForwardError>> {
        match self.0.get() {
            Some(handler) => handler.forward(peer, method, body),
            None => Box::pin(async { Err(ForwardError::Unavailable("this peer is starting".to_owned())) }),
        }
    }
}

/// Tells the tunnel and replication who is there.
pub(super) fn follow_members(
    tasks: &mut Tasks,
    own: &NodeName,
    mut members: watch::Receiver<Arc<Members>>,
    directory: watch::Sender<Arc<HashMap<NodeName, SocketAddr>>>,
    view: watch::Sender<Arc<PeerView>>,
) {
    let own = own.clone();
    tasks.spawn_ok("members", async move {
        loop {
            let now = members.borrow_and_update().clone();
            set(&directory, views::tunnels(&own, &now));
            set(&view, views::peer_view(&own, &now));
            if members.changed().await.is_err() {
                return;
            }
        }
    });
}

fn set<T: PartialEq>(sender: &watch::Sender<Arc<T>>, value: T) {
    sender.send_if_modified(|now| {
        let changed = **now != value;
        if changed {
            *now = Arc::new(value);
        }
        changed
    });
}

/// Tells the edge and the tunnel which head the table shows.
pub(super) fn follow_applied(
    tasks: &mut Tasks,
    mut applied: watch::Receiver<Option<Arc<Applied>>>,
    head: watch::Sender<HeadId>,
) {
    tasks.spawn_ok("applied head", async move {
        loop {
            let now = applied.borrow_and_update().as_ref().map(|applied| applied.id());
            if let Some(now) = now {
                head.send_replace(now);
            }
            if applied.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Tells replication what the edge has bound, and which keys it lacks.
pub(super) fn follow_live(
    tasks: &mut Tasks,
    mut edge: watch::Receiver<edge::LiveReport>,
    applied: watch::Receiver<Option<Arc<Applied>>>,
    live: watch::Sender<replicate::LiveReport>,
) {
    tasks.spawn_ok("live report", async move {
        loop {
            let report = {
                let now = edge.borrow_and_update();
                let error = |error: &edge::BindError| replicate::BindError {
                    gateway: error.gateway.clone(),
                    listener: String::new(),
                    address: error.address.map(|address| address.to_string()).unwrap_or_default(),
                    message: error.message.clone(),
                };
                let held = match applied.borrow().as_ref() {
                    Some(applied) => without_key(&now.missing_keys, &applied.snapshot),
                    None => Vec::new(),
                };
                let bind_errors = now.errors.iter().map(error).collect();
                replicate::LiveReport { head: now.head, bind_errors, held }
            };
            live.send_replace(report);
            if edge.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Certificates whose private key is not here, and the Gateways that use them.
fn without_key(missing: &[Key], snapshot: &Snapshot) -> Vec<Held> {
    if missing.is_empty() {
        return Vec::new();
    }
    let reason = |key: &Key| format!("the private key of {key} is not here yet");
    let certificates = missing.iter().map(|key| Held { key: key.clone(), reason: reason(key) });
    let gateways = snapshot.iter().filter(|(key, _)| key.kind == Kind::Gateway).filter_map(|(key, leaf)| {
        let Ok(Resource::Gateway(gateway)) = decode(key.kind, &leaf.value) else { return None };
        let mut used = gateway.listeners.iter().flat_map(|listener| &listener.certificates);
        let lacking = used.find(|certificate| missing.contains(certificate))?;
        Some(Held { key: key.clone(), reason: reason(lacking) })
    });
    certificates.chain(gateways).collect()
}

/// Nodes reached by tunnel, and the task that keeps them current.
pub(super) fn expected(
    own: &NodeName,
    mut members: watch::Receiver<Arc<Members>>,
) -> (impl Future<Output = ()> + Send + 'static, ExpectedPeers) {
    let own = own.clone();
    let expected: ExpectedPeers = Arc::new(ArcSwap::default());
    let writing = Arc::clone(&expected);
    let task = async move {
        loop {
            let now = members.borrow_and_update().clone();
            let nodes = views::expected(&own, &now);
            if **writing.load() != nodes {
                writing.store(Arc::new(nodes));
            }
            if members.changed().await.is_err() {
                return;
            }
        }
    };
    (task, expected)
}

/// Accepts replication connections and performs their handshakes side by side.
pub(super) fn accept(
    tasks: &mut Tasks,
    listener: TcpListener,
    tls: MeshTls,
) -> impl Stream<Item = (BoxedIo, NodeName)> + Send + Unpin + 'static {
    let (ready, connections) = mpsc::channel(MAX_HANDSHAKES);
    // Ends when the server drops the stream.
    tasks.spawn_ok("sync accept", async move {
        let mut handshakes = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept(), if handshakes.len() < MAX_HANDSHAKES => accepted,
                Some(_) = handshakes.join_next(), if !handshakes.is_empty() => continue,
                () = ready.closed() => return,
            };
            let Ok((stream, from)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (tls, ready) = (tls.clone(), ready.clone());
            handshakes.spawn(async move {
                match tls.accept(stream).await {
                    // Err: the server is gone.
                    Ok((stream, node)) => drop(ready.send((Box::new(stream) as BoxedIo, node)).await),
                    Err(error) => debug!(%from, "a replication connection was refused: {error}"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

/// How long a starting reconciler listens for peers before it runs for election.
const LISTEN: Duration = Duration::from_secs(1);

/// Returns once this peer has heard another one and has what that one has, or after [`LISTEN`]: who
/// leads goes on from what it holds, so it should not hold less than others.
pub(super) async fn informed(
    own: NodeName,
    mut members: watch::Receiver<Arc<Members>>,
    mut applied: watch::Receiver<Option<Arc<Applied>>>,
) {
    let informed = async {
        loop {
            let held = applied.borrow_and_update().as_ref().map_or_else(HeadId::default, |applied| applied.id());
            let (heard, newest) = {
                let members = members.borrow_and_update();
                (members.alive().any(|member| member.facts.node != own), views::newest(&members))
            };
            if heard && held >= newest {
                return;
            }
            tokio::select! {
                changed = members.changed() => if changed.is_err() { return },
                changed = applied.changed() => if changed.is_err() { return },
            }
        }
    };
    // Err: nobody answered in time, so nobody knows better.
    let _ = tokio::time::timeout(LISTEN, informed).await;
}

/// Forgets listeners' keys that no table has needed for a while. A key that the reconciler has just
/// put there for the next head is not touched; one that a head needs again at this very moment is
/// fetched again by the replica.
pub(super) async fn drop_unused_keys(
    keys: Arc<KeyStore>,
    applied: watch::Receiver<Option<Arc<Applied>>>,
    drain: Drain,
) {
    let mut unused_before: BTreeSet<[u8; 32]> = BTreeSet::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(KEY_GRACE) => {}
            () = drain.reached(Phase::Cut) => return,
        }
        let Some(now) = applied.borrow().clone() else { continue };
        let needed: BTreeSet<[u8; 32]> = now.table.certificates().map(|(_, found)| found.key_hash).collect();
        let held: BTreeSet<[u8; 32]> = keys.hashes().into_iter().collect();
        let unused: BTreeSet<[u8; 32]> = held.difference(&needed).copied().collect();
        let dropped: BTreeSet<[u8; 32]> = unused.intersection(&unused_before).copied().collect();
        if !dropped.is_empty() {
            keys.forget(&dropped);
        }
        unused_before = unused;
    }
}

/// A named thread.
pub(super) fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).with_context(|| format!("cannot start thread {name}"))
}

/// A thread with a runtime of its own. When it breaks, or ends before the process does, `tasks`
/// have broken.
fn with_runtime(
    tasks: &mut Tasks,
    drain: Drain,
    name: &'static str,
    future: impl FnOnce() -> BoxFuture<'static, anyhow::Result<()>> + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .with_context(|| format!("cannot make the runtime of {name}"))?;
    let (end, ended) = oneshot::channel();
    let handle = thread(name, move || {
        let result = runtime.block_on(future());
        if let Err(error) = &result {
            error!("{name}: {error:#}");
        }
        // Err: the process is ending.
        let _ = end.send(result);
    })?;
    tasks.spawn(name, async move {
        ended.await.unwrap_or_else(|_| Err(anyhow::anyhow!("its thread panicked")))?;
        anyhow::ensure!(drain.phase() >= Phase::Draining, "its thread ended");
        Ok(())
    });
    Ok(handle)
}

/// The tunnel has a runtime of its own.
pub(super) fn tunnel_thread(
    tasks: &mut Tasks,
    runner: TunnelRunner,
    host: PodHost,
    drain: Drain,
) -> anyhow::Result<JoinHandle<()>> {
    with_runtime(tasks, drain.clone(), "tunnel", move || {
        Box::pin(async move {
            let maintenance = host.maintain();
            tokio::select! {
                ended = runner.run(Arc::new(host), drain) => ended.context("the tunnel broke"),
                () = maintenance => Ok(()),
            }
        })
    })
}

/// Admin API, metrics and health have a runtime of their own: they must not disturb the data path.
pub(super) fn admin_thread(
    tasks: &mut Tasks,
    config: &Config,
    context: AdminContext,
    health: Health,
    drain: Drain,
) -> anyhow::Result<JoinHandle<()>> {
    let listen = |port: u16, what: &str| {
        let address = config.at(port);
        let listener =
            std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address} ({what})"))?;
        listener.set_nonblocking(true)?;
        anyhow::Ok(listener)
    };
    let api = listen(config.ports.admin, "admin API")?;
    let metrics = listen(config.ports.metrics, "metrics and health")?;
    with_runtime(tasks, drain.clone(), "admin", move || {
        Box::pin(async move {
            let (api, metrics) = (TcpListener::from_std(api)?, TcpListener::from_std(metrics)?);
            let health = admin::http::serve(metrics, health, drain.clone());
            let serving = async {
                let (served, ()) = tokio::join!(admin::service::serve(Arc::new(context), api, drain.clone()), health);
                served
            };
            let cut = async {
                drain.reached(Phase::Cut).await;
                tokio::time::sleep(ADMIN_END).await;
            };
            tokio::select! {
                served = serving => served,
                // A call that waits for long must not hold up the end of the process.
                () = cut => Ok(()),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain;

    async fn broken(phase: Phase, future: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> Option<String> {
        let (control, drain) = drain::channel();
        control.advance(phase);
        let mut tasks = Tasks { set: JoinSet::new() };
        let handle = with_runtime(&mut tasks, drain, "part", move || Box::pin(future)).unwrap();
        let _ = tokio::task::spawn_blocking(move || handle.join()).await.unwrap();
        let error = tokio::time::timeout(Duration::from_millis(200), tasks.broken()).await.ok()?;
        Some(format!("{error:#}"))
    }

    #[tokio::test]
    async fn a_thread_that_ends_early_breaks_the_process() {
        let failing = async { anyhow::bail!("it failed") };
        assert_eq!(broken(Phase::Serving, failing).await.as_deref(), Some("part: it failed"));
        assert_eq!(broken(Phase::Serving, async { Ok(()) }).await.as_deref(), Some("part: its thread ended"));
        let panicking = async { panic!("on purpose") };
        assert_eq!(broken(Phase::Lead, panicking).await.as_deref(), Some("part: its thread panicked"));
        assert_eq!(broken(Phase::Cut, async { Ok(()) }).await, None);
    }
}
