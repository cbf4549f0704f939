//! Certificates of clients, where a listener asks for them (GEP-91).

use std::sync::Arc;

use meshgate_core::snapshot::{ClientValidation, ClientValidationMode, Key};
use meshgate_core::table::Table;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::identity::ClientCertificate;

/// Names of authorities that a client is told; where there are more it is told none, which means
/// that any may be tried (RFC 8446 4.2.4).
const MAX_HINTS: usize = 64;

/// How a listener checks its clients' certificates.
pub struct Clients {
    checks: Arc<dyn ClientCertVerifier>,
    mode: ClientValidationMode,
    trust: Arc<[Key]>,
}

impl Clients {
    /// From the bundles that are here. `None`: they hold nobody to trust.
    pub fn new(provider: &Arc<CryptoProvider>, table: &Table, validation: &ClientValidation) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        for key in &validation.trust {
            let Some(bundle) = table.trust_bundle(key) else {
                tracing::warn!(bundle = %key, "not here: clients with its certificates are refused");
                continue;
            };
            for der in &bundle.certificates {
                if let Err(error) = roots.add(CertificateDer::from(der.as_slice())) {
                    tracing::warn!(bundle = %key, %error, "holds a certificate that can't be used");
                }
            }
        }
        let hints = roots.len();
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        if hints > MAX_HINTS {
            builder = builder.clear_root_hint_subjects();
        }
        let checks = builder.build();
        let checks = checks.inspect_err(|error| tracing::warn!(%error, "client certificates can't be checked")).ok()?;
        Some(Clients { checks, mode: validation.mode, trust: validation.trust.as_slice().into() })
    }

    /// For the handshake.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        match self.mode {
            ClientValidationMode::AllowValidOnly => Arc::clone(&self.checks),
            ClientValidationMode::AllowInsecureFallback => Arc::new(Lenient(Arc::clone(&self.checks))),
        }
    }

    /// What the client's certificate says after the handshake; `None` if there is none, or it was
    /// let through although it is not valid.
    pub fn verified(&self, chain: Option<&[CertificateDer<'_>]>) -> Option<ClientCertificate> {
        let (leaf, others) = chain?.split_first()?;
        if self.mode == ClientValidationMode::AllowInsecureFallback {
            self.checks.verify_client_cert(leaf, others, UnixTime::now()).ok()?;
        }
        Some(ClientCertificate::read(leaf, Arc::clone(&self.trust)))
    }
}

/// Asks for a certificate and lets everybody in.
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl Lenient {
    /// A wrong signature under a certificate that can be read is a lie: it could be valid, and
    /// would then speak for somebody else.
    fn let_in(
        &self,
        certificate: &CertificateDer<'_>,
        checked: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        if ParsedCertificate::try_from(certificate).is_err() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        checked
    }
}

impl ClientCertVerifier for Lenient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.let_in(certificate, self.0.verify_tls12_signature(message, certificate, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.let_in(certificate, self.0.verify_tls13_signature(message, certificate, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
