//! Readiness that tells the truth: a peer is ready when it serves a table at least as new as what
//! the mesh had when it started, and its listeners are bound and have their keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use meshgate_core::snapshot::HeadId;
use tokio::sync::watch;

use crate::admin::Readiness;
use crate::cluster::Members;
use crate::drain::{Drain, Phase};
use crate::edge::LiveReport;
use crate::identity::NodeName;
use crate::replicate::Applied;

/// How long a peer that has a table listens at its start for others that may have a newer one.
const LISTEN: Duration = Duration::from_millis(500);

/// How long it listens if it has heard of others: gossip takes a few rounds to believe that they live.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// How long it waits for the newer one that it heard of, and for keys.
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
        let live = self.live.borrow().clone();
        let reason = self.now(&live).not_ready();
        if reason.is_none() {
            self.caught_up.store(true, Ordering::Relaxed);
        }
        reason
    }
}

impl Ready {
    fn now<'a>(&self, live: &'a LiveReport) -> Now<'a> {
        let members = self.members.borrow().clone();
        let others: Vec<_> = members.alive().filter(|member| member.facts.node != self.node).collect();
        let head_of = |node: &NodeName| {
            let of_node = others.iter().filter(|member| member.facts.node == *node);
            of_node.map(|member| member.facts.head).max().unwrap_or_default()
        };
        let leader = members.leader().map(|claim| claim.node);
        Now {
            serving: self.drain.phase() == Phase::Serving,
            caught_up: self.caught_up.load(Ordering::Relaxed),
            since: self.started.elapsed(),
            applied: self.applied.borrow().as_ref().map(|applied| applied.id()),
            live,
            newest: others.iter().map(|member| member.facts.head).max(),
            heard_of: members.all().iter().any(|member| member.facts.node != self.node),
            leader: leader.map(|node| match node == self.node {
                true => Leader::Own,
                false => Leader::Other(head_of(&node), node),
            }),
        }
    }
}

/// Who leads by its own word.
#[derive(Clone, Debug)]
enum Leader {
    /// This peer.
    Own,
    /// Another one, and the head that it says it has.
    Other(HeadId, NodeName),
}

/// All that readiness depends on.
#[derive(Clone, Debug)]
struct Now<'a> {
    serving: bool,
    /// It was ready before.
    caught_up: bool,
    /// Since the process's start.
    since: Duration,
    applied: Option<HeadId>,
    live: &'a LiveReport,
    /// The newest head that another live peer says it has; `None` when no other peer is heard.
    newest: Option<HeadId>,
    /// Gossip knows others, which may be dead.
    heard_of: bool,
    leader: Option<Leader>,
}

impl Now<'_> {
    /// Why the peer is not ready. What others say only delays it within the bounds: a peer that
    /// nobody answers, or somebody lies to, serves what it has.
    fn not_ready(&self) -> Option<String> {
        if !self.serving {
            return Some("draining".to_owned());
        }
        let Some(applied) = self.applied else { return Some(self.why_nothing()) };
        let live = self.live.head;
        if live == HeadId::default() {
            return Some(format!("head {applied} is applied, its listeners are not bound yet"));
        }
        if self.caught_up {
            return None;
        }
        self.nothing_bound().or_else(|| self.behind(applied)).or_else(|| self.not_live(applied))
    }

    /// Every socket that is wanted here failed. A Gateway without an address here wants none.
    fn nothing_bound(&self) -> Option<String> {
        let error = self.live.errors.iter().find(|error| error.address.is_some())?;
        let address = error.address.map(|address| address.to_string()).unwrap_or_default();
        let nothing = self.live.bound.is_empty();
        nothing.then(|| format!("no listener is bound: {} can't listen on {address}: {}", error.gateway, error.message))
    }

    /// What is applied may not be the newest.
    fn behind(&self, applied: HeadId) -> Option<String> {
        let newest = self.newest.unwrap_or_default();
        if applied < newest && self.since < CATCH_UP {
            return Some(format!("catching up: head {applied} is applied, others have {newest}"));
        }
        // The leader has the newest; without its word the others are listened to for a while,
        // because those heard first may have just started too.
        let heard = match &self.leader {
            Some(Leader::Own) => true,
            Some(Leader::Other(head, _)) => *head != HeadId::default(),
            None => false,
        };
        let listen = if self.newest.is_none() && self.heard_of { LISTEN_AGAIN } else { LISTEN };
        let listening = !heard && self.since < listen;
        listening.then(|| format!("head {applied} is applied; asking whether others have a newer one"))
    }

    /// The listeners are not yet those of what is applied, or can't do TLS. Not for ever: the
    /// others are served meanwhile.
    fn not_live(&self, applied: HeadId) -> Option<String> {
        if self.since >= CATCH_UP {
            return None;
        }
        if self.live.head < applied {
            return Some(format!("head {applied} is applied, listeners are bound for {}", self.live.head));
        }
        let certificate = self.live.missing_keys.first()?;
        Some(format!("the private key of {certificate} is not here yet"))
    }

    fn why_nothing(&self) -> String {
        match &self.leader {
            Some(Leader::Own) => "this peer leads and is reading the source".to_owned(),
            Some(Leader::Other(_, node)) => format!("waiting for configuration from the leader, {node}"),
            None => "nothing on disk, and nobody leads yet".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use meshgate_core::snapshot::{Key, Kind, Protocol};

    use super::*;
    use crate::edge::{BindError, BoundListener};

    const EARLY: Duration = Duration::from_millis(100);

    fn id(rev: u64) -> HeadId {
        HeadId { epoch: 1, rev }
    }

    fn report(rev: u64) -> LiveReport {
        let bound = BoundListener {
            gateway: Key::new(Kind::Gateway, "a", "web"),
            port: 80,
            protocol: Protocol::Http,
            address: "127.0.0.1:80".parse().unwrap(),
        };
        LiveReport { head: id(rev), bound: vec![bound], errors: Vec::new(), missing_keys: Vec::new() }
    }

    fn failed(mut live: LiveReport, address: Option<&str>) -> LiveReport {
        live.errors.push(BindError {
            gateway: Key::new(Kind::Gateway, "a", "web"),
            port: 80,
            address: address.map(|address| address.parse().unwrap()),
            message: "in use".to_owned(),
        });
        live
    }

    /// A peer that follows a leader and has all that it has.
    fn good(live: &LiveReport) -> Now<'_> {
        Now {
            serving: true,
            caught_up: false,
            since: EARLY,
            applied: Some(id(5)),
            live,
            newest: Some(id(5)),
            heard_of: true,
            leader: Some(Leader::Other(id(5), "b".into())),
        }
    }

    fn assert_not_ready(now: &Now<'_>, why: &str) {
        let reason = now.not_ready().unwrap_or_else(|| panic!("ready, though {why}"));
        assert!(reason.contains(why), "{reason:?} does not say {why:?}");
    }

    #[test]
    fn who_has_what_the_leader_has_is_ready_at_once() {
        let live = report(5);
        assert_eq!(good(&live).not_ready(), None);
        assert_eq!(Now { leader: Some(Leader::Own), newest: None, ..good(&live) }.not_ready(), None);
        assert_not_ready(&Now { serving: false, caught_up: true, ..good(&live) }, "draining");
    }

    #[test]
    fn nothing_applied_is_never_ready() {
        let live = report(5);
        let nothing = Now { applied: None, since: Duration::from_secs(99), ..good(&live) };
        assert_not_ready(&nothing, "from the leader, b");
        assert_not_ready(&Now { leader: None, ..nothing.clone() }, "nobody leads");
        assert_not_ready(&Now { leader: Some(Leader::Own), ..nothing }, "reading the source");
    }

    #[test]
    fn others_are_listened_to_and_caught_up_with_within_bounds() {
        let live = report(5);
        let alone = Now { leader: None, newest: None, heard_of: false, ..good(&live) };
        assert_not_ready(&alone, "asking");
        assert_eq!(Now { since: LISTEN, ..alone.clone() }.not_ready(), None);
        let heard_of = Now { heard_of: true, since: LISTEN, ..alone.clone() };
        assert_not_ready(&heard_of, "asking");
        assert_eq!(Now { since: LISTEN_AGAIN, ..heard_of }.not_ready(), None);
        // Others that have just started say nothing about what the mesh has.
        assert_not_ready(&Now { newest: Some(HeadId::default()), ..alone }, "asking");
        let behind = Now { newest: Some(id(6)), ..good(&live) };
        assert_not_ready(&behind, "catching up");
        assert_eq!(Now { since: CATCH_UP, ..behind.clone() }.not_ready(), None);
        assert_eq!(Now { caught_up: true, ..behind }.not_ready(), None, "ready once is ready");
    }

    #[test]
    fn listeners_have_to_be_bound() {
        let late = Duration::from_secs(99);
        assert_not_ready(&Now { since: late, ..good(&LiveReport::default()) }, "not bound yet");
        let none = LiveReport { bound: Vec::new(), ..report(5) };
        assert_eq!(good(&none).not_ready(), None, "no listener is wanted");
        assert_eq!(good(&failed(none.clone(), None)).not_ready(), None, "none is wanted here");
        let all = failed(none, Some("127.0.0.1:80"));
        assert_not_ready(&Now { since: late, ..good(&all) }, "can't listen on 127.0.0.1:80");
        assert_eq!(good(&failed(report(5), Some("127.0.0.1:80"))).not_ready(), None, "one of them serves");
        let older = report(4);
        assert_not_ready(&good(&older), "bound for");
        assert_eq!(Now { since: CATCH_UP, ..good(&older) }.not_ready(), None);
    }

    #[test]
    fn keys_are_waited_for_within_bounds() {
        let mut live = report(5);
        live.missing_keys.push(Key::new(Kind::Certificate, "a", "tls"));
        assert_not_ready(&good(&live), "private key");
        assert_eq!(Now { since: CATCH_UP, ..good(&live) }.not_ready(), None);
        assert_eq!(Now { caught_up: true, ..good(&live) }.not_ready(), None);
    }
}
