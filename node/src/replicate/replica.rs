//! The one owner of this peer's replicated state. It judges every head, applies it whole, keeps it
//! on disk and tells everyone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use meshgate_core::replica::{self as rules, Event, Next, Offered, Outcome, Refusal};
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

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Reason {
        match refusal {
            Refusal::Mesh => Reason::Mesh,
            Refusal::Signature => Reason::Signature,
            Refusal::Stale(_) | Refusal::Fenced(_) => Reason::Stale,
            Refusal::Conflict => Reason::Conflict,
            Refusal::Digest => Reason::Digest,
            Refusal::Limit => Reason::Limit,
            Refusal::Panic => Reason::Panic,
        }
    }
}

/// An offer on its way through the rules.
struct Work {
    offer: Offer,
    /// What it leads to, and from what: known when it is resolved.
    snapshot: Snapshot,
    changes: Vec<LeafChange>,
    base: HeadId,
    marked: bool,
    /// What there is to say of a refusal besides its reason.
    why: Option<String>,
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
    pub(super) rules: rules::Replica,
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
    /// Takes or refuses an offer: the rules say what is next, and this does it.
    pub(super) async fn take(&mut self, offer: Offer) -> Outcome {
        let base = match &offer.content {
            Content::Delta { base, .. } => Some(*base),
            Content::Full(_) => None,
        };
        let head = &offer.head;
        let own_mesh = head.head().mesh_id == self.mesh_id;
        let offered = Offered { own_mesh, id: head.id(), roots: head.roots(), base };
        let base = self.rules.held().id;
        let (snapshot, changes) = (Snapshot::default(), Vec::new());
        let mut work = Work { offer, snapshot, changes, base, marked: false, why: None };
        let mut event = Event::Offered(offered);
        loop {
            event = match self.rules.next(event) {
                Next::Verify => Event::Verified(self.verified(&mut work)),
                Next::Resolve => self.resolve(&mut work),
                Next::Fence(epoch) => {
                    self.store.fence(epoch).await;
                    Event::Fenced
                }
                Next::Mark => {
                    self.tell_fence();
                    work.marked = true;
                    self.store.mark(apply::pairs(&work.changes)).await;
                    Event::Marked
                }
                Next::Apply => Event::Applied(self.apply(&mut work).await),
                Next::Keep => {
                    self.keep(&mut work);
                    Event::Kept
                }
                Next::Done(outcome) => return self.done(work, outcome),
            };
        }
    }

    fn verified(&self, work: &mut Work) -> bool {
        let verified = verify(&work.offer.head, self.verifier.as_ref());
        work.why = verified.as_ref().err().map(ToString::to_string);
        verified.is_ok()
    }

    /// Computes what the offer leads to.
    fn resolve(&self, work: &mut Work) -> Event {
        let now = self.snapshot();
        (work.snapshot, work.changes) = match &mut work.offer.content {
            Content::Delta { changes, .. } => {
                let next = now.apply(changes);
                // The difference, not the changes as sent: those may repeat keys.
                let sorted = changes.is_sorted_by(|a, b| a.key < b.key);
                let changes = if sorted { std::mem::take(changes) } else { now.diff(&next) };
                (next, changes)
            }
            Content::Full(next) => (next.clone(), now.diff(next)),
        };
        let limits = work.snapshot.check_limits();
        work.why = limits.as_ref().err().map(ToString::to_string);
        Event::Resolved { roots: work.snapshot.roots(), fits: limits.is_ok() }
    }

    /// The epoch is on disk, if the disk works: nothing below it is accepted any more.
    fn tell_fence(&self) {
        let fence = self.rules.held().fence;
        self.outlets.fence.send_if_modified(|now| std::mem::replace(now, fence) != fence);
    }

    /// Keys, table, swap. False: it panicked.
    async fn apply(&mut self, work: &mut Work) -> bool {
        let Some((changes, decoded, held)) = self.decode(std::mem::take(&mut work.changes)).await else {
            return false;
        };
        work.changes = changes;
        self.ensure_keys(apply::key_hashes(&decoded), work.offer.source.as_ref()).await;
        let Some(built) = self.build(work.offer.head.id(), decoded).await else { return false };
        self.note_held(&work.changes, held.into_iter().chain(built.held));
        let Offer { head, origin, received, .. } = &work.offer;
        self.publish(head.clone(), work.snapshot.clone(), built.table, *origin, *received);
        true
    }

    /// Disk and announcement.
    fn keep(&mut self, work: &mut Work) {
        let changes = std::mem::take(&mut work.changes);
        let commit = Arc::new(Commit { head: work.offer.head.clone(), base: work.base, changes });
        self.log.push(Arc::clone(&commit));
        self.store.append(commit, work.snapshot.clone());
        self.announce();
    }

    fn done(&self, work: Work, outcome: Outcome) -> Outcome {
        if work.marked {
            self.store.unmark();
        }
        if let Outcome::Refused(refusal) = outcome {
            let reason = Reason::from(refusal);
            self.metrics.rejected(reason);
            let head = work.offer.head.id();
            let why = work.why.as_deref().unwrap_or_default();
            tracing::warn!(%head, reason = reason.name(), why, "a head is refused; the state stays as it is: {refusal}");
        }
        outcome
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
