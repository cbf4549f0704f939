//! How much CPU does a change of one route cost, on the leader and on each peer? Prints every stage,
//! and the whole, against a start from scratch.

mod cpu;
mod stages;
mod whole;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::cpu::Line;
use crate::world::Size;

/// As the peer itself has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures what a change of one route costs.
#[derive(Debug, Parser)]
struct Options {
    /// HTTPRoutes.
    #[arg(long, default_value_t = 10_000)]
    routes: u32,
    /// Services.
    #[arg(long, default_value_t = 2_000)]
    services: u32,
    /// Endpoints of each Service.
    #[arg(long, default_value_t = 10)]
    endpoints: u32,
    /// How often the route is edited.
    #[arg(long, default_value_t = 200)]
    edits: u32,
    /// Give all routes one host, so that they differ by path only.
    #[arg(long)]
    one_host: bool,
    /// Fail if an edit costs the leader or a peer more than this, in the median.
    #[arg(long, value_name = "MICROSECONDS")]
    limit: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("edit-cost: an edit costs more than the limit");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("edit-cost: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<bool> {
    let Options { routes, services, endpoints, edits, one_host, limit } = *options;
    let size = Size { routes, services, endpoints, one_host };
    // On tmpfs where there is one, so that the disk is not what is measured.
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    world::write(&folder.path().join("manifests"), size)?;
    let hosts = if one_host { "one host" } else { "a host each" };
    println!("{routes} routes ({hosts}), {services} Services, {} endpoints; {edits} edits", services * endpoints);
    println!("CPU, microseconds\n");

    let stages = stages::measure(folder.path(), size, edits)?;
    // Whatever the stages hold would be freed meanwhile, or not: they are gone by now.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    world::edit(&folder.path().join("manifests"), size, routes / 2, 0)?;
    let (leader, commits) = runtime.block_on(whole::leader(folder.path(), size, edits))?;
    let peer = runtime.block_on(whole::peer(folder.path(), &commits))?;
    print("LEADER", &stages.leader, &leader);
    print("PEER", &stages.peer, &peer);
    let limit = limit.map_or(Duration::MAX, Duration::from_micros);
    Ok(leader.percentile(50).max(peer.percentile(50)) <= limit)
}

fn print(heading: &str, stages: &[Line], whole: &Line) {
    println!("{heading:<28} {:>10} {:>8} {:>8} {:>8}", "SCRATCH", "P50", "P90", "P99");
    for line in stages.iter().chain([whole]) {
        let edit = [50, 90, 99].map(|percent| line.percentile(percent).as_micros());
        let [p50, p90, p99] = edit;
        println!("{:<28} {:>10} {p50:>8} {p90:>8} {p99:>8}", line.name, line.scratch.as_micros());
    }
    println!();
}
