//! The command line: global flags and the list of verbs. Flags of one verb live in its file.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

const AFTER_HELP: &str = "\
Exit codes: 0 ok, 1 finding (rejected, divergent, not found, ...), 2 usage, 3 no peer reachable, 4 timeout.

meshctl asks a peer of the mesh, never the Kubernetes API server, and changes nothing.
Without --server it takes unix:/run/meshgate/admin.sock if that exists, else the demo's peers.";

/// Inspect a running meshgate mesh.
#[derive(Parser)]
#[command(name = "meshctl", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Cli {
    /// Flags that every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags that every verb takes.
#[derive(Args)]
pub struct Global {
    /// Peer to ask, host:port or unix:PATH; of several, the first that answers
    #[arg(long = "server", value_name = "ADDR", env = "MESHCTL_SERVER", value_delimiter = ',', global = true)]
    pub servers: Vec<String>,
    /// How long to try to connect to a peer [default: 3s]; for `wait`, how long to wait [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, global = true)]
    pub timeout: Option<Duration>,
    /// Output format
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table, global = true)]
    pub format: Format,
    /// Leave the header line out
    #[arg(long, global = true)]
    pub no_headers: bool,
    /// Colours; `auto` is on a terminal without NO_COLOR
    #[arg(long, value_enum, default_value_t = Color::Auto, global = true)]
    pub color: Color,
}

/// What to do.
#[derive(Subcommand)]
pub enum Verb {
    /// List the routes that a peer serves
    Routes(crate::routes::Args),
    /// List the peers, what they serve and how they are reached
    Peers,
    /// Check digests and the leader's signature, and compare all peers
    Verify,
    /// Tell who leads, and since when
    Leader,
    /// Wait until an object, or everything, is live on every peer
    Wait(crate::wait::Args),
    /// List what is wrong with which object
    Analyze(crate::analyze::Args),
    /// Show one peer in short
    Status,
    /// Print the versions of meshctl and of the peers
    Version(crate::version::Args),
}

/// Output formats, as in kubectl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns
    Table,
    /// Aligned columns, more of them
    Wide,
    /// One JSON document; fields are added, never renamed or removed
    Json,
    /// The same document as YAML
    Yaml,
    /// kind/namespace/name, one a line
    Name,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Reads `30s`, `1m30s`, `500ms`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let help = || format!("`{text}` is no duration; try 30s, 500ms or 1m30s");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| help())?;
    Duration::try_from(duration).map_err(|_| help())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("soon").is_err());
    }
}
