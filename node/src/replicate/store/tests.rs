//! The small files and the counting of deaths.

use meshgate_core::replica::Suspects;
use meshgate_core::snapshot::{Digest, Key, Kind};

use super::small;
use super::*;

fn pair(name: &str) -> Pair {
    (Key::new(Kind::Service, "shop", name), Digest([7; 32]))
}

#[test]
fn the_fence_is_read_back_and_half_of_it_is_none() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(small::read_fence(dir.path()), 0);
    small::write_fence(dir.path(), 7).unwrap();
    assert_eq!(small::read_fence(dir.path()), 7);
    let path = dir.path().join("fence");
    let mut content = std::fs::read(&path).unwrap();
    content[7] ^= 1;
    std::fs::write(&path, content).unwrap();
    assert_eq!(small::read_fence(dir.path()), 0);
}

#[test]
fn two_deaths_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(small::count_deaths(dir.path()), (Suspects::default(), BTreeSet::new()));
    small::write_marker(dir.path(), &Suspects { deaths: 0, pairs: vec![pair("a"), pair("b")] }).unwrap();
    let (suspects, quarantine) = small::count_deaths(dir.path());
    assert_eq!((suspects.deaths, suspects.pairs.len(), quarantine.len()), (1, 2, 0));
    // The second process dies of the same.
    small::write_marker(dir.path(), &Suspects { deaths: suspects.deaths, pairs: vec![pair("b")] }).unwrap();
    let (suspects, quarantine) = small::count_deaths(dir.path());
    assert_eq!(suspects, Suspects::default());
    assert_eq!(quarantine, BTreeSet::from([pair("b")]));
    // It stays, without a marker.
    assert_eq!(small::count_deaths(dir.path()).1, BTreeSet::from([pair("b")]));
}

#[test]
fn an_unmarked_apply_is_no_death() {
    let dir = tempfile::tempdir().unwrap();
    small::write_marker(dir.path(), &Suspects { deaths: 1, pairs: vec![pair("a")] }).unwrap();
    small::remove_marker(dir.path()).unwrap();
    small::remove_marker(dir.path()).unwrap();
    assert_eq!(small::count_deaths(dir.path()), (Suspects::default(), BTreeSet::new()));
}

struct NoLeader;

impl LeaderVerifier for NoLeader {
    fn leader_key(&self, _: &[u8], _: &str) -> Result<meshgate_wire::LeaderKey, String> {
        Err("nobody leads".to_owned())
    }
}

#[tokio::test]
async fn the_alarm_of_a_late_fence_ends_with_the_next_write() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), "mesh", &NoLeader);
    store.shared.report(Some("epoch 2 is not on disk".to_owned()));
    store.fence(3).await;
    assert_eq!(*store.failed().borrow(), None);
    assert_eq!(small::read_fence(dir.path()), 3);
}

#[tokio::test]
async fn a_fence_that_found_no_room_in_the_queue_is_written_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), "mesh", &NoLeader);
    store.shared.fence.store(9, Ordering::Release);
    store.fence(8).await;
    assert_eq!(small::read_fence(dir.path()), 9);
}

#[tokio::test]
async fn a_dead_thread_raises_the_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), "mesh", &NoLeader);
    let alarm = AlarmOnPanic(Arc::clone(&store.shared));
    let died = std::thread::spawn(move || {
        let _alarm = alarm;
        panic!("on purpose");
    });
    assert!(died.join().is_err());
    assert_eq!(store.failed().borrow().as_deref(), Some(DEAD));
    store.shared.report(None);
    store.queue = sync_channel(1).0;
    store.fence(3).await;
    assert!(store.failed().borrow().is_some());
}

#[test]
fn a_restart_while_nothing_is_applied_is_no_death() {
    let dir = tempfile::tempdir().unwrap();
    small::write_marker(dir.path(), &Suspects { deaths: 0, pairs: vec![pair("a")] }).unwrap();
    for _ in 0..3 {
        let (suspects, quarantine) = small::count_deaths(dir.path());
        assert_eq!((suspects.deaths, quarantine.len()), (1, 0));
    }
    small::remove_marker(dir.path()).unwrap();
    assert_eq!(small::count_deaths(dir.path()), (Suspects::default(), BTreeSet::new()));
}
