//! One peer: its process, its disk, and the owner of its state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meshgate_core::replica::{
    Death, Election, Event as Done, Follow, Next, Offered, Outcome, Pair, Replica, Serving, Suspects, Turns,
};
use meshgate_core::snapshot::HeadId;

use crate::model::{Change, Content, Disk, Head, Node, POISON, State, decode, pair, verify};
use crate::world::{Event, World};

/// Deltas that are kept for followers.
const LOG: usize = 8;
/// How often appended heads are synced.
const SYNC_EVERY: u64 = 1_000_000;
/// After a failed write, a fresh base is tried this much later.
const RETRY_AFTER: u64 = 5_000_000;
/// Commits of the own leader that may wait.
const COMMITS: usize = 16;

/// What a leader hands to its own replica.
#[derive(Clone, Debug)]
pub struct Commit {
    pub head: Head,
    pub base: HeadId,
    pub changes: Vec<Change>,
}

/// What a process says of itself in gossip.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub node: Node,
    pub life: u64,
    pub serial: u64,
    pub head: HeadId,
    pub leads: Option<u64>,
}

/// From server to follower.
#[derive(Clone, Debug)]
pub enum Frame {
    Delta { head: Head, base: HeadId, changes: Vec<Change> },
    Start { head: Head },
    Chunk,
    End { head: Head, state: State },
    Announce,
    Closed,
}

/// From follower to server.
#[derive(Clone, Debug)]
pub enum Request {
    Hello { held: HeadId, full: bool },
    Resend,
    Ack(HeadId),
    Closed,
}

/// A Sync stream: two ends and what is on its way.
#[derive(Debug)]
pub struct Stream {
    pub follower: Node,
    pub server: Node,
    pub down: VecDeque<Frame>,
    pub down_at: u64,
    pub up: VecDeque<Request>,
    pub up_at: u64,
    /// Frames that wait while the owner judges one before them.
    pub inbox: VecDeque<Frame>,
    pub follower_gone: bool,
    pub server_gone: bool,
    pub serving: Option<Serving>,
    /// A snapshot on its way: what is still to be sent.
    pub transfer: Option<(Head, VecDeque<Frame>, u64)>,
    pub announced_at: u64,
    pub taken_at: u64,
    pub acked: HeadId,
}

/// An offer on its way through the owner.
#[derive(Debug)]
pub struct Work {
    pub head: Head,
    pub content: Content,
    pub stream: Option<u64>,
    pub next: State,
    pub changes: Vec<Change>,
    pub base: HeadId,
    pub marked: bool,
}

/// A leader's session.
#[derive(Debug)]
pub struct Session {
    pub epoch: u64,
    pub begun: u64,
    pub published: Option<(HeadId, State)>,
    pub next_rev: u64,
    pub first: bool,
    pub progress: (HeadId, u64),
}

/// What is in memory, and gone with the process.
pub struct Process {
    pub owner: Replica,
    pub head: Option<Head>,
    pub state: State,
    /// What requests are answered from.
    pub table: BTreeMap<u16, u64>,
    pub held: BTreeSet<u16>,
    pub quarantine: BTreeSet<Pair>,
    pub suspects: Suspects,
    pub log: VecDeque<Commit>,
    pub offers: VecDeque<(Head, Content, Option<u64>)>,
    pub work: Option<Work>,
    pub follow: Follow<Node>,
    pub following: Option<u64>,
    pub heard_at: u64,
    pub turns: Turns<u64>,
    pub view: BTreeMap<Node, (Facts, u64)>,
    pub serial: u64,
    pub gossip_at: u64,
    pub sync_at: u64,
    pub retry_at: Option<u64>,
    /// The disk does not keep what is applied.
    pub alarm: bool,
    /// The epoch that has to be on disk.
    pub fence_wanted: u64,
    pub election: Option<Election>,
    pub election_at: u64,
    pub session: Option<Session>,
    pub last_rev: u64,
}

/// A peer, whether its process runs or not.
pub struct Peer {
    pub process: Option<Process>,
    pub disk: Disk,
    pub life: u64,
    pub reconciler: bool,
    pub liar: bool,
    /// It lies only by saying that it is far ahead.
    pub silent: bool,
    pub old_version: bool,
    /// Its clock: where it began, and its pace in thousandths.
    pub origin: u64,
    pub pace: u64,
    pub stopped_until: Option<u64>,
    /// It can't reach the lease.
    pub lease_cut: bool,
    /// Snapshots that it sends right now, as the network sees it.
    pub sending: usize,
    /// The highest epoch that was on its disk.
    pub fenced: u64,
    /// The newest head that it applied and kept while its disk worked.
    pub kept: HeadId,
    /// Deaths while it applied something.
    pub applying_deaths: u64,
}

impl Peer {
    pub fn new(reconciler: bool, old_version: bool, origin: u64, pace: u64) -> Peer {
        Peer {
            process: None,
            disk: Disk::default(),
            life: 0,
            reconciler,
            liar: false,
            silent: false,
            old_version,
            origin,
            pace,
            stopped_until: None,
            lease_cut: false,
            sending: 0,
            fenced: 0,
            kept: HeadId::default(),
            applying_deaths: 0,
        }
    }

    pub fn held(&self) -> HeadId {
        self.process.as_ref().map_or_else(HeadId::default, |process| process.owner.held().id)
    }
}

impl World {
    pub fn process(&mut self, node: Node) -> Option<&mut Process> {
        self.peers[node].process.as_mut()
    }

    pub fn lives(&self, node: Node, life: u64) -> bool {
        self.peers[node].life == life && self.peers[node].process.is_some()
    }

    /// A process starts from its disk.
    pub fn start(&mut self, node: Node) {
        if self.peers[node].process.is_some() {
            return;
        }
        let now = self.now;
        let peer = &mut self.peers[node];
        peer.life += 1;
        let life = peer.life;
        let mut framed = false;
        if let Some(marker) = peer.disk.marker.take() {
            match marker.died() {
                Death::Suspect(one) => peer.disk.suspects = one,
                Death::Quarantine(pairs) => {
                    peer.disk.quarantine.extend(pairs);
                    peer.disk.suspects = Suspects::default();
                    framed = peer.applying_deaths < 2;
                    peer.applying_deaths = 0;
                }
            }
        }
        let suspects = peer.disk.suspects.clone();
        let stored = peer.disk.newest().cloned();
        let owner = Replica::start(
            stored.as_ref().map(|(head, state)| (head.id, state.roots())),
            peer.disk.fence,
            State::default().roots(),
        );
        let id = owner.held().id;
        let (head, state) = stored.map_or((None, State::default()), |(head, state)| (Some(head), state));
        let election = peer.reconciler.then(|| {
            let times = meshgate_core::replica::DIRECTORY_TIMES;
            Election::new(&node.to_string(), &life.to_string(), times)
        });
        let mut process = Process {
            owner,
            head,
            state: State::default(),
            table: BTreeMap::new(),
            held: BTreeSet::new(),
            quarantine: peer.disk.quarantine.clone(),
            suspects,
            log: VecDeque::new(),
            offers: VecDeque::new(),
            work: None,
            follow: Follow::default(),
            following: None,
            heard_at: 0,
            turns: Turns::default(),
            view: BTreeMap::new(),
            serial: 0,
            gossip_at: now,
            sync_at: now,
            retry_at: None,
            alarm: false,
            fence_wanted: 0,
            election,
            election_at: now,
            session: None,
            last_rev: 0,
        };
        process.swap(&state.diff_from_nothing(), &state, peer.old_version);
        peer.process = Some(process);
        let (fence, fenced, kept) = (self.peers[node].disk.fence, self.peers[node].fenced, self.peers[node].kept);
        self.check(!framed, || format!("peer {node} quarantines what it did not die of twice"));
        self.note(|| format!("peer {node} starts (life {life}) at {id}, fence {fence}"));
        self.check(fence >= fenced, || format!("peer {node} forgot that epoch {fenced} was accepted"));
        self.check(id >= kept, || format!("peer {node} starts at {id}, and kept {kept}"));
        self.at(0, Event::Tick { node, life });
    }

    /// A process ends. `machine`: with its machine, and what was not synced.
    pub fn die(&mut self, node: Node, machine: bool) {
        self.note(|| format!("peer {node} dies{}", if machine { " with its machine" } else { "" }));
        let lost = self.rng.next();
        let peer = &mut self.peers[node];
        let Some(process) = peer.process.take() else { return };
        peer.applying_deaths += u64::from(process.work.as_ref().is_some_and(|work| work.marked));
        peer.stopped_until = None;
        peer.life += 1;
        if machine {
            let keep = usize::try_from(lost % (peer.disk.appended.len() as u64 + 1)).unwrap();
            peer.disk.appended.truncate(keep);
            peer.disk.sync();
            // Whatever was not synced may be back to what it was.
            peer.kept = peer.disk.newest().map_or_else(HeadId::default, |(head, _)| head.id);
            peer.disk.marker = None;
        }
        drop(process);
        let ends: Vec<u64> = self.streams.keys().copied().collect();
        for id in ends {
            self.end_of_peer(id, node, !machine);
        }
    }

    /// Takes the next offer, if none is worked on.
    pub fn take_next(&mut self, node: Node) {
        let Some(process) = self.process(node) else { return };
        if process.work.is_some() {
            return;
        }
        let Some((head, content, stream)) = process.offers.pop_front() else { return };
        let base = match &content {
            Content::Delta { base, .. } => Some(*base),
            Content::Full(_) => None,
        };
        let offered = Offered { own_mesh: true, id: head.id, roots: head.roots, base };
        let held = process.owner.held().id;
        let work =
            Work { head, content, stream, next: State::default(), changes: Vec::new(), base: held, marked: false };
        process.work = Some(work);
        self.advance(node, Done::Offered(offered));
    }

    pub fn step(&mut self, node: Node, life: u64, done: Done) {
        if !self.lives(node, life) {
            return;
        }
        let done = match done {
            Done::Applied(_) => match self.swap(node) {
                Some(applied) => Done::Applied(applied),
                // It killed the process.
                None => return,
            },
            Done::Kept => {
                self.keep(node);
                Done::Kept
            }
            other => other,
        };
        self.advance(node, done);
    }

    /// Does what the owner is told to do next, at once or after a while.
    fn advance(&mut self, node: Node, mut done: Done) {
        let life = self.peers[node].life;
        loop {
            let Some(process) = self.process(node) else { return };
            let next = process.owner.next(done);
            let Some(work) = &mut process.work else { return };
            done = match next {
                Next::Verify => Done::Verified(verify(&work.head)),
                Next::Resolve => {
                    (work.next, work.changes) = match &work.content {
                        Content::Delta { changes, .. } => (process.state.apply(changes), changes.clone()),
                        Content::Full(next) => (next.clone(), process.state.diff(next)),
                    };
                    Done::Resolved { roots: work.next.roots(), fits: true }
                }
                Next::Fence(epoch) => {
                    process.fence_wanted = process.fence_wanted.max(epoch);
                    let full = self.peers[node].disk.full;
                    let latency = self.rng.between(1, 20) * if full { 100_000 } else { 1000 };
                    if full {
                        self.alarm(node);
                    } else {
                        let peer = &mut self.peers[node];
                        peer.disk.fence = peer.disk.fence.max(epoch);
                        peer.fenced = peer.disk.fence;
                    }
                    return self.at(latency, Event::Step { node, life, done: Done::Fenced });
                }
                Next::Mark => {
                    let pairs = work.changes.iter().filter_map(|(key, value)| Some(pair(*key, (*value)?))).collect();
                    let marker = process.suspects.mark(pairs);
                    work.marked = true;
                    if !self.peers[node].disk.full {
                        self.peers[node].disk.marker = Some(marker);
                    }
                    Done::Marked
                }
                Next::Apply => {
                    let latency = self.rng.below(5000);
                    return self.at(latency, Event::Step { node, life, done: Done::Applied(true) });
                }
                Next::Keep => {
                    let latency = self.rng.below(1000);
                    return self.at(latency, Event::Step { node, life, done: Done::Kept });
                }
                Next::Done(outcome) => return self.finished(node, outcome),
            };
        }
    }

    /// Swaps the table, after a look whether that may be. `None`: the process died of it.
    fn swap(&mut self, node: Node) -> Option<bool> {
        let peer = &self.peers[node];
        let process = peer.process.as_ref()?;
        let work = process.work.as_ref()?;
        let (head, held) = (work.head, process.owner.held().id);
        let deadly = |(key, value): &Change| {
            value.is_some_and(|value| {
                peer.old_version && value & POISON != 0 && !process.quarantine.contains(&pair(*key, value))
            })
        };
        let poisoned = work.changes.iter().any(deadly);
        let id = head.id;
        self.check(id > held, || format!("peer {node} steps back from {held} to {id}"));
        self.check(id.epoch >= peer.fenced, || format!("peer {node} applies {id} below its fence {}", peer.fenced));
        self.check(peer.disk.fence >= id.epoch || process.alarm, || {
            format!("peer {node} applies {id} before its epoch is on disk")
        });
        match self.signed.get(&id) {
            Some((roots, state)) => self.check(*roots == head.roots && *state == work.next, || {
                format!("peer {node} applies something else than what was signed as {id}")
            }),
            None => self.broken(&format!("peer {node} applies {id}, which no leader signed")),
        }
        if poisoned {
            self.note(|| format!("peer {node} applies poison in {id}"));
            self.die(node, false);
            let after = self.rng.between(100_000, 500_000);
            self.at(after, Event::Start(node));
            return None;
        }
        self.note(|| format!("peer {node} applies {id}"));
        self.applies += 1;
        let old_version = self.peers[node].old_version;
        let process = self.process(node)?;
        let work = process.work.as_ref()?;
        let (changes, next) = (work.changes.clone(), work.next.clone());
        process.head = Some(head);
        process.swap(&changes, &next, old_version);
        Some(true)
    }

    /// Disk, log, announcement.
    fn keep(&mut self, node: Node) {
        let peer = &mut self.peers[node];
        let Some(process) = &mut peer.process else { return };
        let Some(work) = &process.work else { return };
        let commit = Commit { head: work.head, base: work.base, changes: work.changes.clone() };
        if process.log.back().is_some_and(|last| last.head.id != commit.base) {
            process.log.clear();
        }
        process.log.push_back(commit);
        if process.log.len() > LOG {
            process.log.pop_front();
        }
        process.suspects = Suspects::default();
        // Files can be removed from a full disk.
        peer.disk.marker = None;
        peer.disk.suspects = Suspects::default();
        if peer.disk.full {
            self.alarm(node);
        } else if process.retry_at.is_none() {
            peer.disk.appended.push((work.head, process.state.clone()));
            peer.kept = work.head.id;
        }
        let mine: Vec<u64> = self.streams.iter().filter(|(_, one)| one.server == node).map(|(id, _)| *id).collect();
        for id in mine {
            self.serve(id);
        }
        self.tell_some(node, 2);
    }

    fn alarm(&mut self, node: Node) {
        let retry = self.now + RETRY_AFTER;
        if let Some(process) = self.process(node) {
            process.alarm = true;
            process.retry_at = Some(retry);
        }
    }

    /// What the disk's thread does besides.
    pub fn maintain_disk(&mut self, node: Node) {
        let now = self.now;
        let peer = &mut self.peers[node];
        let Some(process) = &mut peer.process else { return };
        if process.retry_at.is_some_and(|at| at <= now) {
            process.retry_at = Some(now + RETRY_AFTER);
            if !peer.disk.full {
                process.retry_at = None;
                process.alarm = false;
                peer.disk.fence = peer.disk.fence.max(process.fence_wanted);
                peer.fenced = peer.disk.fence;
                if let Some(head) = process.head {
                    peer.disk.appended.clear();
                    peer.disk.synced = Some((head, process.state.clone()));
                    peer.kept = head.id;
                }
            }
        }
        if process.sync_at <= now && !peer.disk.full {
            process.sync_at = now + SYNC_EVERY;
            peer.disk.sync();
        }
    }

    fn finished(&mut self, node: Node, outcome: Outcome) {
        let Some(work) = self.process(node).and_then(|process| process.work.take()) else { return };
        if outcome != Outcome::Applied {
            self.note(|| format!("peer {node}: {} from {:?} is {outcome:?}", work.head.id, work.stream));
        }
        if let Some(stream) = work.stream {
            self.judged(node, stream, outcome);
        }
        self.take_next(node);
    }

    pub fn own_commit(&mut self, node: Node, life: u64, commit: Commit) {
        if !self.lives(node, life) {
            return;
        }
        let now = self.clock(node);
        // At times it is stopped between its last look at the clock and the sending: the epoch fences.
        let looks = !self.rng.chance(100);
        let Some(process) = self.process(node) else { return };
        let term = process.election.as_ref().and_then(|election| election.term(now));
        if (looks && term != Some(commit.head.id.epoch)) || process.offers.len() >= COMMITS {
            return;
        }
        process.offers.push_front((commit.head, Content::Delta { base: commit.base, changes: commit.changes }, None));
        self.take_next(node);
    }
}

impl Process {
    fn swap(&mut self, changes: &[Change], next: &State, old_version: bool) {
        for (key, value) in changes {
            self.held.remove(key);
            let Some(value) = value else {
                self.table.remove(key);
                continue;
            };
            let decoded = decode(*value, old_version).filter(|_| !self.quarantine.contains(&pair(*key, *value)));
            match decoded {
                Some(decoded) => {
                    self.table.insert(*key, decoded);
                }
                // Its previous version goes on serving.
                None => {
                    self.held.insert(*key);
                }
            }
        }
        self.state = next.clone();
    }
}

impl State {
    fn diff_from_nothing(&self) -> Vec<Change> {
        State::default().diff(self)
    }
}
