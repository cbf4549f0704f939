//! One listener's TLS: its certificates, versions, session tickets, and demand for client
//! certificates.

use std::collections::HashMap;
use std::sync::Arc;

use meshgate_core::snapshot::{
    Certificate, ClientValidation, HostPattern, Key, Listener, TlsVersion, TlsVersions, TrustBundle,
};
use meshgate_core::table::{Table, covers_name, server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureAlgorithm, SupportedProtocolVersion, version};

use super::clients::Clients;
use crate::identity::KeyHash;

/// A digest of what something is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print([u8; 32]);

impl Print {
    /// Key and chain of a certificate.
    pub fn of_certificate(certificate: &Certificate) -> Self {
        Print::of(std::iter::once(certificate.key_hash.as_slice()).chain(certificate.chain.iter().map(Vec::as_slice)))
    }

    fn of<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Print(*hasher.finalize().as_bytes())
    }
}

/// A certificate with its private key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Of the certificate that it was made from.
    pub print: Print,
    /// Chain and key.
    pub certified: Arc<CertifiedKey>,
    /// DNS names of the leaf.
    pub names: Arc<[String]>,
}

/// What a listener has for its clients.
pub struct Offer {
    policy: Policy,
    pairs: Vec<Print>,
    /// Keys that would make it better, and are not here.
    pub awaited: Vec<KeyHash>,
    /// `None`: there is no usable certificate, or nobody to trust for clients' certificates.
    pub made: Option<Arc<Made>>,
}

/// The configuration of a listener.
pub struct Made {
    /// For the handshake.
    pub config: Arc<ServerConfig>,
    /// How clients' certificates are checked, where they are asked for.
    pub clients: Option<Clients>,
    tickets: Option<Arc<dyn ProducesTickets>>,
}

/// What a session that is resumed must have been made under. Not the listener's certificate:
/// tickets outlive its renewal.
#[derive(PartialEq)]
struct Policy {
    port: u16,
    hostname: HostPattern,
    versions: TlsVersions,
    clients: Option<(ClientValidation, Print)>,
}

impl Policy {
    fn of(table: &Table, listener: &Listener) -> Self {
        let clients = listener.clients.as_ref().map(|clients| {
            let bundles = clients.trust.iter().filter_map(|key| table.trust_bundle(key));
            let certificates = bundles.flat_map(|TrustBundle { certificates }| certificates);
            (clients.clone(), Print::of(certificates.map(Vec::as_slice)))
        });
        Policy { port: listener.port, hostname: listener.hostname.clone(), versions: listener.versions, clients }
    }
}

impl Offer {
    /// The offer of a listener. `known` is its earlier one: what did not change is kept, and so
    /// are the keys of its session tickets while its policy stays.
    pub fn new(
        provider: &Arc<CryptoProvider>,
        table: &Table,
        listener: &Listener,
        pairs: &HashMap<Key, Pair>,
        known: Option<&Offer>,
    ) -> Self {
        let (mut shown, mut awaited) = (Vec::new(), Vec::new());
        for (key, certificate) in table.offered(listener) {
            let pair = pairs.get(key);
            shown.extend(pair.cloned());
            if pair.is_none_or(|pair| pair.print != Print::of_certificate(certificate)) {
                awaited.push(certificate.key_hash);
            }
        }
        let policy = Policy::of(table, listener);
        let prints: Vec<Print> = shown.iter().map(|pair| pair.print).collect();
        let known = known.filter(|known| known.policy == policy);
        let made = match known {
            Some(known) if known.pairs == prints => known.made.clone(),
            _ if shown.is_empty() => None,
            _ => {
                let tickets = known.and_then(|known| known.made.as_ref()?.tickets.clone());
                make(provider, table, listener, shown, tickets).map(Arc::new)
            }
        };
        Offer { policy, pairs: prints, awaited, made }
    }
}

fn make(
    provider: &Arc<CryptoProvider>,
    table: &Table,
    listener: &Listener,
    pairs: Vec<Pair>,
    tickets: Option<Arc<dyn ProducesTickets>>,
) -> Option<Made> {
    let clients = match &listener.clients {
        // Fails closed: without anybody to trust there is no handshake.
        Some(validation) => Some(Clients::new(provider, table, validation)?),
        None => None,
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&versions(listener.versions))
        .inspect_err(|error| tracing::error!(listener = listener.name, %error, "TLS can't be configured"))
        .ok()?;
    let builder = match &clients {
        Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(pairs)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // A resumed session would show no certificate, and outlive the trust in the one it showed.
    let tickets = if clients.is_some() { None } else { tickets.or_else(ticketer) };
    if let Some(tickets) = &tickets {
        config.ticketer = Arc::clone(tickets);
        config.send_tls13_tickets = 1;
    }
    Some(Made { config: Arc::new(config), clients, tickets })
}

/// Keys for session tickets of one listener: a ticket of another does not open it.
fn ticketer() -> Option<Arc<dyn ProducesTickets>> {
    aws_lc_rs::Ticketer::new()
        .inspect_err(|error| tracing::warn!(%error, "no session tickets: clients can't resume TLS sessions"))
        .ok()
}

/// TLS 1.2 has only suites with forward secrecy and AEAD here; older versions don't exist.
fn versions(wanted: TlsVersions) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::V13, &version::TLS13), (TlsVersion::V12, &version::TLS12)];
    let spoken = |version: TlsVersion| {
        wanted.min.is_none_or(|min| version >= min) && wanted.max.is_none_or(|max| version <= max)
    };
    all.into_iter().filter(|(version, _)| spoken(*version)).map(|(_, version)| version).collect()
}

/// Chooses among a listener's certificates, in declared order.
#[derive(Debug)]
struct Resolver(Vec<Pair>);

impl ResolvesServerCert for Resolver {
    /// One that the client can check before one that it can't; of those one that covers the name;
    /// of those ECDSA before RSA, which costs ten times as much to sign with.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = server_name(hello.server_name().unwrap_or_default());
        let best = self.0.iter().min_by_key(|pair| {
            let able = pair.certified.key.choose_scheme(hello.signature_schemes()).is_some();
            let dear = pair.certified.key.algorithm() == SignatureAlgorithm::RSA;
            (!able, !covers_name(&pair.names, &name), dear)
        });
        best.map(|pair| Arc::clone(&pair.certified))
    }
}
