//! The demo as people see it: the scene once, then the live part until Ctrl-C.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use anyhow::Context;

use super::fleet::{Fleet, NODES};
use super::layout::Layout;
use super::screen::{Scene, Screen};
use super::stage::{Access, Stage};
use super::tries;
use super::view::look;

/// Between two looks at the peers.
const REFRESH: Duration = Duration::from_millis(500);

/// Shows the demo; returns only when nobody reads any more.
///
/// # Errors
/// The screen can't be written to.
pub async fn run<W: Write>(
    layout: &Layout,
    stage: &Stage,
    access: &Access,
    screen: &mut Screen<W>,
) -> anyhow::Result<()> {
    let fleet = stage.fleet.as_ref().context("no peers run")?;
    let (mut tries, mut routes) = (Vec::new(), Vec::new());
    if layout.own_source() {
        tries = tries::all(&access.places, &layout.certificate());
    } else if let Some(first) = access.admins.first() {
        routes = first.routes().await?;
    }
    let backends = stage.echoes.as_ref().map(|echoes| echoes.backends().to_vec()).unwrap_or_default();
    let scene = Scene::new(layout, access.places.clone(), backends, tries, routes);
    let mut starts = [1; NODES.len()];
    let mut shown = screen.print(&scene.lines());
    while shown.is_ok() {
        let view = look(&access.admins, fleet, stage.echoes.as_ref()).await;
        shown = screen.print(&restarts(fleet, &mut starts)).and_then(|()| screen.draw(&view));
        tokio::time::sleep(REFRESH).await;
    }
    ignore_closed(shown)
}

/// A line for each peer that was started again since the last look.
fn restarts(fleet: &Fleet, known: &mut [u32; NODES.len()]) -> Vec<String> {
    let mut lines = Vec::new();
    for (node, known) in NODES.iter().zip(known) {
        let Some(process) = fleet.process(*node) else { continue };
        if let (true, Some(pid)) = (process.starts > *known, process.pid) {
            *known = process.starts;
            let ended = process.ended.unwrap_or_default();
            lines.push(format!("  {} had ended ({ended}); started again, pid {pid}", node.name));
        }
    }
    lines
}

/// A reader that went away (`| head`) ends the demo; that is no failure.
fn ignore_closed(shown: io::Result<()>) -> anyhow::Result<()> {
    match shown {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
