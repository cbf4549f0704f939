//! SPIFFE ids of the mesh: `spiffe://<mesh_id>/node/<node>` and `/leader/<node>/<epoch>`.

use std::fmt;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{IdentityError, NodeName};

/// Longest node name (a DNS subdomain).
const MAX_NAME: usize = 253;

/// Whom a certificate of the mesh is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeId {
    /// The trust domain.
    pub mesh_id: Arc<str>,
    /// Who within it.
    pub role: Role,
}

/// What a certificate's holder may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Be a node.
    Node(NodeName),
    /// Sign heads in one epoch.
    Leader {
        /// The node that leads.
        node: NodeName,
        /// The epoch it leads in.
        epoch: u64,
    },
}

impl SpiffeId {
    /// A node's id. Fails for names that can't be part of one.
    pub fn node(mesh_id: &str, node: &NodeName) -> Result<Self, IdentityError> {
        check_name(&node.0).map_err(IdentityError::Issue)?;
        Ok(SpiffeId { mesh_id: mesh_id.into(), role: Role::Node(node.clone()) })
    }

    /// A leader's id. Fails for names that can't be part of one.
    pub fn leader(mesh_id: &str, node: &NodeName, epoch: u64) -> Result<Self, IdentityError> {
        check_name(&node.0).map_err(IdentityError::Issue)?;
        Ok(SpiffeId { mesh_id: mesh_id.into(), role: Role::Leader { node: node.clone(), epoch } })
    }

    /// Reads the URI.
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        parse(uri).map_err(|reason| IdentityError::Untrusted(format!("{uri:?}: {reason}")))
    }

    /// The id in a certificate: it must name exactly one URI and nothing else.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let untrusted = |reason: &str| IdentityError::Untrusted(reason.to_owned());
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| untrusted("the certificate is not X.509"))?;
        if !rest.is_empty() {
            return Err(untrusted("bytes follow the certificate"));
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| untrusted("unreadable subject alternative name"))?
            .ok_or_else(|| untrusted("no subject alternative name"))?;
        match names.value.general_names.as_slice() {
            [GeneralName::URI(uri)] => SpiffeId::parse(uri),
            _ => Err(untrusted("the certificate must name exactly one SPIFFE id")),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Role::Node(node) => write!(f, "spiffe://{}/node/{node}", self.mesh_id),
            Role::Leader { node, epoch } => write!(f, "spiffe://{}/leader/{node}/{epoch}", self.mesh_id),
        }
    }
}

fn parse(uri: &str) -> Result<SpiffeId, String> {
    let rest = uri.strip_prefix("spiffe://").ok_or("not a SPIFFE id")?;
    let mut parts = rest.split('/');
    let mesh_id = parts.next().unwrap_or_default();
    check_name(mesh_id)?;
    let (kind, node, epoch) = (parts.next(), parts.next().unwrap_or_default(), parts.next());
    check_name(node)?;
    let node = NodeName::from(node);
    let role = match (kind, epoch, parts.next()) {
        (Some("node"), None, _) => Role::Node(node),
        (Some("leader"), Some(epoch), None) => Role::Leader { node, epoch: canonical_number(epoch)? },
        _ => return Err("not an id of a node or a leader".into()),
    };
    Ok(SpiffeId { mesh_id: mesh_id.into(), role })
}

/// Only the one way to write a number that `Display` uses.
fn canonical_number(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(number) if number.to_string() == text => Ok(number),
        _ => Err("not an epoch".into()),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) || name.starts_with('.') {
        return Err(format!("{name:?} is not a name: 1 to {MAX_NAME} of letters, digits, '.', '-' and '_'"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_the_way_through_text() {
        for id in [
            SpiffeId::node("0123456789abcdef", &"node-1.example".into()).unwrap(),
            SpiffeId::leader("m", &"n".into(), u64::MAX).unwrap(),
        ] {
            assert_eq!(SpiffeId::parse(&id.to_string()).unwrap(), id);
        }
    }

    #[test]
    fn other_uris_are_refused() {
        for uri in [
            "",
            "https://m/node/n",
            "spiffe://m",
            "spiffe://m/node",
            "spiffe://m/node/",
            "spiffe://m/node/a/b",
            "spiffe:///node/a",
            "spiffe://m/node/a/",
            "spiffe://m/node/../x",
            "spiffe://m/node/a%2fb",
            "spiffe://m/leader/a",
            "spiffe://m/leader/a/01",
            "spiffe://m/leader/a/+1",
            "spiffe://m/leader/a/1/2",
            "spiffe://m/workload/a",
        ] {
            assert!(SpiffeId::parse(uri).is_err(), "{uri}");
        }
    }
}
