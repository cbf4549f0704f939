//! One resource as bytes, and its digest.

use bytes::Bytes;
use meshgate_core::snapshot::{Digest, Key};

use crate::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// Domain of leaf hashes, so that none can be taken for a shard's or a root's.
const LEAF_DOMAIN: &str = "meshgate.dev 2026 snapshot leaf v1";

/// A resource as it is stored: its bytes, and the hash over key and bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The encoded resource, exactly as received.
    pub value: Bytes,
    /// [`leaf_hash`] of its key and value.
    pub hash: Digest,
}

impl Leaf {
    /// A leaf of a value under `key`.
    pub fn new(key: &Key, value: Bytes) -> Self {
        let hash = leaf_hash(key, &value);
        Leaf { value, hash }
    }
}

/// One change of a snapshot: a new value, or (`None`) the key is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafChange {
    /// Which.
    pub key: Key,
    /// The encoded resource.
    pub value: Option<Bytes>,
}

/// Why a leaf is refused whatever it says. The fault is the sender's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// The value is over [`MAX_VALUE_BYTES`].
    #[error("{key}: {bytes} bytes are over the limit of {MAX_VALUE_BYTES} for one resource")]
    ValueTooLarge {
        /// Whose value.
        key: Key,
        /// How large it is.
        bytes: usize,
    },
    /// Namespace and name are over [`MAX_KEY_BYTES`].
    #[error("a key of {0} bytes is over the limit of {MAX_KEY_BYTES}")]
    KeyTooLarge(usize),
}

impl LeafChange {
    /// Checks the limits of one leaf.
    ///
    /// # Errors
    /// Its key or value is too large.
    pub fn check(&self) -> Result<(), LeafError> {
        let key_bytes = key_bytes(&self.key);
        if key_bytes > MAX_KEY_BYTES {
            return Err(LeafError::KeyTooLarge(key_bytes));
        }
        match &self.value {
            Some(value) if value.len() > MAX_VALUE_BYTES => {
                Err(LeafError::ValueTooLarge { key: self.key.clone(), bytes: value.len() })
            }
            _ => Ok(()),
        }
    }

    /// Bytes of key and value, for budgets.
    pub fn bytes(&self) -> usize {
        key_bytes(&self.key) + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Bytes of a key that count.
pub(crate) fn key_bytes(key: &Key) -> usize {
    key.namespace.len() + key.name.len()
}

/// The hash of a resource: key and value, every part preceded by its length.
pub fn leaf_hash(key: &Key, value: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(LEAF_DOMAIN);
    hash_key(&mut hasher, key);
    update_prefixed(&mut hasher, value);
    Digest(*hasher.finalize().as_bytes())
}

/// Feeds a key to a hasher without ambiguity.
pub(crate) fn hash_key(hasher: &mut blake3::Hasher, key: &Key) {
    hasher.update(&key.kind.code().to_be_bytes());
    update_prefixed(hasher, key.namespace.as_bytes());
    update_prefixed(hasher, key.name.as_bytes());
}

fn update_prefixed(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_be_bytes());
    hasher.update(part);
}

#[cfg(test)]
mod tests {
    use meshgate_core::snapshot::Kind;

    use super::*;

    #[test]
    fn hash_tells_parts_apart() {
        let hashes = [
            leaf_hash(&Key::new(Kind::Service, "ab", "c"), b"d"),
            leaf_hash(&Key::new(Kind::Service, "a", "bc"), b"d"),
            leaf_hash(&Key::new(Kind::Service, "a", "b"), b"cd"),
            leaf_hash(&Key::new(Kind::Gateway, "ab", "c"), b"d"),
        ];
        for (i, a) in hashes.iter().enumerate() {
            assert!(hashes.iter().skip(i + 1).all(|b| a != b));
        }
    }

    #[test]
    fn limits() {
        let key = Key::new(Kind::Service, "a", "b");
        let value = Bytes::from(vec![0; MAX_VALUE_BYTES]);
        assert!(LeafChange { key: key.clone(), value: Some(value) }.check().is_ok());
        let value = Bytes::from(vec![0; MAX_VALUE_BYTES + 1]);
        assert!(matches!(LeafChange { key, value: Some(value) }.check(), Err(LeafError::ValueTooLarge { .. })));
        let key = Key::new(Kind::Service, "a", &"b".repeat(MAX_KEY_BYTES));
        assert!(matches!(LeafChange { key, value: None }.check(), Err(LeafError::KeyTooLarge(_))));
    }
}
