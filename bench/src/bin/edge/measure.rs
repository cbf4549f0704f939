//! One cell: a peer, started afresh, at saturation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use meshgate_bench::child::Running;
use meshgate_bench::folder::Folder;
use meshgate_bench::process::{pin, resident_mib_of_all, run_ns};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::backend::Backend;
use crate::certificate::Certificate;
use crate::load::{Load, Plan};
use crate::options::Options;
use crate::peers::{Kind, Present, Setup};
use crate::scenario::{Asks, Cell};
use crate::{backend, h2load};

/// Before the window.
const WARM_UP: Duration = Duration::from_millis(400);
/// The time that is measured.
const WINDOW: Duration = Duration::from_millis(1400);
/// After the window, with `h2load`, whose clock is not ours.
const RUN_OUT: Duration = Duration::from_millis(200);
/// How long a peer may take until it serves; with 10,000 routes it has something to read.
const START: Duration = Duration::from_secs(60);
/// What is still to be done after the first answer (disks, first elections) has this long.
const SETTLE: Duration = Duration::from_millis(500);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Below this share of its core a peer waited for the load.
const BUSY: f64 = 0.9;

/// What was measured of a cell in one round.
#[derive(Clone, Debug)]
pub struct Sample {
    /// CPU time a request, in microseconds.
    pub us: f64,
    /// Requests a second.
    pub rate: f64,
    /// Resident memory under load, in MiB.
    pub resident_mib: f64,
    /// The peer's CPU time as a share of all that it may use.
    pub busy: f64,
    /// CPU time of load and backend as a share of their core.
    pub load_busy: f64,
    /// Connections to the backend that were opened for 1,000 requests.
    pub dials: f64,
    /// Requests that failed, and why the first did.
    pub errors: (u64, String),
}

impl Sample {
    /// The peer waited for the load.
    pub fn is_limited(&self) -> bool {
        self.busy < BUSY
    }

    /// On a line.
    pub fn text(&self) -> String {
        let Sample { us, rate, resident_mib, busy, load_busy, dials, errors } = self;
        let limited = if self.is_limited() { ", generator-limited" } else { "" };
        let errors = if errors.0 > 0 { format!(", {} ERRORS: {}", errors.0, errors.1) } else { String::new() };
        let (busy, load_busy) = (busy * 100.0, load_busy * 100.0);
        format!(
            "{us:.2} us, {rate:.0}/s, {resident_mib:.0} MiB, busy {busy:.0} %, load {load_busy:.0} %, {dials:.1} dials/k{limited}{errors}"
        )
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "us": self.us, "rate": self.rate, "resident_mib": self.resident_mib, "busy": self.busy,
            "load_busy": self.load_busy, "dials_per_1000": self.dials, "generator_limited": self.is_limited(), "errors": self.errors.0,
        })
    }
}

/// What is the same for all cells.
#[derive(Debug)]
pub struct Bench {
    present: Vec<Present>,
    backend: Backend,
    certificate: Certificate,
    cores: [usize; 2],
    number: u8,
}

/// CPU times and requests at a moment.
#[derive(Debug)]
struct Moment {
    at: Instant,
    peer: u64,
    own: u64,
    answers: u64,
    dials: u64,
}

impl Bench {
    /// With the backend running.
    ///
    /// # Errors
    /// No backend can be had.
    pub fn new(options: &Options, present: Vec<Present>) -> anyhow::Result<Self> {
        let backend = backend::start(options.load_core)?;
        let cores = [options.proxy_core, options.load_core];
        Ok(Bench { present, backend, certificate: Certificate::new()?, cores, number: options.number })
    }

    /// Who is there.
    pub fn peers(&self) -> Vec<Kind> {
        self.present.iter().map(|peer| peer.kind).collect()
    }

    /// Measures a cell once.
    ///
    /// # Errors
    /// The peer does not start or does not answer, with the end of its log.
    pub async fn measure(&self, cell: &Cell) -> anyhow::Result<Sample> {
        let [own, beside] = self.cores;
        let peer = self.present.iter().find(|peer| peer.kind == cell.peer).context("that peer is not here")?;
        let folder = Folder::create(false)?;
        let (backend, certificate, shape) = (self.backend.address, &self.certificate, &cell.shape);
        let setup = Setup { folder: &folder, backend, certificate, shape, number: self.number };
        pin(if cell.shape.threads > 1 { &self.cores } else { &self.cores[..1] })?;
        let started = setup.start(peer);
        pin(&[beside])?;
        let (mut running, address) = started.with_context(|| format!("core {own}"))?;
        let plan = Arc::new(Plan::new(address, cell.shape)?);
        ready(&plan, &mut running).await?;
        let (before, after, errors) = if cell.shape.asks == Asks::H2Load {
            let load = h2load::start(address, WARM_UP, WINDOW + RUN_OUT, folder.path("logs/h2load"))?;
            self.by_h2load(&running, load).await?
        } else {
            let load = Load::start(&plan, &self.backend.runtime);
            sleep(WARM_UP).await;
            let before = self.moment(&running, load.answers())?;
            sleep(WINDOW).await;
            (before, self.moment(&running, load.answers())?, load.errors())
        };
        let resident_mib = resident_mib_of_all(running.pid())?;
        running.is_alive()?;
        sample(&before, &after, cell.shape.threads, resident_mib, errors)
    }

    fn moment(&self, peer: &Running, answers: u64) -> anyhow::Result<Moment> {
        let (own, dials) = (run_ns_of_self()?, self.backend.connections());
        Ok(Moment { at: Instant::now(), peer: run_ns(peer.pid())?, own, answers, dials })
    }

    /// The window is ours, the rate is its. It is pinned as this thread is.
    async fn by_h2load(&self, peer: &Running, mut load: Running) -> anyhow::Result<(Moment, Moment, (u64, String))> {
        sleep(WARM_UP + RUN_OUT / 2).await;
        let (before, load_before) = (self.moment(peer, 0)?, run_ns(load.pid())?);
        sleep(WINDOW).await;
        let (mut after, load_after) = (self.moment(peer, 0)?, run_ns(load.pid())?);
        after.own += load_after.saturating_sub(load_before);
        let begun = Instant::now();
        while load.ended()?.is_none() {
            ensure!(begun.elapsed() < START, "h2load does not end");
            sleep(LOOK).await;
        }
        let (rate, failed) = h2load::parse(&load.output())?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
        let answers = (rate * (after.at - before.at).as_secs_f64()) as u64;
        after.answers = answers;
        Ok((before, after, (failed, format!("h2load counts {failed}"))))
    }
}

/// Waits until a peer serves what it shall, while it is alive.
async fn ready(plan: &Plan, running: &mut Running) -> anyhow::Result<()> {
    let begun = Instant::now();
    while let Err(error) = plan.ask().await {
        running.is_alive()?;
        if begun.elapsed() > START {
            bail!("it does not serve after {START:?}: {error:#}; its log:\n{}", running.output());
        }
        sleep(LOOK).await;
    }
    sleep(SETTLE).await;
    Ok(())
}

/// Load, backend and this thread; not the peer, which is a child.
fn run_ns_of_self() -> anyhow::Result<u64> {
    let mut total = 0;
    for thread in std::fs::read_dir("/proc/self/task").context("cannot read /proc/self/task")?.flatten() {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        total += text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(total)
}

#[allow(clippy::cast_precision_loss, reason = "nanoseconds and requests of seconds")]
fn sample(
    before: &Moment,
    after: &Moment,
    threads: usize,
    resident_mib: f64,
    errors: (u64, String),
) -> anyhow::Result<Sample> {
    let answers = after.answers.saturating_sub(before.answers) as f64;
    ensure!(answers > 0.0, "no answer at all; {} errors: {}", errors.0, errors.1);
    let seconds = (after.at - before.at).as_secs_f64();
    let peer = after.peer.saturating_sub(before.peer) as f64 / 1e9;
    let own = after.own.saturating_sub(before.own) as f64 / 1e9;
    Ok(Sample {
        us: peer * 1e6 / answers,
        rate: answers / seconds,
        resident_mib,
        busy: peer / seconds / threads as f64,
        load_busy: own / seconds,
        dials: after.dials.saturating_sub(before.dials) as f64 * 1e3 / answers,
        errors,
    })
}
