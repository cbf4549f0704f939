//! The log of a generation: every applied delta after the base, each framed by length and digest.
//! A torn tail is what a crash leaves; it is ignored.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use meshgate_core::snapshot::HeadId;
use meshgate_proto::replication::Delta;
use meshgate_wire::Commit;
use prost::Message;

use super::base::log_path;

const LENGTH_BYTES: usize = 4;
const DIGEST_BYTES: usize = 16;
const FRAME_HEADER: usize = LENGTH_BYTES + DIGEST_BYTES;

/// The largest delta that is worth a frame; a larger one makes a new base.
pub(super) const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// The longest log that is read; far above what [`super::writer`] lets one grow to.
const MAX_LOG_BYTES: u64 = 1024 * 1024 * 1024;

/// A frame of a commit; `None` when it is too large for one.
pub(super) fn frame(commit: &Commit) -> Option<Vec<u8>> {
    let delta = commit.to_proto();
    let length = delta.encoded_len();
    if length > MAX_FRAME_BYTES {
        return None;
    }
    let payload = delta.encode_to_vec();
    let mut frame = Vec::with_capacity(FRAME_HEADER + length);
    frame.extend_from_slice(&(length as u32).to_be_bytes());
    frame.extend(blake3::hash(&payload).as_bytes().iter().take(DIGEST_BYTES));
    frame.extend_from_slice(&payload);
    Some(frame)
}

/// A commit of a log, and where its frame ends.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) commit: Commit,
    pub(super) end: u64,
}

/// The commits of a generation's log that follow one another from `base` on, up to the first
/// frame that is torn, damaged or out of line.
pub(super) fn read(dir: &Path, generation: u64, base: HeadId) -> io::Result<Vec<Entry>> {
    let file = match File::open(log_path(dir, generation)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(MAX_LOG_BYTES).read_to_end(&mut content)?;
    let mut rest = Bytes::from(content);
    let mut entries = Vec::new();
    let (mut at, mut end) = (base, 0);
    while let Some((commit, length)) = next(&mut rest) {
        if commit.base != at {
            break;
        }
        at = commit.head.id();
        end += length;
        entries.push(Entry { commit, end });
    }
    Ok(entries)
}

/// The next commit, and the bytes of its frame.
fn next(rest: &mut Bytes) -> Option<(Commit, u64)> {
    let (length, _) = rest.split_first_chunk::<LENGTH_BYTES>()?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > MAX_FRAME_BYTES || rest.len() < FRAME_HEADER + length {
        return None;
    }
    let frame = rest.split_to(FRAME_HEADER + length);
    let payload = frame.slice(FRAME_HEADER..);
    let digest = frame.slice(LENGTH_BYTES..FRAME_HEADER);
    if !blake3::hash(&payload).as_bytes().starts_with(&digest) {
        return None;
    }
    let commit = Commit::from_proto(Delta::decode(payload).ok()?).ok()?;
    Some((commit, frame.len() as u64))
}
