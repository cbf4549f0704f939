//! The composition root: builds every part of a peer, owns every channel between them, spawns
//! every long-lived task, and ends them in order.

mod build;
mod facts;
mod glue;
mod ready;
mod shutdown;
mod views;
mod wiring;

use std::time::Instant;

use anyhow::Context;
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::config::Config;
use crate::drain;

/// How long tasks may take to end once everything is cut.
const END_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// Threads of the control runtime: replication, gossip, election.
const CONTROL_THREADS: usize = 2;

/// Runs a peer until it is told to end (SIGTERM, SIGINT, or the end of the parent's pipe).
///
/// # Errors
/// A part could not start, or broke while running.
pub fn run(config: Config, with_parent: bool) -> anyhow::Result<()> {
    let started = Instant::now();
    crate::telemetry::init_logs();
    // An error means that a provider is installed already, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot make the control runtime")?;
    let result = control.block_on(peer(config, started, with_parent));
    control.shutdown_timeout(END_WITHIN);
    result
}

/// The long-lived tasks of the control runtime, by name.
struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.set.spawn(async move { (name, task.await) });
    }

    fn spawn_ok(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(name, async move {
            task.await;
            Ok(())
        });
    }

    /// Returns when a task broke; tasks that end well are fine.
    async fn broken(&mut self) -> anyhow::Error {
        while let Some(ended) = self.set.join_next().await {
            match ended {
                Ok((name, Err(error))) => return error.context(name),
                Ok((name, Ok(()))) => tracing::debug!(task = name, "ended"),
                Err(panicked) => return anyhow::anyhow!("a task panicked: {panicked}"),
            }
        }
        std::future::pending().await
    }
}

async fn peer(config: Config, started: Instant, with_parent: bool) -> anyhow::Result<()> {
    let (control, drain) = drain::channel();
    let mut tasks = Tasks { set: JoinSet::new() };
    let threads = build::build(&config, started, &drain, &mut tasks).await?;
    info!(node = config.node, base = %config.base(), "started in {} ms", started.elapsed().as_millis());
    let broken = tokio::select! {
        () = shutdown::requested(with_parent) => None,
        error = tasks.broken() => Some(error),
    };
    if let Some(error) = &broken {
        error!("a part broke, the process ends and restarts from disk: {error:#}");
    }
    shutdown::drain(&control, &config, threads.edge_done, &threads.tunnel).await;
    let joined = tokio::time::timeout(END_WITHIN, async { while tasks.set.join_next().await.is_some() {} }).await;
    if joined.is_err() {
        error!("some tasks did not end within {END_WITHIN:?}");
    }
    for thread in threads.handles {
        // A thread that panicked has said so already.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
    broken.map_or(Ok(()), Err)
}
