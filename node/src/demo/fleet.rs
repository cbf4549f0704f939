//! The three peers as three real processes: started, watched, killed, started again, ended.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::layout::Layout;
use crate::config::base_address;

/// A node of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name, as EndpointSlices write it.
    pub name: &'static str,
    /// Number n: its base address is 127.n.0.1.
    pub number: u8,
}

impl Node {
    /// 127.n.0.1
    pub fn base(self) -> IpAddr {
        base_address(self.number)
    }

    /// A port on the base address.
    pub fn at(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.base(), port)
    }
}

/// The nodes of the demo.
pub const NODES: [Node; 3] =
    [Node { name: "node-a", number: 1 }, Node { name: "node-b", number: 2 }, Node { name: "node-c", number: 3 }];

/// How long running requests may go on at the end of the demo.
const CUT: Duration = Duration::from_secs(1);
/// How long a peer may take to end before it is killed.
const STOP: Duration = Duration::from_secs(3);
/// How long a peer that died by itself stays away, so that a crash loop does not burn a core and
/// the screen can show it.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Orders that wait for one supervisor.
const ORDERS: usize = 4;
/// How much of a log's end is shown.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 12;

/// What a supervisor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGKILL; the peer stays away until [`Order::Start`].
    Kill,
    /// SIGTERM; the peer stays away until [`Order::Start`].
    Terminate,
    /// Start it again, at once.
    Start,
}

/// A peer's process as its supervisor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// `None` while it is away.
    pub pid: Option<u32>,
    /// When this process, or the last one, was started.
    pub started: Instant,
    /// How often one was started.
    pub starts: u32,
    /// How the last one ended, in words: `signal 9`, `exit code 0`.
    pub ended: Option<String>,
}

/// A supervised peer.
#[derive(Debug)]
struct Peer {
    node: Node,
    orders: mpsc::Sender<Order>,
    process: watch::Receiver<Process>,
}

/// All peers. Their processes end when this is dropped, and when this process dies.
#[derive(Debug)]
pub struct Fleet {
    peers: Vec<Peer>,
    stop: CancellationToken,
    supervisors: JoinSet<()>,
}

impl Fleet {
    /// Starts a process for each node.
    ///
    /// # Errors
    /// The program can't be started, or a log can't be opened.
    pub fn start(binary: &Path, layout: &Layout) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let (mut peers, mut supervisors) = (Vec::new(), JoinSet::new());
        for node in NODES {
            let launch = Launch { binary: binary.to_owned(), config: layout.config_path(node), log: layout.log(node) };
            let running = launch.start().with_context(|| format!("cannot start {}", node.name))?;
            let (publish, process) =
                watch::channel(Process { pid: running.child.id(), started: Instant::now(), starts: 1, ended: None });
            let (orders, inbox) = mpsc::channel(ORDERS);
            supervisors.spawn(Supervisor { launch, publish, inbox, stop: stop.clone() }.run(running));
            peers.push(Peer { node, orders, process });
        }
        Ok(Fleet { peers, stop, supervisors })
    }

    fn peer(&self, node: Node) -> anyhow::Result<&Peer> {
        self.peers.iter().find(|peer| peer.node == node).with_context(|| format!("no peer {}", node.name))
    }

    /// The process of a node, now.
    pub fn process(&self, node: Node) -> Option<Process> {
        self.peer(node).ok().map(|peer| peer.process.borrow().clone())
    }

    /// Gives an order, and returns once it is carried out: the process is gone, or a new one runs.
    ///
    /// # Errors
    /// It was not carried out in time.
    pub async fn order(&self, node: Node, order: Order, limit: Duration) -> anyhow::Result<Process> {
        let peer = self.peer(node)?;
        let mut process = peer.process.clone();
        peer.orders.send(order).await.context("the supervisor has ended")?;
        let wanted = order == Order::Start;
        let reached = process.wait_for(|process| process.pid.is_some() == wanted);
        let reached = tokio::time::timeout(limit, reached).await.with_context(|| {
            format!("{}: {} took longer than {limit:?}", node.name, if wanted { "the start" } else { "its end" })
        })?;
        Ok(reached.context("the supervisor has ended")?.clone())
    }

    /// Ends all peers: SIGTERM, and SIGKILL after [`STOP`].
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.supervisors.join_next().await.is_some() {}
    }
}

/// How a peer is started.
#[derive(Debug)]
struct Launch {
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
}

/// A running process.
#[derive(Debug)]
struct Running {
    child: Child,
    /// The peer ends when its standard input does, which is when this process dies.
    alive: ChildStdin,
}

impl Launch {
    fn start(&self) -> anyhow::Result<Running> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot open the log {}", self.log.display()))?;
        let mut child = Command::new(&self.binary)
            .arg("run")
            .arg("--config")
            .arg(&self.config)
            .arg("--with-parent")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A terminal's Ctrl-C is for the demo, which then ends its peers in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        let alive = child.stdin.take().context("the peer has no standard input")?;
        Ok(Running { child, alive })
    }
}

/// Owns one peer's process.
struct Supervisor {
    launch: Launch,
    publish: watch::Sender<Process>,
    inbox: mpsc::Receiver<Order>,
    stop: CancellationToken,
}

impl Supervisor {
    async fn run(mut self, first: Running) {
        let mut running = Some(first);
        loop {
            let held = match running.take() {
                Some(mut process) => match self.watch(&mut process).await {
                    Some(held) => held,
                    None => return end(process).await,
                },
                // It could not be started again; the next attempt follows.
                None => false,
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = started(&mut self.inbox) => {}
                () = tokio::time::sleep(RESTART_PAUSE), if !held => {}
            }
            match self.launch.start() {
                Ok(process) => {
                    self.publish.send_modify(|state| {
                        state.pid = process.child.id();
                        state.started = Instant::now();
                        state.starts += 1;
                    });
                    running = Some(process);
                }
                Err(error) => self.publish.send_modify(|state| state.ended = Some(format!("{error:#}"))),
            }
        }
    }

    /// Returns when the process has ended: true when that was ordered, so that it stays away.
    /// `None` when the demo ends and the process is still there.
    async fn watch(&mut self, process: &mut Running) -> Option<bool> {
        let mut held = false;
        loop {
            tokio::select! {
                status = process.child.wait() => {
                    let ended = status.map_or_else(|error| error.to_string(), words);
                    self.publish.send_modify(|state| {
                        state.pid = None;
                        state.ended = Some(ended);
                    });
                    return Some(held);
                }
                () = self.stop.cancelled() => return None,
                Some(order) = self.inbox.recv() => match order {
                    Order::Kill => {
                        held = true;
                        signal(&process.child, Signal::KILL);
                    }
                    Order::Terminate => {
                        held = true;
                        signal(&process.child, Signal::TERM);
                    }
                    Order::Start => {}
                }
            }
        }
    }
}

/// Returns at the next order to start.
async fn started(inbox: &mut mpsc::Receiver<Order>) {
    loop {
        match inbox.recv().await {
            Some(Order::Start) => return,
            Some(_) => {}
            // Nobody gives orders any more: the demo is ending.
            None => std::future::pending().await,
        }
    }
}

/// SIGTERM and the end of its standard input; SIGTERM again, which cuts what still runs; SIGKILL.
async fn end(mut process: Running) {
    signal(&process.child, Signal::TERM);
    drop(process.alive);
    if tokio::time::timeout(CUT, process.child.wait()).await.is_ok() {
        return;
    }
    signal(&process.child, Signal::TERM);
    if tokio::time::timeout(STOP - CUT, process.child.wait()).await.is_err() {
        // An error means that it has just ended.
        let _ = process.child.kill().await;
    }
}

/// The child is not reaped yet, so its id can't belong to another process.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        // An error means that it has just ended.
        let _ = kill_process(pid, signal);
    }
}

fn words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The end of a log, for messages.
///
/// # Errors
/// The log can't be read.
pub fn tail(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

impl Fleet {
    /// Fails when a peer has ended, with the end of its log.
    ///
    /// # Errors
    /// As said.
    pub fn all_alive(&self, layout: &Layout) -> anyhow::Result<()> {
        for peer in &self.peers {
            let process = peer.process.borrow().clone();
            if let Some(ended) = process.ended {
                let log = layout.log(peer.node);
                bail!(
                    "{} ended while starting ({ended}); the end of its log:\n{}",
                    peer.node.name,
                    tail(&log).unwrap_or_else(|error| format!("(cannot read {}: {error:#})", log.display()))
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
