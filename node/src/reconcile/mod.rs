//! Reads the source and leads: the only writer of the mesh's configuration.
//!
//! Every reconciler runs for election ([`elect`]); the one that wins opens an epoch and leads a
//! [`session`]: read the source whole, compile, sign, commit; then again for every change.

pub mod book;
pub mod elect;
pub mod lease_file;
mod publish;
mod session;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshgate_api::Waker;
use meshgate_core::snapshot::HeadId;
use meshgate_wire::{Commit, HeadSigner, Snapshot};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use self::book::{Book, BookReader};
use self::elect::Term;
use crate::drain::{Drain, Phase};
use crate::identity::KeyStore;

/// How long a requested read of the source may take.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Requests to read the source now that may wait.
const READ_REQUESTS: usize = 64;

/// What this process's replica holds, for the leader to go on from.
pub trait ReplicaView: Send + Sync {
    /// Head and snapshot applied last.
    fn held(&self) -> (HeadId, Snapshot);
    /// Head applied last.
    fn head(&self) -> HeadId;
    /// The newest head that any live peer announces, this one included. A hint.
    fn newest(&self) -> HeadId;
}

/// Makes the signing key of an epoch.
pub type SignerFactory = Arc<dyn Fn(u64) -> anyhow::Result<Box<dyn HeadSigner>> + Send + Sync>;

/// What a reconciler works with.
#[derive(Clone)]
pub struct ReconcileConfig {
    /// The mesh.
    pub mesh_id: String,
    /// The directory with the objects.
    pub source: PathBuf,
    /// Where last good manifests are kept for later leaders; on tmpfs, because Secrets are among them.
    pub last_good: PathBuf,
    /// What is held here.
    pub replica: Arc<dyn ReplicaView>,
    /// Makes the key of an epoch.
    pub signer: SignerFactory,
    /// Where listeners' private keys go.
    pub keys: Arc<KeyStore>,
    /// Where commits go: this process's replica.
    pub commits: mpsc::Sender<Commit>,
}

/// A request to read the source now; answered with the head that shows what it holds.
type ReadNow = oneshot::Sender<Result<HeadId, String>>;

/// Ends the session's wait for changes of the source.
type SharedWaker = Arc<Mutex<Option<Waker>>>;

/// Asks the leading session things.
#[derive(Clone)]
pub struct LeaderHandle {
    requests: mpsc::Sender<ReadNow>,
    waker: SharedWaker,
    terms: watch::Receiver<Option<Term>>,
    book: BookReader,
}

impl LeaderHandle {
    /// The term, while this process leads.
    pub fn term(&self) -> Option<Term> {
        self.terms.borrow().clone().filter(Term::holds)
    }

    /// What the session wrote down; only meaningful while this process leads.
    pub fn book(&self) -> &BookReader {
        &self.book
    }

    /// Reads the source now and publishes what changed. Returns the head that shows it.
    ///
    /// # Errors
    /// This process does not lead (ask the leader), or the source can't be read.
    pub async fn read_now(&self) -> Result<HeadId, String> {
        let (answer, answered) = oneshot::channel();
        let unavailable = || "this peer does not lead".to_owned();
        if self.term().is_none() {
            return Err(unavailable());
        }
        self.requests.try_send(answer).map_err(|_| "too many callers wait for the source; retry".to_owned())?;
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            waker.wake();
        }
        let answer = tokio::time::timeout(READ_WITHIN, answered).await;
        answer.map_err(|_| format!("the source was not read within {READ_WITHIN:?}"))?.map_err(|_| unavailable())?
    }
}

/// What one session hands to the next.
struct Desk {
    /// No rev is signed twice, whatever became of the commit.
    last_rev: u64,
    book: Book,
    waiting: mpsc::Receiver<ReadNow>,
    waker: SharedWaker,
}

/// A reconciler and the way to ask it.
pub fn start(
    config: ReconcileConfig,
    terms: watch::Receiver<Option<Term>>,
    drain: Drain,
) -> (LeaderHandle, impl Future<Output = anyhow::Result<()>> + Send) {
    let book = Book::default();
    let (requests, waiting) = mpsc::channel(READ_REQUESTS);
    let waker = SharedWaker::default();
    let handle = LeaderHandle { requests, waker: Arc::clone(&waker), terms: terms.clone(), book: book.reader() };
    (handle, run(config, Desk { last_rev: 0, book, waiting, waker }, terms, drain))
}

/// Leads a session for every term, until the process drains.
async fn run(
    config: ReconcileConfig,
    mut desk: Desk,
    mut terms: watch::Receiver<Option<Term>>,
    drain: Drain,
) -> anyhow::Result<()> {
    loop {
        let term = tokio::select! {
            term = next_term(&mut terms) => term,
            () = drain.reached(Phase::Draining) => return Ok(()),
        };
        let Some(term) = term else { return Ok(()) };
        let (config, session_drain) = (config.clone(), drain.clone());
        // Reading files, compiling and waiting for inotify block.
        desk = tokio::task::spawn_blocking(move || {
            let epoch = term.epoch;
            if let Err(error) = session::lead(&config, &term, &mut desk, &session_drain) {
                warn!(epoch, "the session ended: {error:#}");
                desk.book.complain(&config.source, &format!("{error:#}"));
                // The term may well hold; trying again at once would spin on a lasting fault.
                std::thread::sleep(session::AFTER_FAULT);
            }
            // Nobody is left who would answer them in time.
            while desk.waiting.try_recv().is_ok() {}
            desk
        })
        .await?;
    }
}

/// Waits for a term that holds. `None` when the election is over.
async fn next_term(terms: &mut watch::Receiver<Option<Term>>) -> Option<Term> {
    let held = terms.wait_for(|term| term.as_ref().is_some_and(Term::holds)).await.ok()?;
    held.clone()
}
