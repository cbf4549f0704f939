//! This node's own certificate: issued, renewed at half of its life, used to sign and for TLS.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::authority::{Authority, Leaf};
use super::{IdentityError, InstanceId, NodeName, RunDir, SpiffeId, Trust, tls};
use crate::drain::{Drain, Phase};

/// How long a node's certificate is valid.
const NODE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How often the clock is looked at, and how soon a failed renewal is tried again.
const RENEW_CHECK: Duration = Duration::from_secs(60);

/// Who this node is. Cheap to clone; a renewal shows in all clones and in every TLS configuration
/// that was made from them.
#[derive(Clone)]
pub struct NodeIdentity(Arc<Inner>);

struct Inner {
    node: NodeName,
    instance: InstanceId,
    trust: Trust,
    authority: Arc<Authority>,
    current: ArcSwap<Current>,
}

/// One certificate with its key.
pub(super) struct Current {
    pub certified: Arc<CertifiedKey>,
    signer: EcdsaKeyPair,
    issued: SystemTime,
    not_after: SystemTime,
}

impl NodeIdentity {
    /// Issues a certificate for this node from the run folder's CA. The key stays in memory.
    pub fn issue(run: &RunDir, node: NodeName, instance: InstanceId) -> Result<Self, IdentityError> {
        let authority = run.authority().clone();
        let current = issue(&authority, run.mesh_id(), &node)?;
        let inner =
            Inner { node, instance, trust: run.trust().clone(), authority, current: ArcSwap::from_pointee(current) };
        Ok(NodeIdentity(Arc::new(inner)))
    }

    /// The node's name.
    pub fn node(&self) -> &NodeName {
        &self.0.node
    }

    /// This process.
    pub fn instance(&self) -> InstanceId {
        self.0.instance
    }

    /// Whom it believes.
    pub fn trust(&self) -> &Trust {
        &self.0.trust
    }

    /// When the present certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.0.current.load().not_after
    }

    /// The present certificate.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        // A certified key always has its end-entity certificate first.
        self.0.current.load().certified.cert.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()))
    }

    /// Signs with the node's key; [`Trust::verify_signed_by`] is the other side.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        self.sign_with_certificate(message).map(|(_, signature)| signature)
    }

    /// Signs, and returns the certificate of the key that did, so that a renewal can't fall between.
    pub fn sign_with_certificate(&self, message: &[u8]) -> Result<(CertificateDer<'static>, Vec<u8>), IdentityError> {
        let current = self.0.current.load();
        let signature = current
            .signer
            .sign(&SystemRandom::new(), message)
            .map_err(|_| IdentityError::Key("the node's key did not sign".into()))?;
        let certificate = current.certified.cert.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        Ok((certificate, signature.as_ref().to_vec()))
    }

    /// A TLS 1.3 server that asks for a node certificate of the mesh.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<rustls::ServerConfig>, IdentityError> {
        tls::server_config(self, alpn)
    }

    /// A TLS 1.3 client that accepts only nodes of the mesh, and only `expected` if that is given.
    pub fn client_config(
        &self,
        expected: Option<&NodeName>,
        alpn: &[u8],
    ) -> Result<Arc<rustls::ClientConfig>, IdentityError> {
        tls::client_config(self, expected, alpn)
    }

    /// Issues a new certificate now.
    pub fn renew(&self) -> Result<(), IdentityError> {
        let current = issue(&self.0.authority, self.0.trust.mesh_id(), &self.0.node)?;
        self.0.current.store(Arc::new(current));
        Ok(())
    }

    /// Renews at half of each certificate's life, until the process is cut.
    pub async fn renew_loop(self, drain: Drain) {
        loop {
            tokio::select! {
                () = drain.reached(Phase::Cut) => return,
                () = tokio::time::sleep(RENEW_CHECK) => {}
            }
            if !self.0.current.load().past_half(SystemTime::now()) {
                continue;
            }
            match self.renew() {
                Ok(()) => tracing::info!(node = %self.0.node, "node certificate renewed"),
                Err(error) => tracing::warn!(node = %self.0.node, %error, "node certificate not renewed; trying again"),
            }
        }
    }

    pub(super) fn current(&self) -> Arc<Current> {
        self.0.current.load_full()
    }
}

impl Current {
    /// By the wall clock, since that is what others judge the certificate by.
    fn past_half(&self, now: SystemTime) -> bool {
        let life = self.not_after.duration_since(self.issued).unwrap_or_default();
        now >= self.issued + life / 2
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeIdentity")
            .field("node", &self.0.node)
            .field("instance", &self.0.instance)
            .finish_non_exhaustive()
    }
}

fn issue(authority: &Authority, mesh_id: &str, node: &NodeName) -> Result<Current, IdentityError> {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|error| IdentityError::Issue(error.to_string()))?;
    let id = SpiffeId::node(mesh_id, node)?;
    let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let (certificate, not_after) = authority.issue(Leaf { id: &id, usages, life: NODE_LIFE }, &pair)?;
    let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pair.serialized_der())
        .map_err(|error| IdentityError::Key(error.to_string()))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|error| IdentityError::Key(error.to_string()))?;
    let certified = Arc::new(CertifiedKey::new(vec![certificate], key));
    Ok(Current { certified, signer, issued: SystemTime::now(), not_after })
}
