//! The simulated world: virtual time, one queue of events, the network, and the invariants.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use meshgate_core::replica::{MAX_SNAPSHOTS, Record, Roots};
use meshgate_core::snapshot::HeadId;

use crate::model::{Head, Node, Rng, State};
use crate::peer::{Commit, Facts, Frame, Peer, Request, Stream};

/// Events that are shown when an invariant breaks.
const TRACE: usize = 80;

/// Something that happens at a point in time.
#[derive(Debug)]
pub enum Event {
    Tick {
        node: Node,
        life: u64,
    },
    Gossip {
        to: Node,
        facts: Vec<Facts>,
    },
    /// The next frame from the server to the follower is there; or a request the other way.
    Down(u64),
    Up(u64),
    /// The owner's current step is done.
    Step {
        node: Node,
        life: u64,
        done: meshgate_core::replica::Event,
    },
    Commit {
        node: Node,
        life: u64,
        commit: Commit,
    },
    Start(Node),
    /// The users' objects change.
    Edit,
    Fault,
    Heal,
    Mend(crate::faults::Mend),
}

/// What goes wrong how often, chosen per seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// In a thousand.
    pub loss: u64,
    pub duplicate: u64,
    pub delay_ms: u64,
    pub edit_ms: u64,
    pub fault_ms: u64,
}

pub struct World {
    pub seed: u64,
    pub rng: Rng,
    /// Microseconds.
    pub now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    order: u64,
    base: Instant,
    pub peers: Vec<Peer>,
    pub streams: BTreeMap<u64, Stream>,
    pub next_stream: u64,
    /// One-way cuts: from, to.
    pub cuts: BTreeSet<(Node, Node)>,
    pub lease: Option<Record>,
    pub epoch: u64,
    /// The highest epoch that ever began.
    pub opened: u64,
    /// The stored epoch may be lost; then no disk is.
    pub forgets_epoch: bool,
    pub desired: State,
    pub signed: HashMap<HeadId, (Roots, State)>,
    pub history: Vec<(Head, State)>,
    pub rates: Rates,
    pub healed: bool,
    pub heal_at: u64,
    trace: VecDeque<String>,
    /// Events are printed as they happen.
    loud: bool,
    pub applies: u64,
}

impl World {
    pub fn new(seed: u64, peers: Vec<Peer>, rates: Rates, mut rng: Rng) -> World {
        let forgets_epoch = rng.chance(200);
        World {
            seed,
            rng,
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            base: Instant::now(),
            peers,
            streams: BTreeMap::new(),
            next_stream: 1,
            cuts: BTreeSet::new(),
            lease: None,
            epoch: 0,
            opened: 0,
            forgets_epoch,
            desired: State::default(),
            signed: HashMap::new(),
            history: Vec::new(),
            rates,
            healed: false,
            heal_at: 0,
            trace: VecDeque::new(),
            loud: std::env::var_os("MESHGATE_SIM_TRACE").is_some(),
            applies: 0,
        }
    }

    pub fn at(&mut self, after_us: u64, event: Event) {
        self.order += 1;
        self.queue.insert((self.now + after_us, self.order), event);
    }

    /// A peer's monotonic clock: its own origin and pace.
    pub fn clock(&self, node: Node) -> Instant {
        let peer = &self.peers[node];
        let own = self.now as u128 * u128::from(peer.pace) / 1000 + u128::from(peer.origin);
        self.base + Duration::from_micros(u64::try_from(own).unwrap())
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        let line = format!("{:>10.3} {}", self.now as f64 / 1000.0, line());
        if self.loud {
            println!("{line}");
        }
        self.trace.push_back(line);
    }

    /// An invariant is broken.
    pub fn broken(&self, what: &str) -> ! {
        let trace: Vec<&str> = self.trace.iter().map(String::as_str).collect();
        panic!(
            "{what}\nreplay with MESHGATE_SIM_SEED={} ({} peers)\nlast events (ms):\n{}",
            self.seed,
            self.peers.len(),
            trace.join("\n")
        );
    }

    pub fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken(&what());
        }
    }

    /// Runs the next event. False: there is none before `end`.
    pub fn run(&mut self, end: u64) -> bool {
        let Some(((at, order), event)) = self.queue.pop_first() else { return false };
        if at > end {
            self.queue.insert((at, order), event);
            return false;
        }
        self.now = at;
        // A stopped process sees what happened only when it goes on.
        if let Some(resume) = self.concerns(&event).and_then(|node| self.peers[node].stopped_until)
            && resume > self.now
        {
            self.at(resume - self.now, event);
            return true;
        }
        self.dispatch(event);
        true
    }

    fn concerns(&self, event: &Event) -> Option<Node> {
        match event {
            Event::Tick { node, .. } | Event::Step { node, .. } | Event::Commit { node, .. } => Some(*node),
            Event::Gossip { to, .. } => Some(*to),
            Event::Down(stream) => self.streams.get(stream).map(|stream| stream.follower),
            Event::Up(stream) => self.streams.get(stream).map(|stream| stream.server),
            Event::Start(_) | Event::Edit | Event::Fault | Event::Heal | Event::Mend(_) => None,
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Tick { node, life } => self.tick(node, life),
            Event::Gossip { to, facts } => self.hear(to, &facts),
            Event::Down(stream) => self.down(stream),
            Event::Up(stream) => self.up(stream),
            Event::Step { node, life, done } => self.step(node, life, done),
            Event::Commit { node, life, commit } => self.own_commit(node, life, commit),
            Event::Start(node) => self.start(node),
            Event::Edit => self.edit(),
            Event::Fault => self.fault(),
            Event::Heal => self.heal(),
            Event::Mend(what) => self.mend(what),
        }
    }

    /// A frame's way over one link: the latency, and what retransmissions of lost packets add.
    fn latency(&mut self) -> u64 {
        let mut latency = 100 + self.rng.below(self.rates.delay_ms * 1000 + 1);
        while self.rng.chance(self.rates.loss) {
            latency += 200_000;
        }
        latency
    }

    /// Sends a frame down a stream. Streams keep their order; gossip does not.
    pub fn send_down(&mut self, id: u64, frame: Frame) {
        let latency = self.latency();
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.down.push_back(frame);
        stream.down_at = stream.down_at.max(now + latency);
        let after = stream.down_at - now;
        self.at(after, Event::Down(id));
    }

    pub fn send_up(&mut self, id: u64, request: Request) {
        let latency = self.latency();
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.up.push_back(request);
        stream.up_at = stream.up_at.max(now + latency);
        let after = stream.up_at - now;
        self.at(after, Event::Up(id));
    }

    fn down(&mut self, id: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        let (server, follower) = (stream.server, stream.follower);
        if self.cuts.contains(&(server, follower)) {
            return self.at(200_000, Event::Down(id));
        }
        // A liar takes nothing.
        if self.peers[follower].liar {
            if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.server_gone) {
                stream.follower_gone = true;
            }
            return self.forget_closed(id);
        }
        let Some(frame) = self.streams.get_mut(&id).and_then(|stream| stream.down.pop_front()) else { return };
        self.follower_reads(id, frame);
        self.serve(id);
        self.forget_closed(id);
    }

    fn up(&mut self, id: u64) {
        let Some(stream) = self.streams.get(&id) else { return };
        let (server, follower) = (stream.server, stream.follower);
        if self.cuts.contains(&(follower, server)) {
            return self.at(200_000, Event::Up(id));
        }
        let Some(request) = self.streams.get_mut(&id).and_then(|stream| stream.up.pop_front()) else { return };
        self.server_reads(id, request);
        self.forget_closed(id);
    }

    fn forget_closed(&mut self, id: u64) {
        if self.streams.get(&id).is_some_and(|stream| stream.follower_gone && stream.server_gone) {
            self.streams.remove(&id);
        }
    }

    /// Sends what a peer knows of itself and others to somebody. May be lost, doubled, overtaken.
    pub fn gossip_to(&mut self, from: Node, to: Node, facts: &[Facts]) {
        let copies = if self.rng.chance(self.rates.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.cuts.contains(&(from, to)) && !self.rng.chance(self.rates.loss) {
                let after = 100 + self.rng.below(self.rates.delay_ms * 2000 + 1);
                self.at(after, Event::Gossip { to, facts: facts.to_vec() });
            }
        }
    }

    /// Counted here, whatever the machines think: nobody sends more full snapshots at once.
    pub fn herd_is_bounded(&self, node: Node) {
        let sending = self.peers[node].sending;
        self.check(sending <= MAX_SNAPSHOTS, || format!("herd: peer {node} sends {sending} snapshots"));
    }
}
