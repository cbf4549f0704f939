//! replicate: this peer's copy of the mesh's state. One task owns it ([`ReplicaTask`]); a client
//! keeps it current from the leader or any peer that is ahead; a server passes it on; a thread
//! keeps it on disk.
//!
//! Nothing of a head is in effect before all of it is verified: signature, order, digests,
//! limits. Then the table is made aside, swapped whole, stored, and announced.

mod acks;
mod apply;
mod client;
mod delta_log;
mod frames;
mod inbound;
mod metrics;
mod replica;
mod rpc;
mod server;
mod session;
mod start;
mod store;
mod transfer;
mod turns;
mod types;

pub use acks::{Ack, Follower, FollowerMap, Followers};
pub use client::ClientTask;
pub use rpc::Caller;
pub use server::ServerTask;
pub use start::{Handles, ReplicaTask, Tasks, start};
pub use types::{
    Applied, BindError, BoxedIo, Dialer, ForwardError, ForwardHandler, Io, KeyEnsurer, KeyLookup, LiveReport, Origin,
    PeerInfo, PeerView, RefusedCommit, ReplicaConfig,
};
