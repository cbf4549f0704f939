//! TLS: the listener that a client's server name chooses, what it shows, and whom it lets in.

use std::borrow::Cow;

use super::Table;
use crate::snapshot::{
    Certificate, ClientValidation, ClientValidationMode, Key, Listener, Protocol, Resource, TrustBundle,
};

impl Table {
    /// The listener that a TLS client which names `sni` meets on a Gateway's port: the one with
    /// the most specific matching hostname.
    pub fn listener(&self, gateway: &Key, port: u16, sni: Option<&str>) -> Option<&Listener> {
        let entry = self.gateways.get(gateway)?.listener(port, &server_name(sni.unwrap_or_default()))?;
        Some(&entry.listener)
    }

    /// The certificate a TLS client that names `sni` is shown on a Gateway's port: among its
    /// listener's certificates the first that covers the name, else the first. (Of several that
    /// cover it the edge takes one that the client can check.)
    pub fn certificate(&self, gateway: &Key, port: u16, sni: Option<&str>) -> Option<&Certificate> {
        let listener = self.listener(gateway, port, sni)?;
        let name = server_name(sni.unwrap_or_default());
        let covering = self.offered(listener).find(|(_, certificate)| covers_name(&certificate.dns_names, &name));
        covering.or_else(|| self.offered(listener).next()).map(|(_, certificate)| certificate)
    }

    /// The certificates of a listener that are here, in declared order.
    pub fn offered<'t>(&'t self, listener: &'t Listener) -> impl Iterator<Item = (&'t Key, &'t Certificate)> {
        listener.certificates.iter().filter_map(|key| Some((key, self.certificate_by_key(key)?)))
    }

    /// All certificates that listeners refer to, sorted by key; whoever serves them needs their
    /// private keys.
    pub fn certificates(&self) -> impl Iterator<Item = (&Key, &Certificate)> {
        self.listening.certificates.iter().filter_map(|(key, resource)| match &**resource {
            Resource::Certificate(certificate) => Some((key, certificate)),
            _ => None,
        })
    }

    /// All listeners that speak TLS, with their Gateways.
    pub fn tls_listeners(&self) -> impl Iterator<Item = (&Key, &Listener)> {
        let all = self
            .gateways
            .iter()
            .flat_map(|(gateway, entry)| entry.listeners.iter().map(move |entry| (gateway, &*entry.listener)));
        all.filter(|(_, listener)| listener.protocol == Protocol::Https)
    }

    /// The certificates of authorities that a listener trusts ([`ClientValidation::trust`]).
    pub fn trust_bundle(&self, key: &Key) -> Option<&TrustBundle> {
        match &**self.certificates.get(key)? {
            Resource::TrustBundle(bundle) => Some(bundle),
            _ => None,
        }
    }

    fn certificate_by_key(&self, key: &Key) -> Option<&Certificate> {
        match &**self.certificates.get(key)? {
            Resource::Certificate(certificate) => Some(certificate),
            _ => None,
        }
    }
}

/// May a client whose certificate was verified against `verified` ask a listener? Compared are the
/// bundles' names: a bundle that changes its content closes nobody's connection.
pub(super) fn vouched(listener: &Listener, verified: Option<&[Key]>) -> bool {
    match &listener.clients {
        Some(ClientValidation { trust, mode: ClientValidationMode::AllowValidOnly }) => {
            verified == Some(trust.as_slice())
        }
        Some(ClientValidation { mode: ClientValidationMode::AllowInsecureFallback, .. }) | None => true,
    }
}

/// A server name as hostnames are written here: lower case, without a trailing dot.
pub fn server_name(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// Whether a certificate with these DNS names is good for a name: equal, or one label under a
/// wildcard (RFC 6125 6.4.3).
pub fn covers_name(dns_names: &[String], name: &str) -> bool {
    dns_names.iter().any(|dns| match dns.strip_prefix("*.") {
        Some(suffix) => name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(suffix)),
        None => dns.eq_ignore_ascii_case(name),
    })
}
