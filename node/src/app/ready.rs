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

/// How long a peer that has a table listens at its start for others that may have a newer one.
const LISTEN: Duration = Duration::from_millis(500);

/// How long it waits for the newer one that it heard of.
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
        let behind = self.behind(applied);
        if behind.is_none() {
            self.caught_up.store(true, Ordering::Relaxed);
        }
        behind
    }
}

impl Ready {
    /// At the start: why what is applied may not be the newest. Never for longer than the bounds:
    /// a peer that nobody answers serves what it has.
    fn behind(&self, applied: HeadId) -> Option<String> {
        let members = self.members.borrow();
        let mut others = members.alive().filter(|member| member.facts.node != self.node).peekable();
        let since = self.started.elapsed();
        if others.peek().is_none() {
            let alone = self.leads() || since >= LISTEN;
            return (!alone).then(|| format!("head {applied} is applied; asking whether others have a newer one"));
        }
        let newest = others.map(|member| member.facts.head).max().unwrap_or_default();
        let behind = applied < newest && since < CATCH_UP;
        behind.then(|| format!("catching up: head {applied} is applied, others have {newest}"))
    }

    fn leads(&self) -> bool {
        views::leader(&self.members.borrow()).is_some_and(|claim| claim.node == self.node)
    }

    fn why_nothing(&self) -> String {
        let members = self.members.borrow();
        match views::leader(&members) {
            Some(claim) if claim.node == self.node => "this peer leads and is reading the source".to_owned(),
            Some(claim) => format!("waiting for configuration from the leader, {}", claim.node),
            None => "nothing on disk, and nobody leads yet".to_owned(),
        }
    }
}
