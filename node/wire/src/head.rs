//! Heads as bytes, and the leader's signature over them.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use bytes::Bytes;
use meshgate_core::snapshot::{Digest, Head, HeadId};
use meshgate_proto::snapshot as pb;
use prost::Message;

/// Precedes the head's bytes under the signature, so that it can't be used for anything else.
const SIGNATURE_DOMAIN: &[u8] = b"meshgate.dev head v1\0";

/// Features of heads that this version has.
const FEATURES: &[u32] = &[];

/// The largest encoded head.
const MAX_HEAD_BYTES: usize = 4096;

/// The largest leader certificate.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// A head with the leader's signature, as it travels and as it is stored. What [`SignedHead::head`]
/// shows is always what the bytes say; whether the signature holds, [`verify`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    head: Head,
    head_bytes: Bytes,
    signature: Bytes,
    leader_certificate: Bytes,
}

/// What a leader's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderKey {
    /// The one epoch that it is for.
    pub epoch: u64,
    /// The raw ed25519 public key, 32 bytes.
    pub public_key: Vec<u8>,
    /// The leader's node.
    pub node: String,
}

/// Knows whom the mesh CA made leader. Implemented by the node's identity.
pub trait LeaderVerifier: Send + Sync {
    /// Checks that the certificate is of this mesh's CA, for role leader. Not that it has not
    /// expired: heads outlive leaders, and what fences an old leader is its epoch.
    ///
    /// # Errors
    /// Why it is not believed.
    fn leader_key(&self, certificate_der: &[u8], mesh_id: &str) -> Result<LeaderKey, String>;
}

/// Signs heads: the leader's key of one epoch.
pub trait HeadSigner: Send + Sync {
    /// The certificate (DER) that the mesh CA gave for this key.
    fn certificate(&self) -> &[u8];

    /// The ed25519 signature over `message`.
    ///
    /// # Errors
    /// Why it can't be made.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String>;
}

/// A [`HeadSigner`] with the key in memory.
#[derive(Debug)]
pub struct Ed25519Signer {
    key: Ed25519KeyPair,
    certificate: Bytes,
}

/// The leader could not sign. Its own fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot sign a head: {0}")]
pub struct SignError(pub String);

/// Why a signed head is refused, by whose fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Whoever sent it: these bytes are no head.
    #[error("the sender's head is malformed: {0}")]
    Malformed(String),
    /// Whoever sent it, or its leader: the certificate is not believed.
    #[error("the leader's certificate is not believed: {0}")]
    Certificate(String),
    /// The leader: it signed for an epoch that it was not elected for.
    #[error("the leader's certificate is for epoch {certificate}, the head of epoch {head}")]
    Epoch {
        /// The certificate's.
        certificate: u64,
        /// The head's.
        head: u64,
    },
    /// Whoever sent it: the head was changed on its way, or the leader never signed it.
    #[error("the signature does not match the head")]
    Signature,
    /// Nobody's: a newer leader needs features that this version lacks. Upgrade this peer.
    #[error("the head needs features {0:?} that this version lacks")]
    Features(Vec<u32>),
}

/// Encodes a head.
pub fn encode_head(head: &Head) -> Bytes {
    let message = pb::Head {
        mesh_id: head.mesh_id.clone(),
        id: Some(pb::HeadId { epoch: head.id.epoch, rev: head.id.rev }),
        routes_root: Bytes::copy_from_slice(&head.routes_root.0),
        endpoints_root: Bytes::copy_from_slice(&head.endpoints_root.0),
        needs: Vec::new(),
    };
    message.encode_to_vec().into()
}

/// Decodes a head.
///
/// # Errors
/// It is malformed, or needs features that this version lacks.
pub fn decode_head(bytes: &[u8]) -> Result<Head, VerifyError> {
    let malformed = |why: &str| VerifyError::Malformed(why.to_owned());
    if bytes.len() > MAX_HEAD_BYTES {
        return Err(malformed("too large"));
    }
    let message = pb::Head::decode(bytes).map_err(|error| VerifyError::Malformed(error.to_string()))?;
    let lacking: Vec<u32> = message.needs.iter().copied().filter(|feature| !FEATURES.contains(feature)).collect();
    if !lacking.is_empty() {
        return Err(VerifyError::Features(lacking));
    }
    let id = message.id.ok_or_else(|| malformed("no id"))?;
    Ok(Head {
        mesh_id: message.mesh_id,
        id: HeadId { epoch: id.epoch, rev: id.rev },
        routes_root: digest(&message.routes_root).ok_or_else(|| malformed("routes_root is not 32 bytes"))?,
        endpoints_root: digest(&message.endpoints_root).ok_or_else(|| malformed("endpoints_root is not 32 bytes"))?,
    })
}

/// A digest from bytes; `None` when they are not 32.
fn digest(bytes: &[u8]) -> Option<Digest> {
    Some(Digest(bytes.try_into().ok()?))
}

/// Signs a head.
///
/// # Errors
/// The signer fails.
pub fn sign(head: &Head, signer: &dyn HeadSigner) -> Result<SignedHead, SignError> {
    let head_bytes = encode_head(head);
    let signature = signer.sign(&signed_message(&head_bytes)).map_err(SignError)?;
    Ok(SignedHead {
        head: head.clone(),
        head_bytes,
        signature: signature.into(),
        leader_certificate: Bytes::copy_from_slice(signer.certificate()),
    })
}

/// Verifies a signed head: the certificate is believed, is for the head's epoch, and its key
/// signed these bytes. Returns who leads.
///
/// # Errors
/// Why not, by whose fault.
pub fn verify(signed: &SignedHead, verifier: &dyn LeaderVerifier) -> Result<LeaderKey, VerifyError> {
    let key =
        verifier.leader_key(&signed.leader_certificate, &signed.head.mesh_id).map_err(VerifyError::Certificate)?;
    if key.epoch != signed.head.id.epoch {
        return Err(VerifyError::Epoch { certificate: key.epoch, head: signed.head.id.epoch });
    }
    UnparsedPublicKey::new(&ED25519, &key.public_key)
        .verify(&signed_message(&signed.head_bytes), &signed.signature)
        .map_err(|_| VerifyError::Signature)?;
    Ok(key)
}

fn signed_message(head_bytes: &[u8]) -> Vec<u8> {
    [SIGNATURE_DOMAIN, head_bytes].concat()
}

impl SignedHead {
    /// A signed head from its parts as received.
    ///
    /// # Errors
    /// The head is malformed, or needs features that this version lacks.
    pub fn from_parts(head_bytes: Bytes, signature: Bytes, leader_certificate: Bytes) -> Result<Self, VerifyError> {
        if leader_certificate.len() > MAX_CERTIFICATE_BYTES {
            return Err(VerifyError::Malformed("the leader's certificate is too large".to_owned()));
        }
        let head = decode_head(&head_bytes)?;
        Ok(SignedHead { head, head_bytes, signature, leader_certificate })
    }

    /// What the head says.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// When in the mesh's history.
    pub fn id(&self) -> HeadId {
        self.head.id
    }

    /// The digests of both roots: routes, endpoints.
    pub fn roots(&self) -> (Digest, Digest) {
        (self.head.routes_root, self.head.endpoints_root)
    }

    /// The head's exact bytes.
    pub fn head_bytes(&self) -> &Bytes {
        &self.head_bytes
    }

    /// The leader's signature.
    pub fn signature(&self) -> &Bytes {
        &self.signature
    }

    /// The leader's certificate (DER).
    pub fn leader_certificate(&self) -> &Bytes {
        &self.leader_certificate
    }

    /// As a message.
    pub fn to_proto(&self) -> pb::SignedHead {
        pb::SignedHead {
            head: self.head_bytes.clone(),
            signature: self.signature.clone(),
            leader_certificate: self.leader_certificate.clone(),
        }
    }

    /// From a message.
    ///
    /// # Errors
    /// As [`SignedHead::from_parts`].
    pub fn from_proto(message: pb::SignedHead) -> Result<Self, VerifyError> {
        SignedHead::from_parts(message.head, message.signature, message.leader_certificate)
    }
}

impl Ed25519Signer {
    /// A signer from a PKCS#8 key and its certificate (DER).
    ///
    /// # Errors
    /// The key is not an ed25519 key.
    pub fn from_pkcs8(pkcs8: &[u8], certificate: Bytes) -> Result<Self, SignError> {
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|error| SignError(error.to_string()))?;
        Ok(Ed25519Signer { key, certificate })
    }

    /// The raw public key, 32 bytes.
    pub fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }
}

impl HeadSigner for Ed25519Signer {
    fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        Ok(self.key.sign(message).as_ref().to_vec())
    }
}
