//! Gossip among nodes, over channels in memory, and a member that lies.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatConfig, ChitchatId, ChitchatMessage, Deserializable as _, Serializable as _};
use meshgate_core::snapshot::HeadId;
use meshgate_node::cluster::{Cluster, ClusterConfig, Facts, INTERVAL, Roles};
use meshgate_node::drain;
use meshgate_node::identity::{InstanceId, NodeIdentity, NodeName, RunDir};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

type Message = (SocketAddr, Bytes);

/// Carries messages between nodes, by address.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<HashMap<SocketAddr, mpsc::Sender<Message>>>>);

impl Network {
    /// The ends of a node's channel.
    fn join(&self, address: SocketAddr) -> (mpsc::Sender<Message>, mpsc::Receiver<Message>) {
        let (outgoing, mut to_send) = mpsc::channel::<Message>(256);
        let (received, incoming) = mpsc::channel(256);
        self.0.lock().unwrap().insert(address, received);
        let network = self.clone();
        tokio::spawn(async move {
            while let Some((to, bytes)) = to_send.recv().await {
                network.send(address, to, bytes);
            }
        });
        (outgoing, incoming)
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        if let Some(receiver) = self.0.lock().unwrap().get(&to) {
            let _ = receiver.try_send((from, bytes));
        }
    }
}

fn address(index: usize) -> SocketAddr {
    format!("127.{index}.0.1:7946").parse().unwrap()
}

fn facts(identity: &NodeIdentity, at: SocketAddr) -> Facts {
    Facts {
        node: identity.node().clone(),
        instance: identity.instance(),
        tunnel: at,
        sync: at,
        admin: at.to_string(),
        roles: Roles { gateway: true, reconciler: true },
        head: HeadId::default(),
        roots: String::new(),
        leader: None,
        ready: true,
        draining: false,
        version: "0.1.0".into(),
        cert_not_after: 1,
    }
}

struct Node {
    cluster: Cluster,
    task: JoinHandle<()>,
    _control: drain::DrainControl,
}

struct Nodes {
    run: RunDir,
    network: Network,
    nodes: Vec<Node>,
    _folder: tempfile::TempDir,
}

impl Nodes {
    /// Nodes `n1` and on, each with the first as its seed.
    fn start(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path().join("run")).unwrap();
        let mut nodes = Nodes { run, network: Network::default(), nodes: Vec::new(), _folder: folder };
        for index in 1..=count {
            let node = nodes.node(index);
            nodes.nodes.push(node);
        }
        nodes
    }

    fn node(&self, index: usize) -> Node {
        let name = NodeName::from(format!("n{index}").as_str());
        let identity = NodeIdentity::issue(&self.run, name, InstanceId::random()).unwrap();
        let (outgoing, incoming) = self.network.join(address(index));
        let said = facts(&identity, address(index));
        let config =
            ClusterConfig { identity, gossip_addr: address(index), seeds: vec![address(1)], interval: INTERVAL };
        let (cluster, runner) = Cluster::start(config, outgoing, incoming, said);
        let (control, drain) = drain::channel();
        Node { cluster, task: tokio::spawn(runner.run(drain)), _control: control }
    }

    /// How many live members a node sees.
    fn alive(&self, index: usize) -> usize {
        self.nodes[index - 1].cluster.members().borrow().alive().count()
    }

    fn head(&self, index: usize, of: &str) -> Option<u64> {
        self.nodes[index - 1].cluster.members().borrow().node(&of.into()).map(|member| member.facts.head.rev)
    }

    async fn converge(&self) {
        let count = self.nodes.len();
        within("all see all", Duration::from_secs(10), || (1..=count).all(|index| self.alive(index) == count)).await;
    }
}

/// Waits for something that must become true; returns how long it took.
async fn within(what: &str, limit: Duration, mut check: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_converge_and_see_a_change_and_a_death() {
    let nodes = Nodes::start(5);
    let joined = Instant::now();
    nodes.converge().await;
    assert!(joined.elapsed() < Duration::from_secs(3), "{:?}", joined.elapsed());

    nodes.nodes[2].cluster.publish(|facts| facts.head = HeadId { epoch: 1, rev: 77 });
    let all = || (1..=5).all(|index| nodes.head(index, "n3") == Some(77));
    within("a change is seen by all", Duration::from_secs(1), all).await;

    // Once the failure detector has heard enough.
    tokio::time::sleep(Duration::from_secs(3)).await;
    nodes.nodes[4].task.abort();
    nodes.network.0.lock().unwrap().remove(&address(5));
    let dead = || (1..=4).all(|index| nodes.alive(index) == 4);
    let took = within("a dead node is seen dead", Duration::from_secs(6), dead).await;
    println!("dead after {took:?}");
    let members = nodes.nodes[0].cluster.members().borrow().clone();
    assert!(!members.node(&"n5".into()).unwrap().alive, "a dead node is remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_is_one_member_more_and_the_newest_counts() {
    let mut nodes = Nodes::start(3);
    nodes.converge().await;
    let old = nodes.nodes[2].cluster.members().borrow().node(&"n3".into()).unwrap().facts.instance;
    nodes.nodes[2].task.abort();
    nodes.nodes[2] = nodes.node(3);
    let newest = || {
        let members = nodes.nodes[0].cluster.members().borrow().clone();
        members.node(&"n3".into()).is_some_and(|member| member.alive && member.facts.instance != old)
    };
    within("the new instance counts", Duration::from_secs(5), newest).await;
}

/// A member that speaks gossip by itself, and lies.
struct Liar {
    incoming: mpsc::Receiver<Message>,
    network: Network,
    address: SocketAddr,
}

struct Wire {
    outgoing: mpsc::Sender<Message>,
    incoming: mpsc::Receiver<Message>,
}

struct Once(Mutex<Option<Wire>>);

#[async_trait::async_trait]
impl Transport for Once {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(self.0.lock().unwrap().take().unwrap()))
    }
}

#[async_trait::async_trait]
impl Socket for Wire {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let _ = self.outgoing.try_send((to, message.serialize_to_vec().into()));
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (from, bytes) = self.incoming.recv().await.ok_or_else(|| anyhow::anyhow!("closed"))?;
            if let Ok(message) = ChitchatMessage::deserialize(&mut &bytes[..]) {
                return Ok((from, message));
            }
        }
    }
}

impl Liar {
    /// Takes part under the id and generation of another node, with values of its own.
    async fn impersonate(
        self,
        mesh_id: &str,
        id: ChitchatId,
        values: Vec<(String, String)>,
    ) -> chitchat::ChitchatHandle {
        let (outgoing, mut to_send) = mpsc::channel::<Message>(256);
        let (network, from) = (self.network, self.address);
        tokio::spawn(async move {
            while let Some((to, bytes)) = to_send.recv().await {
                network.send(from, to, bytes);
            }
        });
        let config = ChitchatConfig {
            chitchat_id: id,
            cluster_id: mesh_id.to_owned(),
            gossip_interval: Duration::from_millis(50),
            listen_addr: from,
            seed_nodes: vec![address(1).to_string(), address(2).to_string(), address(3).to_string()],
            failure_detector_config: Default::default(),
            marked_for_deletion_grace_period: Duration::from_secs(60),
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let wire = Once(Mutex::new(Some(Wire { outgoing, incoming: self.incoming })));
        chitchat::spawn_chitchat(config, values, &wire).await.unwrap()
    }
}

fn gossip_id(node: &str) -> String {
    blake3::hash(node.as_bytes()).to_hex().chars().take(16).collect()
}

async fn liar(nodes: &Nodes, victim: &str, versions: usize) -> chitchat::ChitchatHandle {
    let address: SocketAddr = "127.99.0.1:7946".parse().unwrap();
    let (_, incoming) = nodes.network.join(address);
    let members = nodes.nodes[0].cluster.members().borrow().clone();
    let victims = members.node(&victim.into()).unwrap();
    let id = ChitchatId::new(gossip_id(victim), victims.generation, victims.facts.tunnel);
    // Later versions than the victim's own, so that others take them.
    let mut values: Vec<_> = (0..versions).map(|index| ("x".to_owned(), index.to_string())).collect();
    values.extend([("cert", "QUJD"), ("facts", "QUJD.QUJD")].map(|(key, value)| (key.to_owned(), value.to_owned())));
    let liar = Liar { incoming, network: nodes.network.clone(), address };
    liar.impersonate(nodes.run.mesh_id(), id, values).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_node_writes_in_a_nodes_name_is_ignored() {
    let nodes = Nodes::start(3);
    nodes.converge().await;
    let liar = liar(&nodes, "n2", 100).await;
    let counted = || nodes.nodes.iter().any(|node| node.cluster.metrics().unverified_values() > 0);
    within("the forged value is counted", Duration::from_secs(10), counted).await;
    for index in 1..=3 {
        let members = nodes.nodes[index - 1].cluster.members().borrow().clone();
        let victim = members.node(&"n2".into()).expect("still a member");
        assert_eq!(victim.facts.tunnel, address(2), "its own facts go on being believed");
    }
    // The victim still gets through.
    nodes.nodes[1].cluster.publish(|facts| facts.head.rev = 5);
    within("the victim's change is seen", Duration::from_secs(10), || nodes.head(1, "n2") == Some(5)).await;
    liar.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_and_foreign_meshes_change_nothing() {
    let nodes = Nodes::start(2);
    nodes.converge().await;
    let stranger: SocketAddr = "127.98.0.1:7946".parse().unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut state = seed | 1;
    for length in 0..2000usize {
        let bytes: Vec<u8> = (0..length % 200)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        // Half of it with a valid beginning.
        let bytes = if length % 2 == 0 { [&45_139u16.to_le_bytes()[..], &[0], &bytes].concat() } else { bytes };
        nodes.network.send(stranger, address(1), bytes.into());
        if length % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    within("all is as before", Duration::from_secs(10), || nodes.alive(1) == 2 && nodes.alive(2) == 2).await;
    nodes.nodes[1].cluster.publish(|facts| facts.head.rev = 9);
    within("changes still pass", Duration::from_secs(10), || nodes.head(1, "n2") == Some(9)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absurd_version_makes_the_victim_start_anew() {
    let nodes = Nodes::start(3);
    nodes.converge().await;
    let before = nodes.nodes[0].cluster.members().borrow().node(&"n2".into()).unwrap().generation;
    let liar = liar(&nodes, "n2", 1).await;
    for version in [1 << 50, u64::MAX - 1] {
        liar.with_chitchat(|chitchat| chitchat.self_node_state().set_max_version(version)).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let anew = || {
        let members = nodes.nodes[0].cluster.members().borrow().clone();
        members.node(&"n2".into()).is_some_and(|member| member.alive && member.generation > before)
    };
    within("the victim is seen in a new life", Duration::from_secs(15), anew).await;
    assert!(nodes.nodes[1].cluster.metrics().restarts() > 0);
    liar.abort();
    nodes.nodes[1].cluster.publish(|facts| facts.head.rev = 6);
    within("its change is seen", Duration::from_secs(10), || nodes.head(1, "n2") == Some(6)).await;
}
