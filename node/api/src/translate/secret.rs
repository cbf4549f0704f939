//! TLS Secrets: the public half becomes intent, the private key goes its own way.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use meshgate_core::intent::{Certificate, TrustBundle};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::check::Checker;
use super::{code, keypair};

const CHAIN: &str = "data[\"tls.crt\"]";
const KEY: &str = "data[\"tls.key\"]";

/// The key of trust bundles.
const CA: &str = "ca.crt";

/// The most certificates in a trust bundle.
const MAX_BUNDLE: usize = 500;

/// The most certificates in a chain.
const MAX_CHAIN: usize = 16;

/// A private key, and the public name of it. Never shown, never written.
#[derive(Clone)]
pub struct PrivateKey {
    /// SHA-256 of the public key's SubjectPublicKeyInfo, which is how resources name it.
    pub key_hash: [u8; 32],
    /// The key.
    pub der: Arc<PrivateKeyDer<'static>>,
}

impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.key_hash == other.key_hash && self.der.secret_der() == other.der.secret_der()
    }
}

impl fmt::Debug for PrivateKey {
    /// The public name only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(")?;
        self.key_hash.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(", redacted)")
    }
}

/// Secrets of other types are nobody's business here.
pub(super) fn is_tls(value: &Value, check: &mut Checker) -> bool {
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    let looks_like_it =
        ["data", "stringData"].iter().any(|data| value.get(data).is_some_and(|data| data.get("tls.crt").is_some()));
    if kind != "kubernetes.io/tls" && looks_like_it {
        let message = "has a certificate, but is not of the type kubernetes.io/tls: it is not read";
        check.warn(code::CERTIFICATE, "type", message);
    }
    kind == "kubernetes.io/tls"
}

/// Certificate and key of a Secret; `None` when they can't be used.
pub(super) fn certificate(secret: Secret, check: &mut Checker) -> Option<(Certificate, PrivateKey)> {
    let mut data = secret.data.unwrap_or_default();
    // What the API server does with the convenience for writers.
    for (name, text) in secret.string_data.unwrap_or_default() {
        data.insert(name, k8s_openapi::ByteString(text.into_bytes()));
    }
    let chain = chain(data.get("tls.crt").map(|bytes| bytes.0.as_slice()), check);
    let key = key(data.get("tls.key").map(|bytes| bytes.0.as_slice()), check);
    let (chain, key) = (chain?, key?);
    let authorities = match data.get(CA) {
        Some(bytes) if !bytes.0.is_empty() => bundle(&format!("data[{CA:?}]"), &bytes.0, check).unwrap_or_default(),
        _ => Vec::new(),
    };
    let leaf = match X509Certificate::from_der(chain.first()?) {
        Ok((_, leaf)) => leaf,
        Err(error) => {
            check.refuse(code::CERTIFICATE, CHAIN, format!("the first certificate can't be read: {error}"));
            return None;
        }
    };
    let Some(public) = keypair::public_key(&key) else {
        let message =
            "the key can't be used: RSA of 2048 bits and more, ECDSA P-256, P-384, P-521 and Ed25519 are allowed";
        check.refuse(code::CERTIFICATE, KEY, message);
        return None;
    };
    let info = leaf.public_key();
    if public != info.subject_public_key.data.as_ref() {
        let message = "the private key does not belong to the first certificate in tls.crt";
        check.refuse(code::KEY_MISMATCH, KEY, message);
        return None;
    }
    check_validity(&leaf, check);
    let key_hash = keypair::sha256(info.raw);
    let not_after = leaf.validity().not_after.timestamp();
    let dns_names = dns_names(&leaf);
    let certificate = Certificate { key_hash, dns_names, not_after, chain, authorities };
    Some((certificate, PrivateKey { key_hash, der: Arc::new(key) }))
}

/// The certificates of authorities of a ConfigMap.
pub(super) fn config_map(map: ConfigMap, check: &mut Checker) -> Option<TrustBundle> {
    let text = map.data.unwrap_or_default().remove(CA)?;
    Some(TrustBundle { certificates: bundle(&format!("data[{CA:?}]"), text.as_bytes(), check)? })
}

/// The certificates of authorities of a Secret that has no certificate of its own.
pub(super) fn trust_bundle(secret: Secret, check: &mut Checker) -> Option<TrustBundle> {
    let text = secret.string_data.unwrap_or_default().remove(CA).map(String::into_bytes);
    let bytes = text.or_else(|| secret.data.unwrap_or_default().remove(CA).map(|bytes| bytes.0))?;
    Some(TrustBundle { certificates: bundle(&format!("data[{CA:?}]"), &bytes, check)? })
}

/// Has an object the key of trust bundles?
pub(super) fn has_bundle(value: &Value) -> bool {
    ["data", "stringData"].iter().any(|data| value.get(data).is_some_and(|data| data.get(CA).is_some()))
}

/// PEM certificates, each of which can be read.
fn bundle(field: &str, pem: &[u8], check: &mut Checker) -> Option<Vec<Vec<u8>>> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let good = |der: &CertificateDer<'_>| X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty());
    match parsed {
        Ok(bundle) if (1..=MAX_BUNDLE).contains(&bundle.len()) && bundle.iter().all(good) => {
            Some(bundle.into_iter().map(|certificate| certificate.to_vec()).collect())
        }
        Ok(bundle) if bundle.iter().all(good) => {
            let message = format!("holds {} PEM certificates; 1 to {MAX_BUNDLE} are allowed", bundle.len());
            check.error(code::CERTIFICATE, field, message);
            None
        }
        _ => {
            check.error(code::CERTIFICATE, field, "is not a list of PEM certificates");
            None
        }
    }
}

fn chain(pem: Option<&[u8]>, check: &mut Checker) -> Option<Vec<Vec<u8>>> {
    let Some(pem) = pem.filter(|pem| !pem.is_empty()) else {
        check.refuse(code::REQUIRED, CHAIN, "is required: a PEM certificate chain, leaf first");
        return None;
    };
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(chain) if (1..=MAX_CHAIN).contains(&chain.len()) => {
            Some(chain.into_iter().map(|certificate| certificate.to_vec()).collect())
        }
        Ok(chain) => {
            let message = format!("holds {} PEM certificates; 1 to {MAX_CHAIN} are allowed", chain.len());
            check.refuse(code::CERTIFICATE, CHAIN, message);
            None
        }
        Err(_) => {
            check.refuse(code::CERTIFICATE, CHAIN, "is not valid PEM");
            None
        }
    }
}

fn key(pem: Option<&[u8]>, check: &mut Checker) -> Option<PrivateKeyDer<'static>> {
    let Some(pem) = pem.filter(|pem| !pem.is_empty()) else {
        check.refuse(code::REQUIRED, KEY, "is required: a PEM private key");
        return None;
    };
    let key = PrivateKeyDer::from_pem_slice(pem).ok();
    if key.is_none() {
        // The parser's words might quote the key.
        let message = "is not a PEM private key: PKCS#8, PKCS#1 and SEC1 are allowed, without a passphrase";
        check.refuse(code::CERTIFICATE, KEY, message);
    }
    key
}

fn check_validity(leaf: &X509Certificate<'_>, check: &mut Checker) {
    let now = jiff::Timestamp::now().as_second();
    let validity = leaf.validity();
    if now > validity.not_after.timestamp() {
        let message = format!("the certificate has expired: it was valid until {}", validity.not_after);
        check.warn(code::EXPIRED, CHAIN, message);
    } else if now < validity.not_before.timestamp() {
        let message = format!("the certificate is not valid yet: it will be from {}", validity.not_before);
        check.warn(code::EXPIRED, CHAIN, message);
    }
}

fn dns_names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None })
        .collect()
}
