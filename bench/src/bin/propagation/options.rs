//! The command line.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clap::Parser;

/// Measures how long an edited route takes until all peers serve it.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Options {
    /// Sizes: how many HTTPRoutes there are.
    #[arg(long, value_delimiter = ',', default_value = "10,5000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub routes: Vec<u32>,
    /// Edits that are timed by requests.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub edits: u32,
    /// Further edits that are timed by the admin API's `Wait` (default: as many).
    #[arg(long)]
    pub waits: Option<u32>,
    /// Peers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub peers: u8,
    /// Routes that share a Service (with one EndpointSlice, an endpoint a peer).
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub routes_per_service: u32,
    /// The meshgate binary (default: the one beside this binary).
    #[arg(long, value_name = "PATH")]
    pub meshgate: Option<PathBuf>,
    /// Writes everything there as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Seed of the pauses between edits (default: by the clock; it is printed).
    #[arg(long)]
    pub seed: Option<u64>,
    /// Shortest pause between two edits, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pub pause_min: u64,
    /// Longest pause between two edits, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 60)]
    pub pause_max: u64,
    /// Pause between two requests to the same peer while an edit is under way, in microseconds.
    #[arg(long, default_value_t = 200)]
    pub poll_us: u64,
    /// Number n of the first peer: it has the address 127.n.0.1. Not the demo's 1 to 3.
    #[arg(long, default_value_t = 201, value_parser = clap::value_parser!(u8).range(1..=230))]
    pub first_number: u8,
    /// Gives up after this many seconds.
    #[arg(long, default_value_t = 900)]
    pub limit: u64,
    /// Leaves the folder with logs and manifests, and says where it is.
    #[arg(long)]
    pub keep: bool,
}

impl Options {
    /// All of it must be done by then.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }

    /// Edits timed by `Wait`.
    pub fn waits(&self) -> u32 {
        self.waits.unwrap_or(self.edits)
    }

    /// Pauses between edits in milliseconds: the shortest and the longest.
    pub fn pause(&self) -> (u64, u64) {
        (self.pause_min, self.pause_max.max(self.pause_min))
    }

    /// Pause between two requests to the same peer.
    pub fn poll_pause(&self) -> Duration {
        Duration::from_micros(self.poll_us)
    }

    /// The seed as given, or else one by the clock.
    pub fn seed(&self) -> u64 {
        let by_clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos().into();
        self.seed.unwrap_or_else(by_clock)
    }

    /// The binary that runs peers.
    ///
    /// # Errors
    /// There is none.
    pub fn meshgate(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.meshgate {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("cannot tell where this binary is")?.with_file_name("meshgate"),
        };
        ensure!(
            path.is_file(),
            "no {}: build it (cargo build --release -p meshgate-node) or name one (--meshgate PATH)",
            path.display()
        );
        // A relative path would be looked up in PATH if it had no slash.
        std::path::absolute(&path).with_context(|| format!("no {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let options = Options::parse_from(["propagation", "--routes", "10,5000", "--edits", "7", "--seed", "3"]);
        assert_eq!((options.routes.as_slice(), options.waits(), options.seed()), ([10, 5000].as_slice(), 7, 3));
        assert!(Options::try_parse_from(["propagation", "--routes", "0"]).is_err());
    }
}
