//! Small files that are replaced whole: the fence, the marker, the quarantine. Each ends with a
//! digest of what precedes it, so that half a file is no file.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Bytes;
use meshgate_core::replica::{Death, Suspects};
use meshgate_core::snapshot::Digest;
use meshgate_proto::snapshot as pb;
use meshgate_wire::{key_from_proto, key_to_proto};
use prost::Message;

use super::Pair;

/// The highest epoch ever accepted.
const FENCE: &str = "fence";
/// What is being applied; there only while it is.
const MARKER: &str = "applying";
/// What a process died of, until something is applied.
const SUSPECTS: &str = "suspects";
/// What is held back because it killed the process twice.
const QUARANTINE: &str = "quarantine";

/// Resources that are quarantined at most.
const MAX_QUARANTINED: usize = 16 * 1024;

/// The largest of these files.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

const DIGEST_BYTES: usize = 32;

/// Reads the fence; 0 when there is none, or none that can be believed.
pub(super) fn read_fence(dir: &Path) -> u64 {
    match read(&dir.join(FENCE)) {
        Ok(Some(body)) => body.as_slice().try_into().map_or(0, u64::from_be_bytes),
        Ok(None) => 0,
        Err(error) => {
            tracing::error!(%error, "the fence can't be read: only the stored head keeps older leaders out");
            0
        }
    }
}

/// Writes the fence: on disk when this returns.
pub(super) fn write_fence(dir: &Path, epoch: u64) -> io::Result<()> {
    replace(dir, FENCE, &epoch.to_be_bytes(), true)
}

/// Writes the marker. It is meant to survive the process, not the machine: no fsync.
pub(super) fn write_marker(dir: &Path, marker: &Suspects) -> io::Result<()> {
    let mut body = marker.deaths.to_be_bytes().to_vec();
    encode_pairs(&marker.pairs, &mut body);
    replace(dir, MARKER, &body, false)
}

/// Removes the marker, and what was suspected before: it went well.
pub(super) fn remove_marker(dir: &Path) -> io::Result<()> {
    for name in [MARKER, SUSPECTS] {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The death is counted once: the marker becomes what is suspected, which no other death adds to
/// unless it comes while some of it is applied again.
fn suspect(dir: &Path) -> io::Result<()> {
    fs::rename(dir.join(MARKER), dir.join(SUSPECTS))
}

/// At start: a marker means that the last process died while applying. Returns who is suspected
/// now, and what is quarantined.
pub(super) fn count_deaths(dir: &Path) -> (Suspects, BTreeSet<Pair>) {
    let mut quarantine = read_quarantine(dir);
    let Some(marker) = read_marker(dir, MARKER) else {
        return (read_marker(dir, SUSPECTS).unwrap_or_default(), quarantine);
    };
    match marker.died() {
        Death::Suspect(suspects) => {
            tracing::warn!(resources = suspects.pairs.len(), "the last process died while applying a change");
            if let Err(error) = write_marker(dir, &suspects).and_then(|()| suspect(dir)) {
                tracing::warn!(%error, "the marker can't be written");
            }
            (suspects, quarantine)
        }
        Death::Quarantine(pairs) => {
            tracing::error!(resources = pairs.len(), "two processes died while applying these: they are held back");
            quarantine.extend(pairs);
            let written = write_quarantine(dir, &quarantine).and_then(|()| remove_marker(dir));
            if let Err(error) = written {
                tracing::warn!(%error, "the quarantine can't be written");
            }
            (Suspects::default(), quarantine)
        }
    }
}

fn read_marker(dir: &Path, name: &str) -> Option<Suspects> {
    let body = read(&dir.join(name)).ok().flatten()?;
    let (deaths, pairs) = body.split_first_chunk::<4>()?;
    Some(Suspects { deaths: u32::from_be_bytes(*deaths), pairs: decode_pairs(pairs)? })
}

/// The quarantine. It is by content: a resource that changes leaves it by itself.
fn read_quarantine(dir: &Path) -> BTreeSet<Pair> {
    let body = read(&dir.join(QUARANTINE)).ok().flatten();
    body.and_then(|body| decode_pairs(&body)).map(BTreeSet::from_iter).unwrap_or_default()
}

fn write_quarantine(dir: &Path, pairs: &BTreeSet<Pair>) -> io::Result<()> {
    let mut body = Vec::new();
    // Beyond the bound the file could not be read back.
    encode_pairs(pairs.iter().take(MAX_QUARANTINED), &mut body);
    replace(dir, QUARANTINE, &body, true)
}

fn encode_pairs<'a>(pairs: impl IntoIterator<Item = &'a Pair>, body: &mut Vec<u8>) {
    for (key, digest) in pairs {
        let leaf = pb::Leaf { key: Some(key_to_proto(key)), value: Bytes::copy_from_slice(&digest.0), deleted: false };
        body.extend_from_slice(&leaf.encode_length_delimited_to_vec());
    }
}

fn decode_pairs(mut body: &[u8]) -> Option<Vec<Pair>> {
    let mut pairs = Vec::new();
    while !body.is_empty() {
        let leaf = pb::Leaf::decode_length_delimited(&mut body).ok()?;
        let digest = Digest(leaf.value.as_ref().try_into().ok()?);
        pairs.push((key_from_proto(leaf.key?)?, digest));
    }
    Some(pairs)
}

/// Reads such a file; `None` when there is none.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut body = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut body)?;
    let Some((content, digest)) = body.split_last_chunk::<DIGEST_BYTES>() else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is cut off"));
    };
    if blake3::hash(content).as_bytes() != digest {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its digest does not match"));
    }
    Ok(Some(content.to_vec()))
}

/// Replaces such a file in one step; `sync`: it is on disk when this returns.
fn replace(dir: &Path, name: &str, content: &[u8], sync: bool) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.write_all(blake3::hash(content).as_bytes())?;
    if sync {
        file.sync_all()?;
    }
    fs::rename(&temporary, dir.join(name))?;
    if sync { sync_dir(dir) } else { Ok(()) }
}

/// Makes renames in a folder durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
