//! What gossip says, as each part wants to see it. Pure.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use meshgate_core::snapshot::HeadId;

use crate::cluster::{Member, Members};
use crate::identity::NodeName;
use crate::replicate::{PeerInfo, PeerView};

/// Where replication can get configuration. A leader that has published in its term follows nobody:
/// whatever others have is an echo of it.
pub(super) fn peer_view(own: &NodeName, members: &Members) -> PeerView {
    let claim = members.leader();
    let published = |epoch| members.node(own).is_some_and(|member| member.facts.head.epoch >= epoch);
    if claim.as_ref().is_some_and(|claim| claim.node == *own && published(claim.epoch)) {
        return PeerView { leader: Some(own.clone()), peers: Vec::new() };
    }
    let others = members.nodes().filter(|member| member.alive && member.facts.node != *own);
    let info = |member: &Member| PeerInfo {
        node: member.facts.node.clone(),
        address: member.facts.sync,
        head: member.facts.head,
    };
    PeerView { leader: claim.map(|claim| claim.node), peers: others.map(info).collect() }
}

/// Where the tunnels of the other gateways listen. A node that looks dead stays in: whether its
/// tunnel answers, the tunnel knows best.
pub(super) fn tunnels(own: &NodeName, members: &Members) -> HashMap<NodeName, SocketAddr> {
    let others = members.nodes().filter(|member| member.facts.roles.gateway && member.facts.node != *own);
    others.map(|member| (member.facts.node.clone(), member.facts.tunnel)).collect()
}

/// Nodes whose pods are reached by tunnel.
pub(super) fn expected(own: &NodeName, members: &Members) -> HashSet<NodeName> {
    tunnels(own, members).into_keys().collect()
}

/// The newest head that live peers announce. A hint: epochs count only from heads that a leader
/// signed.
pub(super) fn newest(members: &Members) -> HeadId {
    members.alive().map(|member| member.facts.head).max().unwrap_or_default()
}
