//! Properties of snapshots. A failing case prints its seed.

use meshgate_core::snapshot::Kind;
use proptest::prelude::*;

use super::*;

fn change() -> impl Strategy<Value = LeafChange> {
    let kinds = [Kind::Gateway, Kind::HttpRoute, Kind::Endpoints, Kind::Other(7), Kind::Other(0x8001)];
    let key = (prop::sample::select(kinds.to_vec()), 0..3_u8, 0..40_u8)
        .prop_map(|(kind, namespace, name)| Key::new(kind, &format!("ns{namespace}"), &format!("name{name}")));
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from));
    (key, value).prop_map(|(key, value)| LeafChange { key, value })
}

fn changes() -> impl Strategy<Value = Vec<LeafChange>> {
    prop::collection::vec(change(), 0..120)
}

/// What is left after changes, by the obvious way.
fn replay(batches: &[Vec<LeafChange>]) -> BTreeMap<Key, Bytes> {
    let mut map = BTreeMap::new();
    for change in batches.iter().flatten() {
        match &change.value {
            Some(value) => map.insert(change.key.clone(), value.clone()),
            None => map.remove(&change.key),
        };
    }
    map
}

fn from_map(map: &BTreeMap<Key, Bytes>) -> Snapshot {
    let changes: Vec<LeafChange> =
        map.iter().map(|(key, value)| LeafChange { key: key.clone(), value: Some(value.clone()) }).collect();
    Snapshot::from_changes(&changes)
}

fn contents(snapshot: &Snapshot) -> BTreeMap<Key, Bytes> {
    snapshot.iter().map(|(key, leaf)| (key.clone(), leaf.value.clone())).collect()
}

proptest! {
    #[test]
    fn steps_equal_from_scratch(batches in prop::collection::vec(changes(), 0..5)) {
        let stepped = batches.iter().fold(Snapshot::default(), |snapshot, batch| snapshot.apply(batch));
        let expected = replay(&batches);
        let scratch = from_map(&expected);
        prop_assert_eq!(stepped.roots(), scratch.roots());
        prop_assert_eq!(contents(&stepped), expected);
        prop_assert_eq!(stepped.len(), scratch.len());
        prop_assert_eq!(stepped.bytes(), scratch.bytes());
    }

    #[test]
    fn order_does_not_matter(batch in changes(), seed in any::<u64>()) {
        let map = replay(&[batch]);
        let mut shuffled: Vec<LeafChange> =
            map.iter().map(|(key, value)| LeafChange { key: key.clone(), value: Some(value.clone()) }).collect();
        shuffled.sort_by_key(|change| leaf_order(change, seed));
        prop_assert_eq!(Snapshot::from_changes(&shuffled).roots(), from_map(&map).roots());
    }

    #[test]
    fn diff_leads_there(a in changes(), b in changes()) {
        let (a, b) = (Snapshot::from_changes(&a), Snapshot::from_changes(&b));
        let diff = a.diff(&b);
        prop_assert_eq!(a.apply(&diff).roots(), b.roots());
        prop_assert!(diff.is_sorted_by(|a, b| a.key < b.key));
        prop_assert!(a.diff(&a).is_empty());
    }

    #[test]
    fn contents_and_roots_agree(a in changes(), b in changes()) {
        let (a, b) = (Snapshot::from_changes(&a), Snapshot::from_changes(&b));
        prop_assert_eq!(contents(&a) == contents(&b), a.roots() == b.roots());
    }
}

/// A pseudo-random order that depends on the seed.
fn leaf_order(change: &LeafChange, seed: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes());
    hash_key(&mut hasher, &change.key);
    *hasher.finalize().as_bytes()
}

#[test]
fn get_finds_only_what_is_there() {
    let key = Key::new(Kind::Service, "shop", "cart");
    let snapshot = Snapshot::from_changes(&[LeafChange { key: key.clone(), value: Some(Bytes::from_static(b"x")) }]);
    assert_eq!(snapshot.get(&key).unwrap().value, "x");
    assert_eq!(snapshot.get(&key).unwrap().hash, crate::leaf_hash(&key, b"x"));
    assert!(snapshot.get(&Key::new(Kind::Ingress, "shop", "cart")).is_none());
    assert!(Snapshot::default().is_empty());
}

#[test]
fn one_root_moves_at_a_time() {
    let put = |kind| LeafChange { key: Key::new(kind, "a", "b"), value: Some(Bytes::new()) };
    let empty = Snapshot::default();
    let routes = empty.apply(&[put(Kind::HttpRoute)]);
    assert_ne!(routes.roots().0, empty.roots().0);
    assert_eq!(routes.roots().1, empty.roots().1);
    let endpoints = empty.apply(&[put(Kind::Endpoints)]);
    assert_eq!(endpoints.roots().0, empty.roots().0);
    assert_ne!(endpoints.roots().1, empty.roots().1);
    assert_ne!(empty.roots().0, empty.roots().1);
}

#[test]
fn untouched_shards_are_shared() {
    let many: Vec<LeafChange> = (0..2000)
        .map(|n| LeafChange { key: Key::new(Kind::Service, "a", &n.to_string()), value: Some(Bytes::new()) })
        .collect();
    let before = Snapshot::from_changes(&many);
    let after = before.apply(&[LeafChange { key: many[0].key.clone(), value: None }]);
    let copied =
        before.routes.shards.iter().zip(after.routes.shards.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
    assert_eq!(copied, 1);
}
