//! Nodes with tunnels and a host that echoes, for tests.
#![allow(dead_code)] // Each test binary uses its part.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use meshgate_node::drain;
use meshgate_node::identity::{InstanceId, NodeIdentity, NodeName, RunDir};
use meshgate_node::tunnel::{
    Body, BodyError, GossipChannel, Host, Hosted, Refusal, StreamHeader, Tunnel, TunnelConfig,
};
use tokio::sync::{oneshot, watch};

/// Waits for something that must become true.
pub async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < Duration::from_secs(20), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

type Directory = Arc<HashMap<NodeName, SocketAddr>>;

/// Nodes of one mesh that know each other.
pub struct Mesh {
    run: RunDir,
    ip: IpAddr,
    nodes: HashMap<String, TestNode>,
    directory: watch::Sender<Directory>,
    _folder: tempfile::TempDir,
}

/// One node.
pub struct TestNode {
    pub tunnel: Tunnel,
    pub gossip: Option<GossipChannel>,
    pub listen: SocketAddr,
    pub host: Arc<EchoHost>,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Mesh {
    pub async fn of(names: &[&str]) -> Self {
        static MESHES: AtomicU8 = AtomicU8::new(1); // One address a mesh.
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path().join("run")).unwrap();
        // Several test binaries may run at once; ports are free ones, so addresses may repeat.
        let ip = IpAddr::from([127, 78, MESHES.fetch_add(1, Ordering::Relaxed), 1]);
        let directory = watch::channel(Directory::default()).0;
        let mut mesh = Mesh { run, ip, nodes: HashMap::new(), directory, _folder: folder };
        for name in names {
            let node = mesh.start(name, 0);
            mesh.nodes.insert((*name).to_owned(), node);
        }
        let all: Vec<_> = mesh.nodes.iter().map(|(name, node)| (name.as_str(), node.listen)).collect();
        mesh.introduce(&all);
        for (name, node) in &mesh.nodes {
            for peer in names.iter().filter(|peer| *peer != name) {
                eventually("all are connected", || node.tunnel.alive(&(*peer).into())).await;
            }
        }
        mesh
    }

    /// A node of the mesh that the others do not know yet.
    pub async fn join(&self, name: &str) -> TestNode {
        self.start(name, 0)
    }

    pub fn run(&self) -> &RunDir {
        &self.run
    }

    pub fn introduce(&self, peers: &[(&str, SocketAddr)]) {
        self.directory.send_modify(|directory| {
            let directory = Arc::make_mut(directory);
            directory.extend(peers.iter().map(|(name, address)| (NodeName::from(*name), *address)));
        });
    }

    pub fn node(&self, name: &str) -> &TestNode {
        &self.nodes[name]
    }

    pub fn tunnel(&self, name: &str) -> &Tunnel {
        &self.nodes[name].tunnel
    }

    pub fn gossip(&mut self, name: &str) -> GossipChannel {
        self.nodes.get_mut(name).unwrap().gossip.take().unwrap()
    }

    /// Ends a node without a farewell.
    pub fn kill(&mut self, name: &str) {
        self.nodes.get_mut(name).unwrap().kill();
    }

    /// Starts a killed node again, at its address.
    pub async fn restart(&mut self, name: &str) {
        let port = self.nodes[name].listen.port();
        let node = self.start(name, port);
        self.nodes.insert(name.to_owned(), node);
    }

    fn start(&self, name: &str, port: u16) -> TestNode {
        let node = NodeName::from(name);
        let identity = NodeIdentity::issue(&self.run, node.clone(), InstanceId::random()).unwrap();
        let config = TunnelConfig {
            listen: SocketAddr::new(self.ip, port),
            dial_from: self.ip,
            identity,
            peers: self.directory.subscribe(),
            reset_secret: self.run.reset_secret(&node),
        };
        let (tunnel, gossip, runner) = Tunnel::bind(config).unwrap();
        let listen = runner.listen();
        let host = Arc::new(EchoHost::new(name));
        let (kill, killed) = oneshot::channel();
        let hosting = host.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (_control, drain) = drain::channel();
            runtime.block_on(async move {
                tokio::select! {
                    result = runner.run(hosting, drain) => result.unwrap(),
                    _ = killed => {}
                }
            });
            // Nothing is said to peers: the runtime and all its connections just vanish.
        });
        TestNode { tunnel, gossip: Some(gossip), listen, host, kill: Some(kill), thread: Some(thread) }
    }
}

impl TestNode {
    fn kill(&mut self) {
        drop(self.kill.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        drop(self.kill.take());
    }
}

/// Answers by path; refuses by port.
pub struct EchoHost {
    name: String,
    hold: watch::Sender<bool>,
    pub connects: AtomicUsize,
    pub endless: Arc<AtomicUsize>,
    pub dropped: Arc<AtomicUsize>,
}

/// Lets connects go on when dropped.
pub struct Held(watch::Sender<bool>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl EchoHost {
    fn new(name: &str) -> Self {
        EchoHost {
            name: name.to_owned(),
            hold: watch::channel(false).0,
            connects: AtomicUsize::new(0),
            endless: Arc::default(),
            dropped: Arc::default(),
        }
    }

    pub fn hold_connects(&self) -> Held {
        self.hold.send_replace(true);
        Held(self.hold.clone())
    }
}

impl Host for EchoHost {
    fn connect(&self, peer: &NodeName, header: StreamHeader) -> BoxFuture<'static, Result<Box<dyn Hosted>, Refusal>> {
        self.connects.fetch_add(1, Ordering::SeqCst);
        let refusal = match header.endpoint.port() {
            1 => Some(Refusal::NotHere),
            2 => Some(Refusal::Terminating),
            3 => Some(Refusal::Denied),
            4 => Some(Refusal::Overloaded),
            _ => None,
        };
        let upstream = Echo {
            node: self.name.clone(),
            line: format!("for {peer} from {} at {}", header.client, header.endpoint),
            endless: self.endless.clone(),
            dropped: Dropped(self.dropped.clone()),
        };
        let mut hold = self.hold.subscribe();
        async move {
            let _ = hold.wait_for(|hold| !hold).await;
            refusal.map_or_else(|| Ok(Box::new(upstream) as Box<dyn Hosted>), Err)
        }
        .boxed()
    }
}

struct Echo {
    node: String,
    line: String,
    endless: Arc<AtomicUsize>,
    dropped: Dropped,
}

struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Hosted for Echo {
    fn send(self: Box<Self>, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, BodyError>> {
        async move {
            let Echo { node, line, endless, dropped } = *self;
            let response = Response::builder().header("x-node", &node);
            match request.uri().path() {
                "/echo" => Ok(response.body(request.into_body()).unwrap()),
                "/none" => Ok(response.status(204).body(meshgate_node::tunnel::empty()).unwrap()),
                "/count" => {
                    let length = request.into_body().collect().await?.to_bytes().len();
                    Ok(response.body(full(length.to_string())).unwrap())
                }
                "/unsent" => Err(meshgate_node::tunnel::Unsent("the pod is gone".into()).into()),
                "/fail" => Err("the pod is gone".into()),
                "/break" => {
                    let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(BodyError::from("broken"))];
                    Ok(response.body(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()).unwrap())
                }
                "/never" => {
                    let _dropped = dropped;
                    futures_util::future::pending().await
                }
                "/endless" => {
                    let frames = futures_util::stream::repeat_with(move || {
                        let _held = &dropped;
                        endless.fetch_add(16 * 1024, Ordering::SeqCst);
                        Ok(Frame::data(Bytes::from(vec![1; 16 * 1024])))
                    });
                    Ok(response.body(StreamBody::new(frames).boxed_unsync()).unwrap())
                }
                path => {
                    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
                    let asked = request.headers()["x-asked"].to_str()?;
                    Ok(response.body(full(format!("{} {path}{query} {line} {asked}", request.method()))).unwrap())
                }
            }
        }
        .boxed()
    }
}
