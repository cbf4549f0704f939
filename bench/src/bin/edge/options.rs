//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::peers::Kind;
use crate::scenario::Name;

/// Rounds of a quick run.
const QUICK_ROUNDS: usize = 3;

/// Compares what a request costs meshgate's edge with what it costs nginx and haproxy.
#[derive(Debug, Parser)]
#[command(name = "bench/run", version, about)]
pub struct Options {
    /// How often each peer is measured in each scenario (default: 5; with --quick: 3).
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Which scenarios (default: all; with --quick: h1-128 and tls).
    #[arg(long, value_delimiter = ',', value_enum)]
    scenario: Vec<Name>,
    /// Whom to compare meshgate with.
    #[arg(long, value_delimiter = ',', value_enum, default_value = "nginx,haproxy,control")]
    pub peers: Vec<Kind>,
    /// For CI: few rounds of the scenarios that matter most.
    #[arg(long)]
    quick: bool,
    /// Writes all samples there after every round.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The meshgate binary (default: the one beside this binary).
    #[arg(long, value_name = "PATH")]
    pub meshgate: Option<PathBuf>,
    /// Core of what is measured.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub proxy_core: usize,
    /// Core of the requests and of the backend.
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    pub load_core: usize,
    /// Number n of meshgate's node: it has the addresses 127.n.0.1 and 127.n.1.1.
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u8).range(4..=254))]
    pub number: u8,
    /// Gives up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    limit: u64,
}

impl Options {
    /// Rounds of each scenario.
    pub fn rounds(&self) -> usize {
        self.rounds.map_or(if self.quick { QUICK_ROUNDS } else { 5 }, usize::from)
    }

    /// Scenarios in the order in which they are named.
    pub fn scenarios(&self) -> &[Name] {
        match (self.scenario.as_slice(), self.quick) {
            ([], true) => &[Name::H1Small, Name::Tls],
            ([], false) => &Name::ALL,
            (named, _) => named,
        }
    }

    /// All of it must be done by then.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let quick = Options::parse_from(["run", "--quick"]);
        assert_eq!((quick.rounds(), quick.scenarios()), (3, [Name::H1Small, Name::Tls].as_slice()));
        let named = Options::parse_from(["run", "--scenario", "h1-128,routes", "--rounds", "2", "--peers", "nginx"]);
        assert_eq!((named.rounds(), named.scenarios()), (2, [Name::H1Small, Name::Routes].as_slice()));
        assert_eq!(named.peers, [Kind::Nginx]);
        assert_eq!(Options::parse_from(["run"]).scenarios(), Name::ALL);
    }
}
