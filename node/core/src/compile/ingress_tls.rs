//! The listeners of the Gateway that is made up for an IngressClass.

use std::collections::BTreeMap;

use super::hosts::ingress_host;
use super::ingress::Class;
use super::listener_refs::{certificate_key, no_certificate};
use super::store::Objects;
use super::{Finding, codes};
use crate::intent::{IngressTls, Meta, ObjectRef};
use crate::snapshot::{HostPattern, Key, Listener, Protocol, TlsVersions};

/// The certificates for one host, and whose the first one is.
struct Claim<'a> {
    owner: &'a ObjectRef,
    keys: Vec<Key>,
}

/// `http` on port 80 for every host; on port 443 a listener `https-<host>` for each TLS host, so
/// that the name which a client asks for chooses the certificate, and `https` for TLS entries
/// without hosts.
pub(crate) fn listeners(objects: &Objects, class: &Class<'_>) -> (Vec<Listener>, Vec<Finding>) {
    let mut claims: BTreeMap<HostPattern, Claim<'_>> = BTreeMap::new();
    let mut findings = Vec::new();
    for (meta, ingress) in &class.ingresses {
        for (index, tls) in ingress.tls.iter().enumerate() {
            let field = format!("spec.tls[{index}]");
            match secret(objects, meta, tls, &field) {
                Ok(key) => claim(&mut claims, meta, tls, &key, &field, &mut findings),
                Err(finding) => findings.push(*finding),
            }
        }
    }
    let mut listeners = vec![Listener {
        name: "http".to_owned(),
        port: 80,
        protocol: Protocol::Http,
        hostname: HostPattern::Any,
        certificates: Vec::new(),
        versions: TlsVersions::default(),
        clients: None,
    }];
    listeners.extend(claims.into_iter().map(|(hostname, claim)| Listener {
        name: match &hostname {
            HostPattern::Any => "https".to_owned(),
            host => format!("https-{host}"),
        },
        port: 443,
        protocol: Protocol::Https,
        hostname,
        certificates: claim.keys,
        versions: TlsVersions::default(),
        clients: None,
    }));
    (listeners, findings)
}

fn secret(objects: &Objects, meta: &Meta, tls: &IngressTls, field: &str) -> Result<Key, Box<Finding>> {
    let field = format!("{field}.secretName");
    let Some(name) = &tls.secret else {
        let message = "no Secret is named, so its hosts are not served by TLS; name one of type kubernetes.io/tls";
        return Err(Box::new(codes::TLS_WITHOUT_SECRET.at(&meta.object, field, message)));
    };
    let namespace = &meta.object.namespace;
    match objects.certificate(namespace, name) {
        Some((secret, _)) => Ok(certificate_key(secret)),
        None => Err(Box::new(codes::CERTIFICATE_NOT_FOUND.at(&meta.object, field, no_certificate(namespace, name)))),
    }
}

/// The oldest Ingress that names a host chooses its certificate; others come after it.
fn claim<'a>(
    claims: &mut BTreeMap<HostPattern, Claim<'a>>,
    meta: &'a Meta,
    tls: &IngressTls,
    key: &Key,
    field: &str,
    findings: &mut Vec<Finding>,
) {
    let every = [String::new()];
    let hosts = if tls.hosts.is_empty() { &every } else { tls.hosts.as_slice() };
    for (index, host) in hosts.iter().enumerate() {
        let host = ingress_host(host);
        let claim = claims.entry(host.clone()).or_insert(Claim { owner: &meta.object, keys: Vec::new() });
        if claim.keys.contains(key) {
            continue;
        }
        if *claim.owner != meta.object {
            let field = if tls.hosts.is_empty() { field.to_owned() } else { format!("{field}.hosts[{index}]") };
            let message = format!(
                "{} names another Secret for host {host} and comes first (age, then name); its certificate is \
                 preferred",
                claim.owner
            );
            findings.push(codes::TLS_HOST_TAKEN.at(&meta.object, field, message));
        }
        claim.keys.push(key.clone());
    }
}
