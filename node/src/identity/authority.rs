//! The mesh's certificate authority, as far as this process holds it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;

use super::{IdentityError, SpiffeId};

/// How long the CA's own certificate is valid.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How far the CA's certificate is backdated: more than any leaf's.
const CA_BACKDATED: Duration = Duration::from_secs(3600);
/// How far leaves are backdated, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(300);

/// A key that may issue certificates of the mesh.
pub(super) struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A leaf's content, without its key.
pub(super) struct Leaf<'a> {
    pub id: &'a SpiffeId,
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    pub life: Duration,
}

impl Authority {
    /// Takes a CA's certificate and key.
    pub(super) fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, IdentityError> {
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(issue)?;
        Ok(Authority { certificate, issuer })
    }

    /// The CA's certificate.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA's key, from which other secrets of the mesh are derived.
    pub(super) fn secret(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    /// Issues a certificate; returns it with the time of its end.
    pub(super) fn issue(
        &self,
        leaf: Leaf<'_>,
        key: &KeyPair,
    ) -> Result<(CertificateDer<'static>, SystemTime), IdentityError> {
        let now = SystemTime::now();
        let not_after = now + leaf.life;
        let mut params = params(&leaf.id.to_string(), now - BACKDATED, not_after);
        let uri = leaf.id.to_string().try_into().map_err(issue)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = leaf.usages;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer).map_err(issue)?;
        Ok((certificate.der().clone(), not_after))
    }
}

/// A new CA key.
pub(super) fn generate_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(issue)
}

/// A CA's certificate for a key.
pub(super) fn self_signed(mesh_id: &str, key: &KeyPair) -> Result<CertificateDer<'static>, IdentityError> {
    let now = SystemTime::now();
    let mut params = params(&format!("meshgate mesh {mesh_id}"), now - CA_BACKDATED, now + CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key).map_err(issue)?.der().clone())
}

fn params(common_name: &str, not_before: SystemTime, not_after: SystemTime) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut params = CertificateParams::default();
    params.not_before = epoch + since(not_before);
    params.not_after = epoch + since(not_after);
    params.distinguished_name = DistinguishedName::new();
    // X.520 limits a common name to 64 characters; the URI is what counts.
    params.distinguished_name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    params
}

fn issue(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Issue(error.to_string())
}
