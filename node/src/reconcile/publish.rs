//! Turns compiled resources into commits: stamps generations, drops what did not change, signs.

use std::collections::BTreeMap;

use bytes::Bytes;
use meshgate_core::intent::{Finding, Severity};
use meshgate_core::snapshot::{Head, HeadId, Key, Resource};
use meshgate_wire::{Commit, HeadSigner, LeafChange, LeafError, Snapshot, decode, encode, sign};

use super::book::object;

/// Code of the finding about a resource that is too large.
const TOO_LARGE: &str = "MG0501";

/// The leader's view of what it has published in its term.
pub struct Publisher<'a> {
    mesh_id: String,
    signer: &'a dyn HeadSigner,
    head: HeadId,
    next: HeadId,
    snapshot: Snapshot,
    refused: BTreeMap<Key, LeafError>,
}

impl<'a> Publisher<'a> {
    /// Goes on from `held`. `next` is the first head of the term.
    pub fn new(mesh_id: &str, signer: &'a dyn HeadSigner, next: HeadId, held: (HeadId, Snapshot)) -> Self {
        let (head, snapshot) = held;
        Publisher { mesh_id: mesh_id.to_owned(), signer, head, next, snapshot, refused: BTreeMap::new() }
    }

    /// Findings about resources that are too large to travel; what was published of them before goes
    /// on being served.
    pub fn refused(&self) -> impl Iterator<Item = Finding> {
        self.refused.iter().map(|(key, error)| Finding {
            code: TOO_LARGE,
            severity: Severity::Error,
            object: object(key),
            field: String::new(),
            message: format!("{error}; make it smaller or split it. What was published before stays in use"),
            origin: String::new(),
        })
    }

    /// What was published last, or gone on from.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The head published last, or gone on from.
    pub fn head(&self) -> HeadId {
        self.head
    }

    /// The commit that makes `resources` so. `None` when nothing differs and `force` is not set
    /// (a term's first commit is forced: it tells everybody of the new epoch).
    ///
    /// # Errors
    /// The leader could not sign: its own fault, nothing was published.
    pub fn commit(&mut self, resources: Vec<(Key, Option<Resource>)>, force: bool) -> Result<Option<Commit>, String> {
        let mut changes: Vec<LeafChange> = Vec::new();
        for (key, resource) in resources {
            changes.extend(self.change(key, resource));
        }
        if changes.is_empty() && !force {
            return Ok(None);
        }
        let snapshot = self.snapshot.apply(&changes);
        snapshot.check_limits().map_err(|error| error.to_string())?;
        let (routes_root, endpoints_root) = snapshot.roots();
        let head = Head { mesh_id: self.mesh_id.clone(), id: self.next, routes_root, endpoints_root };
        let signed = sign(&head, self.signer).map_err(|error| error.to_string())?;
        let commit = Commit { head: signed, base: self.head, changes };
        self.snapshot = snapshot;
        self.head = self.next;
        self.next.rev = self.next.rev.saturating_add(1);
        Ok(Some(commit))
    }

    /// One resource's change; `None` if it is published like this already, or can't be published.
    fn change(&mut self, key: Key, resource: Option<Resource>) -> Option<LeafChange> {
        self.refused.remove(&key);
        let old = self.snapshot.get(&key);
        let Some(mut resource) = resource else {
            return old.is_some().then_some(LeafChange { key, value: None });
        };
        stamp(&mut resource, old.and_then(|leaf| decode(key.kind, &leaf.value).ok()));
        let value: Bytes = encode(&resource);
        if old.is_some_and(|leaf| leaf.value == value) {
            return None;
        }
        let change = LeafChange { key, value: Some(value) };
        match change.check() {
            Ok(()) => Some(change),
            Err(error) => {
                self.refused.insert(change.key, error);
                None
            }
        }
    }
}

/// Where the source has no generations (directory mode), a resource's generation is a counter in
/// the snapshot: it moves when the rest of the resource does.
fn stamp(new: &mut Resource, old: Option<Resource>) {
    let Some(generation) = generation_of(new).copied().filter(|generation| *generation == 0) else { return };
    let stamped = old.map_or(1, |mut old| {
        let before = generation_of(&mut old).map_or(0, |slot| std::mem::replace(slot, generation));
        if old == *new { before } else { before + 1 }
    });
    if let Some(slot) = generation_of(new) {
        *slot = stamped;
    }
}

fn generation_of(resource: &mut Resource) -> Option<&mut u64> {
    match resource {
        Resource::Gateway(gateway) => Some(&mut gateway.generation),
        Resource::Route(route) => Some(&mut route.generation),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use meshgate_core::snapshot::{Kind, Route};
    use meshgate_wire::Ed25519Signer;

    use super::*;

    fn signer() -> Ed25519Signer {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Ed25519Signer::from_pkcs8(key.serialized_der(), Bytes::from_static(b"certificate")).unwrap()
    }

    fn route(needs: Vec<u32>) -> Resource {
        Resource::Route(Route { generation: 0, created: None, attachments: Vec::new(), rules: Vec::new(), needs })
    }

    fn generation(publisher: &Publisher<'_>, key: &Key) -> u64 {
        let mut resource = decode(key.kind, &publisher.snapshot().get(key).unwrap().value).unwrap();
        *generation_of(&mut resource).unwrap()
    }

    #[test]
    fn generations_move_with_content_and_survive_a_takeover() {
        let key = Key::new(Kind::HttpRoute, "shop", "cart");
        let signer = signer();
        let mut first = Publisher::new("m", &signer, HeadId { epoch: 1, rev: 1 }, Default::default());
        assert!(first.commit(vec![(key.clone(), Some(route(vec![])))], true).unwrap().is_some());
        assert_eq!(generation(&first, &key), 1);
        assert!(first.commit(vec![(key.clone(), Some(route(vec![])))], false).unwrap().is_none(), "unchanged");
        assert!(first.commit(vec![(key.clone(), Some(route(vec![7])))], false).unwrap().is_some());
        assert_eq!(generation(&first, &key), 2);

        let held = (first.head(), first.snapshot().clone());
        let mut second = Publisher::new("m", &signer, HeadId { epoch: 2, rev: 41 }, held);
        let commit = second.commit(vec![(key.clone(), Some(route(vec![7])))], true).unwrap().unwrap();
        assert_eq!(commit.head.id(), HeadId { epoch: 2, rev: 41 });
        assert!(commit.changes.is_empty(), "the takeover itself changes nothing");
        assert_eq!(generation(&second, &key), 2);
    }

    #[test]
    fn what_is_gone_is_deleted_once() {
        let key = Key::new(Kind::HttpRoute, "shop", "cart");
        let signer = signer();
        let mut publisher = Publisher::new("m", &signer, HeadId { epoch: 1, rev: 1 }, Default::default());
        publisher.commit(vec![(key.clone(), Some(route(vec![])))], true).unwrap();
        let commit = publisher.commit(vec![(key.clone(), None)], false).unwrap().unwrap();
        assert_eq!(commit.changes, [LeafChange { key: key.clone(), value: None }]);
        assert!(publisher.commit(vec![(key, None)], false).unwrap().is_none());
    }
}
