//! TLS of listeners: which certificate a client is shown, and its private key.
//!
//! Own resolution instead of rustls': the table decides by the listener's hostname, and the
//! conformance certificates have names that rustls' own resolver would refuse.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use meshgate_core::snapshot::{Certificate, Key};
use meshgate_core::table::Table;
use rustls::crypto::aws_lc_rs;
use rustls::server::ProducesTickets;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, version};
use rustls_pki_types::CertificateDer;

use crate::identity::KeyStore;

/// The fatal alert `unrecognized_name` (RFC 6066 3), as a record.
pub const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Key and chain of a certificate.
type Pair = [u8; 32];

/// The certificates that are served.
pub struct Certificates {
    keys: Arc<KeyStore>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    served: ArcSwap<Served>,
    refresh: Mutex<()>,
}

/// What one table shows.
#[derive(Default)]
struct Served {
    by_pair: HashMap<Pair, Entry>,
    /// What was served last for each certificate's resource.
    by_key: HashMap<Key, Arc<ServerConfig>>,
    missing: Vec<Key>,
}

#[derive(Clone)]
struct Entry {
    config: Option<Arc<ServerConfig>>,
    /// The configuration is of this very pair, not of the one before it.
    current: bool,
}

impl Certificates {
    /// No certificates yet.
    pub fn new(keys: Arc<KeyStore>) -> Self {
        let tickets = aws_lc_rs::Ticketer::new()
            .inspect_err(|error| tracing::warn!(%error, "no session tickets: clients can't resume TLS sessions"))
            .ok();
        Certificates { keys, tickets, served: ArcSwap::default(), refresh: Mutex::new(()) }
    }

    /// Brings what is served to a table. A certificate whose key is not here keeps the pair that
    /// was served for it before. Returns those certificates.
    pub fn refresh(&self, table: &Table) -> Vec<Key> {
        let _one = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.served.load();
        let mut new = Served::default();
        for (key, certificate) in table.certificates() {
            let pair = pair(certificate);
            let kept = old.by_pair.get(&pair).filter(|entry| entry.current).and_then(|entry| entry.config.clone());
            let current = kept.or_else(|| self.config(certificate));
            let entry = Entry { current: current.is_some(), config: current.or_else(|| old.by_key.get(key).cloned()) };
            if !entry.current {
                new.missing.push(key.clone());
            }
            if let Some(config) = &entry.config {
                new.by_key.insert(key.clone(), Arc::clone(config));
            }
            new.by_pair.insert(pair, entry);
        }
        let missing = new.missing.clone();
        self.served.store(Arc::new(new));
        missing
    }

    /// The configuration for a client that names `sni`. `None`: nothing to show.
    pub fn select(&self, table: &Table, gateway: &Key, port: u16, sni: Option<&str>) -> Option<Arc<ServerConfig>> {
        let certificate = table.certificate(gateway, port, sni)?;
        let pair = pair(certificate);
        let known = self.served.load().by_pair.get(&pair).cloned();
        let key_came = || self.keys.get(&certificate.key_hash).is_some();
        match known {
            Some(entry) if entry.current || !key_came() => entry.config,
            // The table is newer than what is served, or the key came by now.
            _ => {
                self.refresh(table);
                self.served.load().by_pair.get(&pair).and_then(|entry| entry.config.clone())
            }
        }
    }

    fn config(&self, certificate: &Certificate) -> Option<Arc<ServerConfig>> {
        let key = self.keys.get(&certificate.key_hash)?;
        let chain = certificate.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let pair = CertifiedKey::new(chain, key);
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let mut config = builder
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .inspect_err(|error| tracing::error!(%error, "TLS can't be configured"))
            .ok()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if let Some(tickets) = &self.tickets {
            config.ticketer = Arc::clone(tickets);
            config.send_tls13_tickets = 1;
        }
        Some(Arc::new(config))
    }
}

fn pair(certificate: &Certificate) -> Pair {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&certificate.key_hash);
    for der in &certificate.chain {
        hasher.update(&(der.len() as u64).to_le_bytes());
        hasher.update(der);
    }
    *hasher.finalize().as_bytes()
}
