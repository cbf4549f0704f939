//! A leader's key: made for one epoch, certified by the mesh's CA, signs heads.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};

use super::authority::Leaf;
use super::{IdentityError, NodeName, RunDir, SpiffeId};

/// A leader's certificate ends with the CA's; heads are checked without regard to it anyway.
const LEADER_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// The key with which one leader signs in one epoch.
pub struct LeaderKey {
    epoch: u64,
    certificate: Vec<u8>,
    key: Ed25519KeyPair,
}

impl LeaderKey {
    /// Makes a key for this epoch and has it certified.
    pub fn issue(run: &RunDir, node: &NodeName, epoch: u64) -> Result<Self, IdentityError> {
        let issue = |error: rcgen::Error| IdentityError::Issue(error.to_string());
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(issue)?;
        let id = SpiffeId::leader(run.mesh_id(), node, epoch)?;
        let leaf = Leaf { id: &id, usages: vec![ExtendedKeyUsagePurpose::CodeSigning], life: LEADER_LIFE };
        let (certificate, _) = run.authority().issue(leaf, &pair)?;
        let key =
            Ed25519KeyPair::from_pkcs8(pair.serialized_der()).map_err(|error| IdentityError::Key(error.to_string()))?;
        Ok(LeaderKey { epoch, certificate: certificate.to_vec(), key })
    }

    /// The epoch in which it signs.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What readers need to believe its signatures.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        let signed = self.key.sign(message);
        // An ed25519 signature has 64 bytes; were it not so, zeros verify nowhere.
        if signed.as_ref().len() == signature.len() {
            signature.copy_from_slice(signed.as_ref());
        }
        signature
    }
}

impl fmt::Debug for LeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderKey").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
