//! Parents of a route: which listeners take it, with which hosts.

use super::codes::{self, Code};
use super::gateways::{Gateways, Parent};
use super::grants::selected;
use super::hosts::common;
use super::listeners::Section;
use super::store::Objects;
use crate::intent::{AllowedNamespaces, Meta, ObjectKind, ParentRef};
use crate::snapshot::{Attachment, HostPattern};

/// What a parent says to a route.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is someone else's.
    Foreign,
    /// There is no such Gateway.
    Missing,
    /// It takes the route. Listeners that are not served yield no attachment.
    Taken(Vec<Attachment>),
    /// It does not.
    Refused {
        /// Kind of finding.
        code: Code,
        /// Field of the route.
        field: String,
        /// Reason for the condition.
        reason: &'static str,
        /// In words.
        message: String,
    },
}

/// What the parent says that `spec.parentRefs[index]` names.
pub(crate) fn ask(
    objects: &Objects,
    gateways: &Gateways,
    route: (&Meta, &[HostPattern]),
    reference: &ParentRef,
    index: usize,
) -> Answer {
    let (meta, hosts) = route;
    if reference.group != ObjectKind::Gateway.group() || reference.kind != ObjectKind::Gateway.name() {
        return Answer::Foreign;
    }
    let namespace = reference.namespace.as_deref().unwrap_or(&meta.object.namespace);
    let Some(parent) = gateways.get(namespace, &reference.name) else {
        let exists = objects.get(ObjectKind::Gateway, namespace, &reference.name).is_some();
        return if exists { Answer::Foreign } else { Answer::Missing };
    };
    let mut sections: Vec<&Section> = parent.sections.iter().filter(|section| named(reference, section)).collect();
    if sections.is_empty() {
        return no_listener(parent, reference, index);
    }
    sections.retain(|section| allowed(objects, section, namespace, &meta.object.namespace));
    if sections.is_empty() {
        return not_allowed(parent, meta, index);
    }
    let mut taken = false;
    let mut attachments = Vec::new();
    for section in &sections {
        let hosts = common(hosts, &section.hostname);
        taken |= !hosts.is_empty();
        if section.served && !hosts.is_empty() {
            attachments.push(Attachment { gateway: parent.key.clone(), listener: section.name.clone(), hosts });
        }
    }
    if taken { Answer::Taken(attachments) } else { no_hostname(parent, hosts, &sections) }
}

fn named(reference: &ParentRef, section: &Section) -> bool {
    reference.section_name.as_ref().is_none_or(|name| *name == section.name)
        && reference.port.is_none_or(|port| port == section.port)
}

fn allowed(objects: &Objects, section: &Section, gateway: &str, route: &str) -> bool {
    section.http_routes
        && match &section.namespaces {
            AllowedNamespaces::Same => gateway == route,
            AllowedNamespaces::All => true,
            AllowedNamespaces::None => false,
            AllowedNamespaces::Selector(selector) => selected(selector, objects.namespace_labels(route)),
        }
}

fn no_listener(parent: &Parent, reference: &ParentRef, index: usize) -> Answer {
    let wanted = match (&reference.section_name, reference.port) {
        (Some(name), Some(port)) => format!("listener named {name} on port {port}"),
        (Some(name), None) => format!("listener named {name}"),
        (None, Some(port)) => format!("listener on port {port}"),
        (None, None) => "listener that is not in conflict".to_owned(),
    };
    let part = match (&reference.section_name, reference.port) {
        (Some(_), _) => ".sectionName",
        (None, Some(_)) => ".port",
        (None, None) => "",
    };
    let has: Vec<String> =
        parent.sections.iter().map(|section| format!("{} (port {})", section.name, section.port)).collect();
    let has = if has.is_empty() { "no usable listener".to_owned() } else { has.join(", ") };
    Answer::Refused {
        code: codes::NO_MATCHING_LISTENER,
        field: format!("spec.parentRefs[{index}]{part}"),
        reason: "NoMatchingParent",
        message: format!("{} has no {wanted}; it has {has}", parent.key),
    }
}

fn not_allowed(parent: &Parent, meta: &Meta, index: usize) -> Answer {
    Answer::Refused {
        code: codes::NOT_ALLOWED_BY_LISTENERS,
        field: format!("spec.parentRefs[{index}]"),
        reason: "NotAllowedByListeners",
        message: format!(
            "the listeners of {} do not allow HTTPRoutes of namespace {}; change their allowedRoutes",
            parent.key, meta.object.namespace
        ),
    }
}

fn no_hostname(parent: &Parent, hosts: &[HostPattern], sections: &[&Section]) -> Answer {
    let route: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let listeners: Vec<String> = sections.iter().map(|section| section.hostname.to_string()).collect();
    Answer::Refused {
        code: codes::NO_MATCHING_HOSTNAME,
        field: "spec.hostnames".to_owned(),
        reason: "NoMatchingListenerHostname",
        message: format!(
            "{} serves {}, which has nothing in common with {}",
            parent.key,
            listeners.join(", "),
            route.join(", ")
        ),
    }
}

/// The scope of a parent in the status: `namespace/name`, then `/section` and `:port` if given,
/// because a route may name several parts of one Gateway, each with conditions of its own.
pub(crate) fn scope(meta: &Meta, reference: &ParentRef) -> String {
    let namespace = reference.namespace.as_deref().unwrap_or(&meta.object.namespace);
    let section = reference.section_name.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
    let port = reference.port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{namespace}/{}{section}{port}", reference.name)
}
