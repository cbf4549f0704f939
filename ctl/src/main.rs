//! meshctl: inspects a running mesh through any peer's admin API. It only reads, never asks the
//! Kubernetes API server, and each verb has a file of its own.

mod analyze;
mod cli;
mod connect;
mod failure;
mod human;
mod kinds;
mod leader;
mod output;
mod peers;
mod routes;
mod screen;
mod status;
mod table;
mod verify;
mod version;
mod wait;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Verb};
use crate::connect::Mesh;
use crate::failure::{Failure, Outcome};
use crate::screen::Screen;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too: they print to stdout and exit with 0. A closed
            // stdout leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(cli) {
        Ok(outcome) => outcome.code(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.code()
        }
    }
}

/// Runs one verb to its end on a runtime of this thread.
fn run(cli: Cli) -> Result<Outcome, Failure> {
    let screen = Screen::new(&cli.global);
    let mesh = Mesh::new(&cli.global)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Local)?;
    runtime.block_on(async {
        match cli.verb {
            Verb::Routes(args) => routes::run(&mesh, &screen, args).await,
            Verb::Peers => peers::run(&mesh, &screen).await,
            Verb::Verify => verify::run(&mesh, &screen).await,
            Verb::Leader => leader::run(&mesh, &screen).await,
            Verb::Wait(args) => wait::run(&mesh, &screen, args, cli.global.timeout).await,
            Verb::Analyze(args) => analyze::run(&mesh, &screen, args).await,
            Verb::Status => status::run(&mesh, &screen).await,
            Verb::Version(args) => version::run(&mesh, &screen, args).await,
        }
    })
}
