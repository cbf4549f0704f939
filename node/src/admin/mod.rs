//! What operators look at: the admin API ([`service`]), metrics and health ([`http`]).
//!
//! Every answer comes from this peer's own memory, so that inspection works in an outage. What
//! only the leader knows ([`leader`]) is asked of it over the mesh's own replication service.

pub mod http;
pub mod leader;
mod peers;
mod routes;
pub mod service;

pub use peers::short_root;

use std::sync::Arc;
use std::time::Instant;

use meshgate_core::snapshot::HeadId;
use meshgate_proto::admin as pb;
use meshgate_wire::LeaderVerifier;
use tokio::sync::watch;

use crate::cluster::{LeaderClaim, Members};
use crate::identity::NodeName;
use crate::proxy::Totals;
use crate::reconcile::LeaderHandle;
use crate::replicate::{Applied, Caller, Followers};

/// Tells the truth about readiness.
pub trait Readiness: Send + Sync {
    /// Why the peer is not ready; `None` when it is.
    fn not_ready(&self) -> Option<String>;
}

/// What `app` knows and the admin API shows.
pub trait Surroundings: Send + Sync {
    /// Sockets of Gateways, bound or failed.
    fn bound(&self) -> Vec<pb::Bound>;
    /// The tunnel to a node, if there is one.
    fn tunnel(&self, node: &NodeName) -> Option<pb::Tunnel>;
    /// Requests since the start.
    fn totals(&self) -> Totals;
}

/// What the admin API answers from.
pub struct AdminContext {
    /// This node.
    pub node: NodeName,
    /// When the process started.
    pub started: Instant,
    /// What is applied here.
    pub applied: watch::Receiver<Option<Arc<Applied>>>,
    /// Who follows this peer (the mesh, when it leads).
    pub followers: Followers,
    /// Who is there, by gossip.
    pub members: watch::Receiver<Arc<Members>>,
    /// The way to this process's reconciler, if it has that role.
    pub leader: Option<LeaderHandle>,
    /// Calls the leader.
    pub caller: Caller,
    /// Whom to believe.
    pub verifier: Arc<dyn LeaderVerifier>,
    /// Readiness.
    pub readiness: Arc<dyn Readiness>,
    /// Everything else.
    pub surroundings: Arc<dyn Surroundings>,
}

impl AdminContext {
    /// Who leads, as far as is known here: this process by its own term, else what live peers say of
    /// themselves, the highest epoch first.
    fn leader_claim(&self) -> Option<LeaderClaim> {
        if let Some(term) = self.leader.as_ref().and_then(LeaderHandle::term) {
            return Some(LeaderClaim { epoch: term.epoch, node: self.node.clone(), since_ms: term.since_ms });
        }
        self.members.borrow().leader()
    }
}

/// A head's id as a message.
fn head_to_proto(id: HeadId) -> pb::HeadId {
    pb::HeadId { epoch: id.epoch, rev: id.rev }
}
