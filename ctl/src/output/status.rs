//! What `status` and `version` print.

use meshgate_proto::admin as proto;
use serde::Serialize;

use super::{Head, some};

/// `status`: the answering peer in short.
#[derive(Debug, PartialEq, Serialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Its version.
    pub version: String,
    /// How long it runs.
    pub uptime_ms: u64,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Why not.
    pub not_ready_reason: Option<String>,
    /// What it serves.
    pub head: Option<Head>,
    /// The digest of that, in hex.
    pub root: Option<String>,
    /// Who leads, as far as it knows.
    pub leader: Option<String>,
    /// Whether it leads itself.
    pub is_leader: bool,
    /// Routes that it serves.
    pub routes: u32,
    /// Peers that it sees alive.
    pub peers_alive: u32,
    /// Findings that it knows of.
    pub findings: u32,
    /// Requests since its start.
    pub requests: Requests,
    /// Where it listens.
    pub bound: Vec<Bound>,
}

/// Requests since the peer's start.
#[derive(Debug, PartialEq, Serialize)]
pub struct Requests {
    /// All.
    pub total: u64,
    /// Answered by a pod of this node.
    pub local: u64,
    /// Sent to another node's pod.
    pub tunnel: u64,
    /// Not answered by any pod.
    pub failed: u64,
}

/// A listening socket.
#[derive(Debug, PartialEq, Serialize)]
pub struct Bound {
    /// The Gateway.
    pub gateway: String,
    /// The port, as configured.
    pub port: u32,
    /// `HTTP`, `HTTPS`, ...
    pub protocol: String,
    /// `ip:port` as bound.
    pub address: String,
    /// Why it isn't bound.
    pub error: Option<String>,
}

impl From<proto::GetStatusResponse> for Status {
    fn from(answer: proto::GetStatusResponse) -> Self {
        Self {
            node: answer.node,
            version: answer.version,
            uptime_ms: answer.uptime_ms,
            ready: answer.ready,
            not_ready_reason: some(answer.not_ready_reason),
            head: answer.head.map(Head::from),
            root: some(answer.root),
            leader: some(answer.leader),
            is_leader: answer.is_leader,
            routes: answer.routes,
            peers_alive: answer.peers_alive,
            findings: answer.findings,
            requests: Requests {
                total: answer.requests_total,
                local: answer.requests_local,
                tunnel: answer.requests_tunnel,
                failed: answer.requests_failed,
            },
            bound: answer.bound.into_iter().map(Bound::from).collect(),
        }
    }
}

impl From<proto::Bound> for Bound {
    fn from(bound: proto::Bound) -> Self {
        Self {
            gateway: bound.gateway,
            port: bound.port,
            protocol: bound.protocol,
            address: bound.address,
            error: some(bound.error),
        }
    }
}

/// `version`: of meshctl and of every peer.
#[derive(Debug, PartialEq, Serialize)]
pub struct Version {
    /// Of this meshctl.
    pub client: &'static str,
    /// `null` if no peer was asked or none answered.
    pub peers: Option<Vec<PeerVersion>>,
}

/// The version of one peer.
#[derive(Debug, PartialEq, Serialize)]
pub struct PeerVersion {
    /// The node's name.
    pub node: String,
    /// Its version.
    pub version: String,
}
