//! The peers as processes of their own: started, and ended whatever happens.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use meshgate_bench::child::Running;
use meshgate_bench::folder::Folder;
use serde_json::json;

use crate::options::Options;

/// Port of the admin API, the configuration's default.
const ADMIN_PORT: u16 = 15000;
/// Edge threads a peer, as in the demo: all peers share the machine.
const THREADS: usize = 2;

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

/// All peers. Dropping it ends them.
#[derive(Debug)]
pub struct Fleet(Vec<Running>);

impl Fleet {
    /// Starts a process for each node.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn start(meshgate: &Path, folder: &Folder, nodes: &[Node]) -> anyhow::Result<Self> {
        let mut fleet = Fleet(Vec::new());
        for node in nodes {
            let name = node.name();
            let config = folder.path(&format!("{name}.yaml"));
            fs::write(&config, configuration(folder, *node, nodes)).context("cannot write a configuration")?;
            let log = folder.path("logs").join(format!("{name}.log"));
            let mut command = Command::new(meshgate);
            command.args(["run", "--with-parent", "--config"]).arg(&config);
            fleet.0.push(Running::start(&name, &mut command, log)?);
        }
        Ok(fleet)
    }

    /// Process ids, in the nodes' order.
    pub fn pids(&self) -> Vec<u32> {
        self.0.iter().map(Running::pid).collect()
    }

    /// Fails when a peer has ended, with the end of its log.
    ///
    /// # Errors
    /// As said.
    pub fn all_alive(&mut self) -> anyhow::Result<()> {
        self.0.iter_mut().try_for_each(Running::is_alive)
    }
}

impl Drop for Fleet {
    /// All are asked at once; then each is waited for.
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Running::terminate);
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
