//! What leads from one head to the next, as a value and as a message.

use std::collections::BTreeMap;

use bytes::Bytes;
use meshgate_core::snapshot::{HeadId, Key, Kind};
use meshgate_proto::replication::Delta;
use meshgate_proto::snapshot as pb;

use crate::head::{SignedHead, VerifyError};
use crate::leaf::{LeafChange, LeafError};

/// A signed head and the changes that lead to it from `base`. The leader's reconciler makes
/// them; replication carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The head after the changes.
    pub head: SignedHead,
    /// The head that the changes start from; zero is the empty snapshot.
    pub base: HeadId,
    /// The changes.
    pub changes: Vec<LeafChange>,
}

/// Why a message is no commit. The sender's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A part is missing or out of range.
    #[error("the delta is malformed: {0}")]
    Malformed(&'static str),
    /// Its head can't be used.
    #[error(transparent)]
    Head(#[from] VerifyError),
    /// A leaf is over a limit.
    #[error(transparent)]
    Leaf(#[from] LeafError),
}

impl Commit {
    /// This commit and the one that follows it as one.
    #[must_use]
    pub fn merge(self, next: Commit) -> Commit {
        let mut changes: BTreeMap<Key, Option<Bytes>> = BTreeMap::new();
        for change in self.changes.into_iter().chain(next.changes) {
            changes.insert(change.key, change.value);
        }
        let changes = changes.into_iter().map(|(key, value)| LeafChange { key, value }).collect();
        Commit { head: next.head, base: self.base, changes }
    }

    /// Bytes of its changes, for budgets.
    pub fn bytes(&self) -> usize {
        self.changes.iter().map(LeafChange::bytes).sum()
    }

    /// As a message.
    pub fn to_proto(&self) -> Delta {
        Delta {
            head: Some(self.head.to_proto()),
            base: Some(head_id_to_proto(self.base)),
            leaves: self.changes.iter().map(LeafChange::to_proto).collect(),
        }
    }

    /// From a message.
    ///
    /// # Errors
    /// It is malformed or over a limit. The signature is not checked here.
    pub fn from_proto(message: Delta) -> Result<Commit, CommitError> {
        let head = message.head.ok_or(CommitError::Malformed("no head"))?;
        Ok(Commit {
            head: SignedHead::from_proto(head)?,
            base: head_id_from_proto(message.base),
            changes: message.leaves.into_iter().map(LeafChange::from_proto).collect::<Result<_, _>>()?,
        })
    }
}

impl LeafChange {
    /// As a message.
    pub fn to_proto(&self) -> pb::Leaf {
        pb::Leaf {
            key: Some(key_to_proto(&self.key)),
            value: self.value.clone().unwrap_or_default(),
            deleted: self.value.is_none(),
        }
    }

    /// From a message.
    ///
    /// # Errors
    /// It is malformed or over a limit.
    pub fn from_proto(message: pb::Leaf) -> Result<LeafChange, CommitError> {
        let key = key_from_proto(message.key.ok_or(CommitError::Malformed("a leaf has no key"))?)
            .ok_or(CommitError::Malformed("a kind is out of range"))?;
        let change = LeafChange { key, value: (!message.deleted).then_some(message.value) };
        change.check()?;
        Ok(change)
    }
}

/// A key as a message.
pub fn key_to_proto(key: &Key) -> pb::Key {
    pb::Key { kind: u32::from(key.kind.code()), namespace: key.namespace.to_string(), name: key.name.to_string() }
}

/// A key from a message; `None` when the kind is out of range.
pub fn key_from_proto(message: pb::Key) -> Option<Key> {
    let code = u16::try_from(message.kind).ok()?;
    Some(Key { kind: Kind::from_code(code), namespace: message.namespace.into(), name: message.name.into() })
}

/// A head's id as a message.
pub fn head_id_to_proto(id: HeadId) -> pb::HeadId {
    pb::HeadId { epoch: id.epoch, rev: id.rev }
}

/// A head's id from a message; absent is zero.
pub fn head_id_from_proto(message: Option<pb::HeadId>) -> HeadId {
    message.map_or_else(HeadId::default, |id| HeadId { epoch: id.epoch, rev: id.rev })
}
