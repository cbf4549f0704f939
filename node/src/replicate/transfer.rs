//! Full snapshots in transit: compressed once, cut into chunks, put together again within bounds.

use std::io::{self, BufReader};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use meshgate_wire::{MAX_SNAPSHOT_BYTES, SignedHead, Snapshot, StreamError, read_leaves, write_leaves};

/// The largest chunk.
const CHUNK_BYTES: usize = 256 * 1024;
/// Fast, and most of what better levels give.
const ZSTD_LEVEL: i32 = 1;
/// The largest window that a sender may ask for (8 MiB), so that it can't make us reserve more.
const WINDOW_LOG_MAX: u32 = 23;

/// How long a transfer may take, besides what its size needs.
const TRANSFER_BASE: Duration = Duration::from_secs(10);
/// The slowest pace that is put up with, in bytes a second.
const TRANSFER_PACE: u64 = 4 * 1024 * 1024;

/// How long the transfer of a compressed snapshot may take in all.
pub(super) fn longest(bytes: u64) -> Duration {
    TRANSFER_BASE + Duration::from_secs(bytes.min(MAX_SNAPSHOT_BYTES as u64) / TRANSFER_PACE)
}

/// Compresses a snapshot. Takes long: call it aside.
pub(super) fn compress(snapshot: &Snapshot) -> io::Result<Vec<Bytes>> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    write_leaves(snapshot, &mut encoder)?;
    let mut body = Bytes::from(encoder.finish()?);
    let mut chunks = Vec::with_capacity(body.len() / CHUNK_BYTES + 1);
    while !body.is_empty() {
        chunks.push(body.split_to(body.len().min(CHUNK_BYTES)));
    }
    Ok(chunks)
}

/// A full snapshot that is coming in.
#[derive(Debug)]
pub(super) struct Assembly {
    head: SignedHead,
    expected: usize,
    body: BytesMut,
}

impl Assembly {
    /// Starts one; `None` when it is announced as too large.
    pub(super) fn start(head: SignedHead, bytes: u64) -> Option<Assembly> {
        let expected = usize::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_SNAPSHOT_BYTES)?;
        Some(Assembly { head, expected, body: BytesMut::new() })
    }

    /// Adds a chunk; false when it is more than was announced.
    #[must_use]
    pub(super) fn add(&mut self, data: &[u8]) -> bool {
        if data.len() > CHUNK_BYTES || self.body.len() + data.len() > self.expected {
            return false;
        }
        self.body.extend_from_slice(data);
        true
    }

    /// Decompresses it and computes its digests. Takes long: call it aside.
    pub(super) fn finish(self) -> Result<(SignedHead, Snapshot), StreamError> {
        let mut decoder = zstd::stream::Decoder::with_buffer(&self.body[..])?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        let leaves = read_leaves(&mut BufReader::new(decoder))?;
        Ok((self.head, Snapshot::from_changes(&leaves)))
    }
}
