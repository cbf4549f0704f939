//! What a node says of itself, and how readers know that it was that node.

use std::net::SocketAddr;

use meshgate_core::snapshot::HeadId;
use serde::{Deserialize, Serialize};

use crate::identity::{InstanceId, NodeName};

/// Largest encoding of [`Facts`], before signature and certificate.
pub const MAX_FACTS: usize = 1024;

/// What one instance of a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The node.
    pub node: NodeName,
    /// Its process.
    pub instance: InstanceId,
    /// Where its tunnel listens.
    pub tunnel: SocketAddr,
    /// Where its replication listens.
    pub sync: SocketAddr,
    /// Where its admin API listens, for people.
    pub admin: String,
    /// What it does.
    pub roles: Roles,
    /// The head that it has applied.
    pub head: HeadId,
    /// Short digest of that head's roots.
    pub roots: String,
    /// Whom it believes to lead.
    pub leader: Option<LeaderClaim>,
    /// Serves traffic.
    pub ready: bool,
    /// Is about to end.
    pub draining: bool,
    /// Its version.
    pub version: String,
    /// When its certificate ends, in seconds since 1970.
    pub cert_not_after: u64,
}

/// What a node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Carries traffic.
    pub gateway: bool,
    /// May lead.
    pub reconciler: bool,
}

/// A leader, as one node sees it. Unsigned by the leader: a hint where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderClaim {
    /// Its epoch.
    pub epoch: u64,
    /// Its node.
    pub node: NodeName,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}
