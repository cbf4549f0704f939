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
    /// Hosts served: the intersection of the route's and the listener's.
    pub hosts: Vec<HostPattern>,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
}

/// Timeouts of a rule; `Some(0)` means none, `None` means the peer's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Timeouts {
    /// From the request's first byte to the response's last.
    pub request: Option<Duration>,
    /// One attempt at one backend.
    pub backend_request: Option<Duration>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
