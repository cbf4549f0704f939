//! Peers on loopback: real sockets, a plain dialer that says its name first, a test CA.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_lc_rs::signature::Ed25519KeyPair;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use meshgate_core::snapshot::{Head, HeadId, Key, Kind, Resource, Service, SessionAffinity};
use meshgate_node::drain::{self, DrainControl, Phase};
use meshgate_node::identity::{InstanceId, NodeName};
use meshgate_node::replicate::{
    BoxedIo, Dialer, ForwardError, ForwardHandler, Handles, KeyEnsurer, KeyLookup, LiveReport, PeerInfo, PeerView,
    ReplicaConfig, start,
};
use meshgate_wire::{Commit, Ed25519Signer, LeaderKey, LeaderVerifier, LeafChange, Snapshot, encode, sign};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

pub const MESH: &str = "mesh-1";
pub const WAIT: Duration = Duration::from_secs(10);

/// The CA: a certificate is text with a keyed digest over it.
pub fn certificate(ca: &str, epoch: u64, public_key: &[u8]) -> Bytes {
    let body = [&epoch.to_be_bytes(), public_key].concat();
    let mac = blake3::keyed_hash(blake3::hash(ca.as_bytes()).as_bytes(), &body);
    [&body, mac.as_bytes().as_slice()].concat().into()
}

pub struct TestCa;

impl LeaderVerifier for TestCa {
    fn leader_key(&self, certificate_der: &[u8], _: &str) -> Result<LeaderKey, String> {
        let (epoch, public_key) = certificate_der
            .split_first_chunk::<8>()
            .and_then(|(epoch, rest)| Some((u64::from_be_bytes(*epoch), rest.get(..32)?)))
            .ok_or("not a certificate")?;
        if certificate("ca", epoch, public_key) != certificate_der {
            return Err("not of this CA".to_owned());
        }
        Ok(LeaderKey { epoch, public_key: public_key.to_vec(), node: "leader".to_owned() })
    }
}

pub fn signer(ca: &str, epoch: u64) -> Ed25519Signer {
    use aws_lc_rs::signature::KeyPair;
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let certificate = certificate(ca, epoch, key.public_key().as_ref());
    Ed25519Signer::from_pkcs8(pkcs8.as_ref(), certificate).unwrap()
}

/// A leader's view of its own history.
pub struct Leader {
    pub signer: Ed25519Signer,
    pub snapshot: Snapshot,
    pub id: HeadId,
    pub epoch: u64,
}

impl Leader {
    pub fn new(epoch: u64) -> Leader {
        Leader { signer: signer("ca", epoch), snapshot: Snapshot::default(), id: HeadId::default(), epoch }
    }

    /// The next leader, which goes on from this one.
    pub fn successor(&self, epoch: u64) -> Leader {
        Leader { signer: signer("ca", epoch), snapshot: self.snapshot.clone(), id: self.id, epoch }
    }

    pub fn commit(&mut self, changes: Vec<LeafChange>) -> Commit {
        self.snapshot = self.snapshot.apply(&changes);
        let (routes_root, endpoints_root) = self.snapshot.roots();
        let base = self.id;
        self.id = HeadId { epoch: self.epoch, rev: base.rev + 1 };
        let head = Head { mesh_id: MESH.to_owned(), id: self.id, routes_root, endpoints_root };
        Commit { head: sign(&head, &self.signer).unwrap(), base, changes }
    }
}

/// A resource of some size.
pub fn put(name: &str, size: usize) -> LeafChange {
    let service = Service {
        ports: vec![],
        affinity: SessionAffinity::None,
        distribution: Default::default(),
        internal_local: false,
    };
    let mut value = encode(&Resource::Service(service)).to_vec();
    if size > 0 {
        // Field 1000, which no version knows: padding that counts.
        let mut random = vec![0; size];
        rand::fill(&mut random[..]);
        value.extend([0xc2, 0x3e]);
        prost::encoding::encode_varint(size as u64, &mut value);
        value.extend(random);
    }
    LeafChange { key: Key::new(Kind::Service, "shop", name), value: Some(value.into()) }
}

struct PlainDialer(NodeName);

pub async fn dial(own: &NodeName, addr: SocketAddr) -> io::Result<BoxedIo> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    stream.write_u8(own.0.len() as u8).await?;
    stream.write_all(own.0.as_bytes()).await?;
    Ok(Box::new(stream))
}

impl Dialer for PlainDialer {
    fn dial(&self, _: &NodeName, addr: SocketAddr) -> BoxFuture<'static, io::Result<BoxedIo>> {
        let own = self.0.clone();
        Box::pin(async move { dial(&own, addr).await })
    }
}

pub fn dialer(own: &str) -> Arc<dyn Dialer> {
    Arc::new(PlainDialer(own.into()))
}

/// Accepts streams and reads who is there.
pub async fn listen(tasks: &mut JoinSet<()>) -> (SocketAddr, ReceiverStream<(BoxedIo, NodeName)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel(16);
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let Ok(length) = stream.read_u8().await else { continue };
            let mut name = vec![0; usize::from(length)];
            let Ok(_) = stream.read_exact(&mut name).await else { continue };
            let name = NodeName::from(String::from_utf8(name).unwrap().as_str());
            let io: BoxedIo = Box::new(stream);
            if sender.send((io, name)).await.is_err() {
                return;
            }
        }
    });
    (address, ReceiverStream::new(receiver))
}

/// Keys in memory, and calls that come in.
#[derive(Default)]
pub struct Services {
    pub keys: Mutex<BTreeMap<[u8; 32], Bytes>>,
}

#[async_trait]
impl KeyEnsurer for Services {
    async fn ensure(&self, hashes: &[[u8; 32]], _: Option<&NodeName>) -> Vec<[u8; 32]> {
        let keys = self.keys.lock().unwrap();
        hashes.iter().filter(|hash| !keys.contains_key(*hash)).copied().collect()
    }
}

impl KeyLookup for Services {
    fn lookup(&self, _: &NodeName, key_hash: &[u8; 32]) -> Option<Bytes> {
        self.keys.lock().unwrap().get(key_hash).cloned()
    }
}

impl ForwardHandler for Services {
    fn forward(&self, peer: &NodeName, method: &str, body: Bytes) -> BoxFuture<'static, Result<Bytes, ForwardError>> {
        let answer = match method {
            "echo" => Ok([peer.0.as_bytes(), b": ", &body].concat().into()),
            other => Err(ForwardError::UnknownMethod(other.to_owned())),
        };
        Box::pin(std::future::ready(answer))
    }
}

pub struct Peer {
    pub node: NodeName,
    pub address: SocketAddr,
    pub handles: Handles,
    pub registry: Registry,
    pub view: watch::Sender<Arc<PeerView>>,
    pub live: watch::Sender<LiveReport>,
    pub services: Arc<Services>,
    control: DrainControl,
    tasks: JoinSet<()>,
}

impl Peer {
    pub async fn start(node: &str, dir: &Path) -> Peer {
        let view = watch::Sender::new(Arc::default());
        let live = watch::Sender::new(LiveReport::always());
        let services = Arc::new(Services::default());
        let mut registry = Registry::default();
        let config = ReplicaConfig {
            node: node.into(),
            place: Default::default(),
            instance: InstanceId(rand::random()),
            mesh_id: MESH.to_owned(),
            state_dir: dir.join(node),
            verifier: Arc::new(TestCa),
            key_ensurer: services.clone(),
            key_lookup: services.clone(),
            forward: services.clone(),
            dialer: dialer(node),
            view: view.subscribe(),
            live: live.subscribe(),
        };
        let (handles, parts) = start(config, &mut registry);
        let (control, drain) = drain::channel();
        let mut tasks = JoinSet::new();
        let mut accepting = JoinSet::new();
        let (address, incoming) = listen(&mut accepting).await;
        tasks.spawn(parts.replica.run(drain.clone()));
        tasks.spawn(parts.client.run(drain.clone()));
        tasks.spawn(async move {
            parts.server.run(incoming, drain).await;
            accepting.shutdown().await;
        });
        Peer { node: node.into(), address, handles, registry, view, live, services, control, tasks }
    }

    /// Ends the process, so to speak.
    pub async fn stop(mut self) {
        self.control.advance(Phase::Cut);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(WAIT, ended).await.expect("every task ends on the cut");
    }

    pub fn info(&self, head: HeadId) -> PeerInfo {
        PeerInfo { node: self.node.clone(), address: self.address, head }
    }

    /// Tells it who leads and who is there.
    pub fn see(&self, leader: Option<&str>, peers: Vec<PeerInfo>) {
        self.view.send_replace(Arc::new(PeerView { leader: leader.map(NodeName::from), peers }));
    }

    pub fn head(&self) -> HeadId {
        self.handles.applied.borrow().as_ref().map_or_else(HeadId::default, |applied| applied.id())
    }

    /// Waits until a head is applied.
    pub async fn reaches(&self, id: HeadId) {
        let mut applied = self.handles.applied.clone();
        let reached = applied.wait_for(|applied| applied.as_ref().is_some_and(|applied| applied.id() >= id));
        tokio::time::timeout(WAIT, reached)
            .await
            .unwrap_or_else(|_| panic!("{} does not reach {id}, has {}", self.node, self.head()))
            .unwrap();
    }

    /// Waits until followers acknowledge a head as live.
    pub async fn acknowledged(&self, id: HeadId, nodes: &[&str]) {
        let mut followers = self.handles.followers.clone();
        let all = followers.wait_for(|map| {
            nodes.iter().all(|node| map.get(&NodeName::from(*node)).is_some_and(|one| one.ack.live >= id))
        });
        tokio::time::timeout(WAIT, all).await.expect("every follower acknowledges");
    }

    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// Waits for a line of metrics.
    pub async fn shows(&self, line: &str) {
        eventually(|| self.metrics().lines().any(|one| one == line)).await;
    }
}

/// Polls for what nothing announces.
pub async fn eventually(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < WAIT, "it does not come about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
