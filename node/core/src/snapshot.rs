//! What is replicated: one resource a user's object, all references resolved by key.
//!
//! Every peer holds the whole set. The bytes, digests and signatures around it are the `wire`
//! crate's business; here are the values.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

mod route;

pub use route::{
    Attachment, Backend, BackendTarget, Cors, Filter, HeaderModifier, HttpMatch, Mirror, PathMatch, PathRewrite,
    Redirect, Retry, Rewrite, Route, RouteHost, Rule, StringMatch, Timeouts, ValueMatch,
};

/// The kind of a resource. Codes are part of the wire format and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A [`Gateway`] (code 1).
    Gateway,
    /// A [`Route`] made from an HTTPRoute (code 2).
    HttpRoute,
    /// A [`Route`] made from an Ingress (code 3).
    Ingress,
    /// A [`Service`] (code 4).
    Service,
    /// A [`Certificate`] (code 5).
    Certificate,
    /// An [`EndpointSlice`] (code 6).
    Endpoints,
    /// A [`TrustBundle`] (code 7), named `configmap/NAME` or `secret/NAME` after its source.
    TrustBundle,
    /// A kind that a newer version knows; kept and relayed, never interpreted.
    Other(u16),
}

/// Which of a head's two roots covers a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// Gateways, routes, services, certificates, policies.
    Routes,
    /// Endpoints and workloads, which change a hundred times as often.
    Endpoints,
}

impl Kind {
    /// The code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Kind::Gateway => 1,
            Kind::HttpRoute => 2,
            Kind::Ingress => 3,
            Kind::Service => 4,
            Kind::Certificate => 5,
            Kind::Endpoints => 6,
            Kind::TrustBundle => 7,
            Kind::Other(code) => code,
        }
    }

    /// The kind of a code; total, so that no peer drops what it does not know.
    pub fn from_code(code: u16) -> Self {
        match code {
            1 => Kind::Gateway,
            2 => Kind::HttpRoute,
            3 => Kind::Ingress,
            4 => Kind::Service,
            5 => Kind::Certificate,
            6 => Kind::Endpoints,
            7 => Kind::TrustBundle,
            other => Kind::Other(other),
        }
    }

    /// The root that covers it. Codes from 0x8000 on belong to `Endpoints`, so that a peer that
    /// does not know a kind still computes the same roots.
    pub fn root(self) -> Root {
        match self {
            Kind::Endpoints => Root::Endpoints,
            Kind::Other(code) if code >= 0x8000 => Root::Endpoints,
            _ => Root::Routes,
        }
    }

    /// The name users see.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Gateway => "Gateway",
            Kind::HttpRoute => "HTTPRoute",
            Kind::Ingress => "Ingress",
            Kind::Service => "Service",
            Kind::Certificate => "Secret",
            Kind::Endpoints => "EndpointSlice",
            Kind::TrustBundle => "TrustBundle",
            Kind::Other(_) => "Unknown",
        }
    }
}

/// Names one resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its parts.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Key { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    /// The first eight hexadecimal digits: enough to compare by eye.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A point in the history of a mesh: epoch first, then rev. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct HeadId {
    /// Grows with every leader.
    pub epoch: u64,
    /// Grows with every commit and never starts again within a mesh.
    pub rev: u64,
}

impl fmt::Display for HeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.rev)
    }
}

/// What a leader signs: the whole state at one point, by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The mesh it belongs to.
    pub mesh_id: String,
    /// When in the mesh's history.
    pub id: HeadId,
    /// Digest of every resource under [`Root::Routes`].
    pub routes_root: Digest,
    /// Digest of every resource under [`Root::Endpoints`].
    pub endpoints_root: Digest,
}

/// A resource that something can be done with.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// For [`Kind::Gateway`].
    Gateway(Gateway),
    /// For [`Kind::HttpRoute`] and [`Kind::Ingress`].
    Route(Route),
    /// For [`Kind::Service`].
    Service(Service),
    /// For [`Kind::Certificate`].
    Certificate(Certificate),
    /// For [`Kind::Endpoints`].
    Endpoints(EndpointSlice),
    /// For [`Kind::TrustBundle`].
    TrustBundle(TrustBundle),
    /// For [`Kind::Other`].
    Unknown,
}

/// A Gateway (or the synthetic one of an IngressClass, in the empty namespace).
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Generation of the object it was made from.
    pub generation: u64,
    /// Where it listens.
    pub address: GatewayAddress,
    /// Its listeners that can be served, in declared order.
    pub listeners: Vec<Listener>,
}

/// Where a Gateway listens on each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayAddress {
    /// Directory mode `loopback`: 127.n.g.1 on node n; this is g, 1 to 254.
    Loopback(u8),
    /// The same addresses on every node.
    Fixed(Vec<IpAddr>),
}

/// A listener that can be served.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Which hosts it serves.
    pub hostname: HostPattern,
    /// Keys of the [`Certificate`]s it offers (HTTPS only), in declared order.
    pub certificates: Vec<Key>,
    /// TLS versions (HTTPS only).
    pub versions: TlsVersions,
    /// Client certificates that it asks for (HTTPS only).
    pub clients: Option<ClientValidation>,
}

/// The TLS versions that a listener speaks; `None` is the peer's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TlsVersions {
    /// The oldest.
    pub min: Option<TlsVersion>,
    /// The newest, not older than `min`.
    pub max: Option<TlsVersion>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V12,
    /// TLS 1.3 (RFC 8446).
    V13,
}

/// How a listener checks client certificates (`spec.tls.frontend`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientValidation {
    /// Keys of the [`TrustBundle`]s whose certificates are trusted. Empty: nobody is, and no client
    /// gets in, whatever the mode.
    pub trust: Vec<Key>,
    /// What becomes of a client without a valid certificate.
    pub mode: ClientValidationMode,
}

/// `mode` of a client validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ClientValidationMode {
    /// Its handshake fails.
    #[default]
    AllowValidOnly,
    /// It is served all the same.
    AllowInsecureFallback,
}

/// Certificates of authorities that are trusted.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustBundle {
    /// DER certificates, in declared order; never empty.
    pub certificates: Vec<Vec<u8>>,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1 and, by prior knowledge, HTTP/2 without TLS.
    Http,
    /// HTTP/1.1 and HTTP/2 over TLS that ends here.
    Https,
}

/// Which hosts are meant. Names are lower case without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(String),
    /// `*.suffix` of the Gateway API: one or more labels before `.suffix`. Holds `suffix`.
    Wildcard(String),
    /// `*.suffix` of an Ingress: exactly one label before `.suffix`. Holds `suffix`.
    WildcardOneLabel(String),
    /// Every host.
    Any,
}

impl HostPattern {
    /// Does this pattern cover every host that `narrow` covers? Two patterns are either disjoint or
    /// one covers the other, so this decides intersections too.
    pub fn covers(&self, narrow: &HostPattern) -> bool {
        use HostPattern::{Any, Exact, Wildcard, WildcardOneLabel};
        match (self, narrow) {
            (Any, _) => true,
            (_, Any) => false,
            (Exact(a), Exact(b)) | (WildcardOneLabel(a), WildcardOneLabel(b)) => a == b,
            (Wildcard(suffix), Exact(name)) => labels_before(name, suffix).is_some(),
            (WildcardOneLabel(suffix), Exact(name)) => {
                labels_before(name, suffix).is_some_and(|labels| !labels.contains('.'))
            }
            (Wildcard(a), Wildcard(b) | WildcardOneLabel(b)) => a == b || labels_before(b, a).is_some(),
            (Exact(_), Wildcard(_) | WildcardOneLabel(_)) | (WildcardOneLabel(_), Wildcard(_)) => false,
        }
    }
}

/// How specific a pattern is: exact, longer wildcards before shorter (of equal ones the one-label
/// kind first), any. The smaller is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity(u8, std::cmp::Reverse<usize>, u8);

impl HostPattern {
    /// Where it stands among patterns that match the same host.
    pub fn specificity(&self) -> Specificity {
        use std::cmp::Reverse;
        match self {
            HostPattern::Exact(_) => Specificity(0, Reverse(0), 0),
            HostPattern::WildcardOneLabel(suffix) => Specificity(1, Reverse(suffix.len()), 0),
            HostPattern::Wildcard(suffix) => Specificity(1, Reverse(suffix.len()), 1),
            HostPattern::Any => Specificity(2, Reverse(0), 0),
        }
    }
}

/// The labels before `.suffix`, if `name` ends so and has any.
fn labels_before<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    name.strip_suffix(suffix)?.strip_suffix('.').filter(|labels| !labels.is_empty())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Wildcard(suffix) | HostPattern::WildcardOneLabel(suffix) => write!(f, "*.{suffix}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
    /// Session affinity.
    pub affinity: SessionAffinity,
    /// Which endpoints are preferred.
    pub distribution: TrafficDistribution,
    /// `internalTrafficPolicy: Local`: traffic from within the cluster stays on its node.
    pub internal_local: bool,
}

/// `trafficDistribution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TrafficDistribution {
    /// None.
    #[default]
    Any,
    /// Those of the client's zone (`PreferSameZone`, `PreferClose`).
    PreferSameZone,
    /// Those on the client's node, then those of its zone.
    PreferSameNode,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; joins it to the ports of EndpointSlices.
    pub name: String,
    /// Number.
    pub port: u16,
    /// What its pods speak.
    pub app: AppProtocol,
}

/// What the pods behind a port speak (`appProtocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum AppProtocol {
    /// HTTP/1.1, the default.
    #[default]
    Http1,
    /// HTTP/2 without TLS (`kubernetes.io/h2c`).
    H2c,
}

/// `sessionAffinity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SessionAffinity {
    /// Any endpoint.
    #[default]
    None,
    /// The same endpoint for the same client address.
    ClientIp {
        /// For this long after its last request (`clientIP.timeoutSeconds`, 3 hours by default).
        timeout: Duration,
    },
}

/// The public half of a TLS Secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// DER certificates, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// SHA-256 of the leaf's SubjectPublicKeyInfo; names the private key.
    pub key_hash: [u8; 32],
    /// DNS names of the leaf.
    pub dns_names: Vec<String>,
    /// notAfter in seconds since the epoch.
    pub not_after: i64,
}

/// The endpoints of a Service, or a part of them.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    /// The Service they belong to.
    pub service: Key,
    /// Ports: (name, number).
    pub ports: Vec<(String, u16)>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint: a pod, or an address that was written by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// The node it runs on, if known.
    pub node: Option<String>,
    /// Its zone, if known.
    pub zone: Option<String>,
    /// The pod's name, for display.
    pub pod: Option<String>,
    /// `conditions.ready` (default true).
    pub ready: bool,
    /// `conditions.serving` (default: as ready).
    pub serving: bool,
    /// `conditions.terminating` (default false).
    pub terminating: bool,
    /// `hints.forZones`: the zones whose clients should use it; empty is all.
    pub for_zones: Vec<String>,
    /// `hints.forNodes`: the nodes whose clients should use it; empty is all.
    pub for_nodes: Vec<String>,
}
