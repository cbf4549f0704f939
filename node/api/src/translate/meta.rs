//! What an object is, how it is called, and the rest of its metadata.

use std::collections::BTreeMap;

use meshgate_core::intent::{Finding, Meta, ObjectKind, ObjectRef, Severity};
use serde_json::Value;

use super::check::{Checker, quote};
use super::{code, pattern, unnamed};

/// The kinds that meshgate reads, with the versions of their groups that decode alike.
const KINDS: [(ObjectKind, &[&str]); 11] = [
    (ObjectKind::GatewayClass, &["v1", "v1beta1"]),
    (ObjectKind::Gateway, &["v1", "v1beta1"]),
    (ObjectKind::HttpRoute, &["v1", "v1beta1"]),
    (ObjectKind::ReferenceGrant, &["v1", "v1beta1"]),
    (ObjectKind::IngressClass, &["v1"]),
    (ObjectKind::Ingress, &["v1"]),
    (ObjectKind::Service, &["v1"]),
    (ObjectKind::EndpointSlice, &["v1"]),
    (ObjectKind::Secret, &["v1"]),
    (ObjectKind::ConfigMap, &["v1"]),
    (ObjectKind::Namespace, &["v1"]),
];

/// Why something is not an object that meshgate reads.
pub(super) enum NotRead {
    /// No `apiVersion` or no `kind`.
    NotAnObject,
    /// A kind, or a version of it, that is not known.
    Unknown,
}

impl NotRead {
    /// What to say about it.
    pub(super) fn into_finding(self, value: &Value, origin: &str) -> Vec<Finding> {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        match self {
            NotRead::NotAnObject => {
                let message = "is not a Kubernetes object: apiVersion and kind are required".to_owned();
                vec![unnamed(code::UNNAMED, Severity::Error, message, origin)]
            }
            NotRead::Unknown => {
                let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("(unnamed)");
                let message = format!(
                    "{} {} of {} is ignored: its kind or version is not one that meshgate reads",
                    text("kind"),
                    quote(name),
                    quote(&text("apiVersion"))
                );
                vec![unnamed(code::UNKNOWN_KIND, Severity::Warning, message, origin)]
            }
        }
    }
}

/// The kind of an object.
pub(super) fn kind_of(value: &Value) -> Result<ObjectKind, NotRead> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else { return Err(NotRead::NotAnObject) };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let known = KINDS.iter().find(|(known, _)| known.name() == kind && known.group() == group);
    match known {
        Some((kind, versions)) if versions.contains(&version) => Ok(*kind),
        _ => Err(NotRead::Unknown),
    }
}

fn is_cluster_scoped(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::GatewayClass | ObjectKind::IngressClass | ObjectKind::Namespace)
}

/// The metadata of an object of a known kind; `None` when it can't be named.
pub(super) fn read(value: &Value, kind: ObjectKind, check: &mut Checker) -> Option<Meta> {
    let meta = value.get("metadata").unwrap_or(&Value::Null);
    let text = |field: &str| meta.get(field).and_then(Value::as_str).unwrap_or_default();
    for field in ["name", "namespace"] {
        if meta.get(field).is_some_and(|value| !value.is_string() && !value.is_null()) {
            check.refuse(code::TYPE, &format!("metadata.{field}"), "must be a text: put it in quotes");
            return None;
        }
    }
    let name = text("name");
    check.text(
        "metadata.name",
        name,
        if kind == ObjectKind::Namespace { &pattern::LABEL } else { &pattern::SUBDOMAIN },
    );
    let namespace = match text("namespace") {
        _ if is_cluster_scoped(kind) => "",
        "" => "default",
        namespace => {
            check.text("metadata.namespace", namespace, &pattern::LABEL);
            namespace
        }
    };
    if check.refused {
        return None;
    }
    let object = ObjectRef::new(kind, namespace, name);
    let mut labels = BTreeMap::new();
    if matches!(kind, ObjectKind::Namespace | ObjectKind::Gateway) {
        let declared = meta.get("labels").and_then(Value::as_object).into_iter().flatten();
        labels.extend(declared.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))));
    }
    if kind == ObjectKind::Namespace {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    }
    let created = text("creationTimestamp").parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second);
    let generation = meta.get("generation").and_then(Value::as_u64).unwrap_or(0);
    Some(Meta { object, generation, created, labels })
}
