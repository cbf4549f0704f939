//! What goes wrong: crashes, stops, cuts, full disks, a deleted lease, replays, and a member that
//! lies.

use meshgate_core::replica::Serve;
use meshgate_core::snapshot::HeadId;

use crate::model::{Content, Disk, Head, NEW_FEATURE, Node, POISON, State, UNKNOWN_FIELD, pair, sign};
use crate::peer::{Facts, Frame, Peer, Request};
use crate::world::{Event, World};

/// Keys that objects have.
const KEYS: u64 = 24;

/// What a fault is over with.
#[derive(Clone, Copy, Debug)]
pub enum Mend {
    Cuts,
    Disk(Node),
    Lease(Node),
}

impl World {
    /// The users change some objects.
    pub fn edit(&mut self) {
        let changes: Vec<(u16, Option<u64>)> = (0..self.rng.between(1, 4))
            .map(|_| {
                let key = u16::try_from(self.rng.below(KEYS)).unwrap();
                let mut value = self.rng.below(1 << 20);
                for (bit, chance) in [(UNKNOWN_FIELD, 300), (NEW_FEATURE, 100), (POISON, 30)] {
                    // Whatever kills leaders is over when everything works again.
                    if self.rng.chance(chance) && !(bit == POISON && self.healed) {
                        value |= bit;
                    }
                }
                (key, if self.rng.chance(200) { None } else { Some(value) })
            })
            .collect();
        self.desired = self.desired.apply(&changes);
        if !self.healed {
            let after = self.rng.below(self.rates.edit_ms * 2000);
            self.at(after, Event::Edit);
        }
    }

    fn somebody(&mut self) -> Node {
        usize::try_from(self.rng.below(self.peers.len() as u64)).unwrap()
    }

    /// A peer that does not lie; the leader in half of the cases.
    fn victim(&mut self) -> Node {
        let leads = |node: &Node| {
            let clock = self.clock(*node);
            let election = self.peers[*node].process.as_ref().and_then(|process| process.election.as_ref());
            election.is_some_and(|election| election.term(clock).is_some())
        };
        let leader = (0..self.peers.len()).find(leads);
        if let Some(leader) = leader
            && self.rng.chance(500)
        {
            return leader;
        }
        loop {
            let node = self.somebody();
            if !self.peers[node].liar {
                return node;
            }
        }
    }

    pub fn fault(&mut self) {
        if self.healed {
            return;
        }
        let node = self.victim();
        let long = self.rng.between(100_000, 5_000_000);
        match self.rng.below(16) {
            0..=1 => self.crash(node, false, long / 3),
            2 => self.crash(node, true, long / 2),
            3 if !self.forgets_epoch => {
                self.crash(node, true, long / 2);
                self.note(|| format!("peer {node} loses its disk"));
                let peer = &mut self.peers[node];
                peer.disk = Disk::default();
                (peer.fenced, peer.kept) = (0, HeadId::default());
            }
            4..=5 => {
                self.note(|| format!("peer {node} is stopped for {} ms", long / 1000));
                let until = self.now + long;
                self.peers[node].stopped_until = Some(until);
            }
            6..=7 => {
                self.note(|| "the lease is deleted".to_owned());
                self.lease = None;
            }
            8..=10 => self.cut(node, long),
            11 if !self.forgets_epoch => {
                self.note(|| format!("the disk of peer {node} is full"));
                self.peers[node].disk.full = true;
                self.at(long, Event::Mend(Mend::Disk(node)));
            }
            12 => {
                self.note(|| format!("peer {node} can't reach the lease"));
                self.peers[node].lease_cut = true;
                self.at(long, Event::Mend(Mend::Lease(node)));
            }
            13 if self.rng.chance(200) => {
                let everyone = 0..self.peers.len();
                everyone.filter(|node| !self.peers[*node].liar).collect::<Vec<_>>().into_iter().for_each(|node| {
                    self.crash(node, false, long / 4);
                });
            }
            14 if self.forgets_epoch => self.forget_epoch(),
            _ => self.replay(node),
        }
        let after = self.rng.below(self.rates.fault_ms * 2000);
        self.at(after, Event::Fault);
    }

    /// The stored epoch is lost, but every candidate knows of it from its disk.
    fn forget_epoch(&mut self) {
        let opened = self.opened;
        let knows = |peer: &Peer| peer.liar || !peer.reconciler || peer.disk.fence == opened;
        if self.peers.iter().all(knows) {
            self.note(|| "the stored epoch is lost".to_owned());
            self.epoch = 0;
        }
    }

    fn crash(&mut self, node: Node, machine: bool, down: u64) {
        self.die(node, machine);
        self.at(down, Event::Start(node));
    }

    /// A partition, or a peer that can't be heard, or can't hear.
    fn cut(&mut self, node: Node, long: u64) {
        let count = self.peers.len();
        let kind = self.rng.below(3);
        let side: Vec<bool> = (0..count).map(|_| self.rng.chance(500)).collect();
        for from in 0..count {
            for to in 0..count {
                let cut = match kind {
                    0 => side[from] != side[to],
                    1 => from == node,
                    _ => to == node,
                };
                if cut && from != to {
                    self.cuts.insert((from, to));
                }
            }
        }
        self.note(|| format!("the network is cut, kind {kind} at peer {node}"));
        self.at(long, Event::Mend(Mend::Cuts));
    }

    pub fn mend(&mut self, what: Mend) {
        self.note(|| format!("mended: {what:?}"));
        match what {
            Mend::Cuts => self.cuts.clear(),
            Mend::Disk(node) => self.peers[node].disk.full = false,
            Mend::Lease(node) => self.peers[node].lease_cut = false,
        }
    }

    /// What once was on the wire comes again to somebody's owner, or something like it.
    fn replay(&mut self, node: Node) {
        let Some((mut head, state)) = self.some_head() else { return };
        let kind = self.rng.below(5);
        let held = self.peers[node].held();
        let content = match kind {
            0 => Content::Full(state),
            // Of a state that is not what it says.
            1 => Content::Full(self.desired.apply(&[(7, Some(77))])),
            2 => Content::Delta { base: held, changes: vec![(7, Some(77))] },
            3 => {
                let mine = self.peers[node].process.as_ref().map_or_else(State::default, |one| one.state.clone());
                Content::Delta { base: held, changes: mine.diff(&state) }
            }
            _ => {
                head = self.forged(held);
                Content::Delta { base: held, changes: vec![(7, Some(77))] }
            }
        };
        self.note(|| format!("peer {node} is offered {} again, kind {kind}", head.id));
        let Some(process) = self.process(node) else { return };
        process.offers.push_back((head, content, None));
        self.take_next(node);
    }

    fn some_head(&mut self) -> Option<(Head, State)> {
        let count = self.history.len() as u64;
        // The newest ones more often.
        let back = self.rng.below(count + 1).min(self.rng.below(count + 1));
        let index = usize::try_from(count.checked_sub(back + 1)?).unwrap();
        self.history.get(index).cloned()
    }

    /// A head that no leader signed.
    fn forged(&mut self, held: HeadId) -> Head {
        let id = HeadId { epoch: held.epoch + self.rng.below(3), rev: held.rev + 1 + self.rng.below(1 << 40) };
        Head { signature: self.rng.next(), ..sign(id, self.desired.apply(&[(7, Some(77))]).roots()) }
    }

    /// Everything that was broken works again; what was stopped goes on.
    pub fn heal(&mut self) {
        if let Some(until) = self.peers.iter().filter_map(|peer| peer.stopped_until).max().filter(|at| *at > self.now) {
            return self.at(until - self.now, Event::Heal);
        }
        self.note(|| "everything works again".to_owned());
        self.healed = true;
        self.heal_at = self.now;
        self.cuts.clear();
        self.rates.loss = self.rates.loss.min(5);
        self.rates.duplicate = 0;
        self.rates.delay_ms = self.rates.delay_ms.min(5);
        self.edit();
        for node in 0..self.peers.len() {
            self.peers[node].disk.full = false;
            self.peers[node].lease_cut = false;
            if !self.peers[node].liar {
                self.start(node);
            }
        }
    }

    /// What a liar says of itself.
    pub fn lying_facts(&mut self, node: Node) -> Vec<Facts> {
        if self.peers[node].silent {
            let head = HeadId { epoch: u64::MAX, rev: u64::MAX };
            return vec![Facts { node, life: 1, serial: self.now, head, leads: None }];
        }
        let head = match self.rng.below(3) {
            0 => HeadId { epoch: u64::MAX, rev: u64::MAX },
            1 => HeadId { epoch: self.epoch, rev: self.rng.below(1 << 20) },
            _ => HeadId::default(),
        };
        // In some worlds it says that it leads.
        let leads = (self.seed % 4 == 1).then_some(u64::MAX);
        vec![Facts { node, life: 1, serial: self.now, head, leads }]
    }

    pub fn liar_ticks(&mut self, node: Node) {
        self.tell_some(node, 3);
        let served =
            self.streams.iter().filter(|(_, one)| one.server == node && !one.server_gone && one.down.is_empty());
        let served: Vec<u64> = served.map(|(id, _)| *id).collect();
        for id in served {
            let frame = if self.rng.chance(300) && !self.peers[node].silent { Frame::Chunk } else { Frame::Announce };
            self.send_down(id, frame);
        }
        // It asks for everything and takes nothing.
        let asks = self.streams.values().filter(|one| one.follower == node).count();
        let to = self.somebody();
        if asks < 4 && to != node && self.rng.chance(100) {
            let id = self.open(node, to);
            self.send_up(id, Request::Hello { held: HeadId::default(), full: true });
        }
    }

    /// What a liar serves.
    pub fn lie(&mut self, id: u64, request: &Request) {
        let held = match request {
            Request::Hello { held, .. } => *held,
            Request::Resend => HeadId::default(),
            Request::Ack(_) => return,
            Request::Closed => return self.close_server(id, false),
        };
        let server = self.streams.get(&id).map(|stream| stream.server);
        let silent = server.is_some_and(|server| self.peers[server].silent);
        let frame = match (if silent { 0 } else { self.rng.below(8) }, self.some_head()) {
            (0, _) | (_, None) => Frame::Announce,
            (1, _) => Frame::Delta { head: self.forged(held), base: held, changes: vec![(7, Some(77))] },
            (2, Some((head, _))) => Frame::Delta { head, base: held, changes: vec![(7, Some(77))] },
            (3, Some((head, state))) => Frame::End { head, state: state.apply(&[(7, Some(77))]) },
            // Begins and never ends.
            (4, Some((head, _))) => Frame::Start { head },
            (5, _) => Frame::Start { head: self.forged(held) },
            (6, Some((head, _))) => {
                Frame::Delta { head, base: HeadId { rev: held.rev + 1, ..held }, changes: Vec::new() }
            }
            (_, Some((head, state))) => Frame::End { head, state },
        };
        self.send_down(id, frame);
    }

    /// Whoever does not lie has what the users declared, in the table too.
    pub fn agree(&self) -> bool {
        let mut heads = self.peers.iter().filter(|peer| !peer.liar).map(|peer| {
            let process = peer.process.as_ref()?;
            (process.state == self.desired).then(|| process.owner.held().id)
        });
        let Some(Some(first)) = heads.next() else { return false };
        heads.all(|head| head == Some(first))
    }

    /// At the end: tables match states, disks match memory, alarms are off.
    pub fn end_is_consistent(&self) {
        for (node, peer) in self.peers.iter().enumerate().filter(|(_, peer)| !peer.liar) {
            let Some(process) = &peer.process else { self.broken(&format!("peer {node} does not run")) };
            for (key, value) in process.state.values.iter() {
                let expected = crate::model::decode(*value, peer.old_version);
                let serves = process.table.get(key).copied();
                self.check(process.held.contains(key) || (serves.is_some() && serves == expected), || {
                    format!("peer {node} serves {serves:?} for {key}, which is {expected:?}")
                });
                let may_hold = expected.is_none() || process.quarantine.contains(&pair(*key, *value));
                self.check(!process.held.contains(key) || may_hold, || format!("peer {node} holds {key} back"));
            }
            let gone = process.table.keys().find(|key| !process.state.values.contains_key(key));
            self.check(gone.is_none(), || format!("peer {node} serves {gone:?}, which was deleted"));
            let stored = peer.disk.newest().map(|(head, _)| head.id);
            self.check(!process.alarm && stored == Some(process.owner.held().id), || {
                format!("peer {node} has {} and keeps {stored:?}, alarm: {}", process.owner.held().id, process.alarm)
            });
            let left = process.head.map(|head| meshgate_core::replica::Serving::new(head.id, false).next(head.id));
            self.check(left.is_none_or(|left| left == Serve::Nothing), || "nothing is left to send".to_owned());
        }
    }
}
