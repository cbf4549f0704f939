//! The one owner of this peer's replicated state. It judges every head, applies it whole, keeps it
//! on disk and tells everyone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use meshgate_core::replica::{self as rules, Verdict};
use meshgate_core::snapshot::{HeadId, Key};
use meshgate_core::table::{Change, Held, Table};
use meshgate_wire::{Commit, LeaderVerifier, LeafChange, SignedHead, Snapshot, verify};
use tokio::sync::{oneshot, watch};

use super::apply::{self, Built};
use super::delta_log::DeltaLog;
use super::metrics::{Metrics, Reason, gauge};
use super::store::{Pair, Store};
use super::types::{Applied, KeyEnsurer, Origin};
use crate::identity::NodeName;

/// How long an apply waits for private keys.
const KEYS_WAIT: Duration = Duration::from_secs(2);

/// Changes of more resources than this are worked on aside, so that the runtime goes on.
const INLINE_CHANGES: usize = 256;

/// What a head comes with.
#[derive(Debug)]
pub(super) enum Content {
    /// Changes from a base.
    Delta { base: HeadId, changes: Vec<LeafChange> },
    /// Everything.
    Full(Snapshot),
}

/// A head that someone offers.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) head: SignedHead,
    pub(super) content: Content,
    pub(super) origin: Origin,
    pub(super) source: Option<NodeName>,
    pub(super) received: Instant,
    /// Told what became of it.
    pub(super) reply: Option<oneshot::Sender<Outcome>>,
}

/// What became of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the table.
    Applied,
    /// It was already.
    Same,
    /// It is newer, but starts elsewhere.
    NeedFull,
    /// It is refused whole; the state is as before.
    Refused(Reason, String),
}

/// What servers of followers read.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) applied: Arc<Applied>,
    pub(super) log: DeltaLog,
}

/// What the owner tells the rest of the process.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) table: Arc<ArcSwap<Table>>,
    pub(super) applied: watch::Sender<Option<Arc<Applied>>>,
    pub(super) published: watch::Sender<Option<Arc<Published>>>,
    pub(super) fence: watch::Sender<u64>,
}

/// The state and what it takes to change it.
pub(super) struct Replica {
    pub(super) mesh_id: String,
    pub(super) verifier: Arc<dyn LeaderVerifier>,
    pub(super) ensurer: Arc<dyn KeyEnsurer>,
    pub(super) store: Store,
    pub(super) quarantine: Arc<BTreeSet<Pair>>,
    pub(super) outlets: Outlets,
    pub(super) metrics: Metrics,
    pub(super) current: Option<Arc<Applied>>,
    pub(super) held: BTreeMap<Key, Held>,
    pub(super) log: DeltaLog,
    /// Hashes of private keys that are needed and missing.
    pub(super) missing_keys: Vec<[u8; 32]>,
}

impl Replica {
    /// Takes or refuses an offer.
    pub(super) async fn take(&mut self, offer: Offer) -> Outcome {
        let id = offer.head.id();
        let outcome = match self.check(&offer) {
            Ok(Some((snapshot, changes))) => self.adopt(offer, snapshot, changes).await,
            Ok(None) => Outcome::Same,
            Err(outcome) => outcome,
        };
        if let Outcome::Refused(reason, why) = &outcome {
            self.metrics.rejected(*reason);
            tracing::warn!(head = %id, reason = reason.name(), why, "a head is refused; the state stays as it is");
        }
        outcome
    }

    /// Everything that must hold before any of it is used. `None`: it is here already.
    fn check(&self, offer: &Offer) -> Result<Option<(Snapshot, Vec<LeafChange>)>, Outcome> {
        let refuse = |reason, why: String| Outcome::Refused(reason, why);
        let head = &offer.head;
        if head.head().mesh_id != self.mesh_id {
            return Err(refuse(Reason::Mesh, format!("it is of mesh {}", head.head().mesh_id)));
        }
        verify(head, self.verifier.as_ref()).map_err(|error| refuse(Reason::Signature, error.to_string()))?;
        let held = self.held_state();
        let base = match &offer.content {
            Content::Delta { base, .. } => *base,
            Content::Full(_) => held.id,
        };
        match rules::judge(&held, head.id(), head.roots(), Some(base)) {
            Verdict::Apply => {}
            Verdict::Same => return Ok(None),
            Verdict::FetchFull => return Err(Outcome::NeedFull),
            Verdict::Stale => {
                let why = format!("{} is applied, epoch {} is the lowest accepted", held.id, held.fence);
                return Err(refuse(Reason::Stale, why));
            }
            Verdict::Conflict => {
                let why = "the same head with other roots is applied: two leaders signed it".to_owned();
                return Err(refuse(Reason::Conflict, why));
            }
        }
        let now = self.snapshot();
        let (next, changes) = match &offer.content {
            Content::Delta { changes, .. } => {
                let next = now.apply(changes);
                // The difference, not the changes as sent: those may repeat keys.
                let sorted = changes.is_sorted_by(|a, b| a.key < b.key);
                let changes = if sorted { changes.clone() } else { now.diff(&next) };
                (next, changes)
            }
            Content::Full(next) => (next.clone(), now.diff(next)),
        };
        if next.roots() != head.roots() {
            return Err(refuse(Reason::Digest, "its roots do not match its resources".to_owned()));
        }
        next.check_limits().map_err(|error| refuse(Reason::Limit, error.to_string()))?;
        Ok(Some((next, changes)))
    }

    /// Applies what is verified: fence, keys, table, swap, disk, announcement.
    async fn adopt(&mut self, offer: Offer, snapshot: Snapshot, changes: Vec<LeafChange>) -> Outcome {
        let id = offer.head.id();
        let base = self.held_state().id;
        self.raise_fence(id.epoch).await;
        self.store.mark(apply::pairs(&changes)).await;
        let Some((changes, decoded, held)) = self.decode(changes).await else {
            self.store.unmark();
            return Outcome::Refused(Reason::Panic, "decoding it panicked".to_owned());
        };
        self.ensure_keys(apply::key_hashes(&decoded), offer.source.as_ref()).await;
        let Some(built) = self.build(id, decoded).await else {
            self.store.unmark();
            return Outcome::Refused(Reason::Panic, "applying it panicked".to_owned());
        };
        self.note_held(&changes, held.into_iter().chain(built.held));
        self.publish(offer.head.clone(), snapshot.clone(), built.table, offer.origin, offer.received);
        let commit = Arc::new(Commit { head: offer.head, base, changes });
        self.log.push(Arc::clone(&commit));
        self.store.append(commit, snapshot);
        self.announce();
        self.store.unmark();
        Outcome::Applied
    }

    /// The epoch is on disk before anything of it is in effect.
    async fn raise_fence(&mut self, epoch: u64) {
        if epoch > *self.outlets.fence.borrow() {
            self.store.fence(epoch).await;
            self.outlets.fence.send_replace(epoch);
        }
    }

    async fn ensure_keys(&mut self, wanted: Vec<[u8; 32]>, source: Option<&NodeName>) {
        if wanted.is_empty() {
            return;
        }
        let asked = tokio::time::timeout(KEYS_WAIT, self.ensurer.ensure(&wanted, source)).await;
        let missing = asked.unwrap_or(wanted);
        self.missing_keys.extend(missing);
    }

    async fn decode(&self, changes: Vec<LeafChange>) -> Option<(Vec<LeafChange>, Vec<Change>, Vec<Held>)> {
        let quarantine = Arc::clone(&self.quarantine);
        let inline = changes.len() <= INLINE_CHANGES;
        let work = move || {
            let (decoded, held) = apply::decode_changes(&changes, &quarantine);
            (changes, decoded, held)
        };
        if inline {
            return Some(work());
        }
        tokio::task::spawn_blocking(work).await.ok()
    }

    async fn build(&self, head: HeadId, changes: Vec<Change>) -> Option<Built> {
        let table = self.outlets.table.load_full();
        if changes.len() <= INLINE_CHANGES {
            return apply::build(&table, head, &changes);
        }
        tokio::task::spawn_blocking(move || apply::build(&table, head, &changes)).await.ok().flatten()
    }

    /// Forgets what was held of the changed keys, and notes what is held now.
    pub(super) fn note_held(&mut self, changes: &[LeafChange], held: impl Iterator<Item = Held>) {
        for change in changes {
            self.held.remove(&change.key);
        }
        for held in held {
            tracing::warn!(resource = %held.key, reason = held.reason, "held back: its previous version goes on serving");
            self.held.insert(held.key.clone(), held);
        }
    }

    /// Swaps the table: from here on requests see it.
    pub(super) fn publish(
        &mut self,
        head: SignedHead,
        snapshot: Snapshot,
        table: Table,
        origin: Origin,
        received: Instant,
    ) {
        let table = Arc::new(table);
        self.outlets.table.store(Arc::clone(&table));
        let applied_at = Instant::now();
        let applied = Arc::new(Applied {
            head,
            snapshot,
            table,
            held: Arc::new(self.held.values().cloned().collect()),
            applied_at,
            took: applied_at.saturating_duration_since(received),
            origin,
        });
        self.metrics.applied(&applied, self.current.is_none());
        self.current = Some(applied);
        self.prune_missing_keys();
    }

    /// Tells followers and the rest of the process.
    pub(super) fn announce(&self) {
        let Some(applied) = &self.current else { return };
        let published = Published { applied: Arc::clone(applied), log: self.log.clone() };
        self.outlets.published.send_replace(Some(Arc::new(published)));
        self.outlets.applied.send_replace(Some(Arc::clone(applied)));
    }

    /// Forgets missing keys that nothing needs any more.
    fn prune_missing_keys(&mut self) {
        if let Some(applied) = &self.current
            && !self.missing_keys.is_empty()
        {
            let needed: BTreeSet<[u8; 32]> = applied.table.certificates().map(|(_, one)| one.key_hash).collect();
            let missing: BTreeSet<[u8; 32]> = self.missing_keys.drain(..).collect();
            self.missing_keys = missing.intersection(&needed).copied().collect();
        }
        self.metrics.missing_keys.set(gauge(self.missing_keys.len()));
    }

    /// What a look for keys found.
    pub(super) fn looked(&mut self, look: KeyLook) {
        let KeyLook { asked, missing } = look;
        // Meanwhile others may have come to be missing.
        self.missing_keys.retain(|hash| !asked.contains(hash));
        self.missing_keys.extend(missing);
        self.prune_missing_keys();
    }

    fn snapshot(&self) -> Snapshot {
        self.current.as_ref().map_or_else(Snapshot::default, |applied| applied.snapshot.clone())
    }

    /// What is held, as the rules see it.
    pub(super) fn held_state(&self) -> rules::Held {
        let fence = *self.outlets.fence.borrow();
        match &self.current {
            Some(applied) => rules::Held { id: applied.id(), roots: applied.snapshot.roots(), fence },
            None => rules::Held { id: HeadId::default(), roots: Snapshot::default().roots(), fence },
        }
    }
}

/// Which keys a look was for, and which of them are missing.
pub(super) struct KeyLook {
    asked: BTreeSet<[u8; 32]>,
    missing: Vec<[u8; 32]>,
}

/// Looks whether the keys of all certificates in the table are here, and asks for those that are
/// not: one may have been dropped as unused just before the table that needs it was swapped in.
pub(super) async fn look_for_keys(
    ensurer: Arc<dyn KeyEnsurer>,
    table: Arc<ArcSwap<Table>>,
    delay: Duration,
) -> KeyLook {
    tokio::time::sleep(delay).await;
    let asked: BTreeSet<[u8; 32]> = table.load_full().certificates().map(|(_, one)| one.key_hash).collect();
    if asked.is_empty() {
        return KeyLook { asked, missing: Vec::new() };
    }
    let hashes: Vec<[u8; 32]> = asked.iter().copied().collect();
    match tokio::time::timeout(KEYS_WAIT, ensurer.ensure(&hashes, None)).await {
        Ok(missing) => KeyLook { asked, missing },
        // What was known before still holds.
        Err(_) => KeyLook { asked: BTreeSet::new(), missing: Vec::new() },
    }
}
