//! GatewayClass, Gateway and ReferenceGrant.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as KubeSelector;
use meshgate_core::intent::{
    AllowedNamespaces, Gateway, GatewayClass, GrantFrom, GrantTo, LabelRequirement, LabelSelector, Listener,
    ObjectReference, ReferenceGrant,
};

use super::check::{Checker, quote};
use super::gateway_tls::{Clients, reference, versions};
use super::{code, pattern};
use crate::types::{self, FromNamespaces, GATEWAY_GROUP, TlsMode};

pub(super) fn class(class: types::GatewayClass, check: &mut Checker) -> GatewayClass {
    check.text("spec.controllerName", &class.spec.controller_name, &pattern::CONTROLLER);
    GatewayClass { controller_name: class.spec.controller_name }
}

pub(super) fn grant(grant: types::ReferenceGrant, check: &mut Checker) -> ReferenceGrant {
    let spec = grant.spec;
    check.count("spec.from", spec.from.len(), 1, 16);
    check.count("spec.to", spec.to.len(), 1, 16);
    for (i, from) in spec.from.iter().enumerate() {
        let at = format!("spec.from[{i}]");
        check_group_kind(&at, &from.group, &from.kind, check);
        check.text(&format!("{at}.namespace"), &from.namespace, &pattern::LABEL);
    }
    for (i, to) in spec.to.iter().enumerate() {
        let at = format!("spec.to[{i}]");
        check_group_kind(&at, &to.group, &to.kind, check);
        check.optional(&format!("{at}.name"), to.name.as_deref(), &pattern::OBJECT_NAME);
    }
    let from =
        |from: types::ReferenceGrantFrom| GrantFrom { group: from.group, kind: from.kind, namespace: from.namespace };
    let to = |to: types::ReferenceGrantTo| GrantTo { group: to.group, kind: to.kind, name: to.name };
    ReferenceGrant { from: spec.from.into_iter().map(from).collect(), to: spec.to.into_iter().map(to).collect() }
}

/// A group, which may be empty, and a kind.
pub(super) fn check_group_kind(at: &str, group: &str, kind: &str, check: &mut Checker) {
    if !group.is_empty() {
        check.text(&format!("{at}.group"), group, &pattern::SUBDOMAIN);
    }
    check.text(&format!("{at}.kind"), kind, &pattern::KIND);
}

pub(super) fn gateway(gateway: types::Gateway, check: &mut Checker) -> Gateway {
    let spec = gateway.spec;
    check.text("spec.gatewayClassName", &spec.gateway_class_name, &pattern::OBJECT_NAME);
    check.count("spec.listeners", spec.listeners.len(), 1, 64);
    if spec.tls.as_ref().is_some_and(|tls| tls.backend.is_some()) {
        let message = "is ignored: this version shows no certificate to backends";
        check.warn(code::UNSUPPORTED, "spec.tls.backend", message);
    }
    if !spec.addresses.is_empty() {
        let message = "are ignored: this version chooses the Gateway's address itself";
        check.warn(code::UNSUPPORTED, "spec.addresses", message);
    }
    check_unique(&spec.listeners, check);
    let clients = Clients::read(spec.tls.and_then(|tls| tls.frontend), check);
    let listeners = spec.listeners.into_iter().enumerate();
    let listeners =
        listeners.map(|(i, item)| listener(&format!("spec.listeners[{i}]"), item, &clients, check)).collect();
    Gateway { class: spec.gateway_class_name, listeners }
}

fn check_unique(listeners: &[types::Listener], check: &mut Checker) {
    let mut names = HashSet::new();
    let mut places = HashSet::new();
    for (i, listener) in listeners.iter().enumerate() {
        let at = format!("spec.listeners[{i}]");
        if !listener.name.is_empty() && !names.insert(&listener.name) {
            let message =
                format!("{} is the name of another listener too: names must be unique", quote(&listener.name));
            check.refuse(code::CONFLICT, &format!("{at}.name"), message);
        }
        if !places.insert((listener.port, &listener.protocol, &listener.hostname)) {
            let message = "another listener has the same port, protocol and hostname: the combination must be unique";
            check.refuse(code::CONFLICT, &at, message);
        }
    }
}

fn listener(at: &str, listener: types::Listener, clients: &Clients, check: &mut Checker) -> Listener {
    check.text(&format!("{at}.name"), &listener.name, &pattern::SUBDOMAIN);
    check.text(&format!("{at}.protocol"), &listener.protocol, &pattern::PROTOCOL);
    check.optional(&format!("{at}.hostname"), listener.hostname.as_deref(), &pattern::HOSTNAME);
    let port = check.required_port(&format!("{at}.port"), listener.port);
    if listener.filters.is_some() {
        let message = "filters of a listener are not supported by this version; the Gateway is not served";
        check.refuse(code::UNSUPPORTED, &format!("{at}.filters"), message);
    }
    if listener.hostname.is_some() && matches!(listener.protocol.as_str(), "TCP" | "UDP") {
        let message = format!("is not allowed with the protocol {}", listener.protocol);
        check.refuse(code::CONFLICT, &format!("{at}.hostname"), message);
    }
    let options = listener.tls.as_ref().map(|tls| &tls.options);
    let versions = options.map(|options| versions(&format!("{at}.tls.options"), options, check)).unwrap_or_default();
    let clients = clients.of(port).filter(|_| listener.protocol == "HTTPS").cloned();
    let (tls_terminate, certificates) = tls(at, &listener.protocol, listener.tls, check);
    let (allowed_namespaces, allowed_kinds) = allowed(&format!("{at}.allowedRoutes"), listener.allowed_routes, check);
    Listener {
        name: listener.name,
        port,
        protocol: listener.protocol,
        hostname: listener.hostname,
        tls_terminate,
        certificates,
        versions,
        clients,
        allowed_namespaces,
        allowed_kinds,
    }
}

/// `tls` of a listener: does TLS end here, and with which certificates?
fn tls(at: &str, protocol: &str, tls: Option<types::ListenerTls>, check: &mut Checker) -> (bool, Vec<ObjectReference>) {
    let Some(tls) = tls else {
        if protocol == "HTTPS" {
            // The API server accepts it, so the rest of the Gateway is served.
            check.error(code::REQUIRED, &format!("{at}.tls"), "HTTPS needs tls.certificateRefs");
        } else if protocol == "TLS" {
            check.refuse(
                code::REQUIRED,
                &format!("{at}.tls.mode"),
                "the protocol TLS needs a mode: Terminate or Passthrough",
            );
        }
        return (true, Vec::new());
    };
    if matches!(protocol, "HTTP" | "TCP" | "UDP") {
        check.refuse(code::CONFLICT, &format!("{at}.tls"), format!("is not allowed with the protocol {protocol}"));
    }
    let mode = tls.mode.unwrap_or_default();
    match &mode {
        TlsMode::Terminate if tls.certificate_refs.is_empty() && tls.options.is_empty() => {
            let message = "is required where tls.mode is Terminate (the default)";
            check.refuse(code::REQUIRED, &format!("{at}.tls.certificateRefs"), message);
        }
        TlsMode::Terminate => {}
        TlsMode::Passthrough if protocol == "HTTPS" => {
            let message = "must be Terminate for the protocol HTTPS";
            check.refuse(code::CONFLICT, &format!("{at}.tls.mode"), message);
        }
        TlsMode::Passthrough => {}
        TlsMode::Unsupported(other) => check.unknown_value(&format!("{at}.tls.mode"), other, TlsMode::KNOWN),
    }
    check.count(&format!("{at}.tls.certificateRefs"), tls.certificate_refs.len(), 0, 64);
    let refs = tls.certificate_refs.into_iter().enumerate();
    let refs =
        refs.map(|(i, item)| reference(&format!("{at}.tls.certificateRefs[{i}]"), item, "Secret", check)).collect();
    (mode == TlsMode::Terminate, refs)
}

fn allowed(at: &str, routes: types::AllowedRoutes, check: &mut Checker) -> (AllowedNamespaces, Vec<(String, String)>) {
    check.count(&format!("{at}.kinds"), routes.kinds.len(), 0, 8);
    let mut kinds = Vec::with_capacity(routes.kinds.len());
    for (i, item) in routes.kinds.into_iter().enumerate() {
        let group = item.group.unwrap_or_else(|| GATEWAY_GROUP.to_owned());
        check_group_kind(&format!("{at}.kinds[{i}]"), &group, &item.kind, check);
        kinds.push((group, item.kind));
    }
    let at = format!("{at}.namespaces");
    let namespaces = match routes.namespaces.from {
        FromNamespaces::Same => AllowedNamespaces::Same,
        FromNamespaces::All => AllowedNamespaces::All,
        FromNamespaces::Selector => match routes.namespaces.selector {
            Some(labels) => AllowedNamespaces::Selector(selector(&format!("{at}.selector"), labels, check)),
            None => {
                // Accepted by the API server; without a selector there is nothing to select.
                check.error(code::REQUIRED, &format!("{at}.selector"), "is required with from: Selector");
                AllowedNamespaces::None
            }
        },
        // `None` is a value of allowedListeners only.
        other @ (FromNamespaces::None | FromNamespaces::Unsupported(_)) => {
            check.unknown_value(&format!("{at}.from"), other.as_str(), &["Same", "All", "Selector"]);
            AllowedNamespaces::None
        }
    };
    (namespaces, kinds)
}

fn selector(at: &str, selector: KubeSelector, check: &mut Checker) -> LabelSelector {
    let labels = selector.match_labels.unwrap_or_default();
    let mut requirements: Vec<_> =
        labels.into_iter().map(|(key, value)| LabelRequirement::In(key, vec![value])).collect();
    for (i, item) in selector.match_expressions.unwrap_or_default().into_iter().enumerate() {
        let at = format!("{at}.matchExpressions[{i}]");
        if item.key.is_empty() {
            check.refuse(code::REQUIRED, &format!("{at}.key"), "is required: the name of a label");
        }
        let values = item.values.unwrap_or_default();
        let takes_values = matches!(item.operator.as_str(), "In" | "NotIn");
        if takes_values == values.is_empty() {
            let message =
                if takes_values { "is required with In and NotIn" } else { "must be empty with this operator" };
            check.error(code::CONFLICT, &format!("{at}.values"), message);
        }
        requirements.push(match item.operator.as_str() {
            "In" => LabelRequirement::In(item.key, values),
            "NotIn" => LabelRequirement::NotIn(item.key, values),
            "Exists" => LabelRequirement::Exists(item.key),
            "DoesNotExist" => LabelRequirement::DoesNotExist(item.key),
            other => {
                check.unknown_value(&format!("{at}.operator"), other, &["In", "NotIn", "Exists", "DoesNotExist"]);
                continue;
            }
        });
    }
    LabelSelector { requirements }
}
