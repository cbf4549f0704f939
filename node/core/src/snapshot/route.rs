//! Routes: what they match and what they do.

use std::time::Duration;

use super::{HostPattern, Key};

/// A route: where it is attached, what it matches, what it does.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Generation of the object it was made from.
    pub generation: u64,
    /// Age for precedence, seconds since the epoch; `None` is equal age (treated as 0).
    pub created: Option<i64>,
    /// The listeners that accepted it, each with the hosts in common.
    pub attachments: Vec<Attachment>,
    /// Its rules, in declared order.
    pub rules: Vec<Rule>,
    /// Features a peer must have to serve it; a peer that lacks one answers 500 for the route.
    pub needs: Vec<u32>,
}

/// A route on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The Gateway.
    pub gateway: Key,
    /// The listener's name.
    pub listener: String,
    /// Hosts served, sorted, each once.
    pub hosts: Vec<RouteHost>,
}

/// A host that a route serves on a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteHost {
    /// What the route's hostname and the listener's have in common.
    pub served: HostPattern,
    /// The route's own hostname, which decides between routes that serve the same host
    /// (`HTTPRoute.spec.hostnames`); of several the most specific one, without any `Any`.
    pub declared: HostPattern,
}

impl RouteHost {
    /// A host that the route itself names.
    pub fn named(host: HostPattern) -> Self {
        RouteHost { served: host.clone(), declared: host }
    }
}

/// A rule of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Any of these matches; never empty.
    pub matches: Vec<HttpMatch>,
    /// Which hosts of the attachment this rule is limited to (Ingress: its host); `None` is all.
    pub host: Option<HostPattern>,
    /// Filters, in order.
    pub filters: Vec<Filter>,
    /// Weighted backends.
    pub backends: Vec<Backend>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// When to try again; `None` is the peer's own rule.
    pub retry: Option<Retry>,
    /// The rule can't be served as declared (an unsupported filter): every request gets 500.
    pub broken: bool,
}

/// One way to match a request; all of its parts must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpMatch {
    /// The path; defaulted to the prefix `/`.
    pub path: PathMatch,
    /// Method, upper case.
    pub method: Option<String>,
    /// Headers, names lower case, only the first of equal names kept.
    pub headers: Vec<ValueMatch>,
    /// Query parameters, only the first of equal names kept.
    pub query: Vec<ValueMatch>,
}

/// How a path is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole `/`-separated elements; a trailing `/` is ignored. `/` matches everything.
    Prefix(String),
    /// The whole path matches this regular expression (anchored at both ends).
    Regex(String),
    /// The path starts with a match of this regular expression, in any case. Only from an
    /// Ingress (`use-regex` of ingress-nginx); stands among prefixes by its length.
    RegexPrefix(String),
}

/// A named value: header or query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueMatch {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: StringMatch,
}

/// How a value is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Matched by this regular expression, anywhere.
    Regex(String),
}

/// Something done to a request or its response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// `RequestHeaderModifier`.
    RequestHeaders(HeaderModifier),
    /// `ResponseHeaderModifier`.
    ResponseHeaders(HeaderModifier),
    /// `RequestRedirect`: answers by itself.
    Redirect(Redirect),
    /// `URLRewrite`.
    Rewrite(Rewrite),
    /// `RequestMirror`; may occur more than once.
    Mirror(Mirror),
    /// `CORS`.
    Cors(Cors),
}

/// `RequestMirror`: a copy of some requests goes to another backend, whose response is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mirror {
    /// Where to; nowhere if it is invalid.
    pub target: BackendTarget,
    /// Of so many requests ...
    pub denominator: u32,
    /// ... so many are copied; at most the denominator.
    pub numerator: u32,
}

/// `CORS` (HTTPCORSFilter; the Fetch standard, HTTP CORS protocol).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Cors {
    /// Origins as declared: `*`, or `scheme://host[:port]` where a `*` in the host stands for any
    /// text. Lower case. Empty allows none.
    pub allow_origins: Vec<String>,
    /// May requests carry credentials?
    pub allow_credentials: bool,
    /// Methods, or `*` alone.
    pub allow_methods: Vec<String>,
    /// Header names, or `*` alone.
    pub allow_headers: Vec<String>,
    /// Names of response headers that scripts may read, or `*` alone.
    pub expose_headers: Vec<String>,
    /// How long the answer to a preflight may be kept, in seconds; 5 by default.
    pub max_age: u32,
}

/// Changes to headers, applied in the order set, add, remove.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct HeaderModifier {
    /// Replace or create.
    pub set: Vec<(String, String)>,
    /// Append.
    pub add: Vec<(String, String)>,
    /// Remove by name.
    pub remove: Vec<String>,
}

/// `RequestRedirect`. What is `None` stays as in the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host without port.
    pub hostname: Option<String>,
    /// Path.
    pub path: Option<PathRewrite>,
    /// Port.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The whole `Location`, in place of all other parts (an Ingress's `permanent-redirect`).
    pub location: Option<String>,
    /// Only for requests that came without TLS (an Ingress's `ssl-redirect`).
    pub unless_tls: bool,
}

/// `URLRewrite`. What is `None` stays as in the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rewrite {
    /// Host sent to the backend.
    pub hostname: Option<String>,
    /// Path sent to the backend.
    pub path: Option<PathRewrite>,
}

/// How a path is rewritten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathRewrite {
    /// Replaced whole.
    Full(String),
    /// The matched prefix is replaced.
    Prefix(String),
    /// Replaced whole; `$1` to `$9` stand for what the groups of the matching regular expression
    /// caught (an Ingress's `rewrite-target`).
    Template(String),
}

/// When a request that failed is tried again (`retry`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Retry {
    /// Statuses, 400 to 599, that count as failures. What was never processed (no connection, a
    /// refused stream) counts anyway.
    pub codes: Vec<u16>,
    /// How often at most, besides the first attempt; 0 is never.
    pub attempts: u32,
    /// The first pause before another attempt; `None` is the peer's default.
    pub backoff: Option<Duration>,
}

/// Timeouts of a rule; `Some(0)` means none, `None` means the peer's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Timeouts {
    /// From the request's first byte to the response's last.
    pub request: Option<Duration>,
    /// One attempt at one backend.
    pub backend_request: Option<Duration>,
    /// Silence of a backend: between two pieces of a message to or from it (an Ingress's
    /// `proxy-read-timeout` and `proxy-send-timeout`).
    pub idle: Option<Duration>,
}

/// A weighted target.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Where to.
    pub target: BackendTarget,
    /// Share of the requests, relative to the sum of all weights.
    pub weight: u32,
    /// Filters of this backend only.
    pub filters: Vec<Filter>,
}

/// What a backend resolves to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendTarget {
    /// A port of a Service.
    Service {
        /// The Service.
        service: Key,
        /// Its port.
        port: u16,
    },
    /// A reference that does not resolve: its share of the requests gets 500.
    Invalid {
        /// Why, as a status reason (`BackendNotFound`, `RefNotPermitted`, `InvalidKind`).
        reason: String,
    },
}
