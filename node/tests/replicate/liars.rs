//! Sources that send what is not true: refused whole, and the state is kept.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use meshgate_core::snapshot::HeadId;
use meshgate_node::identity::NodeName;
use meshgate_node::replicate::{BoxedIo, PeerInfo};
use meshgate_proto::replication as pb;
use meshgate_wire::{Commit, SignedHead};
use pb::mesh_server::{Mesh, MeshServer};
use pb::sync_response::Message;
use tempfile::tempdir;
use tokio::task::JoinSet;
use tokio_stream::wrappers::IntervalStream;
use tonic::{Request, Response, Status, Streaming};

use crate::harness::{Leader, Peer, eventually, listen, put, signer};

/// Says the same to everyone, and notes what it is asked.
#[derive(Clone)]
struct Liar {
    frames: Vec<pb::SyncResponse>,
    hellos: Arc<Mutex<Vec<pb::Hello>>>,
}

#[tonic::async_trait]
impl Mesh for Liar {
    type SyncStream = BoxStream<'static, Result<pb::SyncResponse, Status>>;

    async fn sync(&self, request: Request<Streaming<pb::SyncRequest>>) -> Result<Response<Self::SyncStream>, Status> {
        let mut requests = request.into_inner();
        if let Ok(Some(pb::SyncRequest { message: Some(pb::sync_request::Message::Hello(hello)) })) =
            requests.message().await
        {
            self.hellos.lock().unwrap().push(hello);
        }
        let frames = tokio_stream::iter(self.frames.clone()).map(Ok);
        // Goes on announcing itself: silence is not what it is left for.
        let alive = tokio::time::interval(Duration::from_millis(300));
        let head = meshgate_wire::head_id_to_proto(HeadId { epoch: u64::MAX, rev: u64::MAX });
        let announce = Message::Announce(pb::Announce { head: Some(head) });
        let alive = IntervalStream::new(alive).map(move |_| Ok(pb::SyncResponse { message: Some(announce.clone()) }));
        Ok(Response::new(frames.chain(alive).boxed()))
    }

    async fn fetch_keys(&self, _: Request<pb::FetchKeysRequest>) -> Result<Response<pb::FetchKeysResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn forward(&self, _: Request<pb::ForwardRequest>) -> Result<Response<pb::ForwardResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

struct Served {
    liar: Liar,
    info: PeerInfo,
    _tasks: JoinSet<()>,
}

async fn serve(name: &str, frames: Vec<Message>) -> Served {
    let frames = frames.into_iter().map(|message| pb::SyncResponse { message: Some(message) }).collect();
    let liar = Liar { frames, hellos: Arc::default() };
    let mut tasks = JoinSet::new();
    let (address, incoming) = listen(&mut tasks).await;
    let io = incoming.map(|(io, _): (BoxedIo, NodeName)| Ok::<_, std::io::Error>(Plain(io)));
    let server = tonic::transport::Server::builder().add_service(MeshServer::new(liar.clone()));
    tasks.spawn(async move { server.serve_with_incoming(io).await.unwrap() });
    let head = HeadId { epoch: 9, rev: 99 };
    Served { liar, info: PeerInfo { node: name.into(), address, head }, _tasks: tasks }
}

/// The smallest stream that tonic takes.
struct Plain(BoxedIo);

impl tonic::transport::server::Connected for Plain {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for Plain {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Plain {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn flip(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes.into()
}

/// Each of these, and the reason that it is counted under.
fn lies(history: &Leader) -> Vec<(&'static str, &'static str, Commit)> {
    let good = || history.successor(2).commit(vec![put("y", 10)]);
    let forged = {
        let mut forger = Leader { signer: signer("other ca", 2), ..history.successor(2) };
        forger.commit(vec![put("evil", 10)])
    };
    let other_epoch = {
        let mut old = Leader { signer: signer("ca", 1), ..history.successor(2) };
        old.commit(vec![put("evil", 10)])
    };
    let flipped_signature = {
        let commit = good();
        let head = commit.head;
        let signature = flip(head.signature(), 5);
        let head = SignedHead::from_parts(head.head_bytes().clone(), signature, head.leader_certificate().clone());
        Commit { head: head.unwrap(), ..commit }
    };
    let flipped_root = {
        let commit = good();
        let head = commit.head;
        let bytes = flip(head.head_bytes(), head.head_bytes().len() - 1);
        let head = SignedHead::from_parts(bytes, head.signature().clone(), head.leader_certificate().clone());
        Commit { head: head.unwrap(), ..commit }
    };
    let flipped_value = {
        let mut commit = good();
        let value = commit.changes[0].value.take().unwrap();
        commit.changes[0].value = Some(flip(&value, value.len() - 1));
        commit
    };
    let omitted = Commit { changes: vec![], ..good() };
    vec![
        ("a forged certificate", "signature", forged),
        ("a certificate of another epoch", "signature", other_epoch),
        ("a flipped bit of the signature", "signature", flipped_signature),
        ("a flipped bit of a root", "signature", flipped_root),
        ("a flipped bit of a value", "digest", flipped_value),
        ("a change left out", "digest", omitted),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_are_refused_and_the_state_is_kept() {
    let dir = tempdir().unwrap();
    let mut history = Leader::new(1);
    let first = history.commit(vec![put("x", 10)]);
    for (index, (what, reason, commit)) in lies(&history).into_iter().enumerate() {
        let peer = Peer::start(&format!("peer{index}"), dir.path()).await;
        peer.handles.commits.send(first.clone()).await.unwrap();
        peer.reaches(history.id).await;
        let liar = serve("liar", vec![Message::Delta(commit.to_proto())]).await;
        peer.see(None, vec![liar.info.clone()]);
        peer.shows(&format!("meshgate_config_rejected_total{{reason=\"{reason}\"}} 1")).await;
        let applied = peer.handles.applied.borrow().clone().unwrap();
        assert_eq!(applied.id(), history.id, "{what}");
        assert_eq!(applied.snapshot.roots(), history.snapshot.roots(), "{what}");
        assert_eq!(peer.handles.table.load().head(), history.id, "{what}");
        assert_eq!(*peer.handles.fence.borrow(), 1, "{what}");

        // Another source that tells the truth is followed while the liar is avoided; after a
        // delta that did not work out it is asked for everything.
        let mut next = history.successor(2);
        let truth = serve("truth", vec![Message::Delta(next.commit(vec![put("z", 10)]).to_proto())]).await;
        peer.see(None, vec![liar.info.clone(), truth.info.clone()]);
        peer.reaches(next.id).await;
        assert_eq!(liar.liar.hellos.lock().unwrap().len(), 1, "{what}: the liar is avoided");
        let asked = truth.liar.hellos.lock().unwrap()[0].clone();
        assert_eq!(asked.want_full, reason == "digest", "{what}");
        peer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_snapshots_are_refused() {
    let dir = tempdir().unwrap();
    let mut history = Leader::new(1);
    let commit = history.commit((0..50).map(|n| put(&format!("s{n}"), 100)).collect());
    let mut raw = Vec::new();
    meshgate_wire::write_leaves(&history.snapshot, &mut raw).unwrap();
    let body = zstd::encode_all(&raw[..], 1).unwrap();
    let frames = |body: Vec<u8>, announced: usize, end: bool| {
        let start = pb::SnapshotStart { head: Some(commit.head.to_proto()), leaves: 50, bytes: announced as u64 };
        let mut frames = vec![Message::Start(start), Message::Chunk(pb::SnapshotChunk { data: body.into() })];
        frames.extend(end.then_some(Message::End(pb::SnapshotEnd {})));
        frames
    };
    let short = zstd::encode_all(&raw[..raw.len() - 150], 1).unwrap();
    let bomb = zstd::encode_all(&vec![0xff; 64 * 1024 * 1024][..], 1).unwrap();
    let cases = [
        ("more than announced", frames(body.clone(), body.len() - 1, true)),
        ("cut off", frames(body[..body.len() / 2].to_vec(), body.len(), true)),
        ("a leaf cut off", frames(short.clone(), short.len(), true)),
        ("a bomb", frames(bomb.clone(), bomb.len(), true)),
        ("over the limit", frames(body.clone(), usize::MAX, true)),
        ("an end without a start", vec![Message::End(pb::SnapshotEnd {})]),
    ];
    for (index, (what, frames)) in cases.into_iter().enumerate() {
        let peer = Peer::start(&format!("peer{index}"), dir.path()).await;
        let liar = serve("liar", frames).await;
        peer.see(None, vec![liar.info.clone()]);
        eventually(|| peer.metrics().lines().any(rejected_once)).await;
        assert_eq!(peer.head(), HeadId::default(), "{what}");
        peer.stop().await;
    }
    let peer = Peer::start("good", dir.path()).await;
    let good = serve("truth", frames(body.clone(), body.len(), true)).await;
    peer.see(None, vec![good.info.clone()]);
    peer.reaches(history.id).await;
}

fn rejected_once(line: &str) -> bool {
    line.starts_with("meshgate_config_rejected_total") && line.ends_with(" 1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_epoch_is_refused_also_after_a_restart() {
    let dir = tempdir().unwrap();
    let mut history = Leader::new(3);
    let first = history.commit(vec![put("x", 10)]);
    let peer = Peer::start("a", dir.path()).await;
    peer.handles.commits.send(first).await.unwrap();
    peer.reaches(history.id).await;
    let mut stale = history.successor(2);
    let stale = stale.commit(vec![put("old", 10)]);
    let liar = serve("liar", vec![Message::Delta(stale.to_proto())]).await;
    peer.see(None, vec![liar.info.clone()]);
    peer.shows("meshgate_config_rejected_total{reason=\"stale\"} 1").await;
    peer.stop().await;

    let peer = Peer::start("a", dir.path()).await;
    assert_eq!(peer.head(), history.id);
    peer.see(None, vec![liar.info.clone()]);
    peer.shows("meshgate_config_rejected_total{reason=\"stale\"} 1").await;
    assert_eq!(peer.head(), history.id);
    peer.stop().await;

    // The state is lost, the fence is not.
    for entry in std::fs::read_dir(dir.path().join("a")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "fence" {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let peer = Peer::start("a", dir.path()).await;
    assert_eq!(peer.head(), HeadId::default());
    assert_eq!(*peer.handles.fence.borrow(), 3);
    let fresh = Leader::new(2).commit(vec![put("old", 10)]);
    let liar = serve("liar", vec![Message::Delta(fresh.to_proto())]).await;
    peer.see(None, vec![liar.info.clone()]);
    peer.shows("meshgate_config_rejected_total{reason=\"stale\"} 1").await;
    assert_eq!(peer.head(), HeadId::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_only_says_it_is_ahead_is_left() {
    let dir = tempdir().unwrap();
    let mut history = Leader::new(1);
    let commit = history.commit(vec![put("x", 10)]);
    let idle = serve("idle", vec![]).await;
    let mut truth = serve("truth", vec![Message::Delta(commit.to_proto())]).await;
    truth.info.head = history.id;
    for leader in [None, Some("idle")] {
        let peer = Peer::start(if leader.is_some() { "a" } else { "b" }, dir.path()).await;
        let before = idle.liar.hellos.lock().unwrap().len();
        peer.see(leader, vec![idle.info.clone()]);
        eventually(|| idle.liar.hellos.lock().unwrap().len() == before + 1).await;
        peer.see(leader, vec![idle.info.clone(), truth.info.clone()]);
        peer.reaches(history.id).await;
        assert_eq!(idle.liar.hellos.lock().unwrap().len(), before + 1, "it is avoided");
        peer.stop().await;
    }
}
