//! The composition root: builds every part of a peer, owns every channel between them, spawns
//! every long-lived task, and ends them in order.

mod facts;
mod glue;
mod ready;
mod shutdown;
mod views;
mod wiring;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::admin::http::Health;
use crate::admin::leader::{LeaderSide, NeverLeads};
use crate::admin::{self, AdminContext};
use crate::cluster::{Cluster, ClusterConfig};
use crate::config::{Config, Role};
use crate::drain::{self, Drain, Phase};
use crate::edge::{Edge, EdgeConfig, EdgeDeps, SocketStore};
use crate::identity::{InstanceId, KeyStore, LeaderKey, MeshTls, NodeIdentity, NodeName, RunDir};
use crate::proxy::{AccessLog, AccessLogTarget, Clock, PodHost, ProxyContext, ProxyMetrics};
use crate::reconcile::elect::Candidate;
use crate::reconcile::{self, LeaderHandle, ReconcileConfig};
use crate::replicate::{self, Caller, ForwardHandler, ReplicaConfig};
use crate::telemetry::Telemetry;
use crate::tunnel::{Tunnel, TunnelConfig};

/// How long tasks may take to end once everything is cut.
const END_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Threads of the control runtime: replication, gossip, election.
const CONTROL_THREADS: usize = 2;

/// Runs a peer until it is told to end (SIGTERM, SIGINT, or the end of the parent's pipe).
///
/// # Errors
/// A part could not start, or broke while running.
pub fn run(config: Config, with_parent: bool) -> anyhow::Result<()> {
    let started = Instant::now();
    crate::telemetry::init_logs();
    // An error means that a provider is installed already, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot make the control runtime")?;
    let result = control.block_on(peer(config, started, with_parent));
    control.shutdown_timeout(END_WITHIN);
    result
}

/// The long-lived tasks of the control runtime, by name.
struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.set.spawn(async move { (name, task.await) });
    }

    fn spawn_ok(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(name, async move {
            task.await;
            Ok(())
        });
    }

    /// Returns when a task broke; tasks that end well are fine.
    async fn broken(&mut self) -> anyhow::Error {
        while let Some(ended) = self.set.join_next().await {
            match ended {
                Ok((name, Err(error))) => return error.context(name),
                Ok((name, Ok(()))) => tracing::debug!(task = name, "ended"),
                Err(panicked) => return anyhow::anyhow!("a task panicked: {panicked}"),
            }
        }
        std::future::pending().await
    }
}

async fn peer(config: Config, started: Instant, with_parent: bool) -> anyhow::Result<()> {
    let (control, drain) = drain::channel();
    let mut tasks = Tasks { set: JoinSet::new() };
    let threads = build(&config, started, &drain, &mut tasks).await?;
    info!(node = config.node, base = %config.base(), "started in {} ms", started.elapsed().as_millis());
    let broken = tokio::select! {
        () = shutdown::requested(with_parent) => None,
        error = tasks.broken() => Some(error),
    };
    if let Some(error) = &broken {
        error!("a part broke, the process ends and restarts from disk: {error:#}");
    }
    shutdown::drain(&control, &config, threads.edge_done).await;
    let joined = tokio::time::timeout(END_WITHIN, async { while tasks.set.join_next().await.is_some() {} }).await;
    if joined.is_err() {
        error!("some tasks did not end within {END_WITHIN:?}");
    }
    for thread in threads.handles {
        // A thread that panicked has said so already.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
    broken.map_or(Ok(()), Err)
}

/// What lives outside the control runtime.
struct Threads {
    handles: Vec<std::thread::JoinHandle<()>>,
    edge_done: watch::Receiver<bool>,
}

/// Who this process is, and what it keeps in the run folder.
struct Self_ {
    node: NodeName,
    identity: NodeIdentity,
    run: RunDir,
    keys: Arc<KeyStore>,
    telemetry: Telemetry,
}

fn identify(config: &Config) -> anyhow::Result<Self_> {
    let node = NodeName::from(config.node.as_str());
    let run = RunDir::open(&config.run)?;
    let identity = NodeIdentity::issue(&run, node.clone(), InstanceId::random())?;
    let keys = KeyStore::open(&run, &node)?;
    let loaded = keys.load()?;
    info!(mesh = run.mesh_id(), instance = %identity.instance(), listener_keys = loaded, "identity");
    Ok(Self_ { telemetry: Telemetry::new(&config.node), node, identity, run, keys })
}

async fn build(config: &Config, started: Instant, drain: &Drain, tasks: &mut Tasks) -> anyhow::Result<Threads> {
    let own = identify(config)?;
    let mut handles = Vec::new();
    let (head_sender, head) = watch::channel(meshgate_core::snapshot::HeadId::default());
    let (directory_sender, directory) = watch::channel(Arc::default());

    let (tunnel, gossip, tunnel_runner) = Tunnel::bind(TunnelConfig {
        listen: config.at(config.ports.tunnel),
        dial_from: config.base(),
        identity: own.identity.clone(),
        peers: directory,
        applied: head.clone(),
        reset_secret: own.run.reset_secret(&own.node),
    })?;
    let (cluster, gossiping) = Cluster::start(
        ClusterConfig {
            identity: own.identity.clone(),
            cluster_id: own.run.mesh_id().to_owned(),
            gossip_address: config.at(config.ports.tunnel),
            seeds: wiring::seeds(config),
        },
        facts::initial(config, &own.identity),
        gossip.outgoing,
        gossip.incoming,
    );
    let members = cluster.members();
    tasks.spawn_ok("gossip", gossiping.run(drain.clone()));

    let tls = MeshTls::new(own.identity.clone())?;
    let dialer: Arc<dyn replicate::Dialer> = Arc::new(glue::SyncDialer { tls: tls.clone(), from: config.base() });
    let caller = Caller::new(Arc::clone(&dialer));
    let (view_sender, view) = watch::channel(Arc::default());
    let (live_sender, live) = watch::channel(replicate::LiveReport::default());
    let forward = wiring::LateForward::default();
    let verifier = Arc::new(glue::MeshVerifier(own.run.trust().clone()));
    let (replica, replicating) = own.telemetry.register(|registry| {
        replicate::start(
            ReplicaConfig {
                node: own.node.clone(),
                instance: own.identity.instance(),
                mesh_id: own.run.mesh_id().to_owned(),
                state_dir: config.state.join(own.run.mesh_id()).join(&config.node),
                verifier: verifier.clone(),
                key_ensurer: Arc::new(glue::KeyFetcher {
                    keys: own.keys.clone(),
                    members: members.clone(),
                    caller: caller.clone(),
                    own: own.node.clone(),
                }),
                key_lookup: Arc::new(glue::StoredKeys(own.keys.clone())),
                forward: Arc::new(forward.clone()),
                dialer,
                view,
                live,
            },
            registry,
        )
    });
    wiring::follow_members(tasks, &own.node, members.clone(), directory_sender, view_sender);
    wiring::follow_applied(tasks, replica.applied.clone(), head_sender);
    let incoming = TcpListener::bind(config.at(config.ports.sync))
        .await
        .with_context(|| format!("cannot listen on {} (replication)", config.at(config.ports.sync)))?;
    tasks.spawn_ok("replica", replicating.replica.run(drain.clone()));
    tasks.spawn_ok("sync client", replicating.client.run(drain.clone()));
    tasks.spawn_ok("sync server", replicating.server.run(wiring::accept(incoming, tls), drain.clone()));
    tasks.spawn_ok("certificate renewal", own.identity.clone().renew_loop(drain.clone()));
    tasks.spawn_ok("listener keys", wiring::drop_unused_keys(own.keys.clone(), replica.applied.clone(), drain.clone()));

    let metrics = own.telemetry.register(|registry| Arc::new(ProxyMetrics::new(registry)));
    own.telemetry.register(|registry| {
        tunnel.metrics().register(registry);
        cluster.register(registry);
    });
    let (access_log, writer) = AccessLog::open(&match config.access_log.as_str() {
        "off" => AccessLogTarget::Off,
        "stderr" => AccessLogTarget::Stderr,
        path => AccessLogTarget::File(path.into()),
    })
    .with_context(|| format!("accessLog: cannot open {}", config.access_log))?;
    handles.extend(writer.map(|writer| wiring::thread("access-log", move || writer.run())).transpose()?);
    let (expected_sender, expected) = wiring::expected(&own.node, members.clone());
    tasks.spawn_ok("expected peers", expected_sender);
    let context = Arc::new(ProxyContext {
        node: own.node.clone(),
        source: Some(config.base()),
        table: Arc::clone(&replica.table),
        remote: Arc::new(tunnel.clone()),
        expected,
        metrics: Arc::clone(&metrics),
        clock: Clock::start(),
        access_log,
        debug_headers: config.debug_headers,
        retained: Arc::default(),
    });
    let host = PodHost::new(Arc::clone(&context), head.clone());
    handles.push(wiring::tunnel_thread(tunnel_runner, host, drain.clone())?);

    let edge = Edge::start(
        EdgeConfig {
            node_number: Some(config.number),
            threads: config.threads,
            port_offset_below_1024: config.low_port_offset,
            ..EdgeConfig::default()
        },
        EdgeDeps {
            table: Arc::clone(&replica.table),
            table_changed: head,
            keys: Arc::new(own.keys.clone()),
            proxy: context,
            sockets: SocketStore::default(),
            drain: drain.clone(),
        },
    )
    .context("cannot start the edge")?;
    let edge_live = edge.live.clone();
    wiring::follow_live(tasks, edge_live.clone(), live_sender);
    let (edge_ended, edge_done) = watch::channel(false);
    tasks.spawn_ok("edge", async move {
        edge.run.await;
        edge_ended.send_replace(true);
    });

    let leader = if config.has(Role::Reconciler) {
        let leader = start_reconciler(config, &own, &replica, members.clone(), drain, tasks);
        forward.set(Arc::new(LeaderSide { leader: leader.clone(), followers: replica.followers.clone() }));
        Some(leader)
    } else {
        forward.set(Arc::new(NeverLeads) as Arc<dyn ForwardHandler>);
        None
    };
    let readiness = Arc::new(ready::Ready {
        node: own.node.clone(),
        started,
        applied: replica.applied.clone(),
        live: edge_live.clone(),
        members: members.clone(),
        drain: drain.clone(),
        caught_up: false.into(),
    });
    let facts = facts::Publisher {
        cluster,
        identity: own.identity.clone(),
        base: facts::initial(config, &own.identity),
        applied: replica.applied.clone(),
        leader: leader.clone(),
        readiness: readiness.clone(),
        drain: drain.clone(),
    };
    tasks.spawn_ok("facts", facts.run());
    let admin = AdminContext {
        node: own.node.clone(),
        started,
        applied: replica.applied,
        followers: replica.followers,
        members,
        leader,
        caller,
        verifier,
        readiness: readiness.clone(),
        surroundings: Arc::new(glue::DataPath { live: edge_live, tunnel, metrics }),
    };
    let health = Health { telemetry: own.telemetry, readiness };
    handles.push(wiring::admin_thread(config, admin, health, drain.clone())?);
    Ok(Threads { handles, edge_done })
}

/// Runs for election and leads when elected.
fn start_reconciler(
    config: &Config,
    own: &Self_,
    replica: &replicate::Handles,
    members: watch::Receiver<Arc<crate::cluster::Members>>,
    drain: &Drain,
    tasks: &mut Tasks,
) -> LeaderHandle {
    let (terms_sender, terms) = watch::channel(None);
    let candidate = Candidate {
        run: own.run.path().to_owned(),
        node: own.node.clone(),
        instance: own.identity.instance(),
        seen_epoch: replica.fence.clone(),
    };
    tasks.spawn("election", reconcile::elect::run(candidate, terms_sender, drain.clone()));
    let (run, node) = (own.run.clone(), own.node.clone());
    let reconcile_config = ReconcileConfig {
        mesh_id: own.run.mesh_id().to_owned(),
        source: config.source.clone(),
        replica: Arc::new(glue::OwnReplica { applied: replica.applied.clone(), members }),
        signer: Arc::new(move |epoch| {
            Ok(Box::new(glue::EpochSigner(LeaderKey::issue(&run, &node, epoch)?)) as Box<_>)
        }),
        keys: own.keys.clone(),
        commits: replica.commits.clone(),
    };
    let (leader, leading) = reconcile::start(reconcile_config, terms, drain.clone());
    tasks.spawn("reconciler", leading);
    leader
}
