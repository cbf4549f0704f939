//! The seams of replication: what it asks of other modules, and what it tells them.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use meshgate_core::snapshot::{HeadId, Key};
use meshgate_core::table::{Held, Place, Table};
use meshgate_wire::{LeaderVerifier, SignedHead, Snapshot};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::identity::{InstanceId, NodeName};

/// What this peer has applied. Published after the table was swapped.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The head, as the leader signed it.
    pub head: SignedHead,
    /// Every resource's bytes.
    pub snapshot: Snapshot,
    /// The table made from them.
    pub table: Arc<Table>,
    /// Resources whose previous version goes on serving, sorted by key.
    pub held: Arc<Vec<Held>>,
    /// When the table was swapped.
    pub applied_at: Instant,
    /// From the receipt of the head to the swap.
    pub took: Duration,
    /// Where it came from.
    pub origin: Origin,
}

impl Applied {
    /// The head's id.
    pub fn id(&self) -> HeadId {
        self.head.id()
    }
}

/// Where a head came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// This process's own reconciler.
    Own,
    /// The leader.
    Leader,
    /// Another peer.
    Peer,
    /// The state folder, at start.
    Disk,
}

/// A commit of this process's own reconciler that was not applied. Nothing of it is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCommit {
    /// Its head.
    pub head: HeadId,
    /// Why, for logs.
    pub reason: String,
}

/// What gossip tells about where configuration can be had. Made by `app` from `cluster`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// Who leads, if known.
    pub leader: Option<NodeName>,
    /// The live peers, without this one.
    pub peers: Vec<PeerInfo>,
}

/// A peer that can be asked for configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its node.
    pub node: NodeName,
    /// Where its Mesh service listens.
    pub address: SocketAddr,
    /// The head that it says it has applied: a hint.
    pub head: HeadId,
}

/// What the edge serves: comes from `edge` through `app`. A peer without an edge uses
/// [`LiveReport::always`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveReport {
    /// The newest head whose listeners are bound and served.
    pub head: HeadId,
    /// Listeners that are wanted and not bound.
    pub bind_errors: Vec<BindError>,
    /// What is in the table and can't be served in full: the previous version goes on.
    pub held: Vec<Held>,
}

impl LiveReport {
    /// The report of a peer that has nothing to bind: every head is live as soon as it is applied.
    pub fn always() -> Self {
        let head = HeadId { epoch: u64::MAX, rev: u64::MAX };
        LiveReport { head, bind_errors: Vec::new(), held: Vec::new() }
    }
}

/// A listener that is not served, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindError {
    /// The Gateway.
    pub gateway: Key,
    /// The listener's name; empty for all on the address.
    pub listener: String,
    /// The address, as far as known.
    pub address: String,
    /// Why.
    pub message: String,
}

/// A byte stream to or from a peer: already authenticated.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A boxed [`Io`].
pub type BoxedIo = Box<dyn Io>;

/// Opens authenticated streams to the Mesh service of peers.
pub trait Dialer: Send + Sync + 'static {
    /// Connects to `addr` and checks that `node` is there.
    fn dial(&self, node: &NodeName, addr: SocketAddr) -> BoxFuture<'static, io::Result<BoxedIo>>;
}

/// Gets private keys of listeners before a table that needs them is swapped in.
#[async_trait]
pub trait KeyEnsurer: Send + Sync + 'static {
    /// Makes the keys with these hashes present, if it can; `source` sent the head that needs
    /// them. Returns the hashes that are still missing. The caller stops waiting after a while.
    async fn ensure(&self, key_hashes: &[[u8; 32]], source: Option<&NodeName>) -> Vec<[u8; 32]>;
}

/// Has private keys of listeners, for peers that ask.
pub trait KeyLookup: Send + Sync + 'static {
    /// The PKCS#8 DER of a key, if it is here and `peer` may have it.
    fn lookup(&self, peer: &NodeName, key_hash: &[u8; 32]) -> Option<Bytes>;
}

/// Why a forwarded call fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The callee has no such method: it is older or newer.
    #[error("the peer has no method {0}")]
    UnknownMethod(String),
    /// The callee can't answer it (it does not lead): ask who does, then retry.
    #[error("the peer cannot answer: {0}")]
    Unavailable(String),
    /// The caller's message is wrong: a retry does not help.
    #[error("the call is wrong: {0}")]
    Invalid(String),
    /// No answer came in time; a retry is safe, every method is read-only.
    #[error("no answer in time")]
    Timeout,
}

/// Answers admin calls that other peers forward. The body is `admin`'s own message.
pub trait ForwardHandler: Send + Sync + 'static {
    /// Answers one call.
    fn forward(&self, peer: &NodeName, method: &str, body: Bytes) -> BoxFuture<'static, Result<Bytes, ForwardError>>;
}

/// What replication is made of.
pub struct ReplicaConfig {
    /// This peer's node.
    pub node: NodeName,
    /// Where this peer is.
    pub place: Place,
    /// This process.
    pub instance: InstanceId,
    /// The mesh; heads of others are refused.
    pub mesh_id: String,
    /// The folder of this peer's state, `state/<mesh_id>/<node>`; made if absent.
    pub state_dir: PathBuf,
    /// Whom to believe.
    pub verifier: Arc<dyn LeaderVerifier>,
    /// Gets keys for listeners.
    pub key_ensurer: Arc<dyn KeyEnsurer>,
    /// Has keys for peers.
    pub key_lookup: Arc<dyn KeyLookup>,
    /// Answers forwarded admin calls.
    pub forward: Arc<dyn ForwardHandler>,
    /// Reaches peers.
    pub dialer: Arc<dyn Dialer>,
    /// Where configuration can be had.
    pub view: watch::Receiver<Arc<PeerView>>,
    /// What the edge serves.
    pub live: watch::Receiver<LiveReport>,
}
