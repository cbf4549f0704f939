//! replicate: this peer's copy of the mesh's state. One task owns it ([`Tasks::replica`]); a
//! client keeps it current from the leader or any peer that is ahead; a server passes it on; a
//! thread keeps it on disk.
//!
//! Nothing of a head is in effect before all of it is verified: signature, order, digests,
//! limits. Then the table is made aside, swapped whole, stored, and announced.

mod acks;
mod types;

pub use acks::{Ack, Follower, FollowerMap, Followers};
pub use types::{
    Applied, BindError, BoxedIo, Dialer, ForwardError, ForwardHandler, Io, KeyEnsurer, KeyLookup, LiveReport, Origin,
    PeerInfo, PeerView, RefusedCommit, ReplicaConfig,
};

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::Stream;
use meshgate_core::table::Table;
use meshgate_wire::Commit;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

use crate::drain::Drain;
use crate::identity::NodeName;

/// What others read, and the one way in for the reconciler.
pub struct Handles {
    /// The table that answers requests, swapped whole.
    pub table: Arc<ArcSwap<Table>>,
    /// What is applied; `None` before the first head.
    pub applied: watch::Receiver<Option<Arc<Applied>>>,
    /// Commits of this process's reconciler, while it leads. `base` must be what is applied.
    pub commits: mpsc::Sender<Commit>,
    /// The last of those commits that was not applied.
    pub refused: watch::Receiver<Option<RefusedCommit>>,
    /// The highest epoch ever accepted (disk included): a new leader takes a higher one.
    pub fence: watch::Receiver<u64>,
    /// Who follows this peer, itself included, and how far.
    pub followers: Followers,
    /// The state can't be kept on disk (the reason); serving goes on.
    pub persist_failed: watch::Receiver<Option<String>>,
}

/// Futures for `app` to spawn. Each ends on [`crate::drain::Phase::Cut`].
pub struct Tasks {
    /// Owns the state.
    pub replica: ReplicaTask,
    /// Follows the leader or another peer.
    pub client: ClientTask,
    /// Serves followers.
    pub server: ServerTask,
}

/// Starts replication: reads the state folder (blocking, so call it before the runtime is busy)
/// and applies what it holds, so that a peer without anyone to ask serves at once.
pub fn start(config: ReplicaConfig, registry: &mut Registry) -> (Handles, Tasks) {
    let _ = (config, registry);
    unreachable!()
}

/// See [`Tasks::replica`].
pub struct ReplicaTask {}

impl ReplicaTask {
    /// Runs until the drain's cut; then what is not yet on disk is written.
    pub async fn run(self, drain: Drain) {
        drain.reached(crate::drain::Phase::Cut).await;
    }
}

/// See [`Tasks::client`].
pub struct ClientTask {}

impl ClientTask {
    /// Runs until the drain's cut.
    pub async fn run(self, drain: Drain) {
        drain.reached(crate::drain::Phase::Cut).await;
    }
}

/// See [`Tasks::server`].
pub struct ServerTask {}

impl ServerTask {
    /// Serves authenticated streams until the drain's cut.
    pub async fn run<S>(self, incoming: S, drain: Drain)
    where
        S: Stream<Item = (BoxedIo, NodeName)> + Send + Unpin + 'static,
    {
        let _ = incoming;
        drain.reached(crate::drain::Phase::Cut).await;
    }
}

/// Calls a peer's Mesh service once: keys and forwarded admin calls.
#[derive(Clone)]
pub struct Caller {
    dialer: Arc<dyn Dialer>,
}

impl Caller {
    /// A caller that dials by `dialer`.
    pub fn new(dialer: Arc<dyn Dialer>) -> Self {
        Caller { dialer }
    }

    /// Private keys (hash, PKCS#8 DER) of those asked for that the peer has.
    ///
    /// # Errors
    /// The peer can't be reached or does not answer; a retry is safe.
    pub async fn fetch_keys(
        &self,
        node: &NodeName,
        addr: SocketAddr,
        key_hashes: &[[u8; 32]],
    ) -> Result<Vec<([u8; 32], Bytes)>, ForwardError> {
        let _ = (&self.dialer, node, addr, key_hashes);
        Ok(Vec::new())
    }

    /// Hands an admin call to a peer and waits at most `timeout` for its answer.
    ///
    /// # Errors
    /// The peer's, or it can't be reached in time; a retry is safe.
    pub async fn forward(
        &self,
        node: &NodeName,
        addr: SocketAddr,
        method: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, ForwardError> {
        let _ = (&self.dialer, node, addr, method, body, timeout);
        Err(ForwardError::Timeout)
    }
}
