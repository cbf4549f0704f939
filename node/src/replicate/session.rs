//! The serving end of one follower's Sync stream. It remembers one thing, the head that the
//! follower has been sent: a slow follower gets what changed since as one delta or a snapshot,
//! never a queue.

use std::sync::Arc;
use std::time::Duration;

use meshgate_core::replica::{Serve, Serving};
use meshgate_core::snapshot::HeadId;
use meshgate_proto::replication as pb;
use pb::sync_request::Message;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout, timeout_at};
use tonic::{Status, Streaming};

use super::acks::FollowerSession;
use super::frames::{self, Hello};
use super::replica::Published;
use super::server::MeshService;
use super::transfer;
use crate::identity::NodeName;

/// How long a new stream may take to say hello.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// How often a stream shows that it lives.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(500);
/// A follower that takes no frame for so long is let go.
const STALL: Duration = Duration::from_secs(15);

/// The follower is gone, or too slow.
struct Gone;

/// One follower.
pub(super) struct Session {
    pub(super) shared: MeshService,
    pub(super) node: NodeName,
    pub(super) frames: mpsc::Sender<Result<pb::SyncResponse, Status>>,
}

impl Session {
    /// Serves the follower until either side ends.
    pub(super) async fn run(self, mut requests: Streaming<pb::SyncRequest>) {
        let first = timeout(HELLO_WAIT, requests.message()).await;
        let Some(hello) = first.ok().and_then(Result::ok).flatten().as_ref().and_then(frames::read_hello) else {
            let _ = self.frames.try_send(Err(Status::invalid_argument("the first message must be Hello")));
            return;
        };
        tracing::info!(node = %self.node, instance = %hello.instance, held = %hello.held, "a follower connected");
        let follower = self.shared.registry.open(self.node.clone(), hello.instance, hello.fence);
        let resend = Notify::new();
        tokio::select! {
            () = read(&mut requests, &follower, &resend) => {}
            _ = self.write(hello, &resend) => {}
            () = self.shared.ended.cancelled() => {}
        }
        tracing::info!(node = %self.node, "a follower disconnected");
    }

    /// Sends whatever the follower lacks, as long as it takes it.
    async fn write(&self, hello: Hello, resend: &Notify) -> Result<(), Gone> {
        let mut published = self.shared.published.clone();
        let mut tick = interval(ANNOUNCE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut serving = Serving::new(hello.held, hello.want_full);
        loop {
            let now = published.borrow_and_update().clone();
            if let Some(now) = now {
                let sent = match serving.next(now.applied.id()) {
                    Serve::Nothing => None,
                    Serve::Delta => Some(self.send_delta(&now, serving.sent(), &mut tick).await?),
                    Serve::Full => Some(self.send_snapshot(&mut tick).await?),
                };
                sent.into_iter().for_each(|head| serving.has(head));
            }
            tokio::select! {
                changed = published.changed() => changed.map_err(|_| Gone)?,
                () = resend.notified() => serving.resend(),
                _ = tick.tick() => self.announce().await?,
            }
        }
    }

    /// Sends a delta if that will do, else everything. Returns the head that was sent.
    async fn send_delta(&self, now: &Published, held: HeadId, tick: &mut Interval) -> Result<HeadId, Gone> {
        let Some(delta) = now.log.since(held) else { return self.send_snapshot(tick).await };
        self.send(frames::delta(&delta)).await?;
        self.shared.metrics.sent("delta");
        Ok(delta.head.id())
    }

    async fn send_snapshot(&self, tick: &mut Interval) -> Result<HeadId, Gone> {
        let Some(turn) = self.shared.snapshots.ask(&self.node) else {
            let _ =
                self.frames.try_send(Err(Status::resource_exhausted("too many wait for a snapshot; ask another peer")));
            return Err(Gone);
        };
        if !self.meanwhile_alive(tick, turn.comes()).await? {
            return Err(Gone);
        }
        let begun = Instant::now();
        // The state as it is now that it is this follower's turn.
        let now = self.shared.published.borrow().clone().ok_or(Gone)?;
        let snapshot = now.applied.snapshot.clone();
        let compressing = tokio::task::spawn_blocking(move || transfer::compress(&snapshot));
        let chunks = self.meanwhile_alive(tick, compressing).await?.map_err(|_| Gone)?.map_err(|_| Gone)?;
        let bytes = chunks.iter().map(bytes::Bytes::len).sum();
        // In all, so that a slow follower does not keep its turn from others.
        let deadline = begun + transfer::longest(bytes as u64);
        tokio::select! {
            sent = timeout_at(deadline, self.send_chunks(&now, chunks, bytes)) => sent.map_err(|_| {
                tracing::info!(node = %self.node, bytes, "a follower takes a snapshot too slowly; it is let go");
                Gone
            })??,
            // The node's newer stream has the turn.
            () = turn.lost() => return Err(Gone),
        }
        self.shared.metrics.sent("snapshot");
        Ok(now.applied.id())
    }

    async fn send_chunks(&self, now: &Published, chunks: Vec<bytes::Bytes>, bytes: usize) -> Result<(), Gone> {
        self.send(frames::start(&now.applied.head, now.applied.snapshot.len(), bytes)).await?;
        for chunk in chunks {
            self.send(frames::chunk(chunk)).await?;
        }
        self.send(frames::end()).await
    }

    /// Waits for something that takes long, and tells the follower meanwhile that the stream lives.
    async fn meanwhile_alive<T>(&self, tick: &mut Interval, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                _ = tick.tick() => self.announce().await?,
            }
        }
    }

    async fn announce(&self) -> Result<(), Gone> {
        let now: Option<Arc<Published>> = self.shared.published.borrow().clone();
        self.send(frames::announce(now.map_or_else(HeadId::default, |now| now.applied.id()))).await
    }

    async fn send(&self, frame: pb::SyncResponse) -> Result<(), Gone> {
        match timeout(STALL, self.frames.send(Ok(frame))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }
}

/// Reads acknowledgements until the stream ends.
async fn read(requests: &mut Streaming<pb::SyncRequest>, follower: &FollowerSession, resend: &Notify) {
    while let Ok(Some(request)) = requests.message().await {
        match request.message {
            Some(Message::Ack(ack)) => follower.ack(frames::read_ack(ack)),
            Some(Message::Resend(_)) => resend.notify_one(),
            // A second hello means nothing; other messages are of a newer version.
            Some(Message::Hello(_)) | None => {}
        }
    }
}
