//! The small files and the counting of deaths.

use meshgate_core::snapshot::Kind;

use super::small::{self, Marker};
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
    assert_eq!(small::count_deaths(dir.path()), (Marker::default(), BTreeSet::new()));
    small::write_marker(dir.path(), &Marker { deaths: 0, pairs: vec![pair("a"), pair("b")] }).unwrap();
    let (suspects, quarantine) = small::count_deaths(dir.path());
    assert_eq!((suspects.deaths, suspects.pairs.len(), quarantine.len()), (1, 2, 0));
    // The second process dies of the same.
    small::write_marker(dir.path(), &Marker { deaths: suspects.deaths, pairs: vec![pair("b")] }).unwrap();
    let (suspects, quarantine) = small::count_deaths(dir.path());
    assert_eq!(suspects, Marker::default());
    assert_eq!(quarantine, BTreeSet::from([pair("b")]));
    // It stays, without a marker.
    assert_eq!(small::count_deaths(dir.path()).1, BTreeSet::from([pair("b")]));
}

#[test]
fn an_unmarked_apply_is_no_death() {
    let dir = tempfile::tempdir().unwrap();
    small::write_marker(dir.path(), &Marker { deaths: 1, pairs: vec![pair("a")] }).unwrap();
    small::remove_marker(dir.path()).unwrap();
    small::remove_marker(dir.path()).unwrap();
    assert_eq!(small::count_deaths(dir.path()), (Marker::default(), BTreeSet::new()));
}
