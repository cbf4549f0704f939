//! The receiving end of a Sync stream: frames to offers.

use std::sync::Arc;
use std::time::Instant;

use meshgate_core::replica::{After, End, Outcome, SILENCE};
use meshgate_core::snapshot::HeadId;
use meshgate_proto::replication as pb;
use meshgate_wire::{Commit, LeaderVerifier, SignedHead, verify};
use pb::sync_response::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::Streaming;

use super::client::Following;
use super::frames;
use super::metrics::{Metrics, Reason};
use super::replica::{Content, Offer};
use super::transfer::{self, Assembly};
use super::types::Origin;
use crate::identity::NodeName;

/// What is said of a source that sent something false.
const AVOIDED: &str = "a source sent what can't be used; it is avoided for a while";

/// One stream's state.
pub(super) struct Inbound<'a> {
    pub(super) source: NodeName,
    pub(super) origin: Origin,
    pub(super) verifier: Arc<dyn LeaderVerifier>,
    pub(super) offers: mpsc::Sender<Offer>,
    pub(super) metrics: Metrics,
    pub(super) requests: mpsc::Sender<pb::SyncRequest>,
    pub(super) following: &'a Following,
    pub(super) assembly: Option<Assembly>,
    /// What is applied, as far as this stream knows.
    pub(super) held: HeadId,
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
        let until = Instant::now() + transfer::longest(start.bytes);
        self.following.lock().transfer(head.id() > self.held, until);
        let assembly = Assembly::start(head, start.bytes);
        self.assembly = Some(assembly.ok_or_else(|| self.counted(Reason::Limit, &"a snapshot over the limit"))?);
        Ok(())
    }

    fn chunk(&mut self, data: &[u8]) -> Result<(), End> {
        self.following.lock().part(Instant::now());
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
        self.following.lock().judging();
        let judged = async {
            self.offers.send(offer).await.ok()?;
            outcome.await.ok()
        };
        let Some(outcome) = judged.await else {
            self.following.lock().unjudged();
            return Err(End::Broken);
        };
        if outcome == Outcome::Applied {
            self.held = newer;
        }
        let after = self.following.lock().judged(&outcome, Instant::now());
        match after {
            After::Go => Ok(()),
            After::AskFull => self.requests.send(frames::resend()).await.map_err(|_| End::Broken),
            After::Leave(end) => {
                tracing::warn!(source = %self.source, ?outcome, "{AVOIDED}");
                Err(end)
            }
        }
    }

    /// What the replica does not get to see, and so does not count.
    fn counted(&self, reason: Reason, why: &dyn std::fmt::Display) -> End {
        self.metrics.rejected(reason);
        tracing::warn!(source = %self.source, %why, "{AVOIDED}");
        End::False { ask_full: false }
    }
}
