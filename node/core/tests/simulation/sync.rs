//! Following and serving over simulated streams, and gossip.

use std::collections::VecDeque;

use meshgate_core::replica::{After, End, Outcome, Refusal, SILENCE, Serve, Serving, Sources, Stay, Turn};
use meshgate_core::snapshot::HeadId;

use crate::model::{Content, Head, Node, verify};
use crate::peer::{Facts, Frame, Request, Stream};
use crate::world::World;

/// A member that was not heard of for so long is dead.
const DEAD_AFTER: u64 = 4_000_000;
/// How often a stream shows that it lives.
const ANNOUNCE_EVERY: u64 = 500_000;
/// A follower that takes no frame for so long is let go.
const STALL: u64 = 15_000_000;
/// How long a transfer may take in all.
const LONGEST: u64 = 10_000_000;

impl World {
    /// Everyone who lives, as gossip at `node` has it; and who leads by its own word.
    fn seen(&self, node: Node) -> (Option<Node>, Vec<(Node, HeadId)>) {
        let Some(process) = &self.peers[node].process else { return (None, Vec::new()) };
        let alive = || {
            let young = process.view.values().filter(|(_, heard)| self.now - heard < DEAD_AFTER);
            young.map(|(facts, _)| facts)
        };
        let leads = alive().filter(|facts| self.peers[facts.node].reconciler && facts.leads.is_some());
        let leader = leads.max_by_key(|facts| facts.leads).map(|facts| facts.node);
        (leader, alive().filter(|facts| facts.node != node).map(|facts| (facts.node, facts.head)).collect())
    }

    /// The newest head that anybody announces.
    pub fn newest(&self, node: Node) -> HeadId {
        self.seen(node).1.into_iter().map(|(_, head)| head).max().unwrap_or_default().max(self.peers[node].held())
    }

    /// Begins, thinks over or leaves the stream from a source.
    pub fn follow(&mut self, node: Node) {
        let (clock, entropy, jitter) = (self.clock(node), self.rng.next(), self.rng.next());
        let (leader, peers) = self.seen(node);
        let now = self.now;
        let Some(process) = self.process(node) else { return };
        let sources =
            Sources { leader: leader.as_ref(), peers: peers.iter().map(|(node, head)| (node, *head)).collect() };
        let held = process.owner.held();
        if let Some(id) = process.following {
            let silent = now.saturating_sub(process.heard_at) > u64::try_from(SILENCE.as_micros()).unwrap();
            let stay = process.follow.reconsider(&held, &sources, clock, entropy);
            match (silent, stay) {
                (true, _) => self.leave(node, id, End::Broken, jitter),
                (false, Stay::Leave(end)) => self.leave(node, id, end, jitter),
                (false, Stay::Until(_)) => return,
            }
        }
        let Some(process) = self.process(node) else { return };
        let Some(source) = process.follow.pick(&held, &sources, clock, entropy) else { return };
        process.follow.begin(source, clock);
        process.heard_at = now;
        let full = process.follow.want_full();
        let id = self.open(node, source);
        if let Some(process) = self.process(node) {
            process.following = Some(id);
        }
        self.note(|| format!("peer {node} follows {source} by stream {id}, has {}, full: {full}", held.id));
        self.send_up(id, Request::Hello { held: held.id, full });
    }

    pub fn open(&mut self, follower: Node, server: Node) -> u64 {
        let id = self.next_stream;
        self.next_stream += 1;
        let stream = Stream {
            follower,
            server,
            down: VecDeque::new(),
            down_at: 0,
            up: VecDeque::new(),
            up_at: 0,
            inbox: VecDeque::new(),
            follower_gone: false,
            server_gone: self.peers[server].process.is_none() && !self.peers[server].liar,
            serving: None,
            transfer: None,
            announced_at: self.now,
            taken_at: self.now,
            acked: HeadId::default(),
        };
        self.streams.insert(id, stream);
        id
    }

    fn leave(&mut self, node: Node, id: u64, end: End, jitter: u64) {
        self.note(|| format!("peer {node} leaves stream {id}: {end:?}"));
        let clock = self.clock(node);
        if let Some(process) = self.process(node) {
            process.follow.ended(end, clock, jitter);
            process.following = None;
            // An offer that is queued stays offered, as in a channel.
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.follower_gone = true;
            stream.inbox.clear();
        }
        self.send_up(id, Request::Closed);
    }

    /// A peer's process ended. With `word`, its kernel says so to the other ends.
    pub fn end_of_peer(&mut self, id: u64, node: Node, word: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.follower == node && !stream.follower_gone {
            stream.follower_gone = true;
            if word {
                self.send_up(id, Request::Closed);
            } else if let Some(stream) = self.streams.get_mut(&id) {
                stream.taken_at = self.now;
            }
        } else if stream.server == node && !stream.server_gone {
            self.close_server(id, word);
        }
    }

    /// The serving end ends.
    pub fn close_server(&mut self, id: u64, word: bool) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.server_gone) else { return };
        stream.server_gone = true;
        let (server, sending) = (stream.server, stream.transfer.take().is_some());
        if sending {
            self.peers[server].sending -= 1;
        }
        let moved = self.process(server).is_some_and(|process| process.turns.leave(&id));
        if word {
            self.send_down(id, Frame::Closed);
        }
        if moved {
            self.serve_all(server);
        }
    }

    /// A frame is at the follower.
    pub fn follower_reads(&mut self, id: u64, frame: Frame) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.taken_at = now;
        if stream.follower_gone {
            // Nobody is there any more: the server is told so.
            if matches!(frame, Frame::Closed) {
                stream.server_gone = true;
            } else {
                self.close_server(id, false);
            }
            return;
        }
        let follower = stream.follower;
        stream.inbox.push_back(frame);
        self.read_inbox(follower, id);
    }

    /// Reads frames, up to one that the owner has to judge.
    fn read_inbox(&mut self, node: Node, id: u64) {
        let (clock, now) = (self.clock(node), self.now);
        let longest = std::time::Duration::from_micros(LONGEST);
        while self
            .process(node)
            .is_some_and(|process| process.following == Some(id) && process.offers.is_empty() && process.work.is_none())
        {
            let Some(frame) = self.streams.get_mut(&id).and_then(|stream| stream.inbox.pop_front()) else { return };
            let jitter = self.rng.next();
            let Some(process) = self.process(node) else { return };
            process.heard_at = now;
            let held = process.owner.held().id;
            match frame {
                Frame::Announce => {}
                Frame::Closed => self.leave(node, id, End::Broken, jitter),
                Frame::Start { head } if verify(&head) => process.follow.transfer(head.id > held, clock + longest),
                Frame::Start { .. } => self.leave(node, id, End::False { ask_full: false }, jitter),
                Frame::Chunk => process.follow.part(clock),
                Frame::Delta { head, base, changes } => {
                    self.offer(node, id, head, Content::Delta { base, changes });
                }
                Frame::End { head, state } => self.offer(node, id, head, Content::Full(state)),
            }
        }
    }

    fn offer(&mut self, node: Node, id: u64, head: Head, content: Content) {
        let Some(process) = self.process(node) else { return };
        process.follow.judging();
        process.offers.push_back((head, content, Some(id)));
        self.take_next(node);
    }

    /// The owner has judged what came of a stream.
    pub fn judged(&mut self, node: Node, id: u64, outcome: Outcome) {
        let (clock, jitter, now) = (self.clock(node), self.rng.next(), self.now);
        let source = self.streams.get(&id).map(|stream| stream.server);
        if let (Outcome::Refused(refusal), Some(source)) = (outcome, source) {
            let innocent = matches!(refusal, Refusal::Stale(_) | Refusal::Fenced(_));
            self.check(innocent || self.peers[source].liar, || {
                format!("peer {node} takes {source} for a liar, which it is not: {refusal}")
            });
        }
        let Some(process) = self.process(node).filter(|process| process.following == Some(id)) else { return };
        // While the owner was at work nothing was read, which is no silence of the source.
        process.heard_at = now;
        let held = process.owner.held().id;
        match process.follow.judged(&outcome, clock) {
            After::Go => self.send_up(id, Request::Ack(held)),
            After::AskFull => self.send_up(id, Request::Resend),
            After::Leave(end) => self.leave(node, id, end, jitter),
        }
        self.read_inbox(node, id);
    }

    /// A request is at the server.
    pub fn server_reads(&mut self, id: u64, request: Request) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let server = stream.server;
        if stream.server_gone {
            if matches!(request, Request::Closed) {
                stream.follower_gone = true;
            } else {
                self.send_down(id, Frame::Closed);
            }
            return;
        }
        if self.peers[server].liar {
            return self.lie(id, &request);
        }
        match request {
            Request::Hello { held, full } => stream.serving = Some(Serving::new(held, full)),
            Request::Resend => {
                if let Some(serving) = &mut stream.serving {
                    serving.resend();
                }
            }
            Request::Ack(head) => {
                stream.acked = head;
                let (held, follower) = (self.peers[server].held(), stream.follower);
                let told = self.peers[follower].liar || self.signed.contains_key(&head) || head == HeadId::default();
                self.check(told, || format!("peer {server} (at {held}) is acknowledged {head}, which never was"));
            }
            Request::Closed => return self.close_server(id, false),
        }
        self.serve(id);
    }

    fn serve_all(&mut self, server: Node) {
        let mine: Vec<u64> = self.streams.iter().filter(|(_, one)| one.server == server).map(|(id, _)| *id).collect();
        mine.into_iter().for_each(|id| self.serve(id));
    }

    /// Sends one follower what it lacks, as long as it takes it.
    pub fn serve(&mut self, id: u64) {
        let now = self.now;
        let Some(stream) = self.streams.get(&id).filter(|stream| !stream.server_gone) else { return };
        let server = stream.server;
        let Some(serving) = stream.serving else { return };
        if !stream.down.is_empty() || stream.inbox.len() > 1 {
            let late = stream.transfer.as_ref().is_some_and(|(_, _, begun)| now - begun > LONGEST);
            if late || now.saturating_sub(stream.taken_at) > STALL {
                self.note(|| format!("peer {server} lets the follower of stream {id} go"));
                self.close_server(id, true);
            }
            return;
        }
        if stream.transfer.is_some() {
            return self.send_part(id);
        }
        let Some(process) = &self.peers[server].process else { return };
        let Some(head) = process.head else { return self.announce(id) };
        match serving.next(head.id) {
            Serve::Nothing => self.announce(id),
            Serve::Delta => match self.delta(server, serving.sent()) {
                Some(frame) => {
                    if let Some(serving) = self.streams.get_mut(&id).and_then(|stream| stream.serving.as_mut()) {
                        serving.has(head.id);
                    }
                    self.send_down(id, frame);
                }
                None => self.ask_turn(id, server),
            },
            Serve::Full => self.ask_turn(id, server),
        }
    }

    /// One delta from `held` to now, if the log goes back so far.
    fn delta(&self, server: Node, held: HeadId) -> Option<Frame> {
        let log = &self.peers[server].process.as_ref()?.log;
        let start = log.iter().rposition(|commit| commit.base == held)?;
        let changes = log.iter().skip(start).flat_map(|commit| commit.changes.iter().copied()).collect();
        Some(Frame::Delta { head: log.back()?.head, base: held, changes })
    }

    fn ask_turn(&mut self, id: u64, server: Node) {
        let now = self.now;
        let Some(process) = self.process(server) else { return };
        let Some(head) = process.head else { return };
        match process.turns.ask(id) {
            Turn::Wait => return self.announce(id),
            Turn::Elsewhere => return self.close_server(id, true),
            Turn::Now => {}
        }
        let mut parts: VecDeque<Frame> = (0..3).map(|_| Frame::Chunk).collect();
        parts.push_back(Frame::End { head, state: process.state.clone() });
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.transfer = Some((head, parts, now));
        self.peers[server].sending += 1;
        self.herd_is_bounded(server);
        self.note(|| format!("peer {server} sends everything at {} by stream {id}", head.id));
        self.send_down(id, Frame::Start { head });
    }

    fn send_part(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let server = stream.server;
        let Some((head, parts, _)) = &mut stream.transfer else { return };
        let head = *head;
        if let Some(part) = parts.pop_front() {
            return self.send_down(id, part);
        }
        // The last part was taken.
        stream.transfer = None;
        if let Some(serving) = &mut stream.serving {
            serving.has(head.id);
        }
        self.peers[server].sending -= 1;
        if self.process(server).is_some_and(|process| process.turns.leave(&id)) {
            self.serve_all(server);
        }
        self.serve(id);
    }

    fn announce(&mut self, id: u64) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if now - stream.announced_at >= ANNOUNCE_EVERY {
            stream.announced_at = now;
            self.send_down(id, Frame::Announce);
        }
    }

    /// What the serving ends do as time goes by.
    pub fn serve_ticks(&mut self, server: Node) {
        self.serve_all(server);
        // A follower whose machine is gone answers no ping.
        let gone = self.streams.iter().filter(|(_, one)| one.server == server && one.follower_gone && !one.server_gone);
        let late: Vec<u64> =
            gone.filter(|(_, one)| self.now.saturating_sub(one.taken_at) > STALL).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.close_server(id, false));
        let dead = |stream: &Stream| stream.server_gone && stream.follower_gone;
        self.streams.retain(|_, stream| !dead(stream));
    }

    /// Own facts, and the freshest of others.
    fn facts(&mut self, node: Node) -> Vec<Facts> {
        let (life, clock) = (self.peers[node].life, self.clock(node));
        let Some(process) = self.process(node) else { return Vec::new() };
        process.serial += 1;
        let own = Facts {
            node,
            life,
            serial: process.serial,
            head: process.owner.held().id,
            leads: process.election.as_ref().and_then(|election| election.term(clock)),
        };
        let now = self.now;
        let Some(process) = self.process(node) else { return Vec::new() };
        process.view.insert(node, (own, now));
        let mut known: Vec<(u64, Facts)> = process.view.values().map(|(facts, heard)| (*heard, *facts)).collect();
        known.retain(|(heard, facts)| facts.node != node && now - heard < DEAD_AFTER);
        known.sort_by_key(|(heard, _)| std::cmp::Reverse(*heard));
        std::iter::once(own).chain(known.into_iter().take(16).map(|(_, facts)| facts)).collect()
    }

    /// Gossips with some others.
    pub fn tell_some(&mut self, node: Node, count: usize) {
        let facts = if self.peers[node].liar { self.lying_facts(node) } else { self.facts(node) };
        for _ in 0..count {
            let to = usize::try_from(self.rng.below(self.peers.len() as u64)).unwrap();
            if to != node {
                self.gossip_to(node, to, &facts);
            }
        }
    }

    pub fn hear(&mut self, to: Node, facts: &[Facts]) {
        let now = self.now;
        let Some(process) = self.process(to) else { return };
        for facts in facts.iter().filter(|facts| facts.node != to) {
            let newer = process
                .view
                .get(&facts.node)
                .is_none_or(|(known, _)| (facts.life, facts.serial) > (known.life, known.serial));
            if newer {
                process.view.insert(facts.node, (*facts, now));
            }
        }
        self.follow(to);
    }
}
