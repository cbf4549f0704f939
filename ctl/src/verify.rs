//! `meshctl verify`: whether every peer serves the same state, and the leader signed it.

use meshgate_proto::admin::{GetStatusRequest, VerifyRequest};

use crate::cli::Format;
use crate::connect::{ANSWER, Mesh};
use crate::failure::{Failure, Outcome};
use crate::human;
use crate::output::{self, PeerDigest, Verification};
use crate::screen::Screen;
use crate::table::{Cell, Table, Tint, plain};

/// Prints one line if all is well, and what differs otherwise.
pub async fn run(mesh: &Mesh, screen: &Screen) -> Result<Outcome, Failure> {
    screen.refuse_names("verify")?;
    // Of one peer: its name tells whether the digests list it.
    let (answer, node) = mesh
        .call(ANSWER, async |mut peer| {
            let answer = peer.verify(VerifyRequest {}).await?.into_inner();
            let status = peer.get_status(GetStatusRequest {}).await?;
            Ok(tonic::Response::new((answer, status.into_inner().node)))
        })
        .await?;
    let found = Verification::new(node, answer);
    if matches!(screen.format, Format::Json | Format::Yaml) {
        screen.document(&found)?;
    } else {
        screen.lines(&[summary(&found)])?;
        if !found.ok {
            screen.lines(&problems(&found))?;
            screen.table(&digests(&found))?;
        }
    }
    Ok(Outcome::finding_if(!found.ok))
}

/// `3/3 nodes at epoch 7 rev 18233 root 9f3a…c1; signature ok (leader node-c); 0 divergent`
fn summary(found: &Verification) -> Vec<Cell> {
    let at = found.head.map_or("no head".to_owned(), |head| format!("epoch {} rev {}", head.epoch, head.rev));
    let root = human::short_root(found.root.as_deref().unwrap_or("-"));
    let leader = found.signed_by.as_deref().unwrap_or("unknown");
    let (signature, tint) = if found.signature_ok { ("ok", Tint::Good) } else { ("WRONG", Tint::Bad) };
    let divergent = found.peers.iter().filter(|peer| peer.verdict == "divergent").count();
    vec![
        human::fraction(found.same, found.expected),
        plain(format!("{} at {at} root {root}; signature", if found.expected == 1 { "node" } else { "nodes" })),
        Cell::new(signature, tint),
        plain(format!("(leader {leader});")),
        Cell::new(format!("{divergent} divergent"), if divergent == 0 { Tint::Plain } else { Tint::Bad }),
    ]
}

/// What is wrong on the answering peer, and what others hold back.
fn problems(found: &Verification) -> Vec<Vec<Cell>> {
    let own =
        found.problem.iter().map(|problem| vec![Cell::new(format!("{}:", found.node), Tint::Bad), plain(problem)]);
    let held = found.peers.iter().flat_map(|peer| {
        let line = |key: &String| {
            let text = format!("holds back {key}: it serves the previous version of it");
            vec![Cell::new(format!("{}:", peer.node), Tint::Warn), plain(text)]
        };
        peer.held.iter().map(line)
    });
    own.chain(held).collect()
}

fn digests(found: &Verification) -> Table {
    let mut table = Table::new(&["NODE", "HEAD", "ROOT", "VERDICT", "HELD"]);
    for peer in &found.peers {
        table.push(vec![
            plain(&peer.node),
            plain(output::head_text(peer.head)),
            // Whole: two digests that differ in the middle look alike when shortened.
            plain(peer.root.as_deref().unwrap_or_default()),
            verdict(peer),
            plain(peer.held.len().to_string()),
        ]);
    }
    table
}

fn verdict(peer: &PeerDigest) -> Cell {
    let tint = match peer.verdict.as_str() {
        "same" => Tint::Good,
        "behind" | "ahead" => Tint::Warn,
        _ => Tint::Bad,
    };
    Cell::new(&peer.verdict, tint)
}
