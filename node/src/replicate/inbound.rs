//! The receiving end of a Sync stream: frames to offers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use meshgate_core::snapshot::HeadId;
use meshgate_proto::replication as pb;
use meshgate_wire::{Commit, LeaderVerifier, SignedHead, verify};
use pb::sync_response::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::Streaming;

use super::frames;
use super::metrics::{Metrics, Reason};
use super::replica::{Content, Offer, Outcome};
use super::transfer::{self, Assembly};
use super::types::Origin;
use crate::identity::NodeName;

/// A source that is silent for so long is dead: it announces itself six times meanwhile.
const SILENCE: Duration = Duration::from_secs(3);
/// Full snapshots that are asked for on one stream.
const MAX_RESENDS: u32 = 3;

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// There is a better source.
    Switched,
    /// The source has delivered nothing for a while, and another one says that it is ahead.
    Useless,
    /// It broke off, or never came about.
    Broken,
    /// The source sent something false.
    False {
        /// The next source is to start with a full snapshot.
        ask_full: bool,
    },
}

/// What one stream has brought so far. What the source merely announces does not count.
#[derive(Debug)]
pub(super) struct Progress {
    /// When something last came of it: applied, or a part of a newer snapshot that the leader signed.
    last: Mutex<Instant>,
    /// This peer is at work on what came.
    judging: AtomicBool,
    /// Something was applied from it.
    worked: AtomicBool,
}

impl Progress {
    /// The stream begins.
    pub(super) fn begin() -> Self {
        Progress { last: Mutex::new(Instant::now()), judging: AtomicBool::new(false), worked: AtomicBool::new(false) }
    }

    fn note(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When it will have brought nothing for `patience`; later if this peer is at work on something.
    pub(super) fn useless_at(&self, patience: Duration) -> Instant {
        if self.judging.load(Ordering::Relaxed) {
            return Instant::now() + patience;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) + patience
    }

    /// Something was applied from it.
    pub(super) fn worked(&self) -> bool {
        self.worked.load(Ordering::Relaxed)
    }
}

/// One stream's state.
pub(super) struct Inbound<'a> {
    pub(super) source: NodeName,
    pub(super) origin: Origin,
    pub(super) verifier: Arc<dyn LeaderVerifier>,
    pub(super) offers: mpsc::Sender<Offer>,
    pub(super) metrics: Metrics,
    pub(super) requests: mpsc::Sender<pb::SyncRequest>,
    pub(super) progress: &'a Progress,
    pub(super) resends: u32,
    pub(super) assembly: Option<Assembly>,
    /// What is applied, as far as this stream knows.
    pub(super) held: HeadId,
    /// A newer snapshot is coming in; until when it counts as progress.
    pub(super) transfer: Option<Instant>,
}

impl Inbound<'_> {
    /// Reads until the stream ends or the source proves false.
    pub(super) async fn read(&mut self, mut frames: Streaming<pb::SyncResponse>) -> End {
        loop {
            let Ok(Ok(Some(frame))) = timeout(SILENCE, frames.message()).await else {
                return End::Broken;
            };
            let taken = match frame.message {
                Some(Message::Delta(delta)) => self.delta(delta).await,
                Some(Message::Start(start)) => self.start(start),
                Some(Message::Chunk(chunk)) => self.chunk(&chunk.data),
                Some(Message::End(_)) => self.end().await,
                // A sign of life; `None`: of a newer version.
                Some(Message::Announce(_)) | None => Ok(()),
            };
            if let Err(end) = taken {
                return end;
            }
        }
    }

    async fn delta(&mut self, delta: pb::Delta) -> Result<(), End> {
        let received = Instant::now();
        let commit = Commit::from_proto(delta).map_err(|error| self.counted(Reason::Malformed, &error))?;
        let content = Content::Delta { base: commit.base, changes: commit.changes };
        self.offer(commit.head, content, received).await
    }

    fn start(&mut self, start: pb::SnapshotStart) -> Result<(), End> {
        let head = SignedHead::from_proto(start.head.unwrap_or_default());
        let head = head.map_err(|error| self.counted(Reason::Malformed, &error))?;
        // Before anything is gathered for it.
        verify(&head, self.verifier.as_ref()).map_err(|error| self.counted(Reason::Signature, &error))?;
        self.transfer = (head.id() > self.held).then(|| Instant::now() + transfer::longest(start.bytes));
        let assembly = Assembly::start(head, start.bytes);
        self.assembly = Some(assembly.ok_or_else(|| self.counted(Reason::Limit, &"a snapshot over the limit"))?);
        Ok(())
    }

    fn chunk(&mut self, data: &[u8]) -> Result<(), End> {
        if self.transfer.is_some_and(|end| Instant::now() < end) {
            self.progress.note();
        }
        let added = self.assembly.as_mut().is_some_and(|assembly| assembly.add(data));
        if added { Ok(()) } else { Err(self.counted(Reason::Malformed, &"a chunk out of place")) }
    }

    async fn end(&mut self) -> Result<(), End> {
        let received = Instant::now();
        let assembly =
            self.assembly.take().ok_or_else(|| self.counted(Reason::Malformed, &"an end without a start"))?;
        let finished = tokio::task::spawn_blocking(move || assembly.finish()).await;
        let finished = finished.map_err(|_| End::Broken)?;
        let (head, snapshot) = finished.map_err(|error| self.counted(Reason::Malformed, &error))?;
        self.offer(head, Content::Full(snapshot), received).await
    }

    /// Offers a head to the replica and acts on what becomes of it.
    async fn offer(&mut self, head: SignedHead, content: Content, received: Instant) -> Result<(), End> {
        let (reply, outcome) = oneshot::channel();
        let source = Some(self.source.clone());
        let newer = head.id();
        let offer = Offer { head, content, origin: self.origin, source, received, reply: Some(reply) };
        self.progress.judging.store(true, Ordering::Relaxed);
        let judged = async {
            self.offers.send(offer).await.ok()?;
            outcome.await.ok()
        };
        let judged = judged.await.ok_or(End::Broken);
        self.progress.judging.store(false, Ordering::Relaxed);
        match judged? {
            Outcome::Applied => {
                self.progress.note();
                self.held = newer;
                self.progress.worked.store(true, Ordering::Relaxed);
                Ok(())
            }
            Outcome::Same => Ok(()),
            Outcome::NeedFull => self.resend().await,
            // The delta or what it starts from is wrong: everything anew, from someone else.
            Outcome::Refused(Reason::Digest | Reason::Conflict, why) => Err(self.falsehood(&why, true)),
            Outcome::Refused(_, why) => Err(self.falsehood(&why, false)),
        }
    }

    async fn resend(&mut self) -> Result<(), End> {
        self.resends += 1;
        if self.resends > MAX_RESENDS {
            return Err(self.falsehood(&"it keeps sending deltas that start elsewhere", true));
        }
        self.requests.send(frames::resend()).await.map_err(|_| End::Broken)
    }

    /// What the replica does not get to see, and so does not count.
    fn counted(&self, reason: Reason, why: &dyn std::fmt::Display) -> End {
        self.metrics.rejected(reason);
        self.falsehood(why, false)
    }

    fn falsehood(&self, why: &dyn std::fmt::Display, ask_full: bool) -> End {
        tracing::warn!(source = %self.source, %why, "a source sent what can't be used; it is avoided for a while");
        End::False { ask_full }
    }
}
