//! Configuration of a peer: one YAML file, and flags that override it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use meshgate_core::sanitize::Cidr;
use serde::{Deserialize, Serialize};

/// What a process does. One binary, one or both roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves traffic.
    Gateway,
    /// May lead: reads the source, compiles, signs.
    Reconciler,
}

impl Role {
    /// As written in configuration and shown by `meshctl peers`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::Reconciler => "reconciler",
        }
    }
}

/// A peer's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Name of the node, as EndpointSlices write it in `nodeName`.
    pub node: String,
    /// What this process does.
    #[serde(default = "both_roles")]
    pub roles: Vec<Role>,
    /// Number of the node, 1 to 254: its base address is 127.n.0.1, and Gateway g listens on
    /// 127.n.g.1 (mode `loopback`, the only one of directory mode).
    pub number: u8,
    /// The node's zone; where it is not given, the one that endpoints on this node have. Services
    /// that prefer near endpoints are served from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Directory with the Kubernetes YAML; only reconcilers read it.
    pub source: PathBuf,
    /// Folder that all processes of the mesh share, on tmpfs, mode 0700: mesh id, CA, lease,
    /// epoch, listener keys.
    pub run: PathBuf,
    /// Folder for snapshots; a node writes below `<state>/<mesh id>/<node>/`.
    pub state: PathBuf,
    /// Numbers of nodes to greet at start; nodes found by gossip need not be here.
    #[serde(default)]
    pub seeds: Vec<u8>,
    /// Ports on the base address.
    #[serde(default)]
    pub ports: Ports,
    /// Edge threads; 0 is one a core.
    #[serde(default)]
    pub threads: usize,
    /// Listener ports below 1024 are bound at port + this when the process may not bind them; 0
    /// reports them as bind errors instead.
    #[serde(default)]
    pub low_port_offset: u16,
    /// Proxies in front of this one, as ranges of addresses (`10.0.0.0/8`): their `X-Forwarded-*`
    /// headers are believed and continued, everybody else's are removed.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// Access log: `off`, `stderr` or a file's path.
    #[serde(default = "access_log_off")]
    pub access_log: String,
    /// Requests that an endpoint may have at a time from this peer; others are picked above it, and
    /// where all are full the answer is 503. 0 is no limit.
    #[serde(default = "max_requests_per_endpoint")]
    pub max_requests_per_endpoint: u32,
    /// Adds `x-meshgate-via` and `x-meshgate-attempts` to responses: which way the request took, and
    /// how often it was tried.
    #[serde(default)]
    pub debug_headers: bool,
    /// Seconds between "not ready" and "not accepting" at the end.
    #[serde(default)]
    pub drain_lead_seconds: u32,
    /// Seconds that running requests may take at the end.
    #[serde(default = "drain_seconds")]
    pub drain_seconds: u32,
}

/// Ports on a node's base address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ports {
    /// Tunnel and gossip (UDP).
    pub tunnel: u16,
    /// Replication (TCP).
    pub sync: u16,
    /// Admin API (TCP, gRPC).
    pub admin: u16,
    /// `/metrics`, `/healthz`, `/readyz` (TCP, HTTP).
    pub metrics: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Ports { tunnel: 15443, sync: 15444, admin: 15000, metrics: 15020 }
    }
}

fn both_roles() -> Vec<Role> {
    vec![Role::Gateway, Role::Reconciler]
}

fn access_log_off() -> String {
    "off".to_owned()
}

fn max_requests_per_endpoint() -> u32 {
    1_024
}

fn drain_seconds() -> u32 {
    30
}

/// The longest node name: it must fit into a gossip digest entry and a DNS label.
pub const MAX_NODE_NAME: usize = 63;

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The operator's fault; the message names the file and the field.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read configuration {}", path.display()))?;
        let config: Config =
            serde_saphyr::from_str(&text).with_context(|| format!("configuration {}", path.display()))?;
        config.check().with_context(|| format!("configuration {}", path.display()))?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.node.is_empty() && self.node.len() <= MAX_NODE_NAME,
            "node: must have 1 to {MAX_NODE_NAME} characters, has {}",
            self.node.len()
        );
        if let Some(bad) =
            self.node.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(*c)))
        {
            bail!("node: {bad:?} is not allowed; lower-case letters, digits, '-' and '.' are");
        }
        ensure!((1..=254).contains(&self.number), "number: must be 1 to 254, is {}", self.number);
        self.trusted_proxies()?;
        ensure!(!self.roles.is_empty(), "roles: at least one of gateway, reconciler");
        Ok(())
    }

    /// The ranges of `trustedProxies`.
    ///
    /// # Errors
    /// One is none; the message names it.
    pub fn trusted_proxies(&self) -> anyhow::Result<Vec<Cidr>> {
        let ranges = self.trusted_proxies.iter().enumerate();
        ranges.map(|(i, range)| range.parse().map_err(|e| anyhow!("trustedProxies[{i}]: {e}"))).collect()
    }

    /// Does this process have the role?
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The node's base address, 127.n.0.1.
    pub fn base(&self) -> IpAddr {
        base_address(self.number)
    }

    /// A socket address on the base address.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.base(), port)
    }
}

/// The base address of node n in mode `loopback`: 127.n.0.1.
pub fn base_address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, number, 0, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "node: node-a\nnumber: 1\nsource: /s\nrun: /r\nstate: /t\nseeds: [2, 3]\n";

    fn parse(text: &str) -> anyhow::Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn defaults_fill_what_is_not_written() {
        let config = parse(GOOD).unwrap();
        assert!(config.has(Role::Gateway) && config.has(Role::Reconciler));
        assert_eq!(config.at(config.ports.tunnel).to_string(), "127.1.0.1:15443");
        assert_eq!((config.drain_seconds, config.max_requests_per_endpoint), (30, 1_024));
        assert_eq!(config.zone, None);
    }

    #[test]
    fn errors_name_the_field() {
        for (text, field) in [
            (GOOD.replace("node: node-a", "node: Node_A"), "node"),
            (GOOD.replace("number: 1", "number: 0"), "number"),
            (format!("{GOOD}roles: []\n"), "roles"),
            (format!("{GOOD}trustedProxies: [10.0.0.0/8, 10.0.0.0/40]\n"), "trustedProxies[1]"),
            (format!("{GOOD}colour: red\n"), "colour"),
        ] {
            let message = format!("{:#}", parse(&text).unwrap_err());
            assert!(message.contains(field), "{message}");
        }
    }
}
