//! Reads the state folder at start: the newest generation that verifies.

use std::path::Path;

use meshgate_core::replica::Suspects;
use meshgate_core::snapshot::HeadId;
use meshgate_wire::{LeaderVerifier, SignedHead, Snapshot, verify};

use super::log::Entry;
use super::{Loaded, base, log, small};

/// Where the writer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    pub(super) generation: u64,
    pub(super) base_bytes: u64,
    /// Valid bytes of the log; what follows is torn.
    pub(super) log_bytes: u64,
    pub(super) log_entries: usize,
    pub(super) head: HeadId,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) loaded: Loaded,
    /// The newest generation was used and can be continued.
    pub(super) resume: Option<Resume>,
    /// The highest generation number in use.
    pub(super) newest: u64,
    /// What the last process died of, if it did.
    pub(super) suspects: Suspects,
}

/// Loads a folder. What can't be read is skipped, with a message.
pub(super) fn load(dir: &Path, mesh_id: &str, verifier: &dyn LeaderVerifier) -> Found {
    let mut found = Found::default();
    (found.suspects, found.loaded.quarantine) = small::count_deaths(dir);
    found.loaded.fence = small::read_fence(dir);
    let generations = base::generations(dir).unwrap_or_default();
    found.newest = generations.first().copied().unwrap_or_default();
    for generation in generations {
        match load_generation(dir, generation, mesh_id, verifier) {
            Ok((head, snapshot, resume)) => {
                found.loaded.fence = found.loaded.fence.max(head.id().epoch);
                found.loaded.state = Some((head, snapshot));
                found.resume = (generation == found.newest).then_some(resume);
                break;
            }
            Err(error) => {
                tracing::error!(generation, error, "a stored generation can't be used; an older one is tried");
            }
        }
    }
    found
}

fn load_generation(
    dir: &Path,
    generation: u64,
    mesh_id: &str,
    verifier: &dyn LeaderVerifier,
) -> Result<(SignedHead, Snapshot, Resume), String> {
    let (head, snapshot, base_bytes) = base::read(dir, generation).map_err(|error| error.to_string())?;
    check(&head, &snapshot, mesh_id, verifier)?;
    let entries = log::read(dir, generation, head.id()).map_err(|error| error.to_string())?;
    let mut resume = Resume { generation, base_bytes, log_bytes: 0, log_entries: 0, head: head.id() };
    let (head, snapshot, used) = replay(head, snapshot, &entries, mesh_id, verifier);
    if let Some(last) = used.checked_sub(1).and_then(|last| entries.get(last)) {
        resume.log_bytes = last.end;
        resume.log_entries = used;
        resume.head = head.id();
    }
    Ok((head, snapshot, resume))
}

/// Applies a log. Its last head vouches for everything before it, so one signature is checked; if
/// that does not hold, every step is, up to the first that fails.
fn replay(
    head: SignedHead,
    snapshot: Snapshot,
    entries: &[Entry],
    mesh_id: &str,
    verifier: &dyn LeaderVerifier,
) -> (SignedHead, Snapshot, usize) {
    let Some(last) = entries.last() else { return (head, snapshot, 0) };
    let changes: Vec<_> = entries.iter().flat_map(|entry| entry.commit.changes.iter().cloned()).collect();
    let whole = snapshot.apply(&changes);
    if check(&last.commit.head, &whole, mesh_id, verifier).is_ok() {
        return (last.commit.head.clone(), whole, entries.len());
    }
    let (mut head, mut snapshot) = (head, snapshot);
    for (used, entry) in entries.iter().enumerate() {
        let next = snapshot.apply(&entry.commit.changes);
        if let Err(error) = check(&entry.commit.head, &next, mesh_id, verifier) {
            tracing::error!(error, head = %entry.commit.head.id(), "the stored log can't be used from here on");
            return (head, snapshot, used);
        }
        (head, snapshot) = (entry.commit.head.clone(), next);
    }
    (head, snapshot, entries.len())
}

/// The head is of this mesh, signed by its leader, and covers exactly this snapshot.
fn check(head: &SignedHead, snapshot: &Snapshot, mesh_id: &str, verifier: &dyn LeaderVerifier) -> Result<(), String> {
    if head.head().mesh_id != mesh_id {
        return Err(format!("it is of mesh {}", head.head().mesh_id));
    }
    verify(head, verifier).map_err(|error| error.to_string())?;
    if head.roots() != snapshot.roots() {
        return Err("its roots do not match its resources".to_owned());
    }
    snapshot.check_limits().map_err(|error| error.to_string())
}
