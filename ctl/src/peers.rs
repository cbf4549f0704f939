//! `meshctl peers`: who is there, what each serves, and how it is reached.

use jiff::Timestamp;
use meshgate_proto::admin::ListPeersRequest;

use crate::cli::Format;
use crate::connect::{ANSWER, Mesh};
use crate::failure::{Failure, Outcome};
use crate::human;
use crate::output::{self, Peer, Peers, Tunnel};
use crate::screen::Screen;
use crate::table::{Cell, Table, Tint, plain};

const COLUMNS: [&str; 13] =
    ["NODE", "READY", "STATE", "VERSION", "HEAD", "ROOT", "LAG", "TUNNEL", "LOSS", "RTT", "MTU", "GSO", "CERT"];
const MORE_COLUMNS: [&str; 4] = ["LEADER", "ROLES", "ADDRESS", "INSTANCE"];

/// Prints the peers that the answering peer knows.
pub async fn run(mesh: &Mesh, screen: &Screen) -> Result<Outcome, Failure> {
    let answer = mesh.call(ANSWER, async |mut peer| peer.list_peers(ListPeersRequest {}).await).await?;
    let peers = Peers::from(answer);
    match screen.format {
        Format::Json | Format::Yaml => screen.document(&peers)?,
        Format::Name => screen.names(peers.peers.iter().map(|peer| format!("peer/{}", peer.node)))?,
        Format::Table | Format::Wide => screen.table(&table(&peers, screen.is_wide(), Timestamp::now()))?,
    }
    Ok(Outcome::Fine)
}

fn table(peers: &Peers, wide: bool, now: Timestamp) -> Table {
    let mut columns = COLUMNS.to_vec();
    if wide {
        columns.extend(MORE_COLUMNS);
    }
    let mut table = Table::new(&columns);
    for peer in &peers.peers {
        let mut row = row(peer, now);
        if wide {
            row.extend([
                plain(yes(peer.leader)),
                plain(peer.roles.join(",")),
                plain(&peer.address),
                plain(&peer.instance),
            ]);
        }
        table.push(row);
    }
    table
}

fn row(peer: &Peer, now: Timestamp) -> Vec<Cell> {
    let ready = if peer.ready { Tint::Good } else { Tint::Bad };
    let state = match peer.state.as_str() {
        "serving" => Tint::Good,
        "unreachable" => Tint::Bad,
        _ => Tint::Warn,
    };
    let lag = if peer.lag == 0 { Tint::Plain } else { Tint::Warn };
    let mut cells = vec![
        plain(&peer.node),
        Cell::new(yes(peer.ready), ready),
        Cell::new(&peer.state, state),
        plain(&peer.version),
        plain(output::head_text(peer.head)),
        plain(human::short_root(peer.root.as_deref().unwrap_or_default())),
        Cell::new(peer.lag.to_string(), lag),
    ];
    cells.extend(tunnel(peer.tunnel.as_ref()));
    cells.push(human::certificate(peer.certificate_not_after, now));
    cells
}

/// TUNNEL, LOSS, RTT, MTU and GSO; an exclamation mark where QUIC doesn't get through.
fn tunnel(tunnel: Option<&Tunnel>) -> [Cell; 5] {
    let Some(tunnel) = tunnel else { return std::array::from_fn(|_| plain("")) };
    let transport = match tunnel.transport.as_str() {
        "quic" => plain(format!("{} quic", tunnel.connections)),
        "none" => Cell::new("none!", Tint::Bad),
        other => Cell::new(format!("{} {other}!", tunnel.connections), Tint::Warn),
    };
    if tunnel.transport == "none" {
        return [transport, plain(""), plain(""), plain(""), plain("")];
    }
    let loss = if tunnel.loss_percent >= 1.0 { Tint::Warn } else { Tint::Plain };
    [
        transport,
        Cell::new(format!("{:.1}%", tunnel.loss_percent), loss),
        plain(human::millis(tunnel.rtt_ms)),
        plain(if tunnel.mtu == 0 { String::new() } else { tunnel.mtu.to_string() }),
        plain(if tunnel.gso { "on" } else { "off" }),
    ]
}

fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
