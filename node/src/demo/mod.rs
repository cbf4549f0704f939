//! The demo: three peers as three processes on this machine, with echo backends and the examples.
//!
//! `meshgate demo` shows what runs and what to try, and stays live; `--check` makes the requests
//! itself and says for each promise whether it holds; `--dir` serves the user's own directory.

mod admin;
mod certificate;
mod check;
mod client;
mod echo;
mod examples;
mod fleet;
mod layout;
mod live;
mod manifest;
mod places;
mod preflight;
mod screen;
mod stage;
mod tries;
mod via;
mod view;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use layout::Layout;
use screen::Screen;
use stage::Stage;

/// Threads for the echo backends, the requests and the screen.
const THREADS: usize = 2;
/// How long tasks may take to end once everything was stopped.
const LAST: Duration = Duration::from_secs(1);

/// Flags of `meshgate demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Make the requests, print one line a promise, kill the leader, and exit with 0 or 1.
    #[arg(long, conflicts_with = "dir")]
    pub check: bool,
    /// Serve a directory of Kubernetes YAML of your own instead of the examples.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Runs the demo to its end.
///
/// # Errors
/// What keeps it from starting; nothing is left behind in any case.
pub fn run(options: Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let result = runtime.block_on(session(&options));
    runtime.shutdown_timeout(LAST);
    result
}

async fn session(options: &Options) -> anyhow::Result<ExitCode> {
    // First of all, so that Ctrl-C cleans up at any time.
    let mut signals = Signals::new()?;
    let layout = Layout::create(options.dir.as_deref())?;
    let mut stage = Stage::default();
    let outcome = tokio::select! {
        outcome = play(options, &layout, &mut stage) => outcome,
        () = signals.next() => Ok(!options.check),
    };
    stage.stop().await;
    let closed = layout.close();
    let passed = outcome?;
    closed?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts everything, then shows or checks it. True when all is well.
async fn play(options: &Options, layout: &Layout, stage: &mut Stage) -> anyhow::Result<bool> {
    let mut screen = Screen::stdout();
    screen.print(&["meshgate demo: starting node-a, node-b and node-c ...".to_owned()])?;
    let access = stage.start(layout).await?;
    if options.check {
        check::run(layout, stage, &access, &mut screen).await
    } else {
        live::run(layout, stage, &access, &mut screen).await.map(|()| true)
    }
}

/// The signals that end the demo.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
