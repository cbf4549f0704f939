//! What users declared, free of Kubernetes' types.
//!
//! One [`Object`] a user's object, defaulted and checked field by field by whoever made it (the
//! `api` crate), but with its references to other objects still unresolved: that is the work of
//! [`crate::compile`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::snapshot::{
    self, ClientValidationMode, HttpMatch, Retry, SessionAffinity, Timeouts, TlsVersions, TrafficDistribution,
};

mod ingress;

pub use ingress::{HttpsRedirect, Ingress, IngressOptions, IngressPath, IngressPathType, IngressTls};

/// The kind of a user's object, as its manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// `gateway.networking.k8s.io/GatewayClass`
    GatewayClass,
    /// `gateway.networking.k8s.io/Gateway`
    Gateway,
    /// `gateway.networking.k8s.io/HTTPRoute`
    HttpRoute,
    /// `gateway.networking.k8s.io/ReferenceGrant`
    ReferenceGrant,
    /// `networking.k8s.io/IngressClass`
    IngressClass,
    /// `networking.k8s.io/Ingress`
    Ingress,
    /// `v1/Service`
    Service,
    /// `discovery.k8s.io/EndpointSlice`
    EndpointSlice,
    /// `v1/Secret` of type `kubernetes.io/tls`, or with the key `ca.crt`
    Secret,
    /// `v1/ConfigMap` with the key `ca.crt`
    ConfigMap,
    /// `v1/Namespace`
    Namespace,
}

impl ObjectKind {
    /// The kind's name in a manifest, for instance `HTTPRoute`.
    pub fn name(self) -> &'static str {
        match self {
            ObjectKind::GatewayClass => "GatewayClass",
            ObjectKind::Gateway => "Gateway",
            ObjectKind::HttpRoute => "HTTPRoute",
            ObjectKind::ReferenceGrant => "ReferenceGrant",
            ObjectKind::IngressClass => "IngressClass",
            ObjectKind::Ingress => "Ingress",
            ObjectKind::Service => "Service",
            ObjectKind::EndpointSlice => "EndpointSlice",
            ObjectKind::Secret => "Secret",
            ObjectKind::ConfigMap => "ConfigMap",
            ObjectKind::Namespace => "Namespace",
        }
    }

    /// The API group of the kind; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            ObjectKind::GatewayClass | ObjectKind::Gateway | ObjectKind::HttpRoute | ObjectKind::ReferenceGrant => {
                "gateway.networking.k8s.io"
            }
            ObjectKind::IngressClass | ObjectKind::Ingress => "networking.k8s.io",
            ObjectKind::EndpointSlice => "discovery.k8s.io",
            ObjectKind::Service | ObjectKind::Secret | ObjectKind::ConfigMap | ObjectKind::Namespace => "",
        }
    }
}

/// Names one user's object. Cluster-scoped kinds have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// The kind.
    pub kind: ObjectKind,
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectRef {
    /// A reference from its parts.
    pub fn new(kind: ObjectKind, namespace: &str, name: &str) -> Self {
        ObjectRef { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind.name(), self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
        }
    }
}

/// What every object carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its name.
    pub object: ObjectRef,
    /// `metadata.generation`; 0 where the source has none (directory mode counts in the snapshot).
    pub generation: u64,
    /// `metadata.creationTimestamp` in seconds since the epoch; `None` means "equal age".
    pub created: Option<i64>,
    /// `metadata.labels`, where the kind needs them (Namespace, Gateway).
    pub labels: BTreeMap<String, String>,
}

/// A user's object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Name, generation, age.
    pub meta: Meta,
    /// What it says.
    pub spec: Spec,
}

/// The part of an object that differs by kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// A GatewayClass.
    GatewayClass(GatewayClass),
    /// A Gateway.
    Gateway(Gateway),
    /// An HTTPRoute.
    HttpRoute(HttpRoute),
    /// A ReferenceGrant.
    ReferenceGrant(ReferenceGrant),
    /// An IngressClass.
    IngressClass(IngressClass),
    /// An Ingress.
    Ingress(Ingress),
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A TLS Secret; the private key is not here, only its public half.
    Certificate(Certificate),
    /// A ConfigMap with certificates of authorities, or a Secret that has nothing else.
    TrustBundle(TrustBundle),
    /// A Namespace; all that matters are its labels.
    Namespace,
}

/// GatewayClass: is it ours?
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayClass {
    /// `spec.controllerName`.
    pub controller_name: String,
}

/// IngressClass: is it ours, and is it the default one?
#[derive(Clone, Debug, PartialEq)]
pub struct IngressClass {
    /// `spec.controller`.
    pub controller: String,
    /// Annotation `ingressclass.kubernetes.io/is-default-class: "true"`.
    pub is_default: bool,
}

/// A Gateway as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// `spec.gatewayClassName`.
    pub class: String,
    /// `spec.listeners`, in order.
    pub listeners: Vec<Listener>,
}

/// A listener as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// `name`.
    pub name: String,
    /// `port`, 1 to 65535.
    pub port: u16,
    /// `protocol`, as written: `HTTP`, `HTTPS`, or one that compile reports as unsupported.
    pub protocol: String,
    /// `hostname`, lower case; `None` matches every host.
    pub hostname: Option<String>,
    /// `tls.mode` is Terminate (the default) when true; Passthrough when false.
    pub tls_terminate: bool,
    /// `tls.certificateRefs`.
    pub certificates: Vec<ObjectReference>,
    /// TLS versions, from `tls.options`.
    pub versions: TlsVersions,
    /// Client certificates: of `spec.tls.frontend`, what holds for its port.
    pub clients: Option<ClientValidation>,
    /// `allowedRoutes.namespaces`.
    pub allowed_namespaces: AllowedNamespaces,
    /// `allowedRoutes.kinds` by (group, kind); empty means "what the protocol implies".
    pub allowed_kinds: Vec<(String, String)>,
}

/// How client certificates are checked, as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientValidation {
    /// Field path, for findings: `spec.tls.frontend.default.validation`.
    pub field: String,
    /// `caCertificateRefs`: ConfigMaps or Secrets.
    pub refs: Vec<ObjectReference>,
    /// `mode`.
    pub mode: ClientValidationMode,
}

/// `allowedRoutes.namespaces.from`.
#[derive(Clone, Debug, PartialEq)]
pub enum AllowedNamespaces {
    /// Only the Gateway's own namespace (the default).
    Same,
    /// Every namespace.
    All,
    /// No namespace.
    None,
    /// Namespaces whose labels match.
    Selector(LabelSelector),
}

/// A label selector (`matchLabels` and `matchExpressions`).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LabelSelector {
    /// All of these must hold.
    pub requirements: Vec<LabelRequirement>,
}

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq)]
pub enum LabelRequirement {
    /// The label exists with one of these values.
    In(String, Vec<String>),
    /// The label is absent or has none of these values.
    NotIn(String, Vec<String>),
    /// The label exists.
    Exists(String),
    /// The label does not exist.
    DoesNotExist(String),
}

/// A reference of a Gateway to a Secret or ConfigMap, or to something else that compile reports.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectReference {
    /// API group; empty is core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; `None` is the referrer's own.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// An HTTPRoute as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// `spec.parentRefs`.
    pub parents: Vec<ParentRef>,
    /// `spec.hostnames`, lower case; empty means "what the listener says".
    pub hostnames: Vec<String>,
    /// `spec.rules`, in order.
    pub rules: Vec<HttpRule>,
}

/// A parent of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct ParentRef {
    /// API group, defaulted.
    pub group: String,
    /// Kind, defaulted to `Gateway`.
    pub kind: String,
    /// Namespace; `None` is the route's own.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// `sectionName`: one listener only.
    pub section_name: Option<String>,
    /// `port`: listeners on this port only.
    pub port: Option<u16>,
}

/// A rule of an HTTPRoute. An empty `matches` has been defaulted to the prefix `/`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    /// `name`.
    pub name: Option<String>,
    /// Any of these matches.
    pub matches: Vec<HttpMatch>,
    /// Filters of the rule, in order.
    pub filters: Vec<Filter>,
    /// Where the requests go.
    pub backends: Vec<BackendRef>,
    /// `timeouts`.
    pub timeouts: Timeouts,
    /// `retry`.
    pub retry: Option<Retry>,
    /// What of this rule isn't supported, by field path (`filters[0].type: "ExtensionRef"`).
    /// A rule with any answers 500 (an ignored filter would fail open).
    pub unsupported: Vec<(String, String)>,
}

/// A filter as declared.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// One that refers to nothing.
    Plain(snapshot::Filter),
    /// `RequestMirror`.
    Mirror {
        /// Position in its list, for findings.
        index: usize,
        /// Where copies go; its weight and filters mean nothing.
        backend: BackendRef,
        /// Of so many requests ...
        denominator: u32,
        /// ... so many are copied.
        numerator: u32,
    },
}

/// A backend as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendRef {
    /// API group; empty is core.
    pub group: String,
    /// Kind; `Service` is the only one served.
    pub kind: String,
    /// Namespace; `None` is the route's own.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Port by number or, from an Ingress, by name.
    pub port: Option<PortRef>,
    /// Weight, 0 to 1,000,000; default 1.
    pub weight: u32,
    /// Filters of this backend only.
    pub filters: Vec<Filter>,
}

/// A Service's port, by number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortRef {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

/// A ReferenceGrant: objects of `from` may refer to objects of `to` in the grant's namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceGrant {
    /// Who may refer.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
}

/// Who may refer.
#[derive(Clone, Debug, PartialEq)]
pub struct GrantFrom {
    /// API group of the referrer.
    pub group: String,
    /// Kind of the referrer.
    pub kind: String,
    /// Namespace of the referrer.
    pub namespace: String,
}

/// To what.
#[derive(Clone, Debug, PartialEq)]
pub struct GrantTo {
    /// API group of the target; empty is core.
    pub group: String,
    /// Kind of the target.
    pub kind: String,
    /// Name of the target; `None` is all.
    pub name: Option<String>,
}

/// A Service as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `type: ExternalName` has no endpoints; compile refuses it as a backend.
    pub external_name: Option<String>,
    /// `sessionAffinity`.
    pub affinity: SessionAffinity,
    /// `trafficDistribution`.
    pub distribution: TrafficDistribution,
    /// `internalTrafficPolicy` is `Local`.
    pub internal_local: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty for a single unnamed port.
    pub name: String,
    /// Number.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `appProtocol`, for instance `kubernetes.io/h2c`.
    pub app_protocol: Option<String>,
}

/// An EndpointSlice as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    /// Label `kubernetes.io/service-name`: the Service it belongs to.
    pub service: Option<String>,
    /// Ports: (name, number, protocol).
    pub ports: Vec<(String, u16, String)>,
    /// The endpoints.
    pub endpoints: Vec<crate::snapshot::Endpoint>,
}

/// The public half of a TLS Secret, already checked: chain parses and the key belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// DER certificates, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// SHA-256 of the leaf's SubjectPublicKeyInfo; names the private key.
    pub key_hash: [u8; 32],
    /// DNS names of the leaf, for display.
    pub dns_names: Vec<String>,
    /// notAfter in seconds since the epoch.
    pub not_after: i64,
    /// DER certificates of authorities, of the Secret's `ca.crt`; empty without one.
    pub authorities: Vec<Vec<u8>>,
}

/// Certificates of authorities, already checked: each is a certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustBundle {
    /// DER certificates, in declared order; never empty.
    pub certificates: Vec<Vec<u8>>,
}

/// How much a finding hurts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The object works, but probably not as meant.
    Warning,
    /// The object, or a named part of it, is not served.
    Error,
}

/// A problem with one object, in words for its owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Finding {
    /// Stable code, `MG0101` and so on.
    pub code: &'static str,
    /// How much it hurts.
    pub severity: Severity,
    /// The object; `None` when it could not even be named (a file that does not parse).
    pub object: Option<ObjectRef>,
    /// Field path inside the object, `spec.rules[0].backendRefs[0].name`; may be empty.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// File (and line) it was read from; empty on a cluster.
    pub origin: String,
}
