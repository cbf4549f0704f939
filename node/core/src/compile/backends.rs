//! References to backends: what they resolve to, or why they do not.

use super::codes::{self, Code};
use super::grants::permitted;
use super::store::Objects;
use crate::intent::{BackendRef, ObjectKind, PortRef, Service};
use crate::snapshot::{BackendTarget, Key, Kind};

/// How the fields of a backend are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As in an HTTPRoute: `.name`, `.port`.
    Route,
    /// As in an Ingress: `.service.name`, `.service.port.number`.
    Ingress,
}

/// Why a backend does not resolve.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Kind of finding.
    pub(crate) code: Code,
    /// Field below the reference, with its dot.
    pub(crate) field: &'static str,
    /// Reason for the condition and the snapshot.
    pub(crate) reason: &'static str,
    /// In words.
    pub(crate) message: String,
}

/// What a backend of an object of kind `from.0` in namespace `from.1` refers to.
pub(crate) fn resolve(
    objects: &Objects,
    from: (ObjectKind, &str),
    reference: &BackendRef,
    style: Style,
) -> Result<BackendTarget, Problem> {
    let fields = Fields::of(style, reference.port.as_ref());
    let (namespace, name) = (reference.namespace.as_deref().unwrap_or(from.1), reference.name.as_str());
    let fail = |code, field, reason, message| Problem { code, field, reason, message };
    if !reference.group.is_empty() || reference.kind != ObjectKind::Service.name() {
        let message = format!("a backend of kind {} is not supported; name a Service", reference.kind);
        return Err(fail(codes::BACKEND_KIND, fields.kind, "InvalidKind", message));
    }
    if style == Style::Ingress && namespace != from.1 {
        let message = format!("Service {namespace}/{name} is in another namespace, where an Ingress can't reach");
        return Err(fail(codes::BACKEND_NOT_PERMITTED, fields.namespace, "RefNotPermitted", message));
    }
    // Before anything is said about the other namespace, whether it may be looked at.
    if !permitted(objects, from, (ObjectKind::Service, namespace, name)) {
        let message = format!(
            "Service {namespace}/{name} is in another namespace; a ReferenceGrant in {namespace} must allow \
             HTTPRoutes of {} to use it",
            from.1
        );
        return Err(fail(codes::BACKEND_NOT_PERMITTED, fields.namespace, "RefNotPermitted", message));
    }
    let Some((meta, service)) = objects.service(namespace, name) else {
        let message = format!("Service {namespace}/{name} does not exist; create it or correct the name");
        return Err(fail(codes::BACKEND_NOT_FOUND, fields.name, "BackendNotFound", message));
    };
    if service.external_name.is_some() {
        let message = format!(
            "Service {namespace}/{name} is of type ExternalName, which could point anywhere; use a Service with \
             endpoints"
        );
        return Err(fail(codes::BACKEND_EXTERNAL_NAME, fields.name, "InvalidKind", message));
    }
    let port = port(service, reference.port.as_ref()).map_err(|problem| {
        let message = format!("Service {namespace}/{name} {problem}");
        fail(codes::BACKEND_PORT, fields.port, "BackendNotFound", message)
    })?;
    let (namespace, name) = (meta.object.namespace.clone(), meta.object.name.clone());
    Ok(BackendTarget::Service { service: Key { kind: Kind::Service, namespace, name }, port })
}

fn port(service: &Service, wanted: Option<&PortRef>) -> Result<u16, String> {
    let tcp = || service.ports.iter().filter(|port| port.protocol == "TCP");
    let found = match wanted {
        Some(PortRef::Number(number)) => tcp().find(|port| port.port == *number),
        Some(PortRef::Name(name)) => tcp().find(|port| port.name == *name),
        None => None,
    };
    found.map(|port| port.port).ok_or_else(|| {
        let wanted = match wanted {
            Some(PortRef::Number(number)) => format!("has no TCP port {number}"),
            Some(PortRef::Name(name)) => format!("has no TCP port named {name}"),
            None => "is named without a port".to_owned(),
        };
        let has: Vec<String> =
            tcp()
                .map(|port| {
                    if port.name.is_empty() { port.port.to_string() } else { format!("{} ({})", port.port, port.name) }
                })
                .collect();
        if has.is_empty() {
            format!("{wanted}; it has none at all")
        } else {
            format!("{wanted}; use {}", has.join(" or "))
        }
    })
}

struct Fields {
    kind: &'static str,
    name: &'static str,
    namespace: &'static str,
    port: &'static str,
}

impl Fields {
    fn of(style: Style, port: Option<&PortRef>) -> Self {
        match (style, port) {
            (Style::Route, _) => Fields { kind: ".kind", name: ".name", namespace: ".namespace", port: ".port" },
            (Style::Ingress, port) => Fields {
                kind: ".resource",
                name: ".service.name",
                namespace: ".service.name",
                port: match port {
                    Some(PortRef::Number(_)) => ".service.port.number",
                    Some(PortRef::Name(_)) => ".service.port.name",
                    None => ".service.port",
                },
            },
        }
    }
}
