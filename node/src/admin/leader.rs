//! What only the leader can answer: is it live everywhere, and what is wrong with which object.
//! Other peers forward these calls to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use meshgate_core::compile::ObjectStatus;
use meshgate_core::intent::{Finding, ObjectKind, ObjectRef, Severity};
use meshgate_core::snapshot::{HeadId, Key};
use meshgate_proto::admin as pb;
use prost::Message;
use tokio::sync::watch;

use super::head_to_proto;
use crate::cluster::Members;
use crate::identity::NodeName;
use crate::reconcile::LeaderHandle;
use crate::reconcile::book::{Changed, resource_key};
use crate::replicate::{Follower, FollowerMap, Followers, ForwardError, ForwardHandler};

/// Names of forwarded calls.
pub const WAIT: &str = "wait";
/// See [`WAIT`].
pub const FINDINGS: &str = "findings";

/// The longest wait that a caller may ask for.
pub const MAX_WAIT: Duration = Duration::from_secs(600);

/// Reasons that an answer carries in full.
const MAX_REASONS: usize = 10;

/// How often a waiting call looks at the source's state again.
const POLL: Duration = Duration::from_millis(20);

/// How long a call waits for peers that gossip hears and that do not follow this leader yet: right
/// after a takeover, all of them.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Answers for the leader.
#[derive(Clone)]
pub struct LeaderSide {
    /// This process's reconciler.
    pub leader: LeaderHandle,
    /// Who follows.
    pub followers: Followers,
    /// Who is there, by gossip.
    pub members: watch::Receiver<Arc<Members>>,
}

impl ForwardHandler for LeaderSide {
    fn forward(&self, _: &NodeName, method: &str, body: Bytes) -> BoxFuture<'static, Result<Bytes, ForwardError>> {
        let (side, method) = (self.clone(), method.to_owned());
        Box::pin(async move {
            if side.leader.term().is_none() {
                return Err(ForwardError::Unavailable("this peer does not lead".to_owned()));
            }
            let invalid = |error: prost::DecodeError| ForwardError::Invalid(error.to_string());
            match method.as_str() {
                WAIT => Ok(side.wait(pb::WaitRequest::decode(body).map_err(invalid)?).await.encode_to_vec().into()),
                FINDINGS => {
                    let request = pb::ListFindingsRequest::decode(body).map_err(invalid)?;
                    Ok(side.findings(&request).encode_to_vec().into())
                }
                _ => Err(ForwardError::UnknownMethod(method)),
            }
        })
    }
}

/// Answers for a process that never leads.
pub struct NeverLeads;

impl ForwardHandler for NeverLeads {
    fn forward(&self, _: &NodeName, _: &str, _: Bytes) -> BoxFuture<'static, Result<Bytes, ForwardError>> {
        Box::pin(async { Err(ForwardError::Unavailable("this peer is no reconciler".to_owned())) })
    }
}

impl LeaderSide {
    /// All findings, or those of a namespace.
    pub fn findings(&self, request: &pb::ListFindingsRequest) -> pb::ListFindingsResponse {
        let findings = self.leader.book().findings();
        let wanted = findings.iter().filter(|finding| {
            let namespace = finding.object.as_ref().map_or("", |object| &object.namespace);
            request.namespace.is_empty() || namespace == request.namespace
        });
        pb::ListFindingsResponse { findings: wanted.map(finding_to_proto).collect() }
    }

    /// Reads the source now and waits until what it holds is live on every expected peer.
    pub async fn wait(&self, request: pb::WaitRequest) -> pb::WaitResponse {
        let asked = Instant::now();
        let give_up = asked + Duration::from_millis(request.timeout_ms).min(MAX_WAIT);
        if let Err(reason) = self.leader.read_now().await {
            return rejected(vec![reason]);
        }
        let target = match self.target(&request, give_up).await {
            Ok(target) => target,
            Err(response) => return *response,
        };
        let already = target.done(&self.expected(asked));
        let done = already || self.live_everywhere(&target, asked, give_up).await;
        let expected = self.expected(asked);
        let mut response = target.response(&expected, !already);
        response.result = if done { "live" } else { "timeout" }.to_owned();
        if let Some(reasons) = target.not_bound(&expected) {
            response.result = "rejected".to_owned();
            response.reasons = reasons;
        }
        response
    }

    /// Waits until what is meant is live on every peer that is waited for. False: it took too long.
    async fn live_everywhere(&self, target: &Target, asked: Instant, give_up: Instant) -> bool {
        let (mut followers, mut members) = (self.followers.clone(), self.members.clone());
        loop {
            members.mark_unchanged();
            let expected = self.expected(asked);
            if target.done(&expected) {
                return true;
            }
            if Instant::now() >= give_up {
                return false;
            }
            let settles = asked + ANSWER_WAIT;
            let next = if expected.settled { give_up } else { settles.min(give_up) };
            tokio::select! {
                () = followers.changed() => {}
                Ok(()) = members.changed() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    fn expected(&self, asked: Instant) -> Expected {
        Expected::new(&self.followers.snapshot(), &self.members.borrow(), asked.elapsed() >= ANSWER_WAIT)
    }

    /// What to wait for, or the answer if there is nothing to wait for.
    async fn target(&self, request: &pb::WaitRequest, give_up: Instant) -> Result<Target, Box<pb::WaitResponse>> {
        let book = self.leader.book();
        if request.name.is_empty() {
            let reasons = all_errors(&book.findings());
            if !reasons.is_empty() {
                return Err(Box::new(rejected(reasons)));
            }
            let changed = book.changed_last().ok_or_else(|| Box::new(result("not_found")))?;
            return Ok(Target { changed, key: None });
        }
        let object = object_ref(request).ok_or_else(|| {
            Box::new(rejected(vec![format!("kind {:?} is not one that meshgate serves", request.kind)]))
        })?;
        if request.deleted {
            while book.knows(&object) && Instant::now() < give_up {
                tokio::time::sleep(POLL).await;
            }
            if book.knows(&object) {
                return Err(Box::new(pb::WaitResponse {
                    reasons: vec![format!("the source still holds {object}")],
                    ..result("timeout")
                }));
            }
        } else {
            if !book.knows(&object) {
                return Err(Box::new(result("not_found")));
            }
            let mut reasons = errors(&book.findings_of(&object));
            if reasons.is_empty() && unattached(book.status(&object).as_deref(), &object) {
                reasons.push(format!("no parent accepts {object}: it is attached to nothing"));
            }
            if !reasons.is_empty() {
                return Err(Box::new(rejected(reasons)));
            }
        }
        let changed = book.changed(&object).ok_or_else(|| Box::new(result("not_found")))?;
        Ok(Target { changed, key: resource_key(&object) })
    }
}

/// The peers on which something must be live: whoever follows this peer, and every gateway that
/// gossip hears. Not one that gossip has lost: its stream may seem open for a while.
#[derive(Debug)]
struct Expected {
    /// What each follower acknowledged; `None` for a process that has not followed this one.
    peers: BTreeMap<NodeName, Option<Follower>>,
    /// Those were waited for long enough: they are only named any more.
    settled: bool,
}

impl Expected {
    fn new(followers: &FollowerMap, members: &Members, settled: bool) -> Self {
        let gone = |node: &NodeName| members.node(node).is_some_and(|member| !member.alive);
        let connected = followers.iter().filter(|(node, follower)| follower.connected && !gone(node));
        let mut peers: BTreeMap<_, _> =
            connected.map(|(node, follower)| (node.clone(), Some(follower.clone()))).collect();
        for member in members.nodes().filter(|member| member.alive && member.facts.roles.gateway) {
            let (node, instance) = (&member.facts.node, member.facts.instance);
            let known = followers.get(node).filter(|follower| follower.instance == instance);
            peers.entry(node.clone()).or_insert_with(|| known.cloned());
        }
        Expected { peers, settled }
    }
}

/// What must be live.
struct Target {
    changed: Changed,
    key: Option<Key>,
}

impl Target {
    fn live_on(&self, follower: &Follower) -> bool {
        follower.ack.live >= self.changed.head && !self.key.as_ref().is_some_and(|key| follower.ack.holds(key))
    }

    /// Every expected peer has it live, as far as it is waited for.
    fn done(&self, expected: &Expected) -> bool {
        let live = |follower: &Option<Follower>| match follower {
            Some(follower) => self.live_on(follower),
            None => expected.settled,
        };
        !expected.peers.is_empty() && expected.peers.values().all(live)
    }

    fn response(&self, expected: &Expected, waited: bool) -> pb::WaitResponse {
        let is_live = |follower: &Option<Follower>| follower.as_ref().is_some_and(|follower| self.live_on(follower));
        let (live, missing): (Vec<_>, Vec<_>) = expected.peers.iter().partition(|(_, follower)| is_live(follower));
        let since_read = |at: Instant| at.saturating_duration_since(self.changed.read_at).as_secs_f64() * 1e3;
        // An acknowledgement of a later head says nothing about when this one became live, unless
        // this call saw it happen.
        let exact = |head: HeadId| waited || head == self.changed.head;
        let slowest = live
            .iter()
            .filter_map(|(node, follower)| follower.as_ref().map(|follower| (*node, follower)))
            .filter(|(_, follower)| exact(follower.ack.live))
            .filter_map(|(node, follower)| follower.acked_at.map(|at| (node, since_read(at))))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        pb::WaitResponse {
            head: Some(head_to_proto(self.changed.head)),
            live: count(live.len()),
            expected: count(expected.peers.len()),
            took_ms: slowest.map_or(0.0, |(_, ms)| ms),
            slowest_node: slowest.map(|(node, _)| node.to_string()).unwrap_or_default(),
            slowest_ms: slowest.map_or(0.0, |(_, ms)| ms),
            missing: missing.iter().map(|(node, _)| node.to_string()).collect(),
            reasons: self.held_back(&missing),
            ..pb::WaitResponse::default()
        }
    }

    fn held_back(&self, missing: &[(&NodeName, &Option<Follower>)]) -> Vec<String> {
        let silent = missing.iter().filter(|(_, follower)| follower.is_none());
        let silent = silent.map(|(node, _)| format!("{node} is there, but does not follow the leader"));
        let Some(key) = &self.key else { return silent.collect() };
        let held = missing.iter().filter_map(|(node, follower)| Some((node, follower.as_ref()?)));
        let held = held.flat_map(|(node, follower)| {
            let of_key = follower.ack.held.iter().filter(|held| held.key == *key);
            of_key.map(move |held| format!("{node} holds {key} back: {}", held.reason))
        });
        silent.chain(held).collect()
    }

    /// Peers on which a Gateway's sockets are not bound, if it is a Gateway that is meant.
    fn not_bound(&self, expected: &Expected) -> Option<Vec<String>> {
        let key = self.key.as_ref()?;
        let errors: Vec<String> = expected
            .peers
            .iter()
            .filter_map(|(node, follower)| Some((node, follower.as_ref()?)))
            .flat_map(|(node, follower)| {
                let of_key = follower.ack.bind_errors.iter().filter(|error| error.gateway == *key);
                of_key.map(move |error| format!("{node} can't listen on {}: {}", error.address, error.message))
            })
            .collect();
        (!errors.is_empty()).then_some(errors)
    }
}

fn errors(findings: &[Finding]) -> Vec<String> {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| format!("{} {}: {}", finding.code, finding.field, finding.message)).collect()
}

/// The errors of all objects, the first of them in full.
fn all_errors(findings: &[Finding]) -> Vec<String> {
    let errors: Vec<&Finding> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    let words = |finding: &&Finding| {
        let object = finding.object.as_ref().map_or_else(|| finding.origin.clone(), ToString::to_string);
        format!("{} {object} {}: {}", finding.code, finding.field, finding.message)
    };
    let mut reasons: Vec<String> = errors.iter().take(MAX_REASONS).map(words).collect();
    if errors.len() > MAX_REASONS {
        reasons.push(format!("and {} more: `meshctl analyze` shows all", errors.len() - MAX_REASONS));
    }
    reasons
}

/// A route that no parent accepts: nothing of it is served anywhere.
fn unattached(status: Option<&ObjectStatus>, object: &ObjectRef) -> bool {
    let accepted = |status: &ObjectStatus| {
        status.conditions.iter().any(|condition| condition.kind == "Accepted" && condition.status)
    };
    object.kind == ObjectKind::HttpRoute && !status.is_some_and(accepted)
}

fn result(result: &str) -> pb::WaitResponse {
    pb::WaitResponse { result: result.to_owned(), ..pb::WaitResponse::default() }
}

fn rejected(reasons: Vec<String>) -> pb::WaitResponse {
    pb::WaitResponse { reasons, ..result("rejected") }
}

/// The object that a wait is for; `None` for everything, or a kind that is not served.
pub(super) fn object_ref(request: &pb::WaitRequest) -> Option<ObjectRef> {
    const KINDS: &[ObjectKind] = &[
        ObjectKind::GatewayClass,
        ObjectKind::Gateway,
        ObjectKind::HttpRoute,
        ObjectKind::ReferenceGrant,
        ObjectKind::IngressClass,
        ObjectKind::Ingress,
        ObjectKind::Service,
        ObjectKind::EndpointSlice,
        ObjectKind::Secret,
        ObjectKind::Namespace,
    ];
    let kind = KINDS.iter().find(|kind| kind.name().eq_ignore_ascii_case(&request.kind))?;
    let cluster_scoped = matches!(kind, ObjectKind::GatewayClass | ObjectKind::IngressClass | ObjectKind::Namespace);
    let namespace = if cluster_scoped { "" } else { &request.namespace };
    Some(ObjectRef::new(*kind, namespace, &request.name))
}

fn finding_to_proto(finding: &Finding) -> pb::Finding {
    let object = finding.object.as_ref();
    pb::Finding {
        code: finding.code.to_owned(),
        severity: match finding.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
        .to_owned(),
        kind: object.map(|object| object.kind.name().to_owned()).unwrap_or_default(),
        namespace: object.map(|object| object.namespace.to_string()).unwrap_or_default(),
        name: object.map(|object| object.name.to_string()).unwrap_or_default(),
        field: finding.field.clone(),
        message: finding.message.clone(),
        origin: finding.origin.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Facts, Member, Roles};
    use crate::identity::InstanceId;
    use crate::replicate::Ack;

    const HEAD: HeadId = HeadId { epoch: 2, rev: 7 };

    fn member(node: &str, alive: bool) -> Member {
        let address = "127.0.0.1:1".parse().unwrap();
        let facts = Facts {
            node: node.into(),
            instance: InstanceId(1),
            tunnel: address,
            sync: address,
            admin: String::new(),
            roles: Roles { gateway: true, reconciler: true },
            head: HEAD,
            roots: String::new(),
            leader: None,
            ready: true,
            draining: false,
            version: String::new(),
            cert_not_after: 0,
        };
        Member { facts, alive, last_change: Instant::now(), generation: 1 }
    }

    fn follower(node: &str, instance: u64, connected: bool, live: HeadId) -> (NodeName, Follower) {
        let ack = Ack { applied: live, live, ..Ack::default() };
        (node.into(), Follower::of(InstanceId(instance), connected, ack))
    }

    fn done(followers: &[(NodeName, Follower)], members: &[Member], settled: bool) -> bool {
        let changed = Changed { head: HEAD, read_at: Instant::now() };
        let target = Target { changed, key: None };
        target.done(&Expected::new(&followers.iter().cloned().collect(), &Members::of(members.to_vec()), settled))
    }

    #[test]
    fn live_is_live_on_everybody_that_gossip_hears() {
        let own = follower("a", 1, true, HEAD);
        let both = [member("a", true), member("b", true)];
        assert!(!done(&[], &[], true), "nobody serves");
        assert!(done(std::slice::from_ref(&own), &both[..1], false));
        // Right after a takeover nobody follows yet: those that gossip hears are waited for.
        assert!(!done(std::slice::from_ref(&own), &both, false));
        assert!(done(std::slice::from_ref(&own), &both, true), "not for ever");
        assert!(done(&[own.clone(), follower("b", 1, true, HEAD)], &both, false));
        let behind = HeadId { rev: 6, ..HEAD };
        assert!(!done(&[own.clone(), follower("b", 1, true, behind)], &both, true));
        assert!(!done(&[own.clone(), follower("b", 1, false, behind)], &both, true), "alive, its stream is broken");
        assert!(!done(&[own.clone(), follower("b", 9, false, HEAD)], &both, false), "of the process before");
        assert!(!done(&[own.clone(), follower("c", 1, true, behind)], &both[..1], true), "not heard yet");
        let dead = [member("a", true), member("b", false)];
        assert!(done(&[own, follower("b", 1, true, behind)], &dead, false), "gossip has lost it");
    }
}
