//! The documents that `-o json` and `-o yaml` print, one type a verb. This is a stable schema:
//! fields are added, never renamed, removed or given another meaning. All names are snake_case,
//! absent values are `null`, times are RFC 3339, durations carry their unit in the name.
//!
//! | verb | document |
//! |---|---|
//! | `routes` | [`Routes`] |
//! | `peers` | [`Peers`] |
//! | `verify` | [`Verification`] |
//! | `leader` | [`Leader`] |
//! | `wait` | [`Waited`] |
//! | `analyze` | [`Findings`] |
//! | `status` | [`Status`] |
//! | `version` | [`Version`] |

mod check;
mod status;

use std::fmt;

use jiff::Timestamp;
use meshgate_proto::admin as proto;
use serde::Serialize;

pub use check::{Finding, Findings, Leader, ObjectRef, PeerDigest, Verification, Waited};
pub use status::{Bound, PeerVersion, Status, Version};

/// Which state of the mesh: ordered by epoch, then by rev.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Moves with each change of the leader.
    pub epoch: u64,
    /// Moves with each change of the configuration.
    pub rev: u64,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.rev)
    }
}

impl From<proto::HeadId> for Head {
    fn from(head: proto::HeadId) -> Self {
        Self { epoch: head.epoch, rev: head.rev }
    }
}

/// `epoch/rev`, or nothing.
pub fn head_text(head: Option<Head>) -> String {
    head.map(|head| head.to_string()).unwrap_or_default()
}

/// A text, or `None` if it is empty.
fn some(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

/// `routes`: what the answering peer serves, in its order of precedence.
#[derive(Debug, PartialEq, Serialize)]
pub struct Routes {
    /// The state they come from.
    pub head: Option<Head>,
    /// Peers that serve this head.
    pub live: u32,
    /// Peers that should.
    pub expected: u32,
    /// One entry a host, match and listener.
    pub routes: Vec<Route>,
}

/// One match of one rule on one listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Route {
    /// `shop.example`, `*.shop.example`, `*`.
    pub host: String,
    /// `/cart/*`
    pub path: String,
    /// Method, headers and query, as one text; `null` if all match.
    pub matches: Option<String>,
    /// Kind of the user's object, as in its manifest.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which of its rules, from 0.
    pub rule: u32,
    /// That rule's name.
    pub rule_name: Option<String>,
    /// Backends with their shares, as one text.
    pub backends: Option<String>,
    /// Filters and policies, as one text.
    pub policies: Option<String>,
    /// The object's generation.
    pub generation: u64,
    /// The Gateway.
    pub gateway: ObjectName,
    /// Its listener.
    pub listener: String,
    /// The listener's port, as configured.
    pub port: u32,
    /// `HTTP`, `HTTPS`, ...
    pub protocol: String,
    /// Where the answering peer listens, `ip:port` as bound.
    pub addresses: Vec<String>,
}

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl From<proto::ListRoutesResponse> for Routes {
    fn from(answer: proto::ListRoutesResponse) -> Self {
        Self {
            head: answer.head.map(Head::from),
            live: answer.live,
            expected: answer.expected,
            routes: answer.routes.into_iter().map(Route::from).collect(),
        }
    }
}

impl From<proto::Route> for Route {
    fn from(route: proto::Route) -> Self {
        Self {
            host: if route.host.is_empty() { "*".to_owned() } else { route.host },
            path: route.path,
            matches: some(route.matches),
            kind: route.kind,
            namespace: route.namespace,
            name: route.name,
            rule: route.rule,
            rule_name: some(route.rule_name),
            backends: some(route.backends),
            policies: some(route.policies),
            generation: route.generation,
            gateway: ObjectName { namespace: route.gateway_namespace, name: route.gateway_name },
            listener: route.listener,
            port: route.port,
            protocol: route.protocol,
            addresses: route.addresses,
        }
    }
}

/// `peers`: the answering peer first.
#[derive(Debug, PartialEq, Serialize)]
pub struct Peers {
    /// All that it knows.
    pub peers: Vec<Peer>,
}

/// One peer, as the answering peer sees it.
#[derive(Debug, PartialEq, Serialize)]
pub struct Peer {
    /// The node's name.
    pub node: String,
    /// This process of it.
    pub instance: String,
    /// Whether it is the answering peer.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Whether it takes traffic.
    pub ready: bool,
    /// `serving`, `draining`, `unreachable`, `starting`
    pub state: String,
    /// Its version.
    pub version: String,
    /// What it serves.
    pub head: Option<Head>,
    /// Digest of what it serves, in hex.
    pub root: Option<String>,
    /// Revisions behind the newest head that the answering peer knows.
    pub lag: u64,
    /// Whether it leads.
    pub leader: bool,
    /// `gateway`, `reconciler`
    pub roles: Vec<String>,
    /// How it is reached; `null` for the answering peer.
    pub tunnel: Option<Tunnel>,
    /// When its certificate expires.
    pub certificate_not_after: Option<Timestamp>,
    /// Its address.
    pub address: String,
}

/// The way from the answering peer to another.
#[derive(Debug, PartialEq, Serialize)]
pub struct Tunnel {
    /// `quic`, `tcp` (the fallback), `none`
    pub transport: String,
    /// Round trip.
    pub rtt_ms: f64,
    /// Lost packets.
    pub loss_percent: f64,
    /// Largest packet; 0 if unknown.
    pub mtu: u32,
    /// Connections of this transport.
    pub connections: u32,
    /// Whether segmentation is offloaded.
    pub gso: bool,
}

impl From<proto::ListPeersResponse> for Peers {
    fn from(answer: proto::ListPeersResponse) -> Self {
        Self { peers: answer.peers.into_iter().map(Peer::from).collect() }
    }
}

impl From<proto::Peer> for Peer {
    fn from(peer: proto::Peer) -> Self {
        let certificate_not_after = match peer.certificate_not_after {
            0 => None,
            seconds => Timestamp::from_second(seconds).ok(),
        };
        Self {
            is_self: peer.self_,
            tunnel: if peer.self_ { None } else { peer.tunnel.map(Tunnel::from) },
            node: peer.node,
            instance: peer.instance,
            ready: peer.ready,
            state: peer.state,
            version: peer.version,
            head: peer.head.map(Head::from),
            root: some(peer.root),
            lag: peer.lag,
            leader: peer.leader,
            roles: peer.roles,
            certificate_not_after,
            address: peer.address,
        }
    }
}

impl From<proto::Tunnel> for Tunnel {
    fn from(tunnel: proto::Tunnel) -> Self {
        Self {
            transport: if tunnel.transport.is_empty() { "none".to_owned() } else { tunnel.transport },
            rtt_ms: tunnel.rtt_ms,
            loss_percent: tunnel.loss_percent,
            mtu: tunnel.mtu,
            connections: tunnel.connections,
            gso: tunnel.gso,
        }
    }
}
