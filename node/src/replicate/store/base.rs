//! A base file: a whole state. Magic, length, digest, then zstd over the signed head and all
//! leaves.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use meshgate_proto::snapshot as pb;
use meshgate_wire::{MAX_SNAPSHOT_BYTES, SignedHead, Snapshot, read_leaves, write_leaves};
use prost::Message;

use super::small::sync_dir;

/// Format and version.
const MAGIC: &[u8; 8] = b"MGBASE\x001";
const DIGEST_BYTES: usize = 32;
const HEADER_BYTES: usize = 8 + 8 + DIGEST_BYTES;
/// Fast, and most of what better levels give.
const ZSTD_LEVEL: i32 = 1;
/// The largest encoded signed head.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Generations that are kept.
pub(super) const GENERATIONS: usize = 3;

/// The base file of a generation.
pub(super) fn base_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("base-{generation:020}"))
}

/// The log file of a generation.
pub(super) fn log_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("log-{generation:020}"))
}

/// The generations in a folder, newest first.
pub(super) fn generations(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("base-")).and_then(|number| number.parse().ok());
        numbers.extend::<Option<u64>>(number);
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

/// Writes a base file: on disk when this returns. Returns its size.
pub(super) fn write(dir: &Path, generation: u64, head: &SignedHead, snapshot: &Snapshot) -> io::Result<u64> {
    let mut body = zstd::stream::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    let message = head.to_proto().encode_to_vec();
    body.write_all(&(message.len() as u32).to_be_bytes())?;
    body.write_all(&message)?;
    write_leaves(snapshot, &mut body)?;
    let body = body.finish()?;

    let path = base_path(dir, generation);
    let temporary = dir.join("base.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(MAGIC)?;
    file.write_all(&(body.len() as u64).to_be_bytes())?;
    file.write_all(blake3::hash(&body).as_bytes())?;
    file.write_all(&body)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    sync_dir(dir)?;
    Ok((HEADER_BYTES + body.len()) as u64)
}

/// Reads a base file and checks its digest; signature and roots are the caller's to check.
pub(super) fn read(dir: &Path, generation: u64) -> io::Result<(SignedHead, Snapshot, u64)> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut file = File::open(base_path(dir, generation))?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header)?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let (length, digest) = rest.split_at(8);
    if magic != MAGIC {
        return Err(invalid("it is of another version".to_owned()));
    }
    let length = u64::from_be_bytes(length.try_into().unwrap_or_default());
    if length > 2 * MAX_SNAPSHOT_BYTES as u64 {
        return Err(invalid("it is too large".to_owned()));
    }
    let mut body = Vec::new();
    file.take(length).read_to_end(&mut body)?;
    if blake3::hash(&body).as_bytes() != digest {
        return Err(invalid("its digest does not match".to_owned()));
    }
    let mut reader = BufReader::new(zstd::stream::Decoder::new(body.as_slice())?);
    let head = read_head(&mut reader)?;
    let leaves = read_leaves(&mut reader).map_err(|error| invalid(error.to_string()))?;
    Ok((head, Snapshot::from_changes(&leaves), HEADER_BYTES as u64 + length))
}

fn read_head(reader: &mut dyn Read) -> io::Result<SignedHead> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_HEAD_BYTES {
        return Err(invalid("its head is too large".to_owned()));
    }
    let mut message = vec![0; length];
    reader.read_exact(&mut message)?;
    let message = pb::SignedHead::decode(Bytes::from(message)).map_err(|error| invalid(error.to_string()))?;
    SignedHead::from_proto(message).map_err(|error| invalid(error.to_string()))
}

/// Removes what is older than the generations that are kept.
pub(super) fn prune(dir: &Path) -> io::Result<()> {
    for generation in generations(dir)?.into_iter().skip(GENERATIONS) {
        fs::remove_file(base_path(dir, generation))?;
        match fs::remove_file(log_path(dir, generation)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
