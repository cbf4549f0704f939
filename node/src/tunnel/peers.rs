//! The peers that can be dialled, their connections, and which of them are silent.
//!
//! The runner is the one writer; handles on any thread read, and ask the runner to dial.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use quinn::Connection;
use tokio::sync::watch;

use super::TunnelStats;
use super::endpoint::MAX_STREAMS;
use super::metrics::{PeerLabel, TunnelMetrics};
use crate::identity::NodeName;

/// How often connections are looked at.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// Ticks without a packet after which new work goes elsewhere: 1.5 s. Ticks, not time: a process
/// that was stopped itself has heard nothing either.
const SILENT_TICKS: u32 = 6;
/// Connections to one peer.
const MAX_LINKS: usize = 4;
/// Streams on the least used connection at which another one is dialled.
const GROW_AT: usize = (MAX_STREAMS as usize / 4) * 3;
/// Ticks without a stream after which a connection beyond the first is closed: a minute.
const SPARE_TICKS: u32 = 240;
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// All peers, swapped whole when the directory changes.
pub(super) struct Peers {
    all: ArcSwap<HashMap<NodeName, Arc<Peer>>>,
    replaced: watch::Sender<u64>,
}

/// One peer.
pub(super) struct Peer {
    pub node: NodeName,
    pub address: SocketAddr,
    links: ArcSwap<Vec<Arc<Link>>>,
    /// Moves when a dial ends, either way.
    pub dialled: watch::Sender<u64>,
    backoff: ArcSwap<Backoff>,
    dialling: AtomicBool,
}

#[derive(Clone, Default)]
struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
    error: String,
}

/// One connection that this node dialled.
pub(super) struct Link {
    pub connection: Connection,
    streams: AtomicUsize,
    heard: AtomicUsize,
    lost: AtomicUsize,
    silent_ticks: AtomicU32,
    spare_ticks: AtomicU32,
    closed: AtomicBool,
    silent: watch::Sender<bool>,
}

/// A stream's place on a connection.
pub(super) struct Slot(Arc<Link>);

impl Slot {
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peers {
    pub(super) fn new() -> Self {
        Peers { all: ArcSwap::default(), replaced: watch::channel(0).0 }
    }

    /// Moves when the directory was taken over.
    pub(super) fn replaced(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    pub(super) fn get(&self, node: &NodeName) -> Option<Arc<Peer>> {
        self.all.load().get(node).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Peer>> {
        self.all.load().values().cloned().collect()
    }

    /// Takes over a directory. A peer that moved is a new peer; its streams end on the old
    /// connections, which close when the last of them does.
    pub(super) fn replace(&self, me: &NodeName, directory: &HashMap<NodeName, SocketAddr>, metrics: &TunnelMetrics) {
        let old = self.all.load_full();
        let mut new = HashMap::with_capacity(directory.len());
        for (node, address) in directory.iter().filter(|(node, _)| *node != me) {
            let peer = match old.get(node) {
                Some(peer) if peer.address == *address => peer.clone(),
                _ => Arc::new(Peer::new(node.clone(), *address)),
            };
            new.insert(node.clone(), peer);
        }
        for node in old.keys().filter(|node| !new.contains_key(*node)) {
            metrics.forget(&node.0);
        }
        self.all.store(Arc::new(new));
        self.replaced.send_modify(|count| *count += 1);
    }
}

impl Peer {
    fn new(node: NodeName, address: SocketAddr) -> Self {
        Peer {
            node,
            address,
            links: ArcSwap::default(),
            dialled: watch::channel(0).0,
            backoff: ArcSwap::default(),
            dialling: AtomicBool::new(false),
        }
    }

    /// A place on the connection with the fewest streams that is heard from.
    pub(super) fn slot(&self) -> Option<Slot> {
        let links = self.links.load();
        let link = links.iter().filter(|link| link.usable()).min_by_key(|link| link.streams.load(Ordering::Relaxed))?;
        link.streams.fetch_add(1, Ordering::Relaxed);
        Some(Slot(link.clone()))
    }

    pub(super) fn alive(&self) -> bool {
        self.links.load().iter().any(|link| link.usable())
    }

    /// Whether all connections are so full that another one should be dialled.
    pub(super) fn wants_more(&self) -> bool {
        let links = self.links.load();
        let usable = || links.iter().filter(|link| link.usable());
        usable().count() < MAX_LINKS && usable().all(|link| link.streams.load(Ordering::Relaxed) >= GROW_AT)
    }

    /// Why no dial is worth waiting for now, if so.
    pub(super) fn backing_off(&self) -> Option<String> {
        let backoff = self.backoff.load();
        backoff.not_before.filter(|at| Instant::now() < *at).map(|_| backoff.error.clone())
    }

    /// For the runner: whether to dial now; if so, the dial counts as begun.
    pub(super) fn begin_dial(&self) -> bool {
        self.wants_more() && self.backing_off().is_none() && !self.dialling.swap(true, Ordering::Relaxed)
    }

    /// For the runner: the end of a dial.
    pub(super) fn end_dial(&self, result: Result<Connection, String>) {
        match result {
            Ok(connection) => {
                let link = Arc::new(Link::new(connection));
                let mut links = Vec::clone(&self.links.load());
                links.push(link);
                self.links.store(Arc::new(links));
                self.backoff.store(Arc::default());
            }
            Err(error) => {
                let failures = self.backoff.load().failures.saturating_add(1);
                let wait = FIRST_BACKOFF.saturating_mul(1 << (failures - 1).min(8)).min(MAX_BACKOFF);
                let not_before = Some(Instant::now() + wait);
                self.backoff.store(Arc::new(Backoff { failures, not_before, error }));
            }
        }
        self.dialling.store(false, Ordering::Relaxed);
        self.dialled.send_modify(|count| *count += 1);
    }

    /// For the runner: looks at every connection, and lets go of those that closed or are spare.
    pub(super) fn tick(&self, metrics: &TunnelMetrics) {
        let links = self.links.load_full();
        let keep: Vec<Arc<Link>> = links
            .iter()
            .filter(|link| link.tick(&self.node, metrics) && !(links.len() > 1 && link.spare()))
            .cloned()
            .collect();
        if keep.len() != links.len() {
            self.links.store(Arc::new(keep));
        }
    }

    pub(super) fn stats(&self, gso: bool) -> Option<TunnelStats> {
        let links = self.links.load();
        let first = links.iter().find(|link| link.usable()).or_else(|| links.first())?;
        let sum = |of: fn(&quinn::ConnectionStats) -> u64| -> u64 {
            links.iter().map(|link| of(&link.connection.stats())).sum()
        };
        let (lost, sent) = (sum(|stats| stats.path.lost_packets), sum(|stats| stats.path.sent_packets));
        let path = first.connection.stats().path;
        Some(TunnelStats {
            rtt: path.rtt,
            lost_percent: if sent == 0 { 0.0 } else { lost as f64 * 100.0 / sent as f64 },
            mtu: path.current_mtu,
            connections: links.len(),
            streams: links.iter().map(|link| link.streams.load(Ordering::Relaxed)).sum(),
            gso,
            silent_for: TICK * first.silent_ticks.load(Ordering::Relaxed),
        })
    }
}

impl Link {
    fn new(connection: Connection) -> Self {
        Link {
            connection,
            streams: AtomicUsize::new(0),
            heard: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            silent_ticks: AtomicU32::new(0),
            spare_ticks: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            silent: watch::channel(false).0,
        }
    }

    fn usable(&self) -> bool {
        !self.closed.load(Ordering::Relaxed) && !*self.silent.borrow()
    }

    /// A stream could not be opened on it: no more work for it.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Resolves when the peer has been silent for too long.
    pub(super) async fn silence(&self) {
        let mut silent = self.silent.subscribe();
        // The sender lives in `self`.
        let _ = silent.wait_for(|silent| *silent).await;
    }

    fn spare(&self) -> bool {
        self.spare_ticks.load(Ordering::Relaxed) >= SPARE_TICKS
    }

    /// Whether the connection is still open.
    fn tick(&self, node: &NodeName, metrics: &TunnelMetrics) -> bool {
        if self.closed.load(Ordering::Relaxed) || self.connection.close_reason().is_some() {
            self.closed.store(true, Ordering::Relaxed);
            return false;
        }
        let stats = self.connection.stats();
        let heard = usize::try_from(stats.udp_rx.datagrams).unwrap_or(usize::MAX);
        if self.heard.swap(heard, Ordering::Relaxed) == heard {
            let ticks = self.silent_ticks.fetch_add(1, Ordering::Relaxed) + 1;
            if ticks >= SILENT_TICKS {
                self.silent.send_if_modified(|silent| !std::mem::replace(silent, true));
            }
        } else {
            self.silent_ticks.store(0, Ordering::Relaxed);
            self.silent.send_if_modified(|silent| std::mem::replace(silent, false));
        }
        if self.streams.load(Ordering::Relaxed) == 0 {
            self.spare_ticks.fetch_add(1, Ordering::Relaxed);
        } else {
            self.spare_ticks.store(0, Ordering::Relaxed);
        }
        let lost = usize::try_from(stats.path.lost_packets).unwrap_or(usize::MAX);
        let more = lost.saturating_sub(self.lost.swap(lost, Ordering::Relaxed));
        let label = PeerLabel { peer: node.to_string() };
        if more > 0 {
            metrics.lost_packets.get_or_create(&label).inc_by(more as u64);
        }
        metrics.cwnd_bytes.get_or_create(&label).set(i64::try_from(stats.path.cwnd).unwrap_or(i64::MAX));
        true
    }
}
