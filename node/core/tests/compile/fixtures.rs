//! Objects in few words, and a compiled world to ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshgate_core::compile::{AddressMode, Allocations, Change, Compiled, Compiler, Condition, ObjectStatus, Settings};
use meshgate_core::intent::*;
use meshgate_core::snapshot::{self, HttpMatch, Key, Kind, PathMatch, Resource, SessionAffinity, Timeouts};

pub fn settings() -> Settings {
    Settings {
        controller_name: "meshgate.dev/gateway-controller".into(),
        ingress_controller: "meshgate.dev/ingress-controller".into(),
        addresses: AddressMode::Loopback,
    }
}

pub fn object(kind: ObjectKind, name: &str, spec: Spec) -> Object {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    let object = ObjectRef::new(kind, namespace, name);
    Object { meta: Meta { object, generation: 1, created: None, labels: BTreeMap::new() }, spec }
}

pub fn born(mut object: Object, created: i64) -> Object {
    object.meta.created = Some(created);
    object
}

pub fn gateway_class(name: &str) -> Object {
    let controller_name = settings().controller_name;
    object(ObjectKind::GatewayClass, name, Spec::GatewayClass(GatewayClass { controller_name }))
}

pub fn ingress_class(name: &str, is_default: bool) -> Object {
    let controller = settings().ingress_controller;
    object(ObjectKind::IngressClass, name, Spec::IngressClass(IngressClass { controller, is_default }))
}

pub fn gateway(name: &str, listeners: Vec<Listener>) -> Object {
    object(ObjectKind::Gateway, name, Spec::Gateway(Gateway { class: "meshgate".into(), listeners }))
}

/// `name protocol port hostname`; hostname may be absent. All namespaces may attach.
pub fn listener(text: &str) -> Listener {
    let words: Vec<&str> = text.split_whitespace().collect();
    Listener {
        name: words[0].into(),
        protocol: words[1].into(),
        port: words[2].parse().expect("a port"),
        hostname: words.get(3).map(ToString::to_string),
        tls_terminate: true,
        certificates: Vec::new(),
        versions: snapshot::TlsVersions::default(),
        clients: None,
        allowed_namespaces: AllowedNamespaces::All,
        allowed_kinds: Vec::new(),
    }
}

/// A listener with certificates by `[namespace/]name`.
pub fn tls(text: &str, secrets: &[&str]) -> Listener {
    let reference = |secret: &&str| {
        let (namespace, name) = match secret.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, *secret),
        };
        ObjectReference { group: String::new(), kind: "Secret".into(), namespace, name: name.into() }
    };
    Listener { certificates: secrets.iter().map(reference).collect(), ..listener(text) }
}

pub fn secret(name: &str) -> Object {
    let certificate =
        Certificate { chain: vec![vec![1]], key_hash: [7; 32], dns_names: vec![], not_after: 0, authorities: vec![] };
    object(ObjectKind::Secret, name, Spec::Certificate(certificate))
}

pub fn namespace(name: &str, labels: &[(&str, &str)]) -> Object {
    let mut object = object(ObjectKind::Namespace, name, Spec::Namespace);
    object.meta.labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    object
}

/// `from` and `to`: `Kind namespace` and `Kind [name]`.
pub fn grant(name: &str, from: &str, to: &str) -> Object {
    let (from_kind, from_namespace) = from.split_once(' ').expect("kind and namespace");
    let (to_kind, to_name) = to.split_once(' ').map_or((to, None), |(kind, name)| (kind, Some(name.to_owned())));
    let from = GrantFrom {
        group: "gateway.networking.k8s.io".into(),
        kind: from_kind.into(),
        namespace: from_namespace.into(),
    };
    let to = GrantTo { group: String::new(), kind: to_kind.into(), name: to_name };
    object(ObjectKind::ReferenceGrant, name, Spec::ReferenceGrant(ReferenceGrant { from: vec![from], to: vec![to] }))
}

/// A Service with TCP ports; a port may have a name: `80` or `web=80`.
pub fn service(name: &str, ports: &[&str]) -> Object {
    let ports = ports.iter().map(|port| {
        let (name, number) = port.split_once('=').unwrap_or(("", port));
        let port = number.parse().expect("a port");
        ServicePort { name: name.into(), port, protocol: "TCP".into(), app_protocol: None }
    });
    let spec = Service {
        ports: ports.collect(),
        external_name: None,
        affinity: SessionAffinity::None,
        distribution: snapshot::TrafficDistribution::Any,
        internal_local: false,
    };
    object(ObjectKind::Service, name, Spec::Service(spec))
}

pub fn slice(name: &str, service: Option<&str>, endpoints: usize) -> Object {
    let endpoint = |n: usize| snapshot::Endpoint {
        address: std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(n).expect("small")).into(),
        node: Some("n1".into()),
        zone: None,
        pod: Some(format!("pod-{n}")),
        ready: true,
        serving: true,
        terminating: false,
        for_zones: vec![],
        for_nodes: vec![],
    };
    let spec = EndpointSlice {
        service: service.map(Into::into),
        ports: vec![("".into(), 8080, "TCP".into()), ("dns".into(), 53, "UDP".into())],
        endpoints: (0..endpoints).map(endpoint).collect(),
    };
    object(ObjectKind::EndpointSlice, name, Spec::EndpointSlice(spec))
}

/// A route to Gateway `parent` (`namespace/name`).
pub fn route(name: &str, parent: &str, hostnames: &[&str], rules: Vec<HttpRule>) -> Object {
    let hostnames = hostnames.iter().map(ToString::to_string).collect();
    let spec = HttpRoute { parents: vec![self::parent(parent)], hostnames, rules };
    object(ObjectKind::HttpRoute, name, Spec::HttpRoute(spec))
}

/// `namespace/name[/section][:port]`.
pub fn parent(text: &str) -> ParentRef {
    let (text, port) = match text.split_once(':') {
        Some((text, port)) => (text, Some(port.parse().expect("a port"))),
        None => (text, None),
    };
    let parts: Vec<&str> = text.split('/').collect();
    ParentRef {
        group: "gateway.networking.k8s.io".into(),
        kind: "Gateway".into(),
        namespace: Some(parts[0].into()),
        name: parts[1].into(),
        section_name: parts.get(2).map(ToString::to_string),
        port,
    }
}

/// `name:port` or `namespace/name:port`; port may be a name.
pub fn backend(text: &str) -> BackendRef {
    let (name, port) = text.split_once(':').expect("name:port");
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, name),
    };
    let port = port.parse().map_or_else(|_| PortRef::Name(port.into()), PortRef::Number);
    let (group, kind) = (String::new(), "Service".into());
    BackendRef { group, kind, namespace, name: name.into(), port: Some(port), weight: 1, filters: vec![] }
}

pub fn matching(path: PathMatch) -> HttpMatch {
    HttpMatch { path, method: None, headers: vec![], query: vec![] }
}

/// A rule for a prefix.
pub fn rule(prefix: &str, backends: &[&str]) -> HttpRule {
    HttpRule {
        name: None,
        matches: vec![matching(PathMatch::Prefix(prefix.into()))],
        filters: vec![],
        backends: backends.iter().map(|text| backend(text)).collect(),
        timeouts: Timeouts::default(),
        retry: None,
        unsupported: vec![],
    }
}

/// Paths by `host path backend` (host `-` is none), all of type Prefix.
pub fn ingress(name: &str, class: Option<&str>, paths: &[&str]) -> Object {
    let paths = paths.iter().enumerate().map(|(index, text)| {
        let words: Vec<&str> = text.split_whitespace().collect();
        IngressPath {
            field: format!("spec.rules[{index}].http.paths[0]"),
            host: (words[0] != "-").then(|| words[0].to_owned()),
            path: words[1].into(),
            path_type: IngressPathType::Prefix,
            backend: backend(words[2]),
        }
    });
    let spec = Ingress {
        class: class.map(Into::into),
        default_backend: None,
        paths: paths.collect(),
        tls: Vec::new(),
        options: Box::default(),
    };
    object(ObjectKind::Ingress, name, Spec::Ingress(spec))
}

/// Changes the Ingress in an object.
pub fn with_ingress(mut object: Object, change: impl FnOnce(&mut Ingress)) -> Object {
    if let Spec::Ingress(ingress) = &mut object.spec {
        change(ingress);
    }
    object
}

/// Changes the HTTPRoute in an object.
pub fn with_route(mut object: Object, change: impl FnOnce(&mut HttpRoute)) -> Object {
    if let Spec::HttpRoute(route) = &mut object.spec {
        change(route);
    }
    object
}

pub fn put(object: Object) -> Change {
    (object.meta.object.clone(), Some(object))
}

pub fn gone(object: &Object) -> Change {
    (object.meta.object.clone(), None)
}

/// A compiler that was given these objects, what it said last, and all that it said in sum.
pub struct World {
    pub compiler: Compiler,
    pub last: Compiled,
    pub findings: BTreeMap<ObjectRef, Vec<Finding>>,
    pub statuses: BTreeMap<ObjectRef, Arc<ObjectStatus>>,
}

impl World {
    pub fn of(objects: impl IntoIterator<Item = Object>) -> Self {
        World::with(Allocations::new(), objects.into_iter().map(put).collect())
    }

    pub fn with(allocations: Allocations, changes: Vec<Change>) -> Self {
        let compiler = Compiler::new(settings(), allocations);
        let (last, findings, statuses) = Default::default();
        let mut world = World { compiler, last, findings, statuses };
        world.apply(changes);
        world
    }

    pub fn apply(&mut self, changes: Vec<Change>) {
        self.last = self.compiler.apply(changes);
        for (object, findings) in &self.last.findings {
            assert!(findings.iter().all(|finding| finding.object.as_ref() == Some(object)), "{findings:?}");
            let before = match findings.is_empty() {
                true => self.findings.remove(object),
                false => self.findings.insert(object.clone(), findings.clone()),
            };
            assert_ne!(before.unwrap_or_default(), *findings, "{object}: no news");
        }
        for (object, status) in &self.last.statuses {
            let before = match status {
                Some(status) => self.statuses.insert(object.clone(), Arc::clone(status)),
                None => self.statuses.remove(object),
            };
            assert_ne!(before, *status, "{object}: no news");
        }
    }

    /// Findings as `code object field`.
    pub fn findings(&self) -> Vec<String> {
        let line = |finding: &Finding| {
            let object = finding.object.as_ref().map(ToString::to_string).unwrap_or_default();
            assert!(finding.message.len() > 20, "a finding says what is wrong and right: {finding:?}");
            format!("{} {object} {}", finding.code, finding.field)
        };
        let mut all: Vec<&Finding> = self.findings.values().flatten().collect();
        all.sort();
        all.into_iter().map(line).collect()
    }

    pub fn gateway(&self, name: &str) -> &snapshot::Gateway {
        let gateway = self.get(Kind::Gateway, name).and_then(|resource| match resource {
            Resource::Gateway(gateway) => Some(gateway),
            _ => None,
        });
        gateway.expect("the Gateway is in the snapshot")
    }

    pub fn route(&self, kind: Kind, name: &str) -> Option<&snapshot::Route> {
        match self.get(kind, name) {
            Some(Resource::Route(route)) => Some(route),
            _ => None,
        }
    }

    pub fn get(&self, kind: Kind, name: &str) -> Option<&Resource> {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        self.compiler.resources().get(&Key::new(kind, namespace, name))
    }

    /// A condition as `True Reason` or `False Reason`; empty if it is not there.
    pub fn condition(&self, kind: ObjectKind, name: &str, scope: &str, condition: &str) -> String {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        let object = ObjectRef::new(kind, namespace, name);
        let conditions: &[Condition] =
            self.statuses.get(&object).map(|status| status.conditions.as_slice()).unwrap_or_default();
        let found = conditions.iter().find(|c| c.scope == scope && c.kind == condition);
        found.map(|c| format!("{} {}", if c.status { "True" } else { "False" }, c.reason)).unwrap_or_default()
    }

    /// Attachments as `listener: host host`.
    pub fn attachments(&self, kind: Kind, name: &str) -> Vec<String> {
        let attachments = self.route(kind, name).map(|route| route.attachments.as_slice()).unwrap_or_default();
        let line = |attachment: &snapshot::Attachment| {
            let hosts: Vec<String> = attachment.hosts.iter().map(|host| host.served.to_string()).collect();
            format!("{}: {}", attachment.listener, hosts.join(" "))
        };
        attachments.iter().map(line).collect()
    }
}
