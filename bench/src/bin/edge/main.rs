//! What does a request cost the edge? Runs meshgate, nginx, haproxy and a bare proxy in turn, each
//! alone on a core at saturation, and compares their CPU time a request round by round.

mod backend;
mod certificate;
mod h2load;
mod load;
mod manifests;
mod measure;
mod options;
mod peers;
mod report;
mod scenario;

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use meshgate_bench::process::{machine, pin};
use tokio::signal::unix::{SignalKind, signal};

use crate::measure::Bench;
use crate::options::Options;
use crate::report::Results;
use crate::scenario::Scenario;

fn main() -> ExitCode {
    let options = Options::parse();
    match start(&options) {
        Ok(failures) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(failures) => {
            eprintln!("bench/run: not as it must be:\n  {}", failures.join("\n  "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench/run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures on a runtime of this thread. Whatever ends it, the programs end and the folders go.
fn start(options: &Options) -> anyhow::Result<Vec<String>> {
    pin(&[options.load_core])?;
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
    let (present, absent) = peers::find(options)?;
    let mut results = Results::new(options, peers::versions(&present), absent);
    println!("{}\n{}", machine(), results.heading());
    let bench = Bench::new(options, present)?;
    for &name in options.scenarios() {
        match Scenario::new(name, &bench.peers()) {
            Ok(scenario) => measure_all(&bench, &scenario, options, &mut results).await?,
            Err(reason) => println!("\n{}: skipped: {reason}", name.as_str()),
        }
    }
    Ok(results.failures())
}

/// All rounds of a scenario: peers one after the other, in the other order every second round.
async fn measure_all(
    bench: &Bench,
    scenario: &Scenario,
    options: &Options,
    results: &mut Results,
) -> anyhow::Result<()> {
    results.begin(scenario);
    for round in 0..options.rounds() {
        let mut order: Vec<usize> = (0..scenario.cells.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let cell = &scenario.cells[index];
            let named = || format!("{}, {}, round {}", scenario.name.as_str(), cell.label, round + 1);
            let sample = bench.measure(cell).await.with_context(named)?;
            eprintln!("{}: {}", named(), sample.text());
            results.add(index, sample);
        }
        results.write()?;
    }
    println!("{}", results.table());
    Ok(())
}
