//! Who is there, as far as it is signed.

use std::collections::HashMap;
use std::time::Instant;

use chitchat::{Chitchat, ChitchatId};

use super::facts::{self, Facts, LeaderClaim, Life, Signed};
use super::metrics::ClusterMetrics;
use crate::identity::{NodeName, Trust};

/// Most instances that are believed to be members: the library's messages have room for about 850.
pub const MAX_MEMBERS: usize = 400;
/// Keys under which the library keeps a node's values.
pub(super) const FACTS_KEY: &str = "facts";
pub(super) const CERTIFICATE_KEY: &str = "cert";

/// One instance of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// What it last said of itself, signed.
    pub facts: Facts,
    /// Gossip hears from it.
    pub alive: bool,
    /// When its facts or its liveness last changed here.
    pub last_change: Instant,
    /// When it began to gossip, in milliseconds since 1970 by its own clock.
    pub generation: u64,
}

/// Everyone, ordered by node, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members(Vec<Member>);

impl Members {
    /// These, for tests of who reads them.
    #[cfg(test)]
    pub(crate) fn of(members: Vec<Member>) -> Self {
        Members(members)
    }

    /// Every instance that is or recently was there.
    pub fn all(&self) -> &[Member] {
        &self.0
    }

    /// The instances that are there.
    pub fn alive(&self) -> impl Iterator<Item = &Member> {
        self.0.iter().filter(|member| member.alive)
    }

    /// One instance a node: the one that [`Members::node`] names.
    pub fn nodes(&self) -> impl Iterator<Item = &Member> {
        let names: std::collections::BTreeSet<&NodeName> = self.0.iter().map(|member| &member.facts.node).collect();
        names.into_iter().filter_map(|name| self.node(name))
    }

    /// Who leads by its own word, the highest epoch first. Only reconcilers can lead; and others may
    /// not have heard yet that a leader stepped down, so only a node's word about itself counts.
    pub fn leader(&self) -> Option<LeaderClaim> {
        let own_word = |member: &Member| {
            let may = member.alive && member.facts.roles.reconciler;
            member.facts.leader.clone().filter(|claim| may && claim.node == member.facts.node)
        };
        self.nodes().filter_map(own_word).max_by_key(|claim| claim.epoch)
    }

    /// A node's newest live instance, a ready one first; else its newest.
    pub fn node(&self, node: &NodeName) -> Option<&Member> {
        let of_node = || self.0.iter().filter(|member| member.facts.node == *node);
        of_node()
            .find(|member| member.alive && member.facts.ready)
            .or_else(|| of_node().find(|member| member.alive))
            .or_else(|| of_node().next())
    }
}

/// What was read of each instance, so that a signature is checked once.
#[derive(Default)]
pub(super) struct Reader {
    known: HashMap<ChitchatId, Known>,
}

#[derive(Default)]
struct Known {
    /// The values as they were last looked at, believed or not.
    raw: Option<Signed>,
    believed: Option<Member>,
    serial: u64,
}

impl Reader {
    /// Reads what gossip holds now.
    pub(super) fn read(&mut self, chitchat: &Chitchat, trust: &Trust, metrics: &ClusterMetrics) -> Members {
        let live: std::collections::HashSet<&ChitchatId> = chitchat.live_nodes().collect();
        self.known.retain(|id, _| chitchat.node_states().contains_key(id));
        for (id, state) in chitchat.node_states() {
            let known = self.known.entry(id.clone()).or_default();
            if let (Some(facts), Some(certificate)) = (state.get(FACTS_KEY), state.get(CERTIFICATE_KEY)) {
                known.look(id, facts, certificate, trust, metrics);
            }
            let alive = live.contains(id);
            if let Some(member) = known.believed.as_mut().filter(|member| member.alive != alive) {
                member.alive = alive;
                member.last_change = Instant::now();
            }
        }
        self.members(metrics)
    }

    fn members(&self, metrics: &ClusterMetrics) -> Members {
        let mut members: Vec<Member> = self.known.values().filter_map(|known| known.believed.clone()).collect();
        // The living first, so that the limit cuts the dead.
        members.sort_by_key(|member| (!member.alive, std::cmp::Reverse(member.generation)));
        metrics.over_limit.set(i64::try_from(self.known.len().saturating_sub(MAX_MEMBERS)).unwrap_or(i64::MAX));
        members.truncate(MAX_MEMBERS);
        members.sort_by(|a, b| (&a.facts.node, b.generation).cmp(&(&b.facts.node, a.generation)));
        let alive = members.iter().filter(|member| member.alive).count();
        metrics.peers(alive, members.len() - alive);
        Members(members)
    }
}

impl Known {
    fn look(&mut self, id: &ChitchatId, facts: &str, certificate: &str, trust: &Trust, metrics: &ClusterMetrics) {
        if self.raw.as_ref().is_some_and(|raw| raw.facts == facts && raw.certificate == certificate) {
            return;
        }
        let value = Signed { facts: facts.to_owned(), certificate: certificate.to_owned() };
        let life = Life { generation: id.generation_id, address: id.gossip_advertise_addr };
        match facts::verify(trust, &id.node_id, life, &value) {
            Ok(verified) if verified.serial >= self.serial => {
                self.serial = verified.serial;
                let alive = self.believed.as_ref().is_some_and(|member| member.alive);
                let generation = id.generation_id;
                self.believed = Some(Member { facts: verified.facts, alive, last_change: Instant::now(), generation });
            }
            // What was believed before goes on being believed.
            Ok(_) => metrics.ignored("stale"),
            Err(error) => {
                tracing::debug!(?id, %error, "gossip value ignored");
                metrics.ignored(error.reason());
            }
        }
        self.raw = Some(value);
    }
}
