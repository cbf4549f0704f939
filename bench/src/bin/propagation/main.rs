//! How long does an edited route take until every peer serves it? Starts peers, edits one route
//! again and again, and asks each peer by HTTP until it answers as edited.

mod admin;
mod fleet;
mod manifests;
mod measure;
mod options;
mod poll;
mod report;
mod statistics;

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::measure::{Outcome, measure};
use crate::options::Options;
use meshgate_bench::random::Random;

fn main() -> ExitCode {
    let options = Options::parse();
    match start(&options) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            eprintln!("propagation: what was served was wrong:\n  {}", faults.join("\n  "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("propagation: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures on a runtime of this thread. Whatever ends it, the peers end and the folder goes.
fn start(options: &Options) -> anyhow::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = tokio::time::timeout(options.limit(), run(options)) => {
                done.with_context(|| format!("not done within {:?}", options.limit()))?
            }
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn run(options: &Options) -> anyhow::Result<Vec<String>> {
    let meshgate = options.meshgate()?;
    let mut random = Random::new(options.seed());
    println!("{}", report::heading(options, random.seed()));
    let mut outcomes: Vec<Outcome> = Vec::new();
    for routes in &options.routes {
        eprintln!("{routes} routes: starting {} peers", options.peers);
        let outcome = measure(options, &meshgate, *routes, &mut random)
            .await
            .with_context(|| format!("with {routes} routes (seed {})", random.seed()))?;
        outcomes.push(outcome);
    }
    println!("{}", report::text(&outcomes));
    if let Some(path) = &options.json {
        let json = report::json(options, random.seed(), &outcomes);
        std::fs::write(path, format!("{json:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(outcomes.iter().flat_map(Outcome::faults).collect())
}
