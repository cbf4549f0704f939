//! A certificate for all peers: ECDSA P-256.

use anyhow::Context;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

/// The host that is asked for over TLS.
pub const HOST: &str = "bench.example";

/// Certificate and key as PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate, signed by itself.
    pub chain: String,
    /// Its key.
    pub key: String,
}

impl Certificate {
    /// Makes one.
    ///
    /// # Errors
    /// No randomness can be had.
    pub fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")?;
        let params = CertificateParams::new(vec![HOST.to_owned()]).context("cannot make a certificate")?;
        let certificate = params.self_signed(&key).context("cannot sign a certificate")?;
        Ok(Certificate { chain: certificate.pem(), key: key.serialize_pem() })
    }
}
