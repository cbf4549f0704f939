//! Running for election, and leading.

use meshgate_core::replica::{Attempt, first_rev};
use meshgate_core::snapshot::HeadId;

use crate::model::{Node, sign};
use crate::peer::{Commit, Session};
use crate::world::{Event, World};

/// Between two attempts at the lease.
const RETRY: u64 = 200_000;
/// How long a new leader waits for its own replica to have what others announce.
const CATCH_UP: u64 = 1_000_000;
/// How long this peer's own replica may take to apply what was published.
const APPLY_WITHIN: u64 = 2_000_000;

impl World {
    pub fn tick(&mut self, node: Node, life: u64) {
        if self.peers[node].liar {
            self.liar_ticks(node);
        } else if !self.lives(node, life) {
            return;
        } else {
            self.maintain_disk(node);
            self.elect(node);
            self.lead(node);
            self.follow(node);
            self.serve_ticks(node);
            self.gossip(node);
        }
        let every = if self.peers.len() > 12 { 200_000 } else { 100_000 };
        let jitter = self.rng.below(10_000);
        self.at(every + jitter, Event::Tick { node, life });
    }

    pub fn gossip(&mut self, node: Node) {
        let now = self.now;
        let large = self.peers.len() > 12;
        let Some(process) = self.process(node) else { return };
        if process.gossip_at <= now {
            process.gossip_at = now + if large { 600_000 } else { 200_000 };
            self.tell_some(node, if large { 5 } else { 3 });
        }
    }

    fn elect(&mut self, node: Node) {
        let (clock, now) = (self.clock(node), self.now);
        let (lease, stored, opened) = (self.lease.clone(), self.epoch, self.opened);
        let fails = self.peers[node].lease_cut;
        let torn = self.rng.chance(20) && !self.healed;
        let Some(process) = self.process(node) else { return };
        let seen = process.owner.held().fence;
        let Some(election) = process.election.as_mut().filter(|_| process.election_at <= now) else { return };
        process.election_at = now + RETRY;
        if fails {
            return;
        }
        match election.decide(clock, lease, stored, seen) {
            Attempt::Leave => {}
            Attempt::Renew(record) => {
                election.written(clock, record.clone());
                let term = election.term(clock);
                self.lease = Some(record);
                let overtaken = term.is_some_and(|epoch| epoch < stored);
                self.check(!overtaken, || format!("peer {node} renews the term {term:?}, {stored} has begun"));
            }
            Attempt::Take { record, epoch } => {
                election.written(clock, record.clone());
                // The epoch could not be stored.
                if !torn {
                    election.opened(epoch);
                    self.epoch = epoch;
                    self.opened = opened.max(epoch);
                    self.check(epoch > opened, || format!("epoch {epoch} is opened twice, by {node}"));
                }
                self.lease = Some(record);
                self.note(|| format!("peer {node} takes the lease, epoch {epoch}, stored: {}", !torn));
            }
        }
    }

    /// One look around of a leader.
    fn lead(&mut self, node: Node) {
        let (clock, now) = (self.clock(node), self.now);
        let (newest, desired) = (self.newest(node), self.desired.clone());
        let Some(process) = self.process(node) else { return };
        let term = process.election.as_ref().and_then(|election| election.term(clock));
        let Some(epoch) = term else {
            process.session = None;
            return;
        };
        let held = process.owner.held().id;
        if process.session.as_ref().is_none_or(|session| session.epoch != epoch) {
            let progress = (held, now);
            let session = Session { epoch, begun: now, published: None, next_rev: 0, first: true, progress };
            process.session = Some(session);
        }
        let Some(session) = &mut process.session else { return };
        if session.published.is_none() {
            if held < newest && now - session.begun < CATCH_UP {
                return;
            }
            session.published = Some((held, process.state.clone()));
            session.next_rev = first_rev(held, newest, process.last_rev);
            session.progress = (held, now);
        }
        let Some((base, published)) = session.published.clone() else { return };
        if held >= base || held != session.progress.0 {
            session.progress = (held, now);
        } else if now - session.progress.1 > APPLY_WITHIN {
            process.session = None;
            return;
        }
        let changes = published.diff(&desired);
        if changes.is_empty() && !session.first {
            return;
        }
        let id = HeadId { epoch, rev: session.next_rev };
        let state = published.apply(&changes);
        session.first = false;
        session.next_rev += 1;
        process.last_rev = id.rev;
        session.published = Some((id, state.clone()));
        let head = sign(id, state.roots());
        let before = self.signed.insert(id, (state.roots(), state.clone()));
        self.check(before.is_none(), || format!("{id} is signed twice"));
        self.history.push((head, state));
        self.note(|| format!("peer {node} signs {id}"));
        let life = self.peers[node].life;
        let after = self.rng.below(3000);
        self.at(after, Event::Commit { node, life, commit: Commit { head, base, changes } });
    }
}
