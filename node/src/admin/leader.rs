//! What only the leader can answer: is it live everywhere, and what is wrong with which object.
//! Other peers forward these calls to it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use meshgate_core::intent::{Finding, ObjectKind, ObjectRef, Severity};
use meshgate_core::snapshot::{HeadId, Key};
use meshgate_proto::admin as pb;
use prost::Message;

use super::head_to_proto;
use crate::identity::NodeName;
use crate::reconcile::LeaderHandle;
use crate::reconcile::book::{Changed, resource_key};
use crate::replicate::{FollowerMap, Followers, ForwardError, ForwardHandler};

/// Names of forwarded calls.
pub const WAIT: &str = "wait";
/// See [`WAIT`].
pub const FINDINGS: &str = "findings";

/// The longest wait that a caller may ask for.
pub const MAX_WAIT: Duration = Duration::from_secs(600);

/// How often a waiting call looks at the source's state again.
const POLL: Duration = Duration::from_millis(20);

/// Answers for the leader.
#[derive(Clone)]
pub struct LeaderSide {
    /// This process's reconciler.
    pub leader: LeaderHandle,
    /// Who follows.
    pub followers: Followers,
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
        let timeout = Duration::from_millis(request.timeout_ms).min(MAX_WAIT);
        let give_up = Instant::now() + timeout;
        if let Err(reason) = self.leader.read_now().await {
            return rejected(vec![reason]);
        }
        let target = match self.target(&request, give_up).await {
            Ok(target) => target,
            Err(response) => return *response,
        };
        let mut followers = self.followers.clone();
        let already = target.done(&followers.snapshot());
        let left = give_up.saturating_duration_since(Instant::now());
        let done = tokio::time::timeout(left, followers.wait_for(|map| target.done(map))).await.is_ok();
        let map = followers.snapshot();
        let mut response = target.response(&map, !already);
        response.result = if done { "live" } else { "timeout" }.to_owned();
        if let Some(reasons) = target.not_bound(&map) {
            response.result = "rejected".to_owned();
            response.reasons = reasons;
        }
        response
    }

    /// What to wait for, or the answer if there is nothing to wait for.
    async fn target(&self, request: &pb::WaitRequest, give_up: Instant) -> Result<Target, Box<pb::WaitResponse>> {
        let book = self.leader.book();
        if request.name.is_empty() {
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
            let reasons = errors(&book.findings(), &object);
            if !reasons.is_empty() {
                return Err(Box::new(rejected(reasons)));
            }
        }
        let changed = book.changed(&object).ok_or_else(|| Box::new(result("not_found")))?;
        Ok(Target { changed, key: resource_key(&object) })
    }
}

/// What must be live.
struct Target {
    changed: Changed,
    key: Option<Key>,
}

impl Target {
    fn live_on(&self, follower: &crate::replicate::Follower) -> bool {
        follower.ack.live >= self.changed.head && !self.key.as_ref().is_some_and(|key| follower.ack.holds(key))
    }

    /// Every expected peer (its stream is open) has it live.
    fn done(&self, map: &FollowerMap) -> bool {
        let mut expected = map.values().filter(|follower| follower.connected).peekable();
        expected.peek().is_some() && expected.all(|follower| self.live_on(follower))
    }

    fn response(&self, map: &FollowerMap, waited: bool) -> pb::WaitResponse {
        let expected: Vec<_> = map.iter().filter(|(_, follower)| follower.connected).collect();
        let (live, missing): (Vec<_>, Vec<_>) =
            expected.iter().copied().partition(|(_, follower)| self.live_on(follower));
        let since_read = |at: Instant| at.saturating_duration_since(self.changed.read_at).as_secs_f64() * 1e3;
        // An acknowledgement of a later head says nothing about when this one became live, unless
        // this call saw it happen.
        let exact = |head: HeadId| waited || head == self.changed.head;
        let slowest = live
            .iter()
            .filter(|(_, follower)| exact(follower.ack.live))
            .filter_map(|(node, follower)| follower.acked_at.map(|at| (*node, since_read(at))))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        pb::WaitResponse {
            head: Some(head_to_proto(self.changed.head)),
            live: count(live.len()),
            expected: count(expected.len()),
            took_ms: slowest.map_or(0.0, |(_, ms)| ms),
            slowest_node: slowest.map(|(node, _)| node.to_string()).unwrap_or_default(),
            slowest_ms: slowest.map_or(0.0, |(_, ms)| ms),
            missing: missing.iter().map(|(node, _)| node.to_string()).collect(),
            reasons: self.held_back(&missing),
            ..pb::WaitResponse::default()
        }
    }

    fn held_back(&self, missing: &[(&NodeName, &crate::replicate::Follower)]) -> Vec<String> {
        let Some(key) = &self.key else { return Vec::new() };
        let held = missing.iter().flat_map(|(node, follower)| {
            let of_key = follower.ack.held.iter().filter(|held| held.key == *key);
            of_key.map(move |held| format!("{node} holds {key} back: {}", held.reason))
        });
        held.collect()
    }

    /// Peers on which a Gateway's sockets are not bound, if it is a Gateway that is meant.
    fn not_bound(&self, map: &FollowerMap) -> Option<Vec<String>> {
        let key = self.key.as_ref()?;
        let errors: Vec<String> = map
            .iter()
            .filter(|(_, follower)| follower.connected)
            .flat_map(|(node, follower)| {
                let of_key = follower.ack.bind_errors.iter().filter(|error| error.gateway == *key);
                of_key.map(move |error| format!("{node} can't listen on {}: {}", error.address, error.message))
            })
            .collect();
        (!errors.is_empty()).then_some(errors)
    }
}

fn errors(findings: &[Finding], object: &ObjectRef) -> Vec<String> {
    let of_object = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error && finding.object.as_ref() == Some(object));
    of_object.map(|finding| format!("{} {}: {}", finding.code, finding.field, finding.message)).collect()
}

fn result(result: &str) -> pb::WaitResponse {
    pb::WaitResponse { result: result.to_owned(), ..pb::WaitResponse::default() }
}

fn rejected(reasons: Vec<String>) -> pb::WaitResponse {
    pb::WaitResponse { reasons, ..result("rejected") }
}

fn object_ref(request: &pb::WaitRequest) -> Option<ObjectRef> {
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
