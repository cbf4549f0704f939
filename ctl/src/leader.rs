//! `meshctl leader`: who leads, and since when.

use jiff::Timestamp;
use meshgate_proto::admin::GetLeaderRequest;

use crate::cli::Format;
use crate::connect::{ANSWER, Mesh};
use crate::failure::{Failure, Outcome};
use crate::human;
use crate::output::Leader;
use crate::screen::Screen;
use crate::table::{Cell, Table, Tint, plain};

/// Prints the leader; that there is none is a finding.
pub async fn run(mesh: &Mesh, screen: &Screen) -> Result<Outcome, Failure> {
    let answer = mesh.call(ANSWER, async |mut peer| peer.get_leader(GetLeaderRequest {}).await).await?;
    let leader = Leader::from(answer);
    match screen.format {
        Format::Json | Format::Yaml => screen.document(&leader)?,
        Format::Name => screen.names(leader.node.iter().map(|node| format!("peer/{node}")))?,
        Format::Table | Format::Wide => screen.table(&table(&leader))?,
    }
    if leader.node.is_none() {
        eprintln!("Nobody leads: peers serve what they have, changes wait for an election.");
    }
    Ok(Outcome::finding_if(leader.node.is_none()))
}

fn table(leader: &Leader) -> Table {
    let mut table = Table::new(&["EPOCH", "LEADER", "SINCE", "AGE", "REV"]);
    let node = leader.node.as_deref().map_or_else(|| Cell::new("nobody", Tint::Bad), plain);
    let age = leader.since.map(|since| human::age(human::since(since, Timestamp::now())));
    table.push(vec![
        plain(leader.epoch.to_string()),
        node,
        plain(leader.since.map(|since| since.to_string()).unwrap_or_default()),
        plain(age.unwrap_or_default()),
        plain(leader.rev.to_string()),
    ]);
    table
}
