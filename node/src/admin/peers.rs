//! `ListPeers` and `Verify`: who is there, and does everybody serve the same.

use meshgate_core::snapshot::{Digest, HeadId};
use meshgate_proto::admin as pb;
use meshgate_wire::{LeafChange, Snapshot};

use super::{AdminContext, head_to_proto};
use crate::cluster::Member;
use crate::identity::NodeName;
use crate::replicate::FollowerMap;

/// Both roots as one short string for people: what `meshctl peers` shows under ROOT. Nodes gossip
/// it, so it is the same everywhere.
pub fn short_root(roots: (Digest, Digest)) -> String {
    format!("{}-{}", roots.0, roots.1)
}

pub(super) fn list(context: &AdminContext) -> Vec<pb::Peer> {
    let members = context.members.borrow().clone();
    let newest = newest_head(context, members.alive());
    let leader = context.leader_claim().map(|claim| claim.node);
    let mut peers: Vec<pb::Peer> = members
        .nodes()
        .map(|member| {
            let own = member.facts.node == context.node;
            peer(context, member, newest, leader.as_ref() == Some(&member.facts.node), own)
        })
        .collect();
    peers.sort_by(|a, b| (!a.self_, &a.node).cmp(&(!b.self_, &b.node)));
    peers
}

fn newest_head<'a>(context: &AdminContext, members: impl Iterator<Item = &'a Member>) -> HeadId {
    let own = context.applied.borrow().as_ref().map_or_else(HeadId::default, |applied| applied.id());
    members.map(|member| member.facts.head).fold(own, HeadId::max)
}

fn peer(context: &AdminContext, member: &Member, newest: HeadId, leader: bool, own: bool) -> pb::Peer {
    let facts = &member.facts;
    let state = match (member.alive, facts.draining, facts.ready) {
        (false, ..) => "unreachable",
        (true, true, _) => "draining",
        (true, false, true) => "serving",
        (true, false, false) => "starting",
    };
    let roles = [(facts.roles.gateway, "gateway"), (facts.roles.reconciler, "reconciler")];
    pb::Peer {
        node: facts.node.to_string(),
        instance: facts.instance.to_string(),
        ready: member.alive && facts.ready && !facts.draining,
        state: state.to_owned(),
        version: facts.version.clone(),
        head: Some(head_to_proto(facts.head)),
        root: facts.roots.clone(),
        lag: newest.rev.saturating_sub(facts.head.rev),
        leader,
        roles: roles.iter().filter(|(has, _)| *has).map(|(_, name)| (*name).to_owned()).collect(),
        tunnel: if own || !member.alive { None } else { context.surroundings.tunnel(&facts.node) },
        certificate_not_after: i64::try_from(facts.cert_not_after).unwrap_or(i64::MAX),
        address: facts.sync.to_string(),
        self_: own,
    }
}

/// Recomputes the digests of what is applied and compares with the other peers.
pub(super) fn verify(context: &AdminContext) -> pb::VerifyResponse {
    let Some(applied) = context.applied.borrow().clone() else {
        return pb::VerifyResponse { problem: "no configuration was applied yet".to_owned(), ..Default::default() };
    };
    let recomputed = recompute(&applied.snapshot);
    let mut problems = Vec::new();
    if recomputed != applied.head.roots() {
        problems.push(format!(
            "the stored resources hash to {}, the head says {}",
            short_root(recomputed),
            short_root(applied.head.roots())
        ));
    }
    let signature = meshgate_wire::verify(&applied.head, context.verifier.as_ref());
    if let Err(error) = &signature {
        problems.push(error.to_string());
    }
    let own_root = short_root(applied.head.roots());
    let followers = context.followers.snapshot();
    let members = context.members.borrow().clone();
    let mut peers: Vec<pb::PeerDigest> =
        members.nodes().map(|member| digest(member, applied.id(), &own_root, &followers, &context.node)).collect();
    peers.sort_by(|a, b| a.node.cmp(&b.node));
    pb::VerifyResponse {
        head: Some(head_to_proto(applied.id())),
        root: own_root,
        signature_ok: signature.is_ok(),
        signed_by: signature.map(|key| key.node).unwrap_or_default(),
        problem: problems.join("; "),
        resources: u32::try_from(applied.snapshot.len()).unwrap_or(u32::MAX),
        peers,
    }
}

/// The roots as they follow from the stored bytes, trusting no digest that was kept.
fn recompute(snapshot: &Snapshot) -> (Digest, Digest) {
    let leaves = snapshot.iter().map(|(key, leaf)| LeafChange { key: key.clone(), value: Some(leaf.value.clone()) });
    Snapshot::from_changes(&leaves.collect::<Vec<_>>()).roots()
}

fn digest(member: &Member, head: HeadId, root: &str, followers: &FollowerMap, own: &NodeName) -> pb::PeerDigest {
    let facts = &member.facts;
    // Gossip lags behind by its interval: of itself a peer knows better.
    let (theirs, their_root) = if facts.node == *own { (head, root) } else { (facts.head, facts.roots.as_str()) };
    let verdict = if !member.alive {
        "unreachable"
    } else if theirs < head {
        "behind"
    } else if theirs > head {
        "ahead"
    } else if their_root == root {
        "same"
    } else {
        "divergent"
    };
    let held = followers
        .get(&facts.node)
        .map(|follower| follower.ack.held.iter().map(|held| format!("{}: {}", held.key, held.reason)).collect());
    pb::PeerDigest {
        node: facts.node.to_string(),
        head: Some(head_to_proto(theirs)),
        root: their_root.to_owned(),
        verdict: verdict.to_owned(),
        held: held.unwrap_or_default(),
    }
}
