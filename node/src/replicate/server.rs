//! The Mesh service: passes on what is applied here, hands out keys, answers forwarded calls.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use meshgate_proto::replication as pb;
use pb::mesh_server::{Mesh, MeshServer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::acks::FollowerRegistry;
use super::metrics::Metrics;
use super::replica::Published;
use super::rpc::{MAX_FORWARD_BYTES, MAX_KEYS, MAX_MESSAGE_BYTES, PeerIdentity, PeerIo, to_status};
use super::session::Session;
use super::turns::SnapshotTurns;
use super::types::{BoxedIo, ForwardHandler, KeyLookup};
use crate::drain::{Drain, Phase};
use crate::identity::NodeName;

/// Followers at once.
const MAX_SESSIONS: usize = 1024;
/// Forwarded calls at once.
const MAX_FORWARDS: usize = 64;
/// Frames that wait for a slow follower: one. What changes meanwhile is merged.
const FRAMES: usize = 1;
/// Streams a connection.
const MAX_STREAMS: u32 = 16;
/// How long the end waits for sessions to end.
const END_WAIT: Duration = Duration::from_secs(1);
/// An idle connection is pinged this often, and given up when no answer comes.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Serves followers.
pub struct ServerTask {
    pub(super) service: MeshService,
}

impl ServerTask {
    /// Serves streams that are authenticated already, each with its peer's name, until the drain's
    /// cut.
    pub async fn run<S>(self, incoming: S, drain: Drain)
    where
        S: Stream<Item = (BoxedIo, NodeName)> + Send + Unpin + 'static,
    {
        let MeshService { tracker, ended, .. } = self.service.clone();
        // Whoever drops this future ends the sessions too.
        let _guard = ended.clone().drop_guard();
        let incoming = incoming.map(|(io, node)| Ok::<_, io::Error>(PeerIo { io, peer: PeerIdentity(node) }));
        let service = MeshServer::new(self.service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let serving = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_EVERY))
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, ended.clone().cancelled_owned());
        let ending = async {
            drain.reached(Phase::Cut).await;
            ended.cancel();
            tracker.close();
            let _ = tokio::time::timeout(END_WAIT, tracker.wait()).await;
        };
        tokio::select! {
            result = serving => {
                if let Err(error) = result {
                    tracing::error!(%error, "the Mesh service ended");
                }
                drain.reached(Phase::Cut).await;
            }
            () = ending => {}
        }
    }
}

/// What all sessions share.
#[derive(Clone)]
pub(super) struct MeshService {
    pub(super) published: watch::Receiver<Option<Arc<Published>>>,
    pub(super) registry: Arc<FollowerRegistry>,
    pub(super) metrics: Metrics,
    pub(super) keys: Arc<dyn KeyLookup>,
    pub(super) forward: Arc<dyn ForwardHandler>,
    pub(super) snapshots: Arc<SnapshotTurns>,
    sessions: Arc<Semaphore>,
    forwards: Arc<Semaphore>,
    tracker: TaskTracker,
    pub(super) ended: CancellationToken,
}

impl MeshService {
    pub(super) fn new(
        published: watch::Receiver<Option<Arc<Published>>>,
        registry: Arc<FollowerRegistry>,
        metrics: Metrics,
        keys: Arc<dyn KeyLookup>,
        forward: Arc<dyn ForwardHandler>,
    ) -> Self {
        MeshService {
            published,
            registry,
            metrics,
            keys,
            forward,
            snapshots: Arc::default(),
            sessions: Arc::new(Semaphore::new(MAX_SESSIONS)),
            forwards: Arc::new(Semaphore::new(MAX_FORWARDS)),
            tracker: TaskTracker::new(),
            ended: CancellationToken::new(),
        }
    }
}

fn peer<T>(request: &Request<T>) -> Result<NodeName, Status> {
    let identity = request.extensions().get::<PeerIdentity>();
    identity.map(|identity| identity.0.clone()).ok_or_else(|| Status::unauthenticated("no peer certificate"))
}

#[tonic::async_trait]
impl Mesh for MeshService {
    type SyncStream = ReceiverStream<Result<pb::SyncResponse, Status>>;

    async fn sync(&self, request: Request<Streaming<pb::SyncRequest>>) -> Result<Response<Self::SyncStream>, Status> {
        let node = peer(&request)?;
        let room = Arc::clone(&self.sessions).try_acquire_owned();
        let permit = room.map_err(|_| Status::resource_exhausted("too many followers; ask another peer"))?;
        let (frames, stream) = mpsc::channel(FRAMES);
        let session = Session { shared: self.clone(), node, frames };
        self.tracker.spawn(async move {
            session.run(request.into_inner()).await;
            drop(permit);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch_keys(
        &self,
        request: Request<pb::FetchKeysRequest>,
    ) -> Result<Response<pb::FetchKeysResponse>, Status> {
        let node = peer(&request)?;
        let hashes = request.into_inner().key_hashes;
        if hashes.len() > MAX_KEYS {
            return Err(Status::invalid_argument(format!("more than {MAX_KEYS} keys in one call")));
        }
        let found = hashes.into_iter().filter_map(|key_hash| {
            let hash = <[u8; 32]>::try_from(key_hash.as_ref()).ok()?;
            let der = self.keys.lookup(&node, &hash)?;
            Some(pb::PrivateKey { key_hash, der })
        });
        Ok(Response::new(pb::FetchKeysResponse { keys: found.collect() }))
    }

    async fn forward(&self, request: Request<pb::ForwardRequest>) -> Result<Response<pb::ForwardResponse>, Status> {
        let node = peer(&request)?;
        let _permit = self.forwards.try_acquire().map_err(|_| Status::resource_exhausted("too many calls"))?;
        let pb::ForwardRequest { method, body } = request.into_inner();
        if body.len() > MAX_FORWARD_BYTES {
            return Err(Status::invalid_argument("the call is too large"));
        }
        let body = self.forward.forward(&node, &method, body).await.map_err(to_status)?;
        Ok(Response::new(pb::ForwardResponse { body }))
    }
}

impl Connected for PeerIo {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.peer.clone()
    }
}

impl AsyncRead for PeerIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
