//! The state folder: what survives, and what trouble with it does not stop.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use meshgate_core::snapshot::HeadId;
use meshgate_node::replicate::Origin;
use tempfile::tempdir;

use crate::harness::{Leader, Peer, WAIT, put};

fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    files.sort();
    files
}

fn truncate(path: &Path, by: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - by).unwrap();
}

async fn commit(peer: &Peer, history: &mut Leader, rounds: usize, size: usize) {
    for round in 0..rounds {
        peer.handles.commits.send(history.commit(vec![put(&format!("s{}", round % 7), size)])).await.unwrap();
        peer.reaches(history.id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_serves_from_disk() {
    let dir = tempdir().unwrap();
    let peer = Peer::start("a", dir.path()).await;
    let mut history = Leader::new(1);
    commit(&peer, &mut history, 30, 100).await;
    peer.stop().await;
    let peer = Peer::start("a", dir.path()).await;
    let applied = peer.handles.applied.borrow().clone().unwrap();
    assert_eq!((applied.id(), applied.origin), (history.id, Origin::Disk));
    assert_eq!(applied.snapshot.roots(), history.snapshot.roots());
    peer.shows("meshgate_config_bootstrap_total{source=\"disk\"} 1").await;
    // And goes on from there.
    commit(&peer, &mut history, 3, 100).await;
    peer.stop().await;
    let peer = Peer::start("a", dir.path()).await;
    assert_eq!(peer.head(), history.id);
    assert_eq!(files(&dir.path().join("a"), "applying"), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_log_loses_only_its_tail() {
    let dir = tempdir().unwrap();
    let peer = Peer::start("a", dir.path()).await;
    let mut history = Leader::new(1);
    commit(&peer, &mut history, 5, 100).await;
    let before = history.id;
    let state = history.snapshot.clone();
    commit(&peer, &mut history, 1, 100).await;
    peer.stop().await;
    truncate(files(&dir.path().join("a"), "log-").last().unwrap(), 1);
    let peer = Peer::start("a", dir.path()).await;
    assert_eq!(peer.head(), before);
    let mut other = Leader { id: before, snapshot: state, ..Leader::new(2) };
    commit(&peer, &mut other, 2, 100).await;
    peer.stop().await;
    let peer = Peer::start("a", dir.path()).await;
    assert_eq!(peer.head(), other.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_base_falls_back_to_the_generation_before() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("a");
    let peer = Peer::start("a", dir.path()).await;
    let mut history = Leader::new(1);
    // Compaction comes when the log is over 4 MiB: two of them.
    commit(&peer, &mut history, 12, 1_000_000).await;
    peer.stop().await;
    let bases = files(&folder, "base-");
    assert!(bases.len() >= 3, "{bases:?}");
    truncate(bases.last().unwrap(), 1);
    let peer = Peer::start("a", dir.path()).await;
    let fallen_back = peer.head();
    assert!(fallen_back > HeadId { epoch: 1, rev: 4 } && fallen_back <= history.id, "{fallen_back}");
    peer.stop().await;
    // A new generation was written from what was found.
    assert!(files(&folder, "base-").last() > bases.last());
    assert!(files(&folder, "base-").len() <= 3);
    let peer = Peer::start("a", dir.path()).await;
    assert_eq!(peer.head(), fallen_back);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_usable_folder_applying_goes_on() {
    let dir = tempdir().unwrap();
    // A file where the folder should be: nothing can be written, whoever runs the test.
    fs::write(dir.path().join("a"), "").unwrap();
    let peer = Peer::start("a", dir.path()).await;
    let mut history = Leader::new(1);
    commit(&peer, &mut history, 5, 100).await;
    assert_eq!(peer.handles.table.load().head(), history.id);
    assert!(peer.handles.persist_failed.borrow().is_some());
    peer.shows("meshgate_config_persist_failed 1").await;
    // The folder becomes usable: the alarm ends by itself, and nothing is lost.
    fs::remove_file(dir.path().join("a")).unwrap();
    let mut failed = peer.handles.persist_failed.clone();
    tokio::time::timeout(WAIT, failed.wait_for(Option::is_none)).await.unwrap().unwrap();
    peer.stop().await;
    let peer = Peer::start("a", dir.path()).await;
    assert_eq!(peer.head(), history.id);
    assert_eq!(*peer.handles.fence.borrow(), 1);
}
