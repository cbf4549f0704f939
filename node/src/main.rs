//! The `meshgate` binary: a peer (`run`), or the demo of three of them (`demo`).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use meshgate_node::{app, config::Config, demo};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A distributed sidecarless mesh gateway for Kubernetes.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one peer.
    Run {
        /// Configuration file (YAML).
        #[arg(long, env = "MESHGATE_CONFIG", value_name = "FILE")]
        config: PathBuf,
        /// Ends when standard input does: for a parent that holds its pipe.
        #[arg(long, hide = true)]
        with_parent: bool,
        /// Overrides `node` of the file.
        #[arg(long, env = "MESHGATE_NODE", value_name = "NAME")]
        node: Option<String>,
    },
    /// Run three peers and their backends on this machine, without a cluster.
    Demo(demo::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { config, with_parent, node } => Config::load(&config).and_then(|mut config| {
            if let Some(node) = node {
                config.node = node;
            }
            app::run(config, with_parent).map(|()| ExitCode::SUCCESS)
        }),
        Command::Demo(options) => demo::run(options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("meshgate: {error:#}");
        ExitCode::FAILURE
    })
}
