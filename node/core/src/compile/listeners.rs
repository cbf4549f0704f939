//! Listeners of a Gateway: which are served, which conflict, which certificates they have.

use std::collections::{BTreeMap, BTreeSet};

use super::codes;
use super::hosts::gateway_host;
use super::listener_refs::{Unresolved, authority, certificate};
use super::status::{ACCEPTED, CONFLICTED, PROGRAMMED, RESOLVED_REFS, no, yes};
use super::store::Objects;
use super::{Condition, Finding};
use crate::intent::{AllowedNamespaces, Gateway, Listener, Meta, ObjectKind};
use crate::snapshot::{self, ClientValidation, HostPattern, Key, Protocol};

/// A listener as routes see it. One in conflict is not there for them.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// Its name.
    pub(crate) name: String,
    /// Its port.
    pub(crate) port: u16,
    /// Its hosts.
    pub(crate) hostname: HostPattern,
    /// Does it take HTTPRoutes at all?
    pub(crate) http_routes: bool,
    /// From which namespaces?
    pub(crate) namespaces: AllowedNamespaces,
    /// Is it in the snapshot? Routes are accepted by others too, but serve nothing there.
    pub(crate) served: bool,
}

/// What became of a Gateway's listeners.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// For routes.
    pub(crate) sections: Vec<Section>,
    /// For the snapshot.
    pub(crate) listeners: Vec<snapshot::Listener>,
    /// One list for all listeners, by scope.
    pub(crate) conditions: Vec<Condition>,
    /// What is wrong.
    pub(crate) findings: Vec<Finding>,
    /// How many are accepted.
    pub(crate) accepted: usize,
}

/// Why a listener is not accepted: reason and words.
struct Refusal {
    code: codes::Code,
    field: &'static str,
    reason: &'static str,
    conflict: bool,
    message: String,
}

/// What earlier listeners of the Gateway took.
#[derive(Default)]
struct Taken<'a> {
    ports: BTreeMap<u16, (Protocol, &'a str)>,
    hosts: BTreeMap<(u16, HostPattern), &'a str>,
}

/// Checks all listeners of a Gateway; of two in conflict the later one loses.
pub(crate) fn check(objects: &Objects, meta: &Meta, gateway: &Gateway) -> Checked {
    let mut checked = Checked::default();
    let mut names = BTreeSet::new();
    let mut taken = Taken::default();
    for (index, listener) in gateway.listeners.iter().enumerate() {
        let field = format!("spec.listeners[{index}]");
        if !names.insert(listener.name.as_str()) {
            // No condition: it would contradict that of the listener which has the name.
            let message =
                format!("another listener is named {} already; give this one a name of its own", listener.name);
            checked.findings.push(codes::LISTENER_NAME_DUPLICATE.at(&meta.object, field + ".name", message));
            continue;
        }
        match admit(listener, &mut taken) {
            Ok(protocol) => checked.admitted(objects, meta, listener, protocol, &field),
            Err(refusal) => checked.refused(meta, listener, refusal, &field),
        }
    }
    checked
}

/// Is the protocol served, and the place free?
fn admit<'a>(listener: &'a Listener, taken: &mut Taken<'a>) -> Result<Protocol, Refusal> {
    let refuse = |code, field, reason, conflict, message| Refusal { code, field, reason, conflict, message };
    let protocol = match listener.protocol.as_str() {
        "HTTP" => Protocol::Http,
        "HTTPS" if listener.tls_terminate => Protocol::Https,
        "HTTPS" => {
            let message = "HTTPS needs tls.mode Terminate; Passthrough is not supported".to_owned();
            return Err(refuse(codes::PROTOCOL_UNSUPPORTED, ".tls.mode", "UnsupportedProtocol", false, message));
        }
        other => {
            let message = format!("protocol {other} is not supported; HTTP and HTTPS are");
            return Err(refuse(codes::PROTOCOL_UNSUPPORTED, ".protocol", "UnsupportedProtocol", false, message));
        }
    };
    let (port, name) = (listener.port, listener.name.as_str());
    if let Some(&(other, owner)) = taken.ports.get(&port)
        && other != protocol
    {
        let message = format!("listener {owner} uses port {port} with another protocol; choose another port");
        return Err(refuse(codes::PROTOCOL_CONFLICT, ".port", "ProtocolConflict", true, message));
    }
    let host = hostname(listener);
    if let Some(owner) = taken.hosts.get(&(port, host.clone())) {
        let message = format!("listener {owner} has port {port} and hostname {host} already; change one of them");
        return Err(refuse(codes::LISTENER_CONFLICT, ".hostname", "HostnameConflict", true, message));
    }
    taken.ports.insert(port, (protocol, name));
    taken.hosts.insert((port, host), name);
    Ok(protocol)
}

fn hostname(listener: &Listener) -> HostPattern {
    listener.hostname.as_deref().map_or(HostPattern::Any, gateway_host)
}

impl Checked {
    fn refused(&mut self, meta: &Meta, listener: &Listener, refusal: Refusal, field: &str) {
        let Refusal { code, field: part, reason, conflict, message } = refusal;
        let name = listener.name.as_str();
        self.findings.push(code.at(&meta.object, format!("{field}{part}"), message.clone()));
        self.conditions.push(no(name, ACCEPTED, reason, message.clone()));
        self.conditions.push(no(name, PROGRAMMED, "Invalid", "the listener is not accepted"));
        self.conditions.push(yes(name, RESOLVED_REFS, "ResolvedRefs"));
        self.conditions.push(if conflict {
            super::status::but(name, CONFLICTED, reason, message)
        } else {
            // It is there for routes, so that they learn why they can't attach.
            self.sections.push(section(listener, false, false));
            no(name, CONFLICTED, "NoConflicts", "")
        });
    }

    fn admitted(&mut self, objects: &Objects, meta: &Meta, listener: &Listener, protocol: Protocol, field: &str) {
        let name = listener.name.as_str();
        self.conditions.push(no(name, CONFLICTED, "NoConflicts", ""));
        let (http_routes, kinds) = self.route_kinds(meta, listener, field);
        let (certificates, refs) = match protocol {
            Protocol::Http => (Vec::new(), None),
            Protocol::Https => self.certificates(objects, meta, listener, field),
        };
        let (clients, authorities) = self.clients(objects, meta, listener);
        // Without anybody to trust, serving would mean asking no client for a certificate.
        let closed = listener.clients.is_some() && clients.is_none();
        self.accepted += usize::from(!closed);
        self.conditions.push(if closed {
            no(name, ACCEPTED, "NoValidCACertificate", "no certificate of an authority can be used")
        } else {
            yes(name, ACCEPTED, "Accepted")
        });
        self.conditions.push(match refs.or(authorities).or(kinds) {
            Some((reason, message)) => no(name, RESOLVED_REFS, reason, message),
            None => yes(name, RESOLVED_REFS, "ResolvedRefs"),
        });
        let served = !closed && (protocol == Protocol::Http || !certificates.is_empty());
        self.sections.push(section(listener, http_routes, served));
        if served {
            self.listeners.push(snapshot::Listener {
                name: listener.name.clone(),
                port: listener.port,
                protocol,
                hostname: hostname(listener),
                certificates,
                versions: listener.versions,
                clients,
            });
        } else {
            let what = if closed { "certificate of an authority" } else { "certificate" };
            self.conditions.push(no(name, PROGRAMMED, "Invalid", format!("the listener has no usable {what}")));
        }
    }

    /// Whom client certificates are checked against, and the first reference that does not resolve
    /// (`caCertificateRefs`). `None` without any that does.
    fn clients(
        &mut self,
        objects: &Objects,
        meta: &Meta,
        listener: &Listener,
    ) -> (Option<ClientValidation>, Option<(&'static str, String)>) {
        let Some(declared) = &listener.clients else { return (None, None) };
        let mut trust = Vec::new();
        let mut problem = None;
        for (index, reference) in declared.refs.iter().enumerate() {
            match authority(objects, meta, reference) {
                Ok(key) if trust.contains(&key) => {}
                Ok(key) => trust.push(key),
                Err(Unresolved { code, part, reason, message }) => {
                    let field = format!("{}.caCertificateRefs[{index}].{part}", declared.field);
                    self.findings.push(code.at(&meta.object, field, message.clone()));
                    problem.get_or_insert((reason, message));
                }
            }
        }
        let clients = (!trust.is_empty()).then_some(ClientValidation { trust, mode: declared.mode });
        (clients, problem)
    }

    /// Does it take HTTPRoutes, and what of `allowedRoutes.kinds` is wrong?
    fn route_kinds(&mut self, meta: &Meta, listener: &Listener, field: &str) -> (bool, Option<(&'static str, String)>) {
        let served = ObjectKind::HttpRoute;
        let mut problem = None;
        let mut takes = listener.allowed_kinds.is_empty();
        for (index, (group, kind)) in listener.allowed_kinds.iter().enumerate() {
            if group == served.group() && kind == served.name() {
                takes = true;
                continue;
            }
            let message = format!("routes of kind {kind} can't attach to a listener of protocol {}", listener.protocol);
            let field = format!("{field}.allowedRoutes.kinds[{index}].kind");
            self.findings.push(codes::ROUTE_KIND_UNSUPPORTED.at(&meta.object, field, message.clone()));
            problem.get_or_insert(("InvalidRouteKinds", message));
        }
        (takes, problem)
    }

    /// The certificates that resolve, and the first problem with one that does not.
    fn certificates(
        &mut self,
        objects: &Objects,
        meta: &Meta,
        listener: &Listener,
        field: &str,
    ) -> (Vec<Key>, Option<(&'static str, String)>) {
        let mut keys = Vec::new();
        let mut problem = None;
        if listener.certificates.is_empty() {
            let message = "an HTTPS listener needs a certificate; name a Secret of type kubernetes.io/tls".to_owned();
            let field = format!("{field}.tls.certificateRefs");
            self.findings.push(codes::CERTIFICATE_MISSING.at(&meta.object, field, message.clone()));
            problem = Some(("InvalidCertificateRef", message));
        }
        for (index, reference) in listener.certificates.iter().enumerate() {
            match certificate(objects, meta, reference) {
                Ok(key) if keys.contains(&key) => {}
                Ok(key) => keys.push(key),
                Err(Unresolved { code, part, reason, message }) => {
                    let field = format!("{field}.tls.certificateRefs[{index}].{part}");
                    self.findings.push(code.at(&meta.object, field, message.clone()));
                    problem.get_or_insert((reason, message));
                }
            }
        }
        (keys, problem)
    }
}

fn section(listener: &Listener, http_routes: bool, served: bool) -> Section {
    Section {
        name: listener.name.clone(),
        port: listener.port,
        hostname: hostname(listener),
        http_routes,
        namespaces: listener.allowed_namespaces.clone(),
        served,
    }
}
