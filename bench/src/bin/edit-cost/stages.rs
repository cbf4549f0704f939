//! What each stage costs, by the libraries' own functions, on one thread.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use meshgate_api::{Batch, Directory};
use meshgate_core::compile::{Allocations, Compiled, Compiler, Settings};
use meshgate_core::snapshot::{Head, HeadId};
use meshgate_core::table::{Change, Table};
use meshgate_node::identity::{EpochSigner, LeaderKey, MeshVerifier, RunDir};
use meshgate_node::reconcile::book::{Book, Entry};
use meshgate_proto::replication as pb;
use meshgate_wire::{Commit, LeafChange, Snapshot, decode, encode, sign, verify};
use prost::Message;

use crate::cpu::{self, Line};
use crate::world::{self, Size};

/// The leader's stages, then a peer's.
pub struct Stages {
    pub leader: Vec<Line>,
    pub peer: Vec<Line>,
}

struct Bench {
    run: RunDir,
    signer: EpochSigner,
    verifier: MeshVerifier,
    source: Directory,
    compiler: Compiler,
    book: Book,
    head: HeadId,
    leader: Snapshot,
    peer: Snapshot,
    table: Table,
    stages: Stages,
}

const LEADER: [&str; 6] =
    ["read, parse, translate", "compile", "findings and statuses", "encode, digests, roots", "sign", "delta as bytes"];
const PEER: [&str; 6] =
    ["bytes to commit", "verify the signature", "digests, roots", "decode", "next table", "drop the last one"];

/// Measures so many edits of one route after a start from scratch.
///
/// # Errors
/// A file can't be read or written, or nothing was published.
pub fn measure(folder: &Path, size: Size, edits: u32) -> anyhow::Result<Stages> {
    let run = RunDir::open(folder.join("stages"))?;
    let manifests = folder.join("manifests");
    let mut bench = Bench {
        signer: EpochSigner(LeaderKey::issue(&run, &"n0".into(), 1)?),
        verifier: MeshVerifier::new(run.trust().clone()),
        run,
        source: Directory::open(&manifests)?,
        compiler: Compiler::new(Settings::default(), Allocations::new()),
        book: Book::default(),
        head: HeadId::default(),
        leader: Snapshot::default(),
        peer: Snapshot::default(),
        table: Table::default(),
        stages: Stages { leader: LEADER.map(Line::new).into(), peer: PEER.map(Line::new).into() },
    };
    let (batch, read) = cpu::of(|| bench.source.read());
    bench.step(batch?, read)?;
    for line in bench.stages.leader.iter_mut().chain(&mut bench.stages.peer) {
        line.scratch = line.edits.pop().unwrap_or_default();
    }
    for number in 1..=edits {
        let file = world::edit(&manifests, size, size.routes / 2, number)?;
        let (batch, read) = cpu::of(|| bench.source.read_paths(&[file]));
        bench.step(batch?, read)?;
    }
    Ok(bench.stages)
}

impl Bench {
    fn step(&mut self, batch: Batch, read: std::time::Duration) -> anyhow::Result<()> {
        let bytes = self.lead(batch, read)?;
        self.follow(&bytes)
    }

    fn lead(&mut self, batch: Batch, read: std::time::Duration) -> anyhow::Result<Vec<u8>> {
        let source = batch.findings;
        let (Compiled { resources, findings, statuses }, compile) = cpu::of(|| self.compiler.apply(batch.changes));
        anyhow::ensure!(!resources.is_empty(), "an edit changed nothing");
        let base = self.head;
        self.head = HeadId { epoch: 1, rev: base.rev + 1 };
        let entry = Entry {
            head: self.head,
            read_at: Instant::now(),
            unpublished: None,
            keys: resources.iter().map(|(key, _)| key.clone()).collect(),
            appeared: Vec::new(),
            gone: Vec::new(),
            compiled: findings,
            source,
            refused: Vec::new(),
            statuses,
        };
        let (new, enter) = cpu::of(|| self.book.enter(entry));
        anyhow::ensure!(new.is_empty(), "the manifests are not without fault: {new:?}");
        let ((snapshot, changes), digest) = cpu::of(|| {
            let changes: Vec<LeafChange> = resources
                .into_iter()
                .map(|(key, resource)| LeafChange { key, value: resource.as_ref().map(encode) })
                .collect();
            (self.leader.apply(&changes), changes)
        });
        self.leader = snapshot;
        let (routes_root, endpoints_root) = self.leader.roots();
        let head = Head { mesh_id: self.run.mesh_id().to_owned(), id: self.head, routes_root, endpoints_root };
        let (signed, signing) = cpu::of(|| sign(&head, &self.signer));
        let commit = Commit { head: signed?, base, changes };
        let (bytes, encoding) = cpu::of(|| commit.to_proto().encode_to_vec());
        let times = [read, compile, enter, digest, signing, encoding];
        self.stages.leader.iter_mut().zip(times).for_each(|(line, time)| line.add(time));
        Ok(bytes)
    }

    fn follow(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        let (commit, parse) = cpu::of(|| Commit::from_proto(pb::Delta::decode(bytes)?).context("a delta"));
        let commit = commit?;
        let (verified, verifying) = cpu::of(|| verify(&commit.head, &self.verifier));
        verified?;
        let (snapshot, digest) = cpu::of(|| self.peer.apply(&commit.changes));
        anyhow::ensure!(snapshot.roots() == commit.head.roots(), "the roots differ");
        let (changes, decoding) = cpu::of(|| {
            let decoded = commit.changes.iter().map(|change| {
                let resource = change.value.as_ref().map(|value| decode(change.key.kind, value)).transpose()?;
                Ok((change.key.clone(), resource.map(Arc::new)))
            });
            decoded.collect::<Result<Vec<Change>, meshgate_wire::DecodeError>>()
        });
        let changes = changes?;
        let ((next, held), update) = cpu::of(|| self.table.update(commit.head.id(), &changes));
        held.first().map_or(Ok(()), |held| Err(anyhow!("{} is held back: {}", held.key, held.reason)))?;
        let last = (std::mem::replace(&mut self.table, next), std::mem::replace(&mut self.peer, snapshot));
        let ((), dropping) = cpu::of(|| drop(last));
        let times = [parse, verifying, digest, decoding, update, dropping];
        self.stages.peer.iter_mut().zip(times).for_each(|(line, time)| line.add(time));
        Ok(())
    }
}
