//! A worker: one thread with a runtime, timers and upstream connections of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::EdgeConfig;
use super::accept::Accepted;
use super::serve::serve;
use super::stats::EdgeStats;
use super::tls::Certificates;
use crate::drain::{Drain, Phase};
use crate::proxy::{Local, ProxyContext};
use crate::timer::TICK;

/// Connections that wait for a worker.
const QUEUE: usize = 1024;

/// TLS handshakes at the same time on a worker.
const HANDSHAKES: usize = 256;

/// What all threads of the edge share.
#[derive(Clone)]
pub struct Shared {
    /// Limits and times.
    pub config: Arc<EdgeConfig>,
    /// What requests are handed to.
    pub proxy: Arc<ProxyContext>,
    /// What TLS clients are shown.
    pub certificates: Arc<Certificates>,
    /// Counters.
    pub stats: Arc<EdgeStats>,
    /// When to stop.
    pub drain: Drain,
    /// The owner is gone.
    pub abandoned: CancellationToken,
}

/// What the connections of one thread share.
pub struct Worker {
    /// Limits and times.
    pub config: Arc<EdgeConfig>,
    /// This thread's share of the proxy.
    pub local: Arc<Local>,
    /// What TLS clients are shown.
    pub certificates: Arc<Certificates>,
    /// Counters.
    pub stats: Arc<EdgeStats>,
    /// Places for handshakes.
    pub handshakes: Semaphore,
    /// The process is about to end: clients shall take their next request elsewhere.
    pub leaving: AtomicBool,
}

/// How the acceptor sees a worker.
pub struct WorkerHandle {
    /// Takes connections. Dropped: no more will come.
    pub queue: mpsc::Sender<Accepted>,
    /// Its open connections.
    pub load: Arc<AtomicUsize>,
}

/// Starts a worker's thread. It ends when no more connections can come and all have ended, or at
/// the cut. `alive` is dropped at its end.
///
/// # Errors
/// No thread, or no runtime.
pub fn start(index: usize, shared: Shared, alive: mpsc::Sender<()>) -> io::Result<(WorkerHandle, JoinHandle<()>)> {
    let (queue, incoming) = mpsc::channel(QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name(format!("edge-{index}")).spawn(move || {
        runtime.block_on(run(shared, incoming));
        drop(runtime);
        drop(alive);
    })?;
    Ok((WorkerHandle { queue, load: Arc::default() }, thread))
}

async fn run(shared: Shared, mut incoming: mpsc::Receiver<Accepted>) {
    let worker = Arc::new(Worker {
        local: Arc::new(Local::new(Arc::clone(&shared.proxy))),
        config: shared.config,
        certificates: shared.certificates,
        stats: shared.stats,
        handshakes: Semaphore::new(HANDSHAKES),
        leaving: AtomicBool::new(false),
    });
    let connections = TaskTracker::new();
    let serve_all = async {
        while let Some(accepted) = incoming.recv().await {
            connections.spawn(serve(Arc::clone(&worker), accepted));
        }
        connections.close();
        connections.wait().await;
    };
    tokio::select! {
        () = serve_all => {}
        () = tick(&worker.local) => {}
        () = leave(&shared.drain, &worker) => {}
        () = shared.drain.reached(Phase::Cut) => {}
        () = shared.abandoned.cancelled() => {}
    }
}

/// Notes that the process is about to end; never returns.
async fn leave(drain: &Drain, worker: &Worker) {
    drain.reached(Phase::Lead).await;
    worker.leaving.store(true, Ordering::Relaxed);
    std::future::pending::<()>().await;
}

async fn tick(local: &Local) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        local.tick();
    }
}
