//! The peers as processes of their own: started, and ended whatever happens.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::folder::Folder;
use crate::options::Options;

/// Port of the admin API, the configuration's default.
const ADMIN_PORT: u16 = 15000;
/// Edge threads a peer, as in the demo: all peers share the machine.
const THREADS: usize = 2;
/// How long a peer may take to end before it is killed.
const STOP: Duration = Duration::from_secs(3);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(5);
/// How much of a log's end is shown.
const TAIL_LINES: usize = 12;

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Number n: its base address is 127.n.0.1.
    pub number: u8,
}

impl Node {
    /// Those that the options ask for.
    pub fn all(options: &Options) -> Vec<Node> {
        (0..options.peers).map(|index| Node { number: options.first_number + index }).collect()
    }

    /// Its name, as EndpointSlices write it.
    pub fn name(self) -> String {
        format!("bench-{}", self.number)
    }

    /// Where its admin API listens.
    pub fn admin(self) -> SocketAddr {
        (Ipv4Addr::new(127, self.number, 0, 1), ADMIN_PORT).into()
    }
}

/// A running peer. It ends when its standard input does, which is when this process dies.
#[derive(Debug)]
struct Peer {
    node: Node,
    child: Child,
    log: PathBuf,
}

/// All peers. Dropping it ends them.
#[derive(Debug)]
pub struct Fleet(Vec<Peer>);

impl Fleet {
    /// Starts a process for each node.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn start(meshgate: &Path, folder: &Folder, nodes: &[Node]) -> anyhow::Result<Self> {
        let mut fleet = Fleet(Vec::new());
        for node in nodes {
            let config = folder.path(&format!("{}.yaml", node.name()));
            fs::write(&config, configuration(folder, *node, nodes)).context("cannot write a configuration")?;
            let log = folder.path("logs").join(format!("{}.log", node.name()));
            let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
            let child = Command::new(meshgate)
                .args(["run", "--with-parent", "--config"])
                .arg(&config)
                .stdin(Stdio::piped())
                .stdout(output.try_clone()?)
                .stderr(output)
                // A terminal's Ctrl-C is for the measurement, which then ends its peers.
                .process_group(0)
                .spawn()
                .with_context(|| format!("cannot start {}", meshgate.display()))?;
            fleet.0.push(Peer { node: *node, child, log });
        }
        Ok(fleet)
    }

    /// Process ids, in the nodes' order.
    pub fn pids(&self) -> Vec<u32> {
        self.0.iter().map(|peer| peer.child.id()).collect()
    }

    /// Fails when a peer has ended, with the end of its log.
    ///
    /// # Errors
    /// As said.
    pub fn all_alive(&mut self) -> anyhow::Result<()> {
        for peer in &mut self.0 {
            if let Some(status) = peer.child.try_wait().context("cannot look after a peer")? {
                let log = fs::read_to_string(&peer.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
                bail!("{} ended ({status}); the end of its log:\n{tail}", peer.node.name());
            }
        }
        Ok(())
    }
}

impl Drop for Fleet {
    /// SIGTERM to all and the end of their standard input; SIGKILL to what is there after [`STOP`].
    fn drop(&mut self) {
        for peer in &mut self.0 {
            // Not reaped yet, so the id can't belong to another process; an error means that it has just ended.
            if let (Ok(None), Some(pid)) = (peer.child.try_wait(), Pid::from_raw(peer.child.id().cast_signed())) {
                let _ = kill_process(pid, Signal::TERM);
            }
            drop(peer.child.stdin.take());
        }
        let deadline = Instant::now() + STOP;
        for peer in &mut self.0 {
            while matches!(peer.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(LOOK);
            }
            // Both fail only for what has ended.
            let _ = peer.child.kill();
            let _ = peer.child.wait();
        }
    }
}

/// A peer's configuration. JSON is YAML.
fn configuration(folder: &Folder, node: Node, nodes: &[Node]) -> String {
    let seeds: Vec<u8> = nodes.iter().map(|other| other.number).filter(|number| *number != node.number).collect();
    json!({
        "node": node.name(),
        "number": node.number,
        "source": folder.path("source"),
        "run": folder.path("run"),
        "state": folder.path("state"),
        "seeds": seeds,
        "threads": THREADS,
        "drainSeconds": 1,
    })
    .to_string()
}
