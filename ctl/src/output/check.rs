//! What `verify`, `leader`, `wait` and `analyze` print.

use jiff::Timestamp;
use meshgate_core::intent;
use meshgate_proto::admin as proto;
use serde::Serialize;

use super::{Head, some};

/// `verify`: whether all peers serve the same, signed state.
#[derive(Debug, PartialEq, Serialize)]
pub struct Verification {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Who answered.
    pub node: String,
    /// What it serves.
    pub head: Option<Head>,
    /// Its digest, computed anew from the stored bytes, in hex.
    pub root: Option<String>,
    /// Whether the leader's signature covers it.
    pub signature_ok: bool,
    /// The leader that signed.
    pub signed_by: Option<String>,
    /// What is wrong on the answering peer itself.
    pub problem: Option<String>,
    /// How many resources were hashed.
    pub resources: u32,
    /// Peers that serve the same as the answering one, itself among them.
    pub same: u32,
    /// All peers.
    pub expected: u32,
    /// What the others say.
    pub peers: Vec<PeerDigest>,
}

/// What one peer says it serves.
#[derive(Debug, PartialEq, Serialize)]
pub struct PeerDigest {
    /// The node's name.
    pub node: String,
    /// Its head.
    pub head: Option<Head>,
    /// Its digest, in hex.
    pub root: Option<String>,
    /// `same`, `behind`, `ahead`, `divergent`, `unreachable`
    pub verdict: String,
    /// Resources that it could not apply, of which it serves the previous version.
    pub held: Vec<String>,
}

impl From<proto::PeerDigest> for PeerDigest {
    fn from(peer: proto::PeerDigest) -> Self {
        Self {
            node: peer.node,
            head: peer.head.map(Head::from),
            root: some(peer.root),
            verdict: peer.verdict,
            held: peer.held,
        }
    }
}

impl Verification {
    /// What `node` answered.
    pub fn new(node: String, answer: proto::VerifyResponse) -> Self {
        let peers: Vec<PeerDigest> = answer.peers.into_iter().map(PeerDigest::from).collect();
        let listed = peers.iter().any(|peer| peer.node == node);
        let sound = answer.signature_ok && answer.problem.is_empty();
        let agree = peers.iter().filter(|peer| peer.verdict == "same").count();
        let same = agree + usize::from(!listed && sound);
        let expected = peers.len() + usize::from(!listed);
        Self {
            ok: sound && same == expected && peers.iter().all(|peer| peer.held.is_empty()),
            node,
            head: answer.head.map(Head::from),
            root: some(answer.root),
            signature_ok: answer.signature_ok,
            signed_by: some(answer.signed_by),
            problem: some(answer.problem),
            resources: answer.resources,
            same: u32::try_from(same).unwrap_or(u32::MAX),
            expected: u32::try_from(expected).unwrap_or(u32::MAX),
            peers,
        }
    }
}

/// `leader`: who leads, as far as the answering peer knows.
#[derive(Debug, PartialEq, Serialize)]
pub struct Leader {
    /// `null`: nobody.
    pub node: Option<String>,
    /// Its epoch.
    pub epoch: u64,
    /// Since when, as it told.
    pub since: Option<Timestamp>,
    /// The newest rev of it.
    pub rev: u64,
}

impl From<proto::GetLeaderResponse> for Leader {
    fn from(answer: proto::GetLeaderResponse) -> Self {
        let since = if answer.since_ms == 0 { None } else { Timestamp::from_millisecond(answer.since_ms).ok() };
        Self { node: some(answer.node), epoch: answer.epoch, since, rev: answer.rev }
    }
}

/// `wait`: how it ended.
#[derive(Debug, PartialEq, Serialize)]
pub struct Waited {
    /// What was waited for; `null`: everything.
    pub object: Option<ObjectRef>,
    /// `live` or `deleted`
    #[serde(rename = "for")]
    pub condition: &'static str,
    /// `live` (the condition holds), `timeout`, `not_found`, `rejected`, `no_leader`
    pub result: String,
    /// The state that has it.
    pub head: Option<Head>,
    /// The object's generation; 0 for everything.
    pub generation: u64,
    /// Peers where the condition holds.
    pub live: u32,
    /// Peers where it should.
    pub expected: u32,
    /// From the leader's reading of the change to the last acknowledgement.
    pub took_ms: f64,
    /// The last peer to acknowledge.
    pub slowest: Option<Slowest>,
    /// Peers where the condition doesn't hold yet.
    pub missing: Vec<String>,
    /// Why it is rejected, or what holds it back.
    pub reasons: Vec<String>,
}

/// An object by kind, namespace and name.
#[derive(Debug, PartialEq, Serialize)]
pub struct ObjectRef {
    /// As in its manifest.
    pub kind: String,
    /// Empty for kinds without one.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The peer that took longest.
#[derive(Debug, PartialEq, Serialize)]
pub struct Slowest {
    /// The node's name.
    pub node: String,
    /// How long it took.
    pub ms: f64,
}

impl Waited {
    /// What the leader answered about `object`.
    pub fn new(object: Option<ObjectRef>, condition: &'static str, answer: proto::WaitResponse) -> Self {
        let slowest = some(answer.slowest_node).map(|node| Slowest { node, ms: answer.slowest_ms });
        Self {
            object,
            condition,
            result: answer.result,
            head: answer.head.map(Head::from),
            generation: answer.generation,
            live: answer.live,
            expected: answer.expected,
            took_ms: answer.took_ms,
            slowest,
            missing: answer.missing,
            reasons: answer.reasons,
        }
    }
}

/// `analyze`: what is wrong with which object, errors first.
#[derive(Debug, PartialEq, Serialize)]
pub struct Findings {
    /// Empty if all is well.
    pub findings: Vec<Finding>,
}

/// One problem of one object.
#[derive(Debug, PartialEq, Serialize)]
pub struct Finding {
    /// `MGxxxx`; never given another meaning.
    pub code: String,
    /// `warning`, `error`
    pub severity: String,
    /// The object.
    pub object: ObjectRef,
    /// The field, as a path.
    pub field: Option<String>,
    /// The problem in words.
    pub message: String,
    /// File and line, or wherever the object came from.
    pub origin: Option<String>,
}

impl From<&intent::Finding> for Finding {
    fn from(finding: &intent::Finding) -> Self {
        let object = finding.object.as_ref();
        let severity = match finding.severity {
            intent::Severity::Warning => "warning",
            intent::Severity::Error => "error",
        };
        Self {
            code: finding.code.to_owned(),
            severity: severity.to_owned(),
            object: ObjectRef {
                kind: object.map(|object| object.kind.name().to_owned()).unwrap_or_default(),
                namespace: object.map(|object| object.namespace.to_string()).unwrap_or_default(),
                name: object.map(|object| object.name.to_string()).unwrap_or_default(),
            },
            field: some(finding.field.clone()),
            message: finding.message.clone(),
            origin: some(finding.origin.clone()),
        }
    }
}

impl From<proto::Finding> for Finding {
    fn from(finding: proto::Finding) -> Self {
        Self {
            code: finding.code,
            severity: finding.severity,
            object: ObjectRef { kind: finding.kind, namespace: finding.namespace, name: finding.name },
            field: some(finding.field),
            message: finding.message,
            origin: some(finding.origin),
        }
    }
}
