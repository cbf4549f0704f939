//! Ingress and IngressClass.

use k8s_openapi::api::networking::v1 as kube;
use meshgate_core::intent::{BackendRef, Ingress, IngressClass, IngressPath, IngressPathType, IngressTls, PortRef};

use super::check::{Checker, quote};
use super::{annotations, code, pattern};

/// Marks the IngressClass of Ingresses that name none.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// The class of an Ingress before there was a field for it.
const CLASS: &str = "kubernetes.io/ingress.class";

pub(super) fn class(class: kube::IngressClass, check: &mut Checker) -> IngressClass {
    let controller = class.spec.and_then(|spec| spec.controller).unwrap_or_default();
    check.text("spec.controller", &controller, &pattern::CONTROLLER);
    let default = class.metadata.annotations.and_then(|mut annotations| annotations.remove(DEFAULT_CLASS));
    IngressClass { controller, is_default: default.as_deref() == Some("true") }
}

pub(super) fn ingress(ingress: kube::Ingress, check: &mut Checker) -> Ingress {
    let spec = ingress.spec.unwrap_or_default();
    let annotations = ingress.metadata.annotations.unwrap_or_default();
    let options = Box::new(annotations::options(&annotations, check));
    let annotation = annotations.get(CLASS).filter(|class| !class.is_empty()).cloned();
    let class = spec.ingress_class_name.filter(|class| !class.is_empty()).or(annotation);
    check.optional("spec.ingressClassName", class.as_deref(), &pattern::SUBDOMAIN);
    let rules = spec.rules.unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        check.refuse(code::REQUIRED, "spec", "either rules or defaultBackend is required");
    }
    let default_backend = spec.default_backend.map(|item| backend("spec.defaultBackend", item, check));
    let mut paths = Vec::new();
    for (i, rule) in rules.into_iter().enumerate() {
        self::rule(&format!("spec.rules[{i}]"), rule, &mut paths, check);
    }
    let tls = spec.tls.unwrap_or_default().into_iter().enumerate();
    let tls = tls.map(|(i, item)| tls_entry(&format!("spec.tls[{i}]"), item, check)).collect();
    if annotations::is_canary(&annotations) {
        // As an Ingress of its own it would compete with the one that it is a canary of.
        return Ingress { class, default_backend: None, paths: Vec::new(), tls: Vec::new(), options };
    }
    Ingress { class, default_backend, paths, tls, options }
}

fn rule(at: &str, rule: kube::IngressRule, paths: &mut Vec<IngressPath>, check: &mut Checker) {
    let host = rule.host.filter(|host| !host.is_empty());
    check.optional(&format!("{at}.host"), host.as_deref(), &pattern::HOSTNAME);
    if host.as_deref().is_some_and(|host| host.parse::<std::net::Ipv4Addr>().is_ok()) {
        check.refuse(code::VALUE, &format!("{at}.host"), "must be a DNS name, not an address");
    }
    // Without `http` the host's requests go to the default backend.
    let Some(http) = rule.http else { return };
    if http.paths.is_empty() {
        check.refuse(code::REQUIRED, &format!("{at}.http.paths"), "at least one path is required");
    }
    for (i, item) in http.paths.into_iter().enumerate() {
        paths.push(path(format!("{at}.http.paths[{i}]"), host.clone(), item, check));
    }
}

fn path(at: String, host: Option<String>, item: kube::HTTPIngressPath, check: &mut Checker) -> IngressPath {
    let mut path = item.path.unwrap_or_default();
    let field = format!("{at}.path");
    let path_type = match item.path_type.as_str() {
        "Exact" => IngressPathType::Exact,
        "Prefix" => IngressPathType::Prefix,
        "ImplementationSpecific" => {
            if path.is_empty() {
                "/".clone_into(&mut path);
            } else if !path.starts_with('/') {
                check.refuse(code::VALUE, &field, format!("{} must start with '/'", quote(&path)));
            }
            IngressPathType::ImplementationSpecific
        }
        "" => {
            let message = "is required: one of Exact, Prefix, ImplementationSpecific";
            check.refuse(code::REQUIRED, &format!("{at}.pathType"), message);
            IngressPathType::Exact
        }
        other => {
            check.unknown_value(&format!("{at}.pathType"), other, &["Exact", "Prefix", "ImplementationSpecific"]);
            IngressPathType::Exact
        }
    };
    if path_type != IngressPathType::ImplementationSpecific
        && let Some(problem) = pattern::path_problem(&path)
    {
        check.refuse(code::VALUE, &field, format!("{} {problem}", quote(&path)));
    }
    let backend = backend(&format!("{at}.backend"), item.backend, check);
    IngressPath { field: at, host, path, path_type, backend }
}

fn backend(at: &str, backend: kube::IngressBackend, check: &mut Checker) -> BackendRef {
    let mut out = BackendRef {
        group: String::new(),
        kind: "Service".to_owned(),
        namespace: None,
        name: String::new(),
        port: None,
        weight: 1,
        filters: Vec::new(),
    };
    match (backend.service, backend.resource) {
        (Some(service), None) => {
            check.text(&format!("{at}.service.name"), &service.name, &pattern::LABEL);
            out.name = service.name;
            out.port = port(&format!("{at}.service.port"), service.port, check);
        }
        (None, Some(resource)) => {
            let message = format!("backends of kind {} are not served: a Service is", quote(&resource.kind));
            check.error(code::UNSUPPORTED, &format!("{at}.resource"), message);
            // Not a Service, so it resolves to nothing and its requests get an error.
            out.group = resource.api_group.unwrap_or_default();
            out.kind = resource.kind;
            out.name = resource.name;
        }
        _ => check.refuse(code::CONFLICT, at, "exactly one of service and resource is required"),
    }
    out
}

fn port(at: &str, port: Option<kube::ServiceBackendPort>, check: &mut Checker) -> Option<PortRef> {
    let port = port.unwrap_or_default();
    let name = port.name.filter(|name| !name.is_empty());
    match (port.number.filter(|number| *number != 0), name) {
        (Some(number), None) => Some(PortRef::Number(check.port(&format!("{at}.number"), number.into()))),
        (None, Some(name)) => Some(PortRef::Name(name)),
        _ => {
            check.refuse(code::CONFLICT, at, "exactly one of number and name is required");
            None
        }
    }
}

fn tls_entry(at: &str, entry: kube::IngressTLS, check: &mut Checker) -> IngressTls {
    let hosts = entry.hosts.unwrap_or_default();
    for (i, host) in hosts.iter().enumerate() {
        check.text(&format!("{at}.hosts[{i}]"), host, &pattern::HOSTNAME);
    }
    IngressTls { hosts, secret: entry.secret_name.filter(|name| !name.is_empty()) }
}
