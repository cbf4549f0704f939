//! The whole replicated state as bytes: two trees of 256 shards, persistent, so that a clone is
//! cheap and a change copies and hashes only the shards that it touches.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use meshgate_core::snapshot::{Digest, Key, Root};

use crate::leaf::{Leaf, LeafChange, hash_key, key_bytes};
use crate::{MAX_LEAVES, MAX_SNAPSHOT_BYTES};

/// Shards a root.
const SHARDS: usize = 256;

/// Domain of the hash that assigns keys to shards.
const PLACE_DOMAIN: &str = "meshgate.dev 2026 snapshot place v1";
/// Domain of shard digests.
const SHARD_DOMAIN: &str = "meshgate.dev 2026 snapshot shard v1";
/// Domain of root digests.
const ROOT_DOMAIN: &str = "meshgate.dev 2026 snapshot root v1";

/// A snapshot is over a limit. The leader's fault; what is held stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Too many resources.
    #[error("{0} resources are over the limit of {MAX_LEAVES}")]
    Leaves(usize),
    /// Too many bytes.
    #[error("{0} bytes are over the limit of {MAX_SNAPSHOT_BYTES}")]
    Bytes(usize),
}

/// All resources by key, as bytes, with both root digests. Cloning costs two reference counts.
#[derive(Clone, Debug)]
pub struct Snapshot {
    routes: Tree,
    endpoints: Tree,
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot { routes: Tree::empty(Root::Routes), endpoints: Tree::empty(Root::Endpoints) }
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.roots() == other.roots()
    }
}

impl Snapshot {
    /// The digests of both roots: routes, endpoints.
    pub fn roots(&self) -> (Digest, Digest) {
        (self.routes.digest, self.endpoints.digest)
    }

    /// The next snapshot. Of several changes of one key the last wins.
    #[must_use]
    pub fn apply(&self, changes: &[LeafChange]) -> Snapshot {
        let mut next = self.clone();
        next.routes.apply(changes, Root::Routes);
        next.endpoints.apply(changes, Root::Endpoints);
        next
    }

    /// A snapshot from nothing.
    pub fn from_changes(changes: &[LeafChange]) -> Snapshot {
        Snapshot::default().apply(changes)
    }

    /// What leads from `self` to `next`, sorted by key.
    pub fn diff(&self, next: &Snapshot) -> Vec<LeafChange> {
        let mut changes = Vec::new();
        self.routes.diff(&next.routes, &mut changes);
        self.endpoints.diff(&next.endpoints, &mut changes);
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes
    }

    /// A resource's leaf.
    pub fn get(&self, key: &Key) -> Option<&Leaf> {
        self.tree(key.kind.root()).shards.get(place(key))?.leaves.get(key)
    }

    /// Every resource. The order is the same for equal snapshots, and otherwise means nothing.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Leaf)> {
        [&self.routes, &self.endpoints]
            .into_iter()
            .flat_map(|tree| tree.shards.iter())
            .flat_map(|shard| shard.leaves.iter())
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.routes.len + self.endpoints.len
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.routes.bytes + self.endpoints.bytes
    }

    /// Checks the limits of a whole snapshot.
    ///
    /// # Errors
    /// It holds too many resources or bytes.
    pub fn check_limits(&self) -> Result<(), LimitError> {
        if self.len() > MAX_LEAVES {
            return Err(LimitError::Leaves(self.len()));
        }
        if self.bytes() > MAX_SNAPSHOT_BYTES {
            return Err(LimitError::Bytes(self.bytes()));
        }
        Ok(())
    }

    fn tree(&self, root: Root) -> &Tree {
        match root {
            Root::Routes => &self.routes,
            Root::Endpoints => &self.endpoints,
        }
    }
}

/// The shard of a key.
fn place(key: &Key) -> usize {
    let mut hasher = blake3::Hasher::new_derive_key(PLACE_DOMAIN);
    hash_key(&mut hasher, key);
    usize::from(hasher.finalize().as_bytes()[0])
}

#[derive(Clone, Debug)]
struct Tree {
    shards: Arc<Vec<Arc<Shard>>>,
    digest: Digest,
    len: usize,
    bytes: usize,
}

impl Tree {
    fn empty(root: Root) -> Tree {
        static EMPTY: LazyLock<[Tree; 2]> = LazyLock::new(|| {
            let empty = Arc::new(Shard::from_leaves(BTreeMap::new()));
            let shards = Arc::new(vec![empty; SHARDS]);
            [Root::Routes, Root::Endpoints].map(|root| {
                let digest = root_digest(root, &shards);
                Tree { shards: Arc::clone(&shards), digest, len: 0, bytes: 0 }
            })
        });
        match root {
            Root::Routes => EMPTY[0].clone(),
            Root::Endpoints => EMPTY[1].clone(),
        }
    }

    fn apply(&mut self, changes: &[LeafChange], root: Root) {
        let mut touched: BTreeMap<usize, Vec<&LeafChange>> = BTreeMap::new();
        for change in changes.iter().filter(|change| change.key.kind.root() == root) {
            touched.entry(place(&change.key)).or_default().push(change);
        }
        if touched.is_empty() {
            return;
        }
        let shards = Arc::make_mut(&mut self.shards);
        for (index, changes) in touched {
            let Some(shard) = shards.get_mut(index) else { continue };
            let next = shard.apply(&changes);
            self.len = self.len + next.leaves.len() - shard.leaves.len();
            self.bytes = self.bytes + next.bytes - shard.bytes;
            *shard = Arc::new(next);
        }
        self.digest = root_digest(root, shards);
    }

    fn diff(&self, next: &Tree, changes: &mut Vec<LeafChange>) {
        if self.digest == next.digest {
            return;
        }
        for (old, new) in self.shards.iter().zip(next.shards.iter()) {
            if old.digest != new.digest {
                old.diff(new, changes);
            }
        }
    }
}

fn root_digest(root: Root, shards: &[Arc<Shard>]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(ROOT_DOMAIN);
    hasher.update(match root {
        Root::Routes => &[1],
        Root::Endpoints => &[2],
    });
    for shard in shards {
        hasher.update(&shard.digest.0);
    }
    Digest(*hasher.finalize().as_bytes())
}

#[derive(Debug)]
struct Shard {
    leaves: BTreeMap<Key, Leaf>,
    digest: Digest,
    bytes: usize,
}

impl Shard {
    /// The digest covers the leaf hashes in their own order: the order of keys may differ between
    /// versions that know different kinds.
    fn from_leaves(leaves: BTreeMap<Key, Leaf>) -> Shard {
        let mut hashes: Vec<Digest> = leaves.values().map(|leaf| leaf.hash).collect();
        hashes.sort_unstable();
        let mut hasher = blake3::Hasher::new_derive_key(SHARD_DOMAIN);
        for hash in &hashes {
            hasher.update(&hash.0);
        }
        let bytes = leaves.iter().map(|(key, leaf)| leaf_bytes(key, &leaf.value)).sum();
        Shard { leaves, digest: Digest(*hasher.finalize().as_bytes()), bytes }
    }

    fn apply(&self, changes: &[&LeafChange]) -> Shard {
        let mut leaves = self.leaves.clone();
        for change in changes {
            match &change.value {
                Some(value) => {
                    leaves.insert(change.key.clone(), Leaf::new(&change.key, value.clone()));
                }
                None => {
                    leaves.remove(&change.key);
                }
            }
        }
        Shard::from_leaves(leaves)
    }

    fn diff(&self, next: &Shard, changes: &mut Vec<LeafChange>) {
        for key in self.leaves.keys().filter(|key| !next.leaves.contains_key(*key)) {
            changes.push(LeafChange { key: key.clone(), value: None });
        }
        for (key, leaf) in &next.leaves {
            if self.leaves.get(key).is_none_or(|old| old.hash != leaf.hash) {
                changes.push(LeafChange { key: key.clone(), value: Some(leaf.value.clone()) });
            }
        }
    }
}

fn leaf_bytes(key: &Key, value: &Bytes) -> usize {
    key_bytes(key) + value.len()
}

#[cfg(test)]
mod tests;
