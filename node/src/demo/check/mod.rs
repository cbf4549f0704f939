//! `demo --check`: makes the requests itself and says for each promise whether it holds.

mod bench;
mod edits;
mod failover;
mod probe;
mod report;
mod routing;

use std::io::Write;
use std::time::{Duration, Instant};

use super::fleet::NODES;
use super::layout::Layout;
use super::screen::Screen;
use super::stage::{Access, Stage, log_end};
use bench::{Bench, shown};
use report::Report;

/// The longest wait for any one condition.
const LIMIT: Duration = Duration::from_secs(8);

/// Checks every promise. True when all hold.
///
/// # Errors
/// Nobody reads any more.
pub async fn run<W: Write>(
    layout: &Layout,
    stage: &Stage,
    access: &Access,
    screen: &mut Screen<W>,
) -> anyhow::Result<bool> {
    let start = Instant::now();
    let bench = Bench::new(layout, stage, access)?;
    let mut report = Report::new(screen);
    routing::check(&bench, &mut report).await?;
    edits::check(&bench, &mut report).await?;
    failover::check(&bench, &mut report).await?;
    let passed = report.finish(&shown(start.elapsed()))?;
    if !passed {
        let logs = NODES.map(|node| format!("the end of {}'s log:\n{}", node.name, log_end(&layout.log(node))));
        screen.print(&logs)?;
    }
    Ok(passed)
}
