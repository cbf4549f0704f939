//! What this peer tells the others by gossip.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use meshgate_core::snapshot::HeadId;
use tokio::sync::watch;

use super::ready::Ready;
use crate::admin::{Readiness, short_root};
use crate::cluster::{Cluster, Facts, LeaderClaim, Roles};
use crate::config::{Config, Role};
use crate::drain::{Drain, Phase};
use crate::identity::NodeIdentity;
use crate::reconcile::LeaderHandle;
use crate::replicate::Applied;

/// How often readiness, leadership and certificate are looked at; a new head is told at once.
const LOOK: Duration = Duration::from_millis(50);

/// What is known before anything ran.
pub(super) fn initial(config: &Config, identity: &NodeIdentity) -> Facts {
    Facts {
        node: identity.node().clone(),
        instance: identity.instance(),
        tunnel: config.at(config.ports.tunnel),
        sync: config.at(config.ports.sync),
        admin: config.at(config.ports.admin).to_string(),
        roles: Roles { gateway: config.has(Role::Gateway), reconciler: config.has(Role::Reconciler) },
        head: HeadId::default(),
        roots: String::new(),
        leader: None,
        ready: false,
        draining: false,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cert_not_after: not_after(identity),
    }
}

fn not_after(identity: &NodeIdentity) -> u64 {
    identity.not_after().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Keeps the facts true.
pub(super) struct Publisher {
    pub cluster: Cluster,
    pub identity: NodeIdentity,
    pub base: Facts,
    pub applied: watch::Receiver<Option<Arc<Applied>>>,
    pub leader: Option<LeaderHandle>,
    pub readiness: Arc<Ready>,
    pub drain: Drain,
}

impl Publisher {
    /// Runs until the process is cut.
    pub(super) async fn run(mut self) {
        let mut last = None;
        loop {
            let facts = self.now();
            if last.as_ref() != Some(&facts) {
                self.cluster.publish(|published| *published = facts.clone());
                last = Some(facts);
            }
            tokio::select! {
                changed = self.applied.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK) => {}
                () = self.drain.reached(Phase::Cut) => return,
            }
        }
    }

    fn now(&mut self) -> Facts {
        let mut facts = self.base.clone();
        if let Some(applied) = self.applied.borrow_and_update().as_ref() {
            facts.head = applied.id();
            facts.roots = short_root(applied.head.roots());
        }
        let term = self.leader.as_ref().and_then(LeaderHandle::term);
        facts.leader =
            term.map(|term| LeaderClaim { epoch: term.epoch, node: facts.node.clone(), since_ms: term.since_ms });
        facts.ready = self.readiness.not_ready().is_none();
        facts.draining = self.drain.phase() > Phase::Serving;
        facts.cert_not_after = not_after(&self.identity);
        facts
    }
}
