//! Readiness that tells the truth: a peer is ready when it serves a table at least as new as what
//! the mesh had when it started, and its listeners are bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use meshgate_core::snapshot::HeadId;
use tokio::sync::watch;

use super::views;
use crate::admin::Readiness;
use crate::cluster::Members;
use crate::drain::{Drain, Phase};
use crate::edge::LiveReport;
use crate::identity::NodeName;
use crate::replicate::Applied;

/// How long a peer that has a table waits at its start to learn whether others have a newer one.
const CATCH_UP: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Ready {
    pub node: NodeName,
    pub started: Instant,
    pub applied: watch::Receiver<Option<Arc<Applied>>>,
    pub live: watch::Receiver<LiveReport>,
    pub members: watch::Receiver<Arc<Members>>,
    pub drain: Drain,
    /// Once it caught up, a peer stays ready with what it has: it never stops serving the last
    /// good table.
    pub caught_up: AtomicBool,
}

impl Readiness for Ready {
    fn not_ready(&self) -> Option<String> {
        if self.drain.phase() > Phase::Serving {
            return Some("draining".to_owned());
        }
        let applied = self.applied.borrow().as_ref().map(|applied| applied.id());
        let Some(applied) = applied else { return Some(self.why_nothing()) };
        let live = self.live.borrow().head;
        if live == HeadId::default() {
            return Some(format!("head {applied} is applied, its listeners are not bound yet"));
        }
        if self.caught_up.load(Ordering::Relaxed) {
            return None;
        }
        let newest = views::highest_rev(&self.members.borrow());
        if applied.rev < newest && self.started.elapsed() < CATCH_UP {
            return Some(format!("catching up: rev {} is applied, others have {newest}", applied.rev));
        }
        self.caught_up.store(true, Ordering::Relaxed);
        None
    }
}

impl Ready {
    fn why_nothing(&self) -> String {
        let members = self.members.borrow();
        match views::leader(&members) {
            Some(claim) if claim.node == self.node => "this peer leads and is reading the source".to_owned(),
            Some(claim) => format!("waiting for configuration from the leader, {}", claim.node),
            None => "nothing on disk, and nobody leads yet".to_owned(),
        }
    }
}
