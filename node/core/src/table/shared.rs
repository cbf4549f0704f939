//! A hash map whose clones share what they have in common: a change copies a few small nodes, however
//! large the map is. So the next table costs what changed, and dropping the old one does too.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

/// Bits of the hash that choose a child.
const BITS: u32 = 4;
/// Children of a branch.
const CHILDREN: usize = 1 << BITS;
/// Entries of a leaf that is not split yet.
const LEAF: usize = 16;
/// Levels after which the hash has no more bits: equal hashes stay together.
const LEVELS: u32 = u64::BITS / BITS;

/// A persistent hash map. A clone costs one reference count.
#[derive(Clone)]
pub(super) struct SharedMap<K, V> {
    root: Node<K, V>,
    len: usize,
    hasher: RandomState,
}

#[derive(Clone)]
struct Entry<K, V> {
    hash: u64,
    key: K,
    value: V,
}

/// Cloning one costs at most a reference count.
enum Node<K, V> {
    Empty,
    Leaf(Arc<Vec<Entry<K, V>>>),
    Branch(Arc<[Node<K, V>; CHILDREN]>),
}

impl<K, V> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        match self {
            Node::Empty => Node::Empty,
            Node::Leaf(entries) => Node::Leaf(Arc::clone(entries)),
            Node::Branch(children) => Node::Branch(Arc::clone(children)),
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        SharedMap { root: Node::Empty, len: 0, hasher: RandomState::new() }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The child that a hash leads to on a level.
fn slot(hash: u64, level: u32) -> usize {
    (hash >> (level * BITS)) as usize % CHILDREN
}

impl<K, V> SharedMap<K, V> {
    /// There is none.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut nodes = vec![&self.root];
        let mut leaf: std::slice::Iter<'_, Entry<K, V>> = [].iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(entry) = leaf.next() {
                    return Some((&entry.key, &entry.value));
                }
                match nodes.pop()? {
                    Node::Empty => {}
                    Node::Leaf(entries) => leaf = entries.iter(),
                    Node::Branch(children) => nodes.extend(children.iter()),
                }
            }
        })
    }

    /// All values, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Hash + Eq, V> SharedMap<K, V> {
    /// The entry of a key.
    pub(super) fn get_key_value<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        if self.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let mut node = &self.root;
        let mut level = 0;
        loop {
            match node {
                Node::Empty => return None,
                Node::Leaf(entries) => {
                    let found = entries.iter().find(|entry| entry.hash == hash && entry.key.borrow() == key)?;
                    return Some((&found.key, &found.value));
                }
                Node::Branch(children) => node = &children[slot(hash, level)],
            }
            level += 1;
        }
    }

    /// The value of a key.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }
}

impl<K: Hash + Eq + Clone, V: Clone> SharedMap<K, V> {
    /// Puts a value under a key; returns what was there.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = self.hasher.hash_one(&key);
        let before = self.root.insert(Entry { hash, key, value }, 0);
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes a key out; returns what was there.
    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // A key that is not there must not copy anything.
        self.get(key)?;
        let before = self.root.remove(self.hasher.hash_one(key), key, 0);
        self.len -= usize::from(before.is_some());
        before
    }

    /// The value of a key, to be changed.
    pub(super) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.get(key)?;
        self.root.get_mut(self.hasher.hash_one(key), key)
    }

    /// The value of a key, to be changed; a default one where there was none.
    pub(super) fn get_or_default(&mut self, key: &K) -> Option<&mut V>
    where
        V: Default,
    {
        if self.get(key).is_none() {
            self.insert(key.clone(), V::default());
        }
        self.get_mut(key)
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Node<K, V> {
    fn insert(&mut self, entry: Entry<K, V>, level: u32) -> Option<V> {
        match self {
            Node::Empty => {
                *self = Node::Leaf(Arc::new(vec![entry]));
                None
            }
            Node::Branch(children) => Arc::make_mut(children)[slot(entry.hash, level)].insert(entry, level + 1),
            Node::Leaf(entries) => {
                let known = entries.iter().position(|known| known.hash == entry.hash && known.key == entry.key);
                if known.is_none() && entries.len() >= LEAF && level < LEVELS {
                    let entries = std::mem::take(Arc::make_mut(entries));
                    *self = Node::split(entries, level);
                    return self.insert(entry, level);
                }
                let entries = Arc::make_mut(entries);
                match known {
                    Some(at) => Some(std::mem::replace(&mut entries[at].value, entry.value)),
                    None => {
                        entries.push(entry);
                        None
                    }
                }
            }
        }
    }

    fn split(entries: Vec<Entry<K, V>>, level: u32) -> Self {
        let mut children = [const { Node::Empty }; CHILDREN];
        for entry in entries {
            children[slot(entry.hash, level)].insert(entry, level + 1);
        }
        Node::Branch(Arc::new(children))
    }

    fn remove<Q: Eq + ?Sized>(&mut self, hash: u64, key: &Q, level: u32) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self {
            Node::Empty => None,
            Node::Branch(children) => {
                let children = Arc::make_mut(children);
                let before = children[slot(hash, level)].remove(hash, key, level + 1);
                if children.iter().all(|child| matches!(child, Node::Empty)) {
                    *self = Node::Empty;
                }
                before
            }
            Node::Leaf(entries) => {
                let at = entries.iter().position(|entry| entry.hash == hash && entry.key.borrow() == key)?;
                let entries = Arc::make_mut(entries);
                let before = entries.swap_remove(at).value;
                if entries.is_empty() {
                    *self = Node::Empty;
                }
                Some(before)
            }
        }
    }

    fn get_mut<Q: Eq + ?Sized>(&mut self, hash: u64, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let mut node = self;
        let mut level = 0;
        loop {
            match node {
                Node::Empty => return None,
                Node::Leaf(entries) => {
                    let entries = Arc::make_mut(entries);
                    let found = entries.iter_mut().find(|entry| entry.hash == hash && entry.key.borrow() == key);
                    return found.map(|entry| &mut entry.value);
                }
                Node::Branch(children) => node = &mut Arc::make_mut(children)[slot(hash, level)],
            }
            level += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// All keys have one of three hashes: the deepest leaves are met too.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Clashing(u16);

    impl Hash for Clashing {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            state.write_u16(self.0 % 3);
        }
    }

    fn same<K: Hash + Eq + Ord + Clone + fmt::Debug>(map: &SharedMap<K, u32>, model: &BTreeMap<K, u32>) {
        assert_eq!(map.len, model.len());
        assert_eq!(map.is_empty(), model.is_empty());
        assert_eq!(&map.iter().map(|(key, value)| (key.clone(), *value)).collect::<BTreeMap<_, _>>(), model);
        assert!(model.iter().all(|(key, value)| map.get(key) == Some(value)));
    }

    /// After every step, the map is what a plain one is, and so is each clone that was made on the way.
    fn steps<K: Hash + Eq + Ord + Clone + fmt::Debug>(steps: &[(u8, u16)], key: impl Fn(u16) -> K) {
        let (mut map, mut model) = (SharedMap::default(), BTreeMap::new());
        let mut earlier = Vec::new();
        for (number, &(what, of)) in steps.iter().enumerate() {
            let (key, value) = (key(of), u32::try_from(number).unwrap());
            match what {
                0..4 => assert_eq!(map.insert(key.clone(), value), model.insert(key, value)),
                4..6 => assert_eq!(map.remove(&key), model.remove(&key)),
                6 => {
                    assert_eq!(map.get_mut(&key).map(|found| *found += 1), model.get_mut(&key).map(|found| *found += 1))
                }
                _ => {
                    *map.get_or_default(&key).unwrap() += 7;
                    *model.entry(key).or_default() += 7;
                }
            }
            if number % 32 == 0 {
                earlier.push((map.clone(), model.clone()));
            }
        }
        same(&map, &model);
        earlier.iter().for_each(|(map, model)| same(map, model));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn is_a_map_and_so_are_its_clones(all in prop::collection::vec((0..8u8, 0..600u16), 0..1500)) {
            steps(&all, |of| of);
            steps(&all[..all.len() / 4], |of| Clashing(of % 60));
        }
    }

    #[test]
    fn a_change_copies_little_of_a_large_map() {
        let mut map = SharedMap::default();
        for key in 0..10_000u32 {
            map.insert(key, Arc::new(key));
        }
        let before = map.clone();
        map.insert(7, Arc::new(0));
        // Entries in a copied leaf have one more owner.
        let copied = before.values().filter(|value| Arc::strong_count(value) > 1).count();
        assert!((1..=LEAF).contains(&copied), "{copied}");
    }
}
