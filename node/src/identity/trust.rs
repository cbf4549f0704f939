//! Whom the mesh believes: chains to its roots, signatures, leaders' certificates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::spiffe::Role;
use super::{IdentityError, NodeName, SpiffeId};

/// How long past its end a node's certificate is still believed, once [`Trust::accept_expired`]
/// says so: while no reconciler can be reached nobody can renew, and the mesh must not end by that.
pub const EXPIRED_GRACE: Duration = Duration::from_secs(72 * 3600);

/// Extended key usage of leaders' certificates (code signing), which no node certificate has.
const LEADER_USAGE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

/// What may sign a certificate of the mesh.
pub(super) static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] =
    &[webpki::aws_lc_rs::ECDSA_P256_SHA256, webpki::aws_lc_rs::ECDSA_P384_SHA384];

/// The roots of one mesh. Cheap to clone; clones share the switch for expired certificates.
#[derive(Clone, Debug)]
pub struct Trust {
    mesh_id: Arc<str>,
    roots: Arc<[TrustAnchor<'static>]>,
    accept_expired: Arc<AtomicBool>,
}

impl Trust {
    /// Trust in these roots, for this mesh only.
    pub fn new(mesh_id: &str, roots: &[CertificateDer<'_>]) -> Result<Self, IdentityError> {
        let roots: Result<Vec<_>, _> =
            roots.iter().map(|root| webpki::anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned())).collect();
        let roots = roots.map_err(|error| IdentityError::Untrusted(format!("root certificate: {error}")))?;
        Ok(Trust { mesh_id: mesh_id.into(), roots: roots.into(), accept_expired: Arc::default() })
    }

    /// The mesh's name.
    pub fn mesh_id(&self) -> &str {
        &self.mesh_id
    }

    /// Whether certificates that ended less than [`EXPIRED_GRACE`] ago are believed (default: no).
    /// Whoever turns it on raises the alarm.
    pub fn accept_expired(&self, accept: bool) {
        self.accept_expired.store(accept, Ordering::Relaxed);
    }

    /// The node that a certificate chain is for. Checks the chain, its time, its usage, the mesh.
    pub fn peer_node(&self, chain: &[CertificateDer<'_>]) -> Result<NodeName, IdentityError> {
        // A node's certificate has both usages; either one tells it from a leader's.
        self.node(chain, KeyUsage::client_auth(), UnixTime::now())
    }

    pub(super) fn node(
        &self,
        chain: &[CertificateDer<'_>],
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<NodeName, IdentityError> {
        let (leaf, intermediates) =
            chain.split_first().ok_or_else(|| IdentityError::Untrusted("no certificate".into()))?;
        match self.chain(leaf, intermediates, usage, now) {
            Err(webpki::Error::CertExpired { not_after, .. }) if self.within_grace(not_after, now) => {
                self.chain(leaf, intermediates, usage, not_after).map_err(untrusted)?;
            }
            other => other.map_err(untrusted)?,
        }
        let id = SpiffeId::of_certificate(leaf)?;
        match id.role {
            Role::Node(node) if *id.mesh_id == *self.mesh_id => Ok(node),
            _ => Err(IdentityError::Untrusted(format!("{id} is not a node of mesh {}", self.mesh_id))),
        }
    }

    fn within_grace(&self, not_after: UnixTime, now: UnixTime) -> bool {
        self.accept_expired.load(Ordering::Relaxed)
            && now.as_secs() <= not_after.as_secs().saturating_add(EXPIRED_GRACE.as_secs())
    }

    fn chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: KeyUsage,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let leaf = EndEntityCert::try_from(leaf)?;
        leaf.verify_for_usage(ALGORITHMS, &self.roots, intermediates, now, usage, None, None)?;
        Ok(())
    }

    /// The node that signed a message. `certificate_der` must be a valid node certificate.
    pub fn verify_signed_by(
        &self,
        certificate_der: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<NodeName, IdentityError> {
        let certificate = CertificateDer::from(certificate_der);
        let node = self.peer_node(std::slice::from_ref(&certificate))?;
        EndEntityCert::try_from(&certificate)
            .and_then(|leaf| leaf.verify_signature(webpki::aws_lc_rs::ECDSA_P256_SHA256, message, signature))
            .map_err(untrusted)?;
        Ok(node)
    }

    /// The epoch, public key and node of a leader's certificate. Its end is not checked: a head
    /// that was signed in its time stays good.
    pub fn leader_key(
        &self,
        certificate_der: &[u8],
        mesh_id: &str,
    ) -> Result<(u64, [u8; 32], NodeName), IdentityError> {
        if mesh_id != &*self.mesh_id {
            return Err(IdentityError::Untrusted(format!("mesh {mesh_id} is not mesh {}", self.mesh_id)));
        }
        let bad = || IdentityError::Untrusted("the leader's certificate is not X.509 with an ed25519 key".into());
        let (_, parsed) = X509Certificate::from_der(certificate_der).map_err(|_| bad())?;
        let issued = u64::try_from(parsed.validity().not_before.timestamp()).map_err(|_| bad())?;
        let issued = UnixTime::since_unix_epoch(Duration::from_secs(issued));
        let certificate = CertificateDer::from(certificate_der);
        self.chain(&certificate, &[], KeyUsage::required(LEADER_USAGE), issued).map_err(untrusted)?;
        let id = SpiffeId::of_certificate(certificate_der)?;
        let Role::Leader { node, epoch } = id.role.clone() else {
            return Err(IdentityError::Untrusted(format!("{id} is not a leader")));
        };
        if *id.mesh_id != *self.mesh_id {
            return Err(IdentityError::Untrusted(format!("{id} is not of mesh {}", self.mesh_id)));
        }
        let key = parsed.public_key();
        if key.algorithm.algorithm != x509_parser::oid_registry::OID_SIG_ED25519 {
            return Err(bad());
        }
        let public_key = key.subject_public_key.data.as_ref().try_into().map_err(|_| bad())?;
        Ok((epoch, public_key, node))
    }
}

fn untrusted(error: webpki::Error) -> IdentityError {
    IdentityError::Untrusted(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{InstanceId, NodeIdentity, RunDir};

    const HOUR: u64 = 3600;

    #[test]
    fn an_expired_certificate_is_believed_only_on_demand_and_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path().join("run")).unwrap();
        let identity = NodeIdentity::issue(&run, "n".into(), InstanceId(1)).unwrap();
        let (trust, chain) = (run.trust(), [identity.certificate_der()]);
        let after = |hours: u64| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + hours * HOUR));
            trust.node(&chain, KeyUsage::client_auth(), now)
        };
        assert!(after(0).is_ok() && after(23).is_ok());
        assert!(after(25).is_err());
        trust.accept_expired(true);
        assert_eq!(after(25).unwrap(), "n".into());
        assert!(after(95).is_ok() && after(97).is_err());
        let other = RunDir::open(folder.path().join("other")).unwrap();
        let stranger = [NodeIdentity::issue(&other, "n".into(), InstanceId(1)).unwrap().certificate_der()];
        assert!(trust.node(&stranger, KeyUsage::client_auth(), UnixTime::now()).is_err());
    }
}
