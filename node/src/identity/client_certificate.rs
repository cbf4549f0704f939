//! What a client's certificate says about it.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use meshgate_core::snapshot::Key;
use serde::Serialize;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::keys::hex;

/// Names that are kept of a certificate.
const MAX_NAMES: usize = 8;

/// Characters that are kept of a name.
const MAX_LENGTH: usize = 256;

/// A client's certificate that a listener verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientCertificate {
    /// Its subject, as `C=.., O=.., CN=..`.
    pub subject: String,
    /// Its alternative names: DNS names, URIs, mail addresses; the first eight.
    pub names: Vec<String>,
    /// SHA-256 of the certificate in DER, in hexadecimal digits.
    pub sha256: String,
    /// The trust bundles against which it was verified.
    #[serde(skip)]
    pub trust: Arc<[Key]>,
}

impl ClientCertificate {
    /// Reads a certificate in DER. What can't be read stays empty.
    pub fn read(der: &[u8], trust: Arc<[Key]>) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, der).as_ref());
        let (subject, names) = match X509Certificate::from_der(der) {
            Ok((_, certificate)) => (short(&certificate.subject().to_string()), names(&certificate)),
            Err(_) => Default::default(),
        };
        ClientCertificate { subject, names, sha256: hex(&hash), trust }
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => Some(short(name)),
        _ => None,
    });
    names.take(MAX_NAMES).collect()
}

fn short(name: &str) -> String {
    name.chars().take(MAX_LENGTH).collect()
}
