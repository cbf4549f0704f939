//! Replication between peers on loopback.

// The lint that allows them in tests does not see the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod disk;
mod harness;
mod liars;

use bytes::Bytes;
use harness::{Leader, Peer, WAIT, dialer, put};
use meshgate_core::snapshot::{
    Certificate, Gateway, GatewayAddress, HeadId, HostPattern, Key, Kind, Listener, Protocol, Resource,
};
use meshgate_core::table::Held;
use meshgate_node::replicate::{BindError, Caller, ForwardError, LiveReport, Origin};
use meshgate_proto::replication as pb;
use meshgate_wire::LeafChange;
use tempfile::tempdir;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_get_deltas_and_acknowledge() {
    let dir = tempdir().unwrap();
    let leader = Peer::start("a", dir.path()).await;
    let followers = [Peer::start("b", dir.path()).await, Peer::start("c", dir.path()).await];
    for follower in &followers {
        follower.see(Some("a"), vec![leader.info(HeadId::default())]);
    }
    let mut history = Leader::new(1);
    for round in 0..20 {
        leader.handles.commits.send(history.commit(vec![put(&format!("s{}", round % 3), round)])).await.unwrap();
        leader.acknowledged(history.id, &["a", "b", "c"]).await;
    }
    for follower in &followers {
        let applied = follower.handles.applied.borrow().clone().unwrap();
        assert_eq!(applied.snapshot.roots(), history.snapshot.roots());
        assert_eq!(follower.handles.table.load().head(), history.id);
        assert_eq!(applied.origin, Origin::Leader);
    }
    assert!(leader.metrics().contains("meshgate_config_sent_total{kind=\"delta\"}"));
    leader.shows("meshgate_config_applied_rev 20").await;
    let [b, c] = followers;
    b.stop().await;
    let mut map = leader.handles.followers.clone();
    let left = map.wait_for(|map| !map["b"].connected && map["c"].connected);
    tokio::time::timeout(WAIT, left).await.unwrap();
    c.stop().await;
    leader.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_joiner_gets_everything() {
    let dir = tempdir().unwrap();
    let leader = Peer::start("a", dir.path()).await;
    let mut history = Leader::new(1);
    let many: Vec<LeafChange> = (0..3000).map(|n| put(&format!("s{n}"), 1000)).collect();
    leader.handles.commits.send(history.commit(many)).await.unwrap();
    for round in 0..600 {
        leader.handles.commits.send(history.commit(vec![put("again", round)])).await.unwrap();
    }
    leader.reaches(history.id).await;
    let joiner = Peer::start("b", dir.path()).await;
    joiner.see(Some("a"), vec![leader.info(history.id)]);
    leader.acknowledged(history.id, &["b"]).await;
    assert_eq!(joiner.handles.applied.borrow().as_ref().unwrap().snapshot.len(), 3001);
    leader.shows("meshgate_config_sent_total{kind=\"snapshot\"} 1").await;
    joiner.shows("meshgate_config_bootstrap_total{source=\"leader\"} 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_leader_any_peer_that_is_ahead_will_do() {
    let dir = tempdir().unwrap();
    let leader = Peer::start("a", dir.path()).await;
    let middle = Peer::start("b", dir.path()).await;
    middle.see(Some("a"), vec![leader.info(HeadId::default())]);
    let mut history = Leader::new(1);
    leader.handles.commits.send(history.commit(vec![put("x", 10)])).await.unwrap();
    middle.reaches(history.id).await;
    let gone = leader.info(history.id);
    leader.stop().await;
    let last = Peer::start("c", dir.path()).await;
    // Gossip still names the leader that is gone.
    last.see(Some("a"), vec![gone, middle.info(history.id)]);
    last.reaches(history.id).await;
    assert_eq!(last.handles.applied.borrow().as_ref().unwrap().origin, Origin::Peer);

    // A new leader comes up: everyone switches to it.
    let mut next = history.successor(2);
    let leader = Peer::start("d", dir.path()).await;
    leader.see(None, vec![middle.info(history.id)]);
    leader.reaches(history.id).await;
    last.see(Some("d"), vec![middle.info(history.id), leader.info(history.id)]);
    leader.handles.commits.send(next.commit(vec![put("y", 10)])).await.unwrap();
    leader.acknowledged(next.id, &["c"]).await;
    assert_eq!(*last.handles.fence.borrow(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_follower_gets_one_merged_delta() {
    let dir = tempdir().unwrap();
    let leader = Peer::start("a", dir.path()).await;
    let mut history = Leader::new(1);
    leader.handles.commits.send(history.commit(vec![put("x", 0)])).await.unwrap();
    leader.reaches(history.id).await;
    let first = history.id;

    let mut frames = follow_by_hand(&leader, first).await;
    const COMMITS: u64 = 70;
    for _ in 0..COMMITS {
        leader.handles.commits.send(history.commit(vec![put("x", 100_000)])).await.unwrap();
    }
    leader.reaches(history.id).await;
    let mut deltas = Vec::new();
    let mut at = first;
    while at < history.id {
        let frame = tokio::time::timeout(WAIT, frames.message()).await.unwrap().unwrap().unwrap();
        if let Some(pb::sync_response::Message::Delta(delta)) = frame.message {
            let commit = meshgate_wire::Commit::from_proto(delta).unwrap();
            assert_eq!(commit.base, at);
            assert_eq!(commit.changes.len(), 1);
            at = commit.head.id();
            deltas.push(at.rev - commit.base.rev);
        }
    }
    assert!((deltas.len() as u64) < COMMITS && deltas.iter().any(|revs| *revs > 5), "not merged: {deltas:?}");
}

/// A follower that reads only when told to.
async fn follow_by_hand(leader: &Peer, held: HeadId) -> tonic::Streaming<pb::SyncResponse> {
    let io = harness::dial(&"slow".into(), leader.address).await.unwrap();
    let io = std::sync::Arc::new(std::sync::Mutex::new(Some(hyper_util::rt::TokioIo::new(io))));
    let connector = tower::service_fn(move |_: http::Uri| {
        let io = io.lock().unwrap().take().ok_or(std::io::Error::other("once"));
        std::future::ready(io)
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://mesh");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    let hello = pb::Hello { held: Some(meshgate_wire::head_id_to_proto(held)), ..Default::default() };
    let hello = pb::SyncRequest { message: Some(pb::sync_request::Message::Hello(hello)) };
    let requests = futures_util::StreamExt::chain(tokio_stream::once(hello), tokio_stream::pending());
    let mut client = pb::mesh_client::MeshClient::new(channel);
    client.sync(requests).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_tell_what_is_held_and_what_is_live() {
    let dir = tempdir().unwrap();
    let leader = Peer::start("a", dir.path()).await;
    let follower = Peer::start("b", dir.path()).await;
    follower.live.send_replace(LiveReport::default());
    follower.see(Some("a"), vec![leader.info(HeadId::default())]);
    let mut history = Leader::new(1);
    let bad = LeafChange { key: Key::new(Kind::Service, "shop", "bad"), value: Some(Bytes::from_static(&[0xff])) };
    leader.handles.commits.send(history.commit(vec![bad.clone(), put("good", 1)])).await.unwrap();

    // Nothing is live yet: after a while the follower says what is known.
    let mut followers = leader.handles.followers.clone();
    let id = history.id;
    let told = followers.wait_for(|map| map.get("b").is_some_and(|one| one.ack.applied == id));
    tokio::time::timeout(WAIT, told).await.unwrap();
    let ack = leader.handles.followers.snapshot()["b"].ack.clone();
    assert_eq!(ack.live, HeadId::default());
    assert!(ack.table_ok && ack.holds(&bad.key) && !ack.holds(&put("good", 0).key));
    let held = follower.handles.applied.borrow().as_ref().unwrap().held.clone();
    assert!(matches!(held.as_slice(), [Held { key, .. }] if *key == bad.key));

    // Live, with a listener that can't be bound; then that is cured without a new head.
    let gateway = Key::new(Kind::Gateway, "shop", "web");
    let (listener, address, message) = ("http".to_owned(), "127.0.0.1:80".to_owned(), "in use".to_owned());
    let error = BindError { gateway: gateway.clone(), listener, address, message };
    follower.live.send_replace(LiveReport { head: id, bind_errors: vec![error.clone()], ..LiveReport::default() });
    leader.acknowledged(id, &["b"]).await;
    assert_eq!(leader.handles.followers.snapshot()["b"].ack.bind_errors, [error]);
    let held = Held { key: gateway.clone(), reason: "no key".to_owned() };
    follower.live.send_replace(LiveReport { head: id, held: vec![held.clone()], ..LiveReport::default() });
    let cured = followers.wait_for(|map| map["b"].ack.bind_errors.is_empty());
    tokio::time::timeout(WAIT, cured).await.unwrap();
    let ack = leader.handles.followers.snapshot()["b"].ack.clone();
    assert!(ack.holds(&gateway) && ack.holds(&bad.key) && ack.held_total == 2);

    // The bad one is replaced: nothing is held any more.
    follower.live.send_replace(LiveReport::always());
    leader.handles.commits.send(history.commit(vec![put("bad", 0)])).await.unwrap();
    leader.acknowledged(history.id, &["b"]).await;
    assert_eq!(leader.handles.followers.snapshot()["b"].ack.held, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_forwarded_calls() {
    let dir = tempdir().unwrap();
    let peer = Peer::start("a", dir.path()).await;
    peer.services.keys.lock().unwrap().insert([1; 32], Bytes::from_static(b"der"));
    let caller = Caller::new(dialer("b"));
    let keys = caller.fetch_keys(&peer.node, peer.address, &[[1; 32], [2; 32]]).await.unwrap();
    assert_eq!(keys, [([1; 32], Bytes::from_static(b"der"))]);
    let body = Bytes::from_static(b"hello");
    let answer = caller.forward(&peer.node, peer.address, "echo", body.clone(), WAIT).await.unwrap();
    assert_eq!(answer, "b: hello");
    let unknown = caller.forward(&peer.node, peer.address, "nothing", body.clone(), WAIT).await;
    assert_eq!(unknown, Err(ForwardError::UnknownMethod("nothing".to_owned())));
    let (node, address) = (peer.node.clone(), peer.address);
    peer.stop().await;
    let gone = caller.forward(&node, address, "echo", body, WAIT).await;
    assert!(matches!(gone, Err(ForwardError::Unavailable(_))), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_starts_elsewhere_is_refused() {
    let dir = tempdir().unwrap();
    let leader = Peer::start("a", dir.path()).await;
    let mut history = Leader::new(1);
    let _lost = history.commit(vec![put("x", 1)]);
    leader.handles.commits.send(history.commit(vec![put("y", 1)])).await.unwrap();
    let mut refused = leader.handles.refused.clone();
    let refusal = tokio::time::timeout(WAIT, refused.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert_eq!(refusal.unwrap().head, history.id);
    assert_eq!(leader.head(), HeadId::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_dropped_while_it_is_needed_is_asked_for_again() {
    let dir = tempdir().unwrap();
    let peer = Peer::start("a", dir.path()).await;
    let hash = [7; 32];
    peer.services.keys.lock().unwrap().insert(hash, Bytes::new());
    let certificate = Key::new(Kind::Certificate, "shop", "tls");
    let listener = Listener {
        name: "https".to_owned(),
        port: 443,
        protocol: Protocol::Https,
        hostname: HostPattern::Any,
        certificates: vec![certificate.clone()],
        versions: Default::default(),
        clients: None,
    };
    let gateway = Gateway { generation: 1, address: GatewayAddress::Loopback(1), listeners: vec![listener] };
    let tls = Certificate { chain: vec![vec![1]], key_hash: hash, dns_names: vec![], not_after: 0 };
    let change = |key, resource| LeafChange { key, value: Some(meshgate_wire::encode(&resource)) };
    let mut history = Leader::new(1);
    let commit = history.commit(vec![
        change(certificate, Resource::Certificate(tls)),
        change(Key::new(Kind::Gateway, "shop", "web"), Resource::Gateway(gateway)),
    ]);
    peer.handles.commits.send(commit).await.unwrap();
    peer.reaches(history.id).await;
    assert_eq!(peer.handles.table.load().certificates().count(), 1);
    peer.shows("meshgate_config_missing_keys 0").await;
    // The apply has seen it; then it is gone, and no other apply looks for it.
    peer.services.keys.lock().unwrap().clear();
    peer.shows("meshgate_config_missing_keys 1").await;
    peer.services.keys.lock().unwrap().insert(hash, Bytes::new());
    peer.shows("meshgate_config_missing_keys 0").await;
}
