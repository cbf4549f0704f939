//! Everything that the demo starts, and its orderly end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::future::join_all;

use super::admin::Admin;
use super::certificate::Fresh;
use super::echo::Echoes;
use super::examples;
use super::fleet::{Fleet, NODES, tail};
use super::layout::Layout;
use super::places::Places;
use super::{manifest, preflight};
use crate::config::Ports;

/// How long the peers may take until all are ready.
const READY: Duration = Duration::from_secs(20);
/// How long they may take to agree on one head after that.
const AGREE: Duration = Duration::from_secs(10);
/// Between two looks at a condition.
pub const POLL: Duration = Duration::from_millis(20);

/// What runs.
#[derive(Default)]
pub struct Stage {
    /// The echo backends; none with the user's own directory.
    pub echoes: Option<Echoes>,
    /// The peers.
    pub fleet: Option<Fleet>,
}

/// What is needed to talk to it.
pub struct Access {
    /// Admin APIs, in the order of the nodes.
    pub admins: Vec<Admin>,
    /// Where Gateways listen.
    pub places: Places,
    /// The fresh certificate; none with the user's own directory.
    pub fresh: Option<Fresh>,
}

impl Stage {
    /// Starts everything and waits until it serves.
    ///
    /// # Errors
    /// An address in use, a peer that ends or is not ready in time, with the end of its log.
    pub async fn start(&mut self, layout: &Layout) -> anyhow::Result<Access> {
        let fresh = if layout.own_source() { Some(examples::unpack(layout)?) } else { None };
        let documents = manifest::of_folder(layout.source())?;
        let ports = Ports::default();
        preflight::check(&preflight::needs(ports, &manifest::ports(&documents)))?;
        if layout.own_source() {
            self.echoes = Some(Echoes::start(manifest::backends(&documents)?).await?);
        }
        layout.write_configs()?;
        let fleet = self.fleet.insert(Fleet::start(&binary()?, layout)?);
        let admins = NODES.into_iter().map(|node| Admin::new(node, ports)).collect::<anyhow::Result<Vec<_>>>()?;
        all_ready(&admins, fleet, layout).await?;
        let places = agreed(&admins).await?;
        Ok(Access { admins, places, fresh })
    }

    /// Ends everything; returns once nothing runs.
    pub async fn stop(self) {
        if let Some(fleet) = self.fleet {
            fleet.stop().await;
        }
        if let Some(echoes) = self.echoes {
            echoes.stop().await;
        }
    }
}

/// This program: the peers are other processes of it.
fn binary() -> anyhow::Result<std::path::PathBuf> {
    std::env::current_exe().context("cannot tell which program this is")
}

async fn all_ready(admins: &[Admin], fleet: &Fleet, layout: &Layout) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let ready = join_all(admins.iter().map(Admin::ready)).await;
        if ready.iter().all(|ready| *ready) {
            return Ok(());
        }
        fleet.all_alive(layout)?;
        if start.elapsed() > READY {
            let mut message = format!("not ready after {} s:", READY.as_secs());
            for (admin, _) in admins.iter().zip(ready).filter(|(_, ready)| !ready) {
                let reason = match admin.status().await {
                    Ok(status) => status.not_ready_reason,
                    Err(error) => format!("{error:#}"),
                };
                let end = log_end(&layout.log(admin.node()));
                message.push_str(&format!("\n{}: {reason}; the end of its log:\n{end}", admin.node().name));
            }
            bail!(message);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The end of a log, or why there is none.
pub fn log_end(path: &Path) -> String {
    tail(path).unwrap_or_else(|error| format!("(cannot read {}: {error:#})", path.display()))
}

/// Waits until all peers serve one head of one leader, and says where they listen.
async fn agreed(admins: &[Admin]) -> anyhow::Result<Places> {
    let start = Instant::now();
    loop {
        let all = join_all(admins.iter().map(Admin::status)).await;
        let known: Vec<_> = all.iter().flatten().collect();
        let same = known.len() == admins.len()
            && known.iter().all(|status| {
                status.head.is_some() && status.head == known[0].head && status.leader == known[0].leader
            })
            && !known[0].leader.is_empty();
        if same {
            let bounds = admins
                .iter()
                .zip(all)
                .map(|(admin, status)| (admin.node(), status.map(|status| status.bound).unwrap_or_default()));
            return Ok(Places::new(bounds.collect()));
        }
        if start.elapsed() > AGREE {
            let said: Vec<String> = admins
                .iter()
                .zip(all)
                .map(|(admin, status)| match status {
                    Ok(status) => {
                        let head = status.head.unwrap_or_default();
                        format!("{} serves {}/{} of {:?}", admin.node().name, head.epoch, head.rev, status.leader)
                    }
                    Err(error) => format!("{error:#}"),
                })
                .collect();
            bail!("the peers do not agree after {} s: {}", AGREE.as_secs(), said.join("; "));
        }
        tokio::time::sleep(POLL).await;
    }
}
