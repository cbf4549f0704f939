//! meshgate-wire: snapshot resources to bytes and back, digests over them, and signed heads.
//!
//! Pure: no IO, no clock. The way of the data: [`encode`] makes a value of a resource, a
//! [`Snapshot`] holds values by key and knows both root digests, a [`SignedHead`] vouches for the
//! roots, and a [`Commit`] moves one snapshot to the next.
//!
//! Values are hashed, stored and relayed as the bytes that were received and never re-encoded,
//! because an older peer would drop fields that it does not know.

mod commit;
mod head;
mod leaf;
mod resource;
mod snapshot;
mod stream;

pub use commit::{Commit, CommitError, head_id_from_proto, head_id_to_proto, key_from_proto, key_to_proto};
pub use head::{
    Ed25519Signer, HeadSigner, LeaderKey, LeaderVerifier, SignError, SignedHead, VerifyError, decode_head, encode_head,
    sign, verify,
};
pub use leaf::{Leaf, LeafChange, LeafError, leaf_hash};
pub use resource::{DecodeError, decode, encode};
pub use snapshot::{LimitError, Snapshot};
pub use stream::{StreamError, read_leaves, write_leaves};

/// The largest value of one resource: 1.5 MiB, as etcd's limit for the object it is made from.
pub const MAX_VALUE_BYTES: usize = 3 * 512 * 1024;

/// The largest key: namespace and name together.
pub const MAX_KEY_BYTES: usize = 1024;

/// The most resources in one snapshot.
pub const MAX_LEAVES: usize = 200_000;

/// The most bytes (keys and values) in one snapshot.
pub const MAX_SNAPSHOT_BYTES: usize = 256 * 1024 * 1024;

#[cfg(test)]
mod examples;
#[cfg(test)]
mod tests;
