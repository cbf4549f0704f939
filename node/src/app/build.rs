//! Builds the parts of a peer and connects them.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context;
use meshgate_core::snapshot::HeadId;
use meshgate_core::table::Place;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use super::{Tasks, facts, glue, ready, wiring};
use crate::admin::AdminContext;
use crate::admin::http::Health;
use crate::admin::leader::{LeaderSide, NeverLeads};
use crate::cluster::{Cluster, ClusterConfig, INTERVAL, Members};
use crate::config::{Config, Role};
use crate::drain::Drain;
use crate::edge::{Edge, EdgeConfig, EdgeDeps, SocketStore};
use crate::identity::{
    EpochSigner, InstanceId, KeyStore, LeaderKey, MeshTls, MeshVerifier, NodeIdentity, NodeName, RunDir,
};
use crate::proxy::{AccessLog, AccessLogTarget, Clock, PodHost, ProxyContext, ProxyMetrics};
use crate::reconcile::elect::Candidate;
use crate::reconcile::{self, LeaderHandle, ReconcileConfig};
use crate::replicate::{self, Caller, Dialer, Handles, ReplicaConfig};
use crate::telemetry::Telemetry;
use crate::tunnel::{GossipChannel, PeerDirectory, Tunnel, TunnelConfig, TunnelRunner};

/// What lives outside the control runtime.
pub(super) struct Threads {
    pub handles: Vec<JoinHandle<()>>,
    pub edge_done: watch::Receiver<bool>,
    pub tunnel: Tunnel,
}

/// What every part is built from.
struct Base<'a> {
    config: &'a Config,
    node: NodeName,
    identity: NodeIdentity,
    run: RunDir,
    keys: Arc<KeyStore>,
    telemetry: Telemetry,
    drain: &'a Drain,
}

/// Builds a peer; its tasks run on the current runtime, its threads are returned.
pub(super) async fn build(
    config: &Config,
    started: Instant,
    drain: &Drain,
    tasks: &mut Tasks,
) -> anyhow::Result<Threads> {
    let base = Base::new(config, drain)?;
    let (head_sender, head) = watch::channel(HeadId::default());
    let (directory_sender, directory) = watch::channel(Arc::default());
    let (tunnel, gossip, tunnel_runner) = base.tunnel(directory)?;
    let cluster = base.cluster(gossip, tasks);
    let members = cluster.members();
    let (view_sender, view) = watch::channel(Arc::default());
    let (live_sender, live) = watch::channel(replicate::LiveReport::default());
    let mesh = base.replication(&members, view, live, tasks).await?;
    wiring::follow_members(tasks, &base.node, members.clone(), directory_sender, view_sender);
    wiring::follow_applied(tasks, mesh.replica.applied.clone(), head_sender);
    tasks.spawn_ok("certificate renewal", base.identity.clone().renew_loop(drain.clone()));
    let unused = wiring::drop_unused_keys(Arc::clone(&base.keys), mesh.replica.applied.clone(), drain.clone());
    tasks.spawn_ok("listener keys", unused);

    let mut handles = Vec::new();
    let proxy = base.proxy(&mesh.replica, &tunnel, &members, tasks, &mut handles)?;
    let host = PodHost::new(Arc::clone(&proxy), head.clone());
    handles.push(wiring::tunnel_thread(tasks, tunnel_runner, host, drain.clone())?);
    let edge = base.edge(Arc::clone(&proxy), head)?;
    let edge_live = edge.live.clone();
    wiring::follow_live(tasks, edge_live.clone(), mesh.replica.applied.clone(), live_sender);
    let (edge_ended, edge_done) = watch::channel(false);
    tasks.spawn_ok("edge", async move {
        edge.run.await;
        edge_ended.send_replace(true);
    });

    let leader = config.has(Role::Reconciler).then(|| base.reconciler(&mesh.replica, members.clone(), tasks));
    mesh.answer_for(leader.clone(), members.clone());
    let readiness = Arc::new(ready::Ready {
        node: base.node.clone(),
        started,
        applied: mesh.replica.applied.clone(),
        live: edge_live.clone(),
        members: members.clone(),
        drain: drain.clone(),
        caught_up: false.into(),
    });
    let publisher = base.facts(cluster, &mesh.replica, leader.clone(), Arc::clone(&readiness));
    tasks.spawn_ok("facts", publisher.run());
    let admin = AdminContext {
        node: base.node.clone(),
        started,
        applied: mesh.replica.applied,
        followers: mesh.replica.followers,
        members,
        leader,
        caller: mesh.caller,
        verifier: mesh.verifier,
        readiness: readiness.clone(),
        surroundings: Arc::new(glue::DataPath {
            live: edge_live,
            tunnel: tunnel.clone(),
            metrics: Arc::clone(&proxy.metrics),
        }),
    };
    let health = Health { telemetry: base.telemetry, readiness };
    handles.push(wiring::admin_thread(tasks, config, admin, health, drain.clone())?);
    Ok(Threads { handles, edge_done, tunnel })
}

/// This peer's copy of the mesh's state, and what goes with it.
struct Mesh {
    replica: Handles,
    forward: wiring::LateForward,
    caller: Caller,
    verifier: Arc<MeshVerifier>,
}

impl Mesh {
    /// Answers what other peers forward to the leader.
    fn answer_for(&self, leader: Option<LeaderHandle>, members: watch::Receiver<Arc<Members>>) {
        let followers = self.replica.followers.clone();
        match leader {
            Some(leader) => self.forward.set(Arc::new(LeaderSide { leader, followers, members })),
            None => self.forward.set(Arc::new(NeverLeads)),
        }
    }
}

impl<'a> Base<'a> {
    fn new(config: &'a Config, drain: &'a Drain) -> anyhow::Result<Self> {
        let node = NodeName::from(config.node.as_str());
        let run = RunDir::open(&config.run)?;
        let identity = NodeIdentity::issue(&run, node.clone(), InstanceId::random())?;
        let keys = Arc::new(KeyStore::open(&run, &node)?);
        let listener_keys = keys.load()?;
        info!(mesh = run.mesh_id(), instance = %identity.instance(), listener_keys, "identity");
        let telemetry = Telemetry::new(&config.node);
        Ok(Base { config, node, identity, run, keys, telemetry, drain })
    }

    fn tunnel(&self, peers: PeerDirectory) -> anyhow::Result<(Tunnel, GossipChannel, TunnelRunner)> {
        let config = TunnelConfig {
            listen: self.config.at(self.config.ports.tunnel),
            dial_from: self.config.base(),
            identity: self.identity.clone(),
            peers,
            reset_secret: self.run.reset_secret(&self.node),
        };
        let bound = Tunnel::bind(config)?;
        self.telemetry.register(|registry| bound.0.metrics().register(registry));
        Ok(bound)
    }

    fn cluster(&self, gossip: GossipChannel, tasks: &mut Tasks) -> Cluster {
        let config = ClusterConfig {
            identity: self.identity.clone(),
            gossip_addr: self.config.at(self.config.ports.tunnel),
            seeds: wiring::seeds(self.config),
            interval: INTERVAL,
        };
        let facts = facts::initial(self.config, &self.identity);
        let (cluster, runner) = Cluster::start(config, gossip.outgoing, gossip.incoming, facts);
        self.telemetry.register(|registry| cluster.metrics().register(registry));
        tasks.spawn_ok("gossip", runner.run(self.drain.clone()));
        let seeds = wiring::seeds(self.config);
        let introducing = wiring::introduce(cluster.clone(), self.node.clone(), seeds, self.drain.clone());
        tasks.spawn_ok("introductions", introducing);
        cluster
    }

    async fn replication(
        &self,
        members: &watch::Receiver<Arc<Members>>,
        view: watch::Receiver<Arc<replicate::PeerView>>,
        live: watch::Receiver<replicate::LiveReport>,
        tasks: &mut Tasks,
    ) -> anyhow::Result<Mesh> {
        let tls = MeshTls::new(self.identity.clone())?;
        let dialer: Arc<dyn Dialer> = Arc::new(glue::SyncDialer { tls: tls.clone(), from: self.config.base() });
        let caller = Caller::new(Arc::clone(&dialer));
        let forward = wiring::LateForward::default();
        let verifier = Arc::new(MeshVerifier::new(self.run.trust().clone()));
        let config = ReplicaConfig {
            node: self.node.clone(),
            place: Place { node: Some(Arc::clone(&self.node.0)), zone: self.config.zone.as_deref().map(Arc::from) },
            instance: self.identity.instance(),
            mesh_id: self.run.mesh_id().to_owned(),
            state_dir: self.config.state.join(self.run.mesh_id()).join(&self.config.node),
            verifier: verifier.clone(),
            key_ensurer: Arc::new(glue::KeyFetcher {
                keys: Arc::clone(&self.keys),
                members: members.clone(),
                caller: caller.clone(),
                own: self.node.clone(),
            }),
            key_lookup: Arc::new(glue::StoredKeys(Arc::clone(&self.keys))),
            forward: Arc::new(forward.clone()),
            dialer,
            view,
            live,
        };
        let (replica, parts) = self.telemetry.register(|registry| replicate::start(config, registry));
        let address = self.config.at(self.config.ports.sync);
        let incoming =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} (replication)"))?;
        tasks.spawn_ok("replica", parts.replica.run(self.drain.clone()));
        tasks.spawn_ok("sync client", parts.client.run(self.drain.clone()));
        let incoming = wiring::accept(tasks, incoming, tls);
        tasks.spawn_ok("sync server", parts.server.run(incoming, self.drain.clone()));
        Ok(Mesh { replica, forward, caller, verifier })
    }

    fn proxy(
        &self,
        replica: &Handles,
        tunnel: &Tunnel,
        members: &watch::Receiver<Arc<Members>>,
        tasks: &mut Tasks,
        handles: &mut Vec<JoinHandle<()>>,
    ) -> anyhow::Result<Arc<ProxyContext>> {
        let target = match self.config.access_log.as_str() {
            "off" => AccessLogTarget::Off,
            "stderr" => AccessLogTarget::Stderr,
            path => AccessLogTarget::File(path.into()),
        };
        let (access_log, writer) =
            AccessLog::open(&target).with_context(|| format!("accessLog: cannot open {}", self.config.access_log))?;
        self.telemetry.register(|registry| access_log.register(registry));
        if let Some(writer) = writer {
            handles.push(wiring::thread("access-log", move || writer.run())?);
        }
        let (keep_current, expected) = wiring::expected(&self.node, members.clone());
        tasks.spawn_ok("expected peers", keep_current);
        Ok(Arc::new(ProxyContext {
            node: self.node.clone(),
            source: Some(self.config.base()),
            table: Arc::clone(&replica.table),
            remote: Arc::new(tunnel.clone()),
            expected,
            metrics: self.telemetry.register(|registry| Arc::new(ProxyMetrics::new(registry))),
            clock: Clock::start(),
            access_log,
            max_requests_per_endpoint: match self.config.max_requests_per_endpoint {
                0 => u32::MAX,
                limit => limit,
            },
            debug_headers: self.config.debug_headers,
            retained: Arc::default(),
        }))
    }

    fn edge(&self, proxy: Arc<ProxyContext>, table_changed: watch::Receiver<HeadId>) -> anyhow::Result<Edge> {
        let config = EdgeConfig {
            node_number: Some(self.config.number),
            threads: self.config.threads,
            port_offset_below_1024: self.config.low_port_offset,
            trusted_proxies: self.config.trusted_proxies()?.into(),
            ..EdgeConfig::default()
        };
        let keys = Arc::clone(&self.keys);
        let sockets = SocketStore::default();
        let deps = EdgeDeps { table_changed, keys, proxy, sockets, drain: self.drain.clone() };
        let edge = Edge::start(config, deps).context("cannot start the edge")?;
        self.telemetry.register(|registry| edge.stats.register(registry));
        Ok(edge)
    }

    fn facts(
        &self,
        cluster: Cluster,
        replica: &Handles,
        leader: Option<LeaderHandle>,
        readiness: Arc<ready::Ready>,
    ) -> facts::Publisher {
        facts::Publisher {
            cluster,
            identity: self.identity.clone(),
            base: facts::initial(self.config, &self.identity),
            applied: replica.applied.clone(),
            leader,
            readiness,
            drain: self.drain.clone(),
        }
    }

    /// Runs for election and leads when elected.
    fn reconciler(&self, replica: &Handles, members: watch::Receiver<Arc<Members>>, tasks: &mut Tasks) -> LeaderHandle {
        let (terms_sender, terms) = watch::channel(None);
        let candidate = Candidate {
            run: self.run.path().to_owned(),
            node: self.node.clone(),
            instance: self.identity.instance(),
            seen_epoch: replica.fence.clone(),
        };
        let informed = wiring::informed(self.node.clone(), members.clone(), replica.applied.clone());
        let drain = self.drain.clone();
        tasks.spawn("election", async move {
            informed.await;
            reconcile::elect::run(candidate, terms_sender, drain).await
        });
        let (run, node) = (self.run.clone(), self.node.clone());
        let config = ReconcileConfig {
            mesh_id: self.run.mesh_id().to_owned(),
            source: self.config.source.clone(),
            last_good: self.run.path().join("last-good"),
            replica: Arc::new(glue::OwnReplica { applied: replica.applied.clone(), members }),
            signer: Arc::new(move |epoch| Ok(Box::new(EpochSigner(LeaderKey::issue(&run, &node, epoch)?)) as Box<_>)),
            keys: Arc::clone(&self.keys),
            commits: replica.commits.clone(),
        };
        let (leader, leading) = reconcile::start(config, terms, self.drain.clone());
        tasks.spawn("reconciler", leading);
        leader
    }
}
