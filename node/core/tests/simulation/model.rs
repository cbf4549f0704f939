//! What the simulated mesh is made of: randomness, states and their digests, signatures, disks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshgate_core::replica::{Pair, Roots, Suspects};
use meshgate_core::snapshot::{Digest, HeadId, Key, Kind};

/// A peer, by number.
pub type Node = usize;

/// Values above this bit are of a field that older versions do not know.
pub const UNKNOWN_FIELD: u64 = 1 << 32;
/// Values with this bit need a feature that older versions lack.
pub const NEW_FEATURE: u64 = 1 << 33;
/// Whoever of the older version applies a value with this bit dies.
pub const POISON: u64 = 1 << 34;

/// SplitMix64: small, seeded, the same everywhere.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in `parts` of a thousand cases.
    pub fn chance(&mut self, parts: u64) -> bool {
        self.below(1000) < parts
    }
}

pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fold(seed: u64, words: &[u64]) -> u64 {
    words.iter().fold(mix(seed), |hash, word| mix(hash ^ mix(*word)))
}

fn digest(word: u64) -> Digest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&word.to_be_bytes());
    Digest(bytes)
}

pub type Change = (u16, Option<u64>);

/// A whole state: values by key, with a digest over odd and one over even keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub values: Arc<BTreeMap<u16, u64>>,
    sums: [u64; 2],
}

impl State {
    #[must_use]
    pub fn apply(&self, changes: &[Change]) -> State {
        let mut next = self.clone();
        let values = Arc::make_mut(&mut next.values);
        for (key, value) in changes {
            let half = &mut next.sums[usize::from(key % 2)];
            let old = match value {
                Some(value) => {
                    *half = half.wrapping_add(fold(1, &[u64::from(*key), *value]));
                    values.insert(*key, *value)
                }
                None => values.remove(key),
            };
            if let Some(old) = old {
                *half = half.wrapping_sub(fold(1, &[u64::from(*key), old]));
            }
        }
        next
    }

    pub fn diff(&self, next: &State) -> Vec<Change> {
        let gone = self.values.keys().filter(|key| !next.values.contains_key(key)).map(|key| (*key, None));
        let new = next.values.iter().filter(|(key, value)| self.values.get(key) != Some(value));
        gone.chain(new.map(|(key, value)| (*key, Some(*value)))).collect()
    }

    pub fn roots(&self) -> Roots {
        (digest(self.sums[0]), digest(self.sums[1]))
    }
}

/// What the machine knows a resource by.
pub fn pair(key: u16, value: u64) -> Pair {
    (Key::new(Kind::Service, "sim", &key.to_string()), digest(value))
}

/// A signed head. `signature` can be made by [`sign`] only, which only leaders call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub id: HeadId,
    pub roots: Roots,
    pub signature: u64,
}

fn words(id: HeadId, roots: Roots) -> [u64; 4] {
    let word = |digest: Digest| u64::from_be_bytes(digest.0[..8].try_into().unwrap());
    [id.epoch, id.rev, word(roots.0), word(roots.1)]
}

pub fn sign(id: HeadId, roots: Roots) -> Head {
    Head { id, roots, signature: fold(0x5ec2e7, &words(id, roots)) }
}

pub fn verify(head: &Head) -> bool {
    head.signature == fold(0x5ec2e7, &words(head.id, head.roots))
}

/// What a head comes with.
#[derive(Clone, Debug)]
pub enum Content {
    Delta { base: HeadId, changes: Vec<Change> },
    Full(State),
}

/// A peer's state folder. What was appended and not synced survives the process, not the machine.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub fence: u64,
    pub synced: Option<(Head, State)>,
    pub appended: Vec<(Head, State)>,
    /// What is being applied.
    pub marker: Option<Suspects>,
    pub suspects: Suspects,
    pub quarantine: BTreeSet<Pair>,
    /// Full: nothing can be written.
    pub full: bool,
}

impl Disk {
    pub fn newest(&self) -> Option<&(Head, State)> {
        self.appended.last().or(self.synced.as_ref())
    }

    pub fn sync(&mut self) {
        if let Some(last) = self.appended.pop() {
            self.synced = Some(last);
            self.appended.clear();
        }
    }
}

/// What a version of the software makes of a value.
pub fn decode(value: u64, old_version: bool) -> Option<u64> {
    if old_version && value & NEW_FEATURE != 0 {
        return None;
    }
    Some(if old_version { value & (UNKNOWN_FIELD - 1) } else { value })
}
