//! One term of leading: read the source whole, compile, commit; then follow its changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use meshgate_api::{Batch, Directory, PrivateKey, Watcher};
use meshgate_core::compile::{Allocations, Compiled, Compiler, Settings};
use meshgate_core::intent::{Finding, ObjectRef};
use meshgate_core::replica::first_rev;
use meshgate_core::snapshot::{GatewayAddress, HeadId, Key, Kind, Resource};
use meshgate_wire::{Snapshot, decode};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::book::{Book, Entry};
use super::elect::Term;
use super::publish::Publisher;
use super::{Desk, ReadNow, ReconcileConfig};
use crate::drain::{Drain, Phase};

/// Pause after a session that ended by a fault.
pub(super) const AFTER_FAULT: Duration = Duration::from_millis(200);

/// How long a wait for changes lasts before requests, term and drain are looked at again.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// How often an unreadable source is tried again, and a change that inotify missed is looked for.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Leads until the term ends or the process drains.
///
/// # Errors
/// The source can't be opened or the leader can't sign. Nothing half-done was published.
pub(super) fn lead(config: &ReconcileConfig, term: &Term, desk: &mut Desk, drain: &Drain) -> anyhow::Result<()> {
    let signer = (config.signer)(term.epoch).context("cannot get a leader's key")?;
    catch_up(config, term);
    let held = config.replica.held();
    let rev = first_rev(held.0, config.replica.newest(), desk.last_rev);
    let allocations = allocations(&held.1);
    let publisher = Publisher::new(&config.mesh_id, signer.as_ref(), HeadId { epoch: term.epoch, rev }, held);
    desk.book.begin(term.epoch, term.since_ms);
    // Watching starts before the first read, so that no change falls between the two.
    let mut source = Directory::open(&config.source)?;
    source.recall(&config.last_good).context("cannot keep last good manifests")?;
    let mut watcher = source.watch()?;
    *desk.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher.waker());
    let mut session = Session {
        config,
        term,
        book: &desk.book,
        publisher,
        compiler: Compiler::new(Settings::default(), allocations),
        private_keys: BTreeMap::new(),
        first: true,
        pending: BTreeMap::new(),
        last_rev: &mut desk.last_rev,
        source_error: String::new(),
    };
    let batch = source.read()?;
    let published = session.pass(&source, batch, Instant::now());
    // What can't be published is in the book, and tried again with every read.
    published.or_else(|error| if term.holds() { Ok(()) } else { Err(error) })?;
    session.follow(&mut source, &mut watcher, &mut desk.waiting, drain)
}

/// How long this peer's own replica may take to apply what was published.
const APPLY_WITHIN: Duration = Duration::from_secs(2);

/// Sees to it that this peer's own replica follows. It may have moved on between the start of the
/// term and its first commit (a last head of the old leader): then the session starts again.
struct Progress {
    head: HeadId,
    since: Instant,
}

impl Progress {
    fn check(&mut self, publisher: &Publisher<'_>, config: &ReconcileConfig) -> anyhow::Result<()> {
        let (published, held) = (publisher.head(), config.replica.head());
        if held >= published || held != self.head {
            *self = Progress { head: held, since: Instant::now() };
        }
        anyhow::ensure!(
            held >= published || self.since.elapsed() < APPLY_WITHIN,
            "this peer's replica is at {held} and did not apply {published}; starting again from there"
        );
        Ok(())
    }
}

/// How long a new leader waits for its own replica to have what others announce.
const CATCH_UP: Duration = Duration::from_secs(1);

/// How often it looks.
const CATCH_UP_POLL: Duration = Duration::from_millis(5);

/// Waits until this process has what live peers say they have: addresses and generations go on from
/// what is held. Bounded, because what is announced is a hint, and perhaps a lie.
fn catch_up(config: &ReconcileConfig, term: &Term) {
    let give_up = Instant::now() + CATCH_UP;
    while config.replica.head() < config.replica.newest() && term.holds() && Instant::now() < give_up {
        std::thread::sleep(CATCH_UP_POLL);
    }
}

struct Session<'a> {
    config: &'a ReconcileConfig,
    term: &'a Term,
    book: &'a Book,
    publisher: Publisher<'a>,
    compiler: Compiler,
    private_keys: BTreeMap<ObjectRef, PrivateKey>,
    first: bool,
    /// What was compiled and is not published yet, because publishing failed.
    pending: BTreeMap<Key, Option<Resource>>,
    last_rev: &'a mut u64,
    /// Why the source could not be read last; empty when it could.
    source_error: String,
}

impl Session<'_> {
    fn follow(
        &mut self,
        source: &mut Directory,
        watcher: &mut Watcher,
        requests: &mut mpsc::Receiver<ReadNow>,
        drain: &Drain,
    ) -> anyhow::Result<()> {
        let mut read_last = Instant::now();
        let mut replica = Progress { head: self.publisher.head(), since: Instant::now() };
        while self.term.holds() && drain.phase() < Phase::Draining {
            let changed = watcher.wait(LOOK_AROUND)?;
            let read_at = Instant::now();
            replica.check(&self.publisher, self.config)?;
            let mut asked = Vec::new();
            while let Ok(request) = requests.try_recv() {
                asked.push(request);
            }
            let batch = if !asked.is_empty() || read_last.elapsed() >= READ_AGAIN {
                read_last = read_at;
                source.read()
            } else if changed {
                source.read_changes(&watcher.take())
            } else {
                continue;
            };
            // An unreadable source is never an empty one: what is published goes on.
            let outcome = match batch {
                Ok(batch) => self.pass(source, batch, read_at).map_err(|error| format!("{error:#}")),
                Err(error) => Err(self.unreadable(&error.to_string())),
            };
            let ended = outcome.is_err() && !self.term.holds();
            for request in asked {
                // Whoever asked may have given up.
                let _ = request.send(outcome.clone().map(|()| self.publisher.head()));
            }
            if ended {
                break;
            }
        }
        Ok(())
    }

    /// Says once that the source can't be read, and rests: whatever keeps it from being read may
    /// last, and may end any time.
    fn unreadable(&mut self, error: &str) -> String {
        if self.source_error != error {
            error.clone_into(&mut self.source_error);
            warn!("the source can't be read, what is published goes on: {error}");
            self.book.complain(&self.config.source, error);
        }
        std::thread::sleep(AFTER_FAULT);
        error.to_owned()
    }

    /// Compiles and publishes what one read brought, and writes it down, published or not: compile
    /// tells news only once.
    fn pass(&mut self, source: &Directory, batch: Batch, read_at: Instant) -> anyhow::Result<()> {
        self.source_error.clear();
        let Batch { changes, keys, findings: of_source, moved, .. } = batch;
        let quiet = changes.is_empty() && keys.is_empty() && !self.first;
        let (gone, appeared): (Vec<_>, Vec<_>) = changes.iter().partition(|(_, object)| object.is_none());
        let name = |pairs: Vec<&(ObjectRef, _)>| pairs.into_iter().map(|(object, _)| object.clone()).collect();
        let (gone, appeared) = (name(gone), name(appeared));
        let new_keys = !keys.is_empty();
        for change in keys {
            match change.key {
                Some(key) => self.private_keys.insert(change.object, key),
                None => self.private_keys.remove(&change.object),
            };
        }
        let Compiled { mut resources, findings, statuses } = self.compiler.apply(changes);
        if self.first {
            resources.extend(self.left_over());
        }
        // Whoever applies a certificate asks for its key: it must be there first.
        if new_keys || resources.iter().any(|(key, _)| key.kind == Kind::Certificate) {
            self.hand_out_keys();
        }
        let quiet = quiet && self.pending.is_empty();
        self.pending.extend(resources);
        let mut keys: Vec<Key> = self.pending.keys().cloned().collect();
        let published = if quiet { Ok(()) } else { self.publish() };
        if published.is_err() {
            keys.clear();
        }
        // That the term is over is no fault.
        let fault = published.as_ref().err().filter(|_| self.term.holds());
        let mut refused: Vec<Finding> = self.publisher.refused().collect();
        source.locate(&mut refused);
        let new = self.book.enter(Entry {
            head: self.publisher.head(),
            read_at,
            unpublished: fault.map(|error| format!("{error:#}")),
            keys,
            appeared,
            gone,
            compiled: self.located(source, findings, moved),
            source: of_source,
            refused,
            statuses,
        });
        for finding in new {
            let object = finding.object.as_ref().map(ToString::to_string).unwrap_or_default();
            warn!(code = finding.code, origin = finding.origin, "{object} {}: {}", finding.field, finding.message);
        }
        published
    }

    /// What is found now, with its place; and what was found before about objects that moved.
    fn located(
        &self,
        source: &Directory,
        mut findings: Vec<(ObjectRef, Vec<Finding>)>,
        mut moved: BTreeSet<ObjectRef>,
    ) -> Vec<(ObjectRef, Vec<Finding>)> {
        moved.retain(|object| findings.binary_search_by(|(known, _)| known.cmp(object)).is_err());
        let book = self.book.reader();
        for object in moved {
            let Some(mut found) = book.compiled(&object) else { continue };
            found.iter_mut().for_each(|finding| finding.origin.clear());
            findings.push((object, found));
        }
        findings.iter_mut().for_each(|(_, found)| source.locate(found));
        findings
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        let all = self.pending.iter().map(|(key, resource)| (key.clone(), resource.clone())).collect();
        let commit = self.publisher.commit(all, self.first).map_err(|error| anyhow!(error))?;
        self.first = false;
        let Some(commit) = commit else {
            self.pending.clear();
            return Ok(());
        };
        *self.last_rev = commit.head.id().rev;
        let (head, changes) = (commit.head.id(), commit.changes.len());
        // Right before it acts, the leader asks whether it still leads. Receivers fence anyway.
        if !self.term.holds() {
            return Err(anyhow!("the term of epoch {} ended before head {head} was sent", self.term.epoch));
        }
        self.config.commits.blocking_send(commit).map_err(|_| anyhow!("this peer's replica is gone"))?;
        self.pending.clear();
        info!(%head, changes, "published");
        Ok(())
    }

    /// What an earlier leader published and the source does not hold any more.
    fn left_over(&self) -> Vec<(Key, Option<Resource>)> {
        let compiled = self.compiler.resources();
        let published = self.publisher.snapshot().iter();
        published.filter(|(key, _)| !compiled.contains_key(key)).map(|(key, _)| (key.clone(), None)).collect()
    }

    /// Gives the keys of served certificates to the key store, and no others.
    fn hand_out_keys(&self) {
        let served: BTreeSet<[u8; 32]> = self
            .compiler
            .resources()
            .values()
            .filter_map(|resource| match resource {
                Resource::Certificate(certificate) => Some(certificate.key_hash),
                _ => None,
            })
            .collect();
        let wanted =
            |key: &&PrivateKey| served.contains(&key.key_hash) && self.config.keys.get(&key.key_hash).is_none();
        for key in self.private_keys.values().filter(wanted) {
            if let Err(error) = self.config.keys.insert(key.key_hash, key.der.clone_key()) {
                warn!("a listener's private key is not served: {error}");
            }
        }
    }
}

/// The Gateways' addresses as an earlier leader gave them.
fn allocations(snapshot: &Snapshot) -> Allocations {
    let gateways = snapshot.iter().filter(|(key, _)| key.kind == Kind::Gateway);
    let allocated = gateways.filter_map(|(key, leaf)| match decode(key.kind, &leaf.value) {
        Ok(Resource::Gateway(gateway)) => match gateway.address {
            GatewayAddress::Loopback(number) => Some((key.clone(), number)),
            GatewayAddress::Fixed(_) => None,
        },
        _ => None,
    });
    allocated.collect()
}
