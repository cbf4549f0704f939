//! `meshctl status`: one peer in short.

use std::time::Duration;

use meshgate_proto::admin::GetStatusRequest;

use crate::cli::Format;
use crate::connect::{ANSWER, Mesh};
use crate::failure::{Failure, Outcome};
use crate::human;
use crate::output::{self, Bound, Status};
use crate::screen::Screen;
use crate::table::{Cell, Table, Tint, plain};

/// Prints the peer that answers; that it isn't ready is a finding.
pub async fn run(mesh: &Mesh, screen: &Screen) -> Result<Outcome, Failure> {
    screen.refuse_names("status")?;
    let answer = mesh.call(ANSWER, async |mut peer| peer.get_status(GetStatusRequest {}).await).await?;
    let status = Status::from(answer);
    if matches!(screen.format, Format::Json | Format::Yaml) {
        screen.document(&status)?;
    } else {
        screen.table(&summary(&status))?;
        if !status.bound.is_empty() {
            screen.lines(&[Vec::new()])?;
            screen.table(&sockets(&status.bound))?;
        }
    }
    Ok(Outcome::finding_if(!status.ready))
}

/// One line a fact.
fn summary(status: &Status) -> Table {
    let leader = if status.is_leader { " (leads)" } else { "" };
    let up = human::age(Duration::from_millis(status.uptime_ms));
    let ready = match (&status.not_ready_reason, status.ready) {
        (_, true) => Cell::new("yes", Tint::Good),
        (Some(reason), false) => Cell::new(format!("no: {reason}"), Tint::Bad),
        (None, false) => Cell::new("no", Tint::Bad),
    };
    let root = status.root.as_deref().map(|root| format!(" root {}", human::short_root(root)));
    let requests = &status.requests;
    let counts = format!(
        "{} ({} local, {} by tunnel, {} failed)",
        requests.total, requests.local, requests.tunnel, requests.failed
    );
    let tint = |problems: bool| if problems { Tint::Warn } else { Tint::Plain };
    let leads = status.leader.as_deref().map_or_else(|| Cell::new("nobody", Tint::Warn), plain);
    let mut table = Table::new(&[]);
    for (fact, value) in [
        ("node", plain(format!("{}{leader}, version {}, up {up}", status.node, status.version))),
        ("ready", ready),
        ("head", plain(output::head_text(status.head) + &root.unwrap_or_default())),
        ("leader", leads),
        ("peers", plain(format!("{} alive", status.peers_alive))),
        ("routes", plain(status.routes.to_string())),
        ("findings", Cell::new(status.findings.to_string(), tint(status.findings > 0))),
        ("requests", Cell::new(counts, tint(requests.failed > 0))),
    ] {
        table.push(vec![plain(fact), value]);
    }
    table
}

fn sockets(bound: &[Bound]) -> Table {
    let mut table = Table::new(&["GATEWAY", "PORT", "PROTOCOL", "ADDRESS", "BOUND"]);
    for socket in bound {
        let state = match &socket.error {
            Some(error) => Cell::new(format!("no: {error}"), Tint::Bad),
            None => Cell::new("yes", Tint::Good),
        };
        let port = plain(socket.port.to_string());
        table.push(vec![plain(&socket.gateway), port, plain(&socket.protocol), plain(&socket.address), state]);
    }
    table
}
