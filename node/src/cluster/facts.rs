//! What a node says of itself, and how readers know that it was that node.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use meshgate_core::snapshot::HeadId;
use serde::{Deserialize, Serialize};

use crate::identity::{IdentityError, InstanceId, NodeIdentity, NodeName, Trust};

/// Largest encoding of [`Facts`], before signature and certificate.
pub const MAX_FACTS: usize = 1024;

/// What one instance of a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The node.
    pub node: NodeName,
    /// Its process.
    pub instance: InstanceId,
    /// Where its tunnel listens.
    pub tunnel: SocketAddr,
    /// Where its replication listens.
    pub sync: SocketAddr,
    /// Where its admin API listens, for people.
    pub admin: String,
    /// What it does.
    pub roles: Roles,
    /// The head that it has applied.
    pub head: HeadId,
    /// Short digest of that head's roots.
    pub roots: String,
    /// Whom it believes to lead.
    pub leader: Option<LeaderClaim>,
    /// Serves traffic.
    pub ready: bool,
    /// Is about to end.
    pub draining: bool,
    /// Its version.
    pub version: String,
    /// When its certificate ends, in seconds since 1970.
    pub cert_not_after: u64,
}

/// What a node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Carries traffic.
    pub gateway: bool,
    /// May lead.
    pub reconciler: bool,
}

/// A leader, as one node sees it. Unsigned by the leader: a hint where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderClaim {
    /// Its epoch.
    pub epoch: u64,
    /// Its node.
    pub node: NodeName,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// What is signed before the facts, so that no other signature of a node can stand for them.
const CONTEXT: &[u8] = b"meshgate facts 1\0";
/// Longest value that is looked at.
const MAX_VALUE: usize = 4096;
/// Length of a node id in gossip: half a blake3 of the node's name, in hexadecimal digits. Short,
/// because each message carries all of them.
const ID_DIGITS: usize = 16;

/// A node's id in gossip.
pub(super) fn gossip_id(node: &NodeName) -> String {
    blake3::hash(node.0.as_bytes()).to_hex().chars().take(ID_DIGITS).collect()
}

/// One life of a node in gossip: signed with the facts, so that they can't be replayed in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// Its start, in milliseconds since 1970.
    pub generation: u64,
    /// The gossip address.
    pub address: SocketAddr,
}

/// Facts as they travel, with the life that they belong to; `serial` orders them within it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wire {
    generation: u64,
    gossip: SocketAddr,
    serial: u64,
    node: String,
    instance: u64,
    tunnel: SocketAddr,
    sync: SocketAddr,
    admin: String,
    roles: Roles,
    head: (u64, u64),
    roots: String,
    leader: Option<(u64, String, u64)>,
    ready: bool,
    draining: bool,
    version: String,
    cert_not_after: u64,
}

/// A signed announcement: the two values that gossip carries for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// Base64 of the facts, a dot, base64 of the signature.
    pub facts: String,
    /// Base64 of the certificate whose key signed; changes only when that is renewed.
    pub certificate: String,
}

/// Facts that the node which they name has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    pub facts: Facts,
    pub serial: u64,
}

/// Why a value is not believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unverified {
    #[error("unreadable")]
    Unreadable,
    #[error("{0}")]
    Signature(IdentityError),
    #[error("signed by {0}, which is another node")]
    Foreign(NodeName),
    #[error("of another life of the node")]
    Generation,
}

impl Unverified {
    /// A word for metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Unverified::Unreadable => "unreadable",
            Unverified::Signature(_) => "signature",
            Unverified::Foreign(_) => "foreign",
            Unverified::Generation => "generation",
        }
    }
}

/// A certificate as its value.
pub(super) fn encoded(certificate: &[u8]) -> String {
    BASE64.encode(certificate)
}

/// Signs facts for one life in gossip.
pub(super) fn sign(identity: &NodeIdentity, facts: &Facts, life: Life, serial: u64) -> Result<Signed, IdentityError> {
    let payload =
        serde_json::to_vec(&Wire::of(facts, life, serial)).map_err(|error| IdentityError::Issue(error.to_string()))?;
    if payload.len() > MAX_FACTS {
        return Err(IdentityError::Issue(format!("facts of {} bytes; the limit is {MAX_FACTS}", payload.len())));
    }
    let (certificate, signature) = identity.sign_with_certificate(&message(identity.trust(), &payload))?;
    let facts = format!("{}.{}", BASE64.encode(&payload), BASE64.encode(signature));
    Ok(Signed { facts, certificate: encoded(&certificate) })
}

/// Reads values that gossip holds under an id, if that node signed them for this life.
pub(super) fn verify(trust: &Trust, id: &str, life: Life, value: &Signed) -> Result<Verified, Unverified> {
    if value.facts.len() > MAX_VALUE || value.certificate.len() > MAX_VALUE {
        return Err(Unverified::Unreadable);
    }
    let decode = |text: &str| BASE64.decode(text).map_err(|_| Unverified::Unreadable);
    let (payload, signature) = value.facts.split_once('.').ok_or(Unverified::Unreadable)?;
    let (payload, signature, certificate) = (decode(payload)?, decode(signature)?, decode(&value.certificate)?);
    if payload.len() > MAX_FACTS {
        return Err(Unverified::Unreadable);
    }
    let signer =
        trust.verify_signed_by(&certificate, &message(trust, &payload), &signature).map_err(Unverified::Signature)?;
    let wire: Wire = serde_json::from_slice(&payload).map_err(|_| Unverified::Unreadable)?;
    if gossip_id(&signer) != id || *signer.0 != *wire.node {
        return Err(Unverified::Foreign(signer));
    }
    if (wire.generation, wire.gossip) != (life.generation, life.address) {
        return Err(Unverified::Generation);
    }
    Ok(Verified { serial: wire.serial, facts: wire.facts() })
}

fn message(trust: &Trust, payload: &[u8]) -> Vec<u8> {
    [CONTEXT, trust.mesh_id().as_bytes(), b"\0", payload].concat()
}

impl Wire {
    fn of(facts: &Facts, life: Life, serial: u64) -> Self {
        Wire {
            generation: life.generation,
            gossip: life.address,
            serial,
            node: facts.node.to_string(),
            instance: facts.instance.0,
            tunnel: facts.tunnel,
            sync: facts.sync,
            admin: facts.admin.clone(),
            roles: facts.roles,
            head: (facts.head.epoch, facts.head.rev),
            roots: facts.roots.clone(),
            leader: facts.leader.as_ref().map(|claim| (claim.epoch, claim.node.to_string(), claim.since_ms)),
            ready: facts.ready,
            draining: facts.draining,
            version: facts.version.clone(),
            cert_not_after: facts.cert_not_after,
        }
    }

    fn facts(self) -> Facts {
        Facts {
            node: NodeName::from(self.node.as_str()),
            instance: InstanceId(self.instance),
            tunnel: self.tunnel,
            sync: self.sync,
            admin: self.admin,
            roles: self.roles,
            head: HeadId { epoch: self.head.0, rev: self.head.1 },
            roots: self.roots,
            leader: self.leader.map(|(epoch, node, since_ms)| LeaderClaim {
                epoch,
                node: NodeName::from(node.as_str()),
                since_ms,
            }),
            ready: self.ready,
            draining: self.draining,
            version: self.version,
            cert_not_after: self.cert_not_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::RunDir;

    fn facts(node: &str) -> Facts {
        Facts {
            node: node.into(),
            instance: InstanceId(u64::MAX),
            tunnel: "127.1.0.1:1".parse().unwrap(),
            sync: "127.1.0.1:2".parse().unwrap(),
            admin: "127.1.0.1:3".into(),
            roles: Roles { gateway: true, reconciler: false },
            head: HeadId { epoch: 1, rev: 2 },
            roots: "abcd".into(),
            leader: Some(LeaderClaim { epoch: 1, node: "x".into(), since_ms: 3 }),
            ready: true,
            draining: false,
            version: "0.1".into(),
            cert_not_after: 4,
        }
    }

    #[test]
    fn only_facts_that_the_named_node_signed_for_this_life_are_believed() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path().join("run")).unwrap();
        let [a, b] = ["a", "b"].map(|node| NodeIdentity::issue(&run, node.into(), InstanceId(1)).unwrap());
        let (id, trust) = (gossip_id(a.node()), run.trust());
        let life = |generation| Life { generation, address: "127.1.0.1:1".parse().unwrap() };
        let good = sign(&a, &facts("a"), life(7), 1).unwrap();
        assert!(good.facts.len() < MAX_FACTS, "{}", good.facts.len());
        assert_eq!(verify(trust, &id, life(7), &good).unwrap(), Verified { facts: facts("a"), serial: 1 });

        let reason =
            |value: &Signed, id: &str, generation| verify(trust, id, life(generation), value).unwrap_err().reason();
        assert_eq!(reason(&good, &id, 8), "generation");
        let moved = Life { address: "127.1.0.2:1".parse().unwrap(), ..life(7) };
        assert_eq!(verify(trust, &id, moved, &good).unwrap_err().reason(), "generation");
        assert_eq!(reason(&good, &gossip_id(b.node()), 7), "foreign");
        assert_eq!(reason(&sign(&b, &facts("a"), life(7), 1).unwrap(), &id, 7), "foreign");
        assert_eq!(reason(&sign(&b, &facts("b"), life(7), 1).unwrap(), &id, 7), "foreign");
        let other = sign(&a, &facts("a"), life(7), 2).unwrap();
        let (payload, _) = other.facts.split_once('.').unwrap();
        let (_, signature) = good.facts.split_once('.').unwrap();
        let spliced = Signed { facts: format!("{payload}.{signature}"), ..good.clone() };
        assert_eq!(reason(&spliced, &id, 7), "signature");
        assert_eq!(reason(&Signed { facts: "x".into(), ..good.clone() }, &id, 7), "unreadable");

        let elsewhere = RunDir::open(folder.path().join("other")).unwrap();
        let stranger = NodeIdentity::issue(&elsewhere, "a".into(), InstanceId(1)).unwrap();
        assert_eq!(reason(&sign(&stranger, &facts("a"), life(7), 1).unwrap(), &id, 7), "signature");
    }

    #[test]
    fn facts_that_are_too_long_are_not_signed() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path().join("run")).unwrap();
        let identity = NodeIdentity::issue(&run, "a".into(), InstanceId(1)).unwrap();
        let long = Facts { admin: "x".repeat(MAX_FACTS), ..facts("a") };
        assert!(sign(&identity, &long, Life { generation: 1, address: long.tunnel }, 1).is_err());
    }
}
