//! A fresh certificate for the examples: no private key is worth keeping in a repository.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};
use rustls_pki_types::CertificateDer;

/// Allowance for clocks that differ.
const BEFORE: Duration = Duration::from_secs(3600);
/// How long a certificate is good for; the demo ends earlier.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// A self-signed certificate (EC P-256) with its key.
pub struct Fresh {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// The certificate, as curl's `--cacert` takes it.
    pub certificate_pem: String,
    /// The private key (PKCS #8).
    pub key_pem: String,
}

impl Fresh {
    /// A certificate for these names; the first one is its subject as well.
    ///
    /// # Errors
    /// A name that is none, or a clock before 1970.
    pub fn new(names: &[&str]) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(all)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, *names.first().context("a certificate needs a name")?);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(BEFORE);
        params.not_after = date_time_ymd(1970, 1, 1) + now + LIFETIME;
        let certificate = params.self_signed(&key)?;
        Ok(Fresh { der: certificate.der().clone(), certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// A Secret of type `kubernetes.io/tls` that holds both, as YAML.
    pub fn secret(&self, namespace: &str, name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  namespace: {namespace}\n  name: {name}\n\
             type: kubernetes.io/tls\ndata:\n  tls.crt: {}\n  tls.key: {}\n",
            STANDARD.encode(&self.certificate_pem),
            STANDARD.encode(&self.key_pem),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_valid_now_and_names_its_hosts() {
        let fresh = Fresh::new(&["shop.example", "*.shop.example"]).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&fresh.der).unwrap();
        assert!(parsed.validity().is_valid());
        assert_eq!(parsed.subject().to_string(), "CN=shop.example");
        let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        assert_eq!(names, 2);
        assert!(Fresh::new(&[]).is_err());
    }

    #[test]
    fn two_are_never_the_same() {
        assert_ne!(Fresh::new(&["a.example"]).unwrap().key_pem, Fresh::new(&["a.example"]).unwrap().key_pem);
    }

    #[test]
    fn the_secret_is_yaml_that_holds_both_halves() {
        let fresh = Fresh::new(&["shop.example"]).unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(&fresh.secret("edge", "shop-tls")).unwrap();
        assert_eq!(value["metadata"]["namespace"], "edge");
        let half =
            |name: &str| String::from_utf8(STANDARD.decode(value["data"][name].as_str().unwrap()).unwrap()).unwrap();
        assert_eq!(half("tls.crt"), fresh.certificate_pem);
        assert_eq!(half("tls.key"), fresh.key_pem);
    }
}
