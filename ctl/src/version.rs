//! `meshctl version`: of meshctl and of every peer.

use meshgate_proto::admin::ListPeersRequest;

use crate::cli::Format;
use crate::connect::{ANSWER, Mesh};
use crate::failure::{Failure, Outcome};
use crate::output::{PeerVersion, Version};
use crate::screen::Screen;
use crate::table::{Cell, Table, Tint, plain};

const OWN: &str = env!("CARGO_PKG_VERSION");

/// Flags of `meshctl version`.
#[derive(clap::Args)]
pub struct Args {
    /// Only meshctl's own; asks no peer
    #[arg(long)]
    client: bool,
}

/// Prints the versions; the own one even if no peer answers.
pub async fn run(mesh: &Mesh, screen: &Screen, args: Args) -> Result<Outcome, Failure> {
    screen.refuse_names("version")?;
    let asked = if args.client {
        Ok(None)
    } else {
        mesh.call(ANSWER, async |mut peer| peer.list_peers(ListPeersRequest {}).await).await.map(Some)
    };
    let (peers, failure) = match asked {
        Ok(answer) => (answer.map(|answer| answer.peers), None),
        Err(failure) => (None, Some(failure)),
    };
    let named = |peers: Vec<_>| peers.into_iter().map(peer_version).collect();
    let version = Version { client: OWN, peers: peers.map(named) };
    if matches!(screen.format, Format::Json | Format::Yaml) {
        screen.document(&version)?;
    } else {
        screen.table(&table(&version))?;
    }
    failure.map_or(Ok(Outcome::Fine), Err)
}

fn peer_version(peer: meshgate_proto::admin::Peer) -> PeerVersion {
    PeerVersion { node: peer.node, version: peer.version }
}

fn table(version: &Version) -> Table {
    let mut table = Table::new(&[]);
    table.push(vec![plain("meshctl"), plain(version.client)]);
    for peer in version.peers.iter().flatten() {
        let tint = if peer.version == version.client { Tint::Plain } else { Tint::Warn };
        table.push(vec![plain(&peer.node), Cell::new(&peer.version, tint)]);
    }
    table
}
