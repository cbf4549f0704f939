//! What a whole leader and a whole peer cost: the real session on a watched directory, and the real
//! replica with its state folder, each alone in this process.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use meshgate_core::snapshot::HeadId;
use meshgate_node::drain::{self, Phase};
use meshgate_node::identity::{EpochSigner, InstanceId, KeyStore, LeaderKey, MeshVerifier, NodeName, RunDir};
use meshgate_node::reconcile::elect::Term;
use meshgate_node::reconcile::{self, ReconcileConfig, ReplicaView};
use meshgate_node::replicate::{
    self, BoxedIo, Dialer, ForwardError, ForwardHandler, KeyEnsurer, KeyLookup, LiveReport, ReplicaConfig,
};
use meshgate_proto::replication as pb;
use meshgate_wire::{Commit, Snapshot};
use prost::Message;
use tokio::sync::{mpsc, watch};

use crate::cpu::{self, Line};
use crate::world::{self, Size};

/// How long everything may take that an edit sets off.
const SETTLE: Duration = Duration::from_millis(15);
/// How long the first commit may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A term that outlasts the measurement.
const TERM: Duration = Duration::from_secs(3600);

/// Stands for the leader's replica: whatever was published is held.
#[derive(Default)]
struct Published(Mutex<(HeadId, Snapshot)>);

impl Published {
    fn take(&self, commit: &Commit) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *held = (commit.head.id(), held.1.apply(&commit.changes));
    }
}

impl ReplicaView for Published {
    fn held(&self) -> (HeadId, Snapshot) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn head(&self) -> HeadId {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn newest(&self) -> HeadId {
        self.head()
    }
}

/// Nobody to ask: a peer alone.
struct Alone;

impl Dialer for Alone {
    fn dial(&self, _: &NodeName, _: std::net::SocketAddr) -> BoxFuture<'static, std::io::Result<BoxedIo>> {
        Box::pin(async { Err(std::io::ErrorKind::NotConnected.into()) })
    }
}

#[async_trait]
impl KeyEnsurer for Alone {
    async fn ensure(&self, hashes: &[[u8; 32]], _: Option<&NodeName>) -> Vec<[u8; 32]> {
        hashes.to_vec()
    }
}

impl KeyLookup for Alone {
    fn lookup(&self, _: &NodeName, _: &[u8; 32]) -> Option<Bytes> {
        None
    }
}

impl ForwardHandler for Alone {
    fn forward(&self, _: &NodeName, _: &str, _: Bytes) -> BoxFuture<'static, Result<Bytes, ForwardError>> {
        Box::pin(async { Err(ForwardError::Unavailable("alone".to_owned())) })
    }
}

/// CPU time of the process while `work` and what it sets off run. This thread's own share is left out
/// when `others_only`.
async fn cost<T>(others_only: bool, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<(T, Duration)> {
    let (process, own) = (cpu::process(), cpu::thread());
    let result = work.await?;
    tokio::time::sleep(SETTLE).await;
    let mine = if others_only { cpu::thread().saturating_sub(own) } else { Duration::ZERO };
    Ok((result, cpu::process().saturating_sub(process).saturating_sub(mine)))
}

/// Runs a session on the manifests; returns what an edit costs, and all commits as bytes.
///
/// # Errors
/// A file can't be written, or nothing is published.
pub async fn leader(folder: &Path, size: Size, edits: u32) -> anyhow::Result<(Line, Vec<Bytes>)> {
    let run = RunDir::open(folder.join("run"))?;
    let (published, manifests) = (Arc::new(Published::default()), folder.join("manifests"));
    let (control, drain) = drain::channel();
    let (commits, mut made) = mpsc::channel(16);
    let config = ReconcileConfig {
        mesh_id: run.mesh_id().to_owned(),
        source: manifests.clone(),
        last_good: folder.join("last-good"),
        replica: published.clone(),
        keys: Arc::new(KeyStore::in_folder(folder.join("keys"))?),
        signer: Arc::new(move |epoch| {
            let key = LeaderKey::issue(&run, &"n0".into(), epoch)?;
            Ok(Box::new(EpochSigner(key)) as Box<_>)
        }),
        commits,
    };
    let (terms, receiver) = watch::channel(Some(Term::fixed(1, TERM)));
    let (handle, running) = reconcile::start(config, receiver, drain);
    let running = tokio::spawn(running);
    let mut next = async || {
        let commit: Commit = tokio::time::timeout(PATIENCE, made.recv()).await?.context("the session ended")?;
        published.take(&commit);
        anyhow::Ok(Bytes::from(commit.to_proto().encode_to_vec()))
    };
    let mut line = Line::new("source to signed head");
    let (first, scratch) = cost(true, next()).await?;
    line.scratch = scratch;
    let mut all = vec![first];
    for number in 1..=edits {
        let edit = async {
            world::edit(&manifests, size, size.routes / 2, number)?;
            next().await
        };
        let (bytes, time) = cost(true, edit).await?;
        line.add(time);
        all.push(bytes);
    }
    control.advance(Phase::Cut);
    drop((handle, terms));
    running.await??;
    Ok((line, all))
}

/// Gives commits to a replica; returns what each costs it, from the message to the disk.
///
/// # Errors
/// A commit is refused.
pub async fn peer(folder: &Path, commits: &[Bytes]) -> anyhow::Result<Line> {
    let run = RunDir::open(folder.join("run"))?;
    let alone = Arc::new(Alone);
    let config = ReplicaConfig {
        node: "n0".into(),
        place: Default::default(),
        instance: InstanceId(1),
        mesh_id: run.mesh_id().to_owned(),
        state_dir: folder.join("state"),
        verifier: Arc::new(MeshVerifier::new(run.trust().clone())),
        key_ensurer: alone.clone(),
        key_lookup: alone.clone(),
        forward: alone.clone(),
        dialer: alone,
        view: watch::channel(Arc::default()).1,
        live: watch::channel(LiveReport::always()).1,
    };
    let (control, drain) = drain::channel();
    let (mut handles, tasks) = replicate::start(config, &mut Default::default());
    let running = tokio::spawn(tasks.replica.run(drain));
    let mut line = Line::new("message to table and disk");
    for (number, bytes) in commits.iter().enumerate() {
        let apply = async {
            let commit = Commit::from_proto(pb::Delta::decode(bytes.clone())?)?;
            let head = commit.head.id();
            handles.commits.send(commit).await?;
            let there =
                handles.applied.wait_for(|applied| applied.as_ref().is_some_and(|applied| applied.id() == head));
            tokio::time::timeout(PATIENCE, there).await??;
            anyhow::Ok(())
        };
        let ((), time) = cost(false, apply).await?;
        match number {
            0 => line.scratch = time,
            _ => line.add(time),
        }
    }
    control.advance(Phase::Cut);
    running.await?;
    Ok(line)
}
