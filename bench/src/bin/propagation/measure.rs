//! One measurement: a mesh of some size, edits timed by requests, edits timed by `Wait`.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};

use crate::admin::{Admin, all_live, listener};
use crate::fleet::{Fleet, Node};
use crate::manifests::{self, PROBE_FILE, probe};
use crate::options::Options;
use crate::poll::{Poller, Seen};
use crate::statistics::Samples;
use meshgate_bench::folder::Folder;
use meshgate_bench::process::{cpu_ms, resident_mib};
use meshgate_bench::random::Random;

/// What the peers cost without any edit is measured for this long.
const IDLE: Duration = Duration::from_secs(2);
/// Faults that are shown in words; all are counted.
const SHOWN: usize = 5;

/// What was measured of one peer.
#[derive(Debug, Default)]
pub struct PeerOutcome {
    /// Its node.
    pub node: String,
    /// It led.
    pub leads: bool,
    /// From the edit to the first request that saw it, in milliseconds.
    pub live: Samples,
    /// Resident memory at the end, in MiB.
    pub resident_mib: f64,
    /// CPU time an edit, in milliseconds: with the requests and all else that it did meanwhile.
    pub cpu_ms_per_edit: f64,
    /// CPU time a second without edits, in milliseconds.
    pub idle_cpu_ms_per_second: f64,
}

/// What was measured with one number of routes.
#[derive(Debug, Default)]
pub struct Outcome {
    /// HTTPRoutes.
    pub routes: u32,
    /// From the start of the processes to all ready and the same, in milliseconds.
    pub start_ms: f64,
    /// From the edit until requests see it on all peers.
    pub live: Samples,
    /// When these edits were made, Unix time in microseconds: to find them in the peers' logs.
    pub edited_at_us: Vec<u64>,
    /// Time between two requests to a peer: the resolution of the above.
    pub request_interval_ms: f64,
    /// What `Wait` says it took, from the leader's read to the last acknowledgement.
    pub wait_took: Samples,
    /// From the edit to `Wait`'s answer, `Wait` being called at once.
    pub wait_answer: Samples,
    /// The peers.
    pub peers: Vec<PeerOutcome>,
    fault_count: usize,
    shown: Vec<String>,
}

impl Outcome {
    fn fault(&mut self, fault: String) {
        self.fault_count += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(fault);
        }
    }

    /// How much was wrong.
    pub fn fault_count(&self) -> usize {
        self.fault_count
    }

    /// What was wrong, in words.
    pub fn faults(&self) -> Vec<String> {
        let hidden = self.fault_count - self.shown.len();
        let more = (hidden > 0).then(|| format!("and {hidden} more"));
        self.shown.iter().cloned().chain(more).map(|fault| format!("{} routes: {fault}", self.routes)).collect()
    }
}

/// Measures with so many routes.
///
/// # Errors
/// The mesh does not come up, or an edit is never served.
pub async fn measure(options: &Options, meshgate: &Path, routes: u32, random: &mut Random) -> anyhow::Result<Outcome> {
    // Dropped last: the peers write into it.
    let folder = Folder::create(options.keep)?;
    let nodes = Node::all(options);
    manifests::write(&folder, &nodes, routes, options)?;
    let begun = Instant::now();
    let mut fleet = Fleet::start(meshgate, &folder, &nodes)?;
    let admins = nodes.iter().map(|node| Admin::new(*node)).collect::<anyhow::Result<Vec<_>>>()?;
    let statuses = all_live(&admins, &mut fleet).await?;
    let mut outcome = Outcome { routes, start_ms: ms(begun.elapsed()), ..Outcome::default() };
    let mut pollers = Vec::new();
    for status in &statuses {
        pollers.push(Poller::start(listener(status)?, options.poll_pause())?);
        let (node, leads) = (status.node.clone(), status.is_leader);
        outcome.peers.push(PeerOutcome { node, leads, ..PeerOutcome::default() });
    }
    let mut bench = Bench { folder: &folder, random, pause: options.pause(), pollers, counter: 0, outcome };
    bench.idle(&fleet.pids()).await?;
    bench.edits(options.edits, &fleet.pids()).await?;
    bench.waits(options.waits(), &admins).await?;
    fleet.all_alive()?;
    Ok(bench.outcome)
}

struct Bench<'a> {
    folder: &'a Folder,
    random: &'a mut Random,
    pause: (u64, u64),
    pollers: Vec<Poller>,
    counter: u64,
    outcome: Outcome,
}

impl Bench<'_> {
    /// What the peers cost when nothing happens.
    async fn idle(&mut self, pids: &[u32]) -> anyhow::Result<()> {
        // The first request of each connection is not measured.
        for poller in &self.pollers {
            poller.order(0)?;
        }
        self.seen().await?;
        let before = cpu(pids)?;
        tokio::time::sleep(IDLE).await;
        for ((peer, before), after) in self.outcome.peers.iter_mut().zip(before).zip(cpu(pids)?) {
            peer.idle_cpu_ms_per_second = (after - before) / IDLE.as_secs_f64();
        }
        Ok(())
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.between(self.pause.0, self.pause.1))).await;
    }

    async fn seen(&mut self) -> anyhow::Result<Vec<Seen>> {
        let mut all = Vec::new();
        for poller in &mut self.pollers {
            all.push(poller.seen().await?);
        }
        for fault in all.iter().flat_map(|seen| &seen.faults) {
            self.outcome.fault(fault.clone());
        }
        ensure!(!all.iter().any(|seen| seen.gave_up), "edit {} is not served: {:?}", self.counter, self.outcome.shown);
        Ok(all)
    }

    /// Edits that requests time.
    async fn edits(&mut self, edits: u32, pids: &[u32]) -> anyhow::Result<()> {
        let before = cpu(pids)?;
        let (mut requests, mut polled) = (0, Duration::ZERO);
        for _ in 0..edits {
            self.pause().await;
            self.counter += 1;
            let staged = self.folder.stage(PROBE_FILE, &probe(self.counter))?;
            let begun = Instant::now();
            for poller in &self.pollers {
                poller.order(self.counter)?;
            }
            self.outcome.edited_at_us.push(now_us());
            let renamed = Instant::now();
            staged.rename()?;
            let all = self.seen().await?;
            let mut slowest = Duration::ZERO;
            for (peer, seen) in self.outcome.peers.iter_mut().zip(&all) {
                let took = seen.at.saturating_duration_since(renamed);
                peer.live.add(ms(took));
                slowest = slowest.max(took);
                requests += seen.requests;
                polled += seen.at.saturating_duration_since(begun);
            }
            self.outcome.live.add(ms(slowest));
        }
        self.outcome.request_interval_ms = ms(polled) / f64::from(requests.max(1));
        let costs = before.into_iter().zip(cpu(pids)?).zip(pids);
        for (peer, ((before, after), pid)) in self.outcome.peers.iter_mut().zip(costs) {
            peer.cpu_ms_per_edit = (after - before) / f64::from(edits);
            peer.resident_mib = resident_mib(*pid)?;
        }
        Ok(())
    }

    /// Edits that `Wait` times, asked of each peer in turn. What it calls live must be served.
    async fn waits(&mut self, waits: u32, admins: &[Admin]) -> anyhow::Result<()> {
        for (_, admin) in (0..waits).zip(admins.iter().cycle()) {
            self.pause().await;
            self.counter += 1;
            let staged = self.folder.stage(PROBE_FILE, &probe(self.counter))?;
            let renamed = Instant::now();
            staged.rename()?;
            let answer = admin.wait().await?;
            let answered = renamed.elapsed();
            for poller in &self.pollers {
                poller.order(self.counter)?;
            }
            let early = self.seen().await?.iter().filter(|seen| seen.requests > 1).count();
            let whole = answer.live as usize == admins.len();
            if answer.result == "live" && whole && early == 0 {
                self.outcome.wait_took.add(answer.took_ms);
                self.outcome.wait_answer.add(ms(answered));
            } else {
                let (result, live) = (answer.result, answer.live);
                self.outcome.fault(format!("Wait says {result} on {live} peers; {early} did not serve it then"));
            }
        }
        Ok(())
    }
}

fn cpu(pids: &[u32]) -> anyhow::Result<Vec<f64>> {
    pids.iter().map(|pid| cpu_ms(*pid)).collect::<anyhow::Result<_>>().context("CPU time of the peers")
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
