//! A whole snapshot as one stream of bytes: length-delimited leaves, sorted by key. On disk and
//! on the wire it is compressed, which is the caller's business.

use std::io::{self, Read, Write};

use bytes::Bytes;
use meshgate_proto::snapshot as pb;
use prost::Message;

use crate::commit::CommitError;
use crate::leaf::{Leaf, LeafChange};
use crate::snapshot::Snapshot;
use crate::{MAX_KEY_BYTES, MAX_LEAVES, MAX_SNAPSHOT_BYTES, MAX_VALUE_BYTES};
use meshgate_core::snapshot::Key;

/// The most that one leaf's message takes besides its key and value.
const LEAF_OVERHEAD: usize = 64;

/// Why a stream of leaves is refused. The sender's fault, or the disk's.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It can't be read, or ends in the middle of a leaf.
    #[error("the snapshot can't be read: {0}")]
    Io(#[from] io::Error),
    /// A leaf is no leaf.
    #[error(transparent)]
    Leaf(#[from] CommitError),
    /// It is over a limit.
    #[error("the snapshot is over a limit: {0}")]
    Limit(&'static str),
}

/// Writes every leaf of a snapshot.
///
/// # Errors
/// The writer's.
pub fn write_leaves(snapshot: &Snapshot, writer: &mut dyn Write) -> io::Result<()> {
    let mut leaves: Vec<(&Key, &Leaf)> = snapshot.iter().collect();
    leaves.sort_unstable_by(|a, b| a.0.cmp(b.0));
    let mut buffer = Vec::new();
    for (key, leaf) in leaves {
        buffer.clear();
        let change = LeafChange { key: key.clone(), value: Some(leaf.value.clone()) };
        let message = change.to_proto();
        buffer.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
        message.encode_raw(&mut buffer);
        writer.write_all(&buffer)?;
    }
    Ok(())
}

/// Reads leaves to the end of the stream, within the limits of a snapshot whatever it holds.
///
/// # Errors
/// It ends early, holds something else, or is over a limit.
pub fn read_leaves(reader: &mut dyn Read) -> Result<Vec<LeafChange>, StreamError> {
    let mut leaves = Vec::new();
    let mut total = 0;
    while let Some(length) = read_length(reader)? {
        if length > MAX_VALUE_BYTES + MAX_KEY_BYTES + LEAF_OVERHEAD {
            return Err(StreamError::Limit("a leaf is too large"));
        }
        let mut buffer = vec![0; length];
        reader.read_exact(&mut buffer)?;
        let message = pb::Leaf::decode(Bytes::from(buffer))
            .map_err(|_| StreamError::Leaf(CommitError::Malformed("a leaf does not decode")))?;
        let change = LeafChange::from_proto(message)?;
        total += change.bytes();
        if leaves.len() >= MAX_LEAVES {
            return Err(StreamError::Limit("too many leaves"));
        }
        if total > MAX_SNAPSHOT_BYTES {
            return Err(StreamError::Limit("too many bytes"));
        }
        leaves.push(change);
    }
    Ok(leaves)
}

/// The next leaf's length; `None` at a clean end.
fn read_length(reader: &mut dyn Read) -> io::Result<Option<usize>> {
    let mut length = [0; 4];
    let mut filled = 0;
    while filled < length.len() {
        match reader.read(length.get_mut(filled..).unwrap_or_default()) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(u32::from_be_bytes(length) as usize))
}
