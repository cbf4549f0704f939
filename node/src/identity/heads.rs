//! Who may sign heads, and the key of an epoch, as the wire format asks for them.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use meshgate_wire::{HeadSigner, LeaderVerifier};

use super::{LeaderKey, Trust};

/// Whom replication believes.
pub struct MeshVerifier {
    trust: Trust,
    /// The leader's certificate that was checked last, of this mesh: every head of a term comes with the
    /// same one, and what makes it good does not change.
    last: Mutex<Option<(Bytes, meshgate_wire::LeaderKey)>>,
}

impl MeshVerifier {
    /// Believes leaders that the mesh's CA has certified.
    pub fn new(trust: Trust) -> Self {
        MeshVerifier { trust, last: Mutex::default() }
    }

    fn known(&self, certificate: &[u8], mesh_id: &str) -> Option<meshgate_wire::LeaderKey> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, key) = last.as_ref()?;
        (known == certificate && mesh_id == self.trust.mesh_id()).then(|| key.clone())
    }
}

impl LeaderVerifier for MeshVerifier {
    fn leader_key(&self, certificate: &[u8], mesh_id: &str) -> Result<meshgate_wire::LeaderKey, String> {
        if let Some(key) = self.known(certificate, mesh_id) {
            return Ok(key);
        }
        let (epoch, public_key, node) =
            self.trust.leader_key(certificate, mesh_id).map_err(|error| error.to_string())?;
        let key = meshgate_wire::LeaderKey { epoch, public_key: public_key.to_vec(), node: node.to_string() };
        let checked = Some((Bytes::copy_from_slice(certificate), key.clone()));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = checked;
        Ok(key)
    }
}

/// The key of an epoch.
pub struct EpochSigner(pub LeaderKey);

impl HeadSigner for EpochSigner {
    fn certificate(&self) -> &[u8] {
        self.0.certificate_der()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        Ok(self.0.sign(message).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::RunDir;

    #[test]
    fn what_was_believed_once_is_believed_for_its_mesh_only() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path().join("run")).unwrap();
        let mut first = LeaderKey::issue(&run, &"n".into(), 3).unwrap().certificate_der().to_vec();
        let second = LeaderKey::issue(&run, &"n".into(), 4).unwrap();
        let verifier = MeshVerifier::new(run.trust().clone());
        for _ in 0..2 {
            assert_eq!(verifier.leader_key(&first, run.mesh_id()).unwrap().epoch, 3);
            assert!(verifier.leader_key(&first, "other").is_err());
            assert_eq!(verifier.leader_key(second.certificate_der(), run.mesh_id()).unwrap().epoch, 4);
        }
        verifier.leader_key(&first, run.mesh_id()).unwrap();
        *first.last_mut().unwrap() ^= 1;
        assert!(verifier.leader_key(&first, run.mesh_id()).is_err());
    }
}
