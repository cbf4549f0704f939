//! TLS of listeners: what a client that names a host is shown, and what it is asked for.
//!
//! Own resolution instead of rustls': the table decides by the listener's hostname, and the
//! conformance certificates have names that rustls' own resolver would refuse. One configuration
//! a listener ([`offer`]), made anew when a certificate, a key or a bundle of authorities changes;
//! connections keep the one they began with.

mod clients;
mod handshake;
mod offer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use meshgate_core::snapshot::{Certificate, HeadId, Key};
use meshgate_core::table::{Listening, Table};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use crate::identity::KeyStore;
use offer::{Made, Offer, Pair, Print};

pub use handshake::shake_hands;

/// What the listeners show to TLS clients.
pub struct Certificates {
    keys: Arc<KeyStore>,
    provider: Arc<CryptoProvider>,
    served: ArcSwap<Served>,
    refresh: Mutex<()>,
}

/// Why a client's handshake is refused before it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No listener of the port serves the name.
    UnknownName,
    /// The listener has no certificate with its key, or nobody to trust for its clients'.
    NoCertificate,
}

/// What one table shows.
#[derive(Default)]
struct Served {
    head: HeadId,
    /// What the listeners of that table want; the same value in another says that nothing changed.
    wanted: Option<Arc<Listening>>,
    /// By Gateway and listener.
    offers: HashMap<Key, HashMap<String, Offer>>,
    /// What is served for each certificate's resource.
    pairs: HashMap<Key, Pair>,
    missing: Vec<Key>,
}

impl Served {
    fn is_of(&self, table: &Table) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| Arc::ptr_eq(wanted, table.listening()))
    }

    fn offer(&self, gateway: &Key, listener: &str) -> Option<&Offer> {
        self.offers.get(gateway)?.get(listener)
    }
}

impl Certificates {
    /// No certificates yet.
    pub fn new(keys: Arc<KeyStore>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Certificates { keys, provider, served: ArcSwap::default(), refresh: Mutex::new(()) }
    }

    /// Brings what is served to a table. A certificate whose key is not here keeps the pair that
    /// was served for it before. Returns those certificates. What the table names no more is
    /// dropped, with its private keys.
    pub fn refresh(&self, table: &Table) -> Vec<Key> {
        let _one = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.served.load_full();
        let done = old.missing.is_empty() && old.is_of(table);
        // Nor back to an older table, which a thread may still have in its hands.
        if done || table.head() < old.head {
            return old.missing.clone();
        }
        let wanted = Some(Arc::clone(table.listening()));
        let mut new = Served { head: table.head(), wanted, ..Served::default() };
        for (key, certificate) in table.certificates() {
            let print = Print::of_certificate(certificate);
            let known = old.pairs.get(key);
            let current = known.filter(|pair| pair.print == print).cloned();
            let current = current.or_else(|| self.pair(certificate, print));
            if current.is_none() {
                new.missing.push(key.clone());
            }
            if let Some(pair) = current.or_else(|| known.cloned()) {
                new.pairs.insert(key.clone(), pair);
            }
        }
        for (gateway, listener) in table.tls_listeners() {
            let known = old.offer(gateway, &listener.name);
            let offer = Offer::new(&self.provider, table, listener, &new.pairs, known);
            new.offers.entry(gateway.clone()).or_default().insert(listener.name.clone(), offer);
        }
        let missing = new.missing.clone();
        self.served.store(Arc::new(new));
        missing
    }

    /// What a client that names `sni` meets.
    ///
    /// # Errors
    /// Why it meets nothing.
    pub fn select(&self, table: &Table, gateway: &Key, port: u16, sni: Option<&str>) -> Result<Arc<Made>, Refusal> {
        let listener = table.listener(gateway, port, sni).ok_or(Refusal::UnknownName)?;
        let served = self.served.load();
        let key_came = |offer: &Offer| offer.awaited.iter().any(|hash| self.keys.get(hash).is_some());
        let made = if !served.is_of(table) || served.offer(gateway, &listener.name).is_some_and(key_came) {
            self.refresh(table);
            self.served.load().offer(gateway, &listener.name).and_then(|offer| offer.made.clone())
        } else {
            served.offer(gateway, &listener.name).and_then(|offer| offer.made.clone())
        };
        made.ok_or(Refusal::NoCertificate)
    }

    fn pair(&self, certificate: &Certificate, print: Print) -> Option<Pair> {
        let key = self.keys.get(&certificate.key_hash)?;
        let chain = certificate.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let certified = Arc::new(CertifiedKey::new(chain, key));
        Some(Pair { print, certified, names: certificate.dns_names.as_slice().into() })
    }
}
