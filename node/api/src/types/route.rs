//! HTTPRoute.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::lenient::{Present, or_default, required_enum, text};
use super::{open_enum, resource};

/// An HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRoute {
    /// Name, labels and so on.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(deserialize_with = "or_default")]
    pub spec: HttpRouteSpec,
}

resource!(HttpRoute, "HTTPRoute", "v1", "httproutes", NamespaceResourceScope);

/// `spec` of an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// What it attaches to.
    #[serde(deserialize_with = "or_default")]
    pub parent_refs: Vec<ParentReference>,
    /// Hosts; empty is what the listener serves.
    #[serde(deserialize_with = "or_default")]
    pub hostnames: Vec<String>,
    /// Rules.
    #[serde(deserialize_with = "or_default")]
    pub rules: Vec<HttpRouteRule>,
}

/// A parent of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ParentReference {
    /// API group; `None` is the Gateway API's, empty is core.
    pub group: Option<String>,
    /// Kind; `None` is `Gateway`.
    #[serde(deserialize_with = "text")]
    pub kind: Option<String>,
    /// Namespace; `None` is the route's own.
    #[serde(deserialize_with = "text")]
    pub namespace: Option<String>,
    /// Name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// One listener only.
    #[serde(deserialize_with = "text")]
    pub section_name: Option<String>,
    /// Listeners on this port only.
    pub port: Option<i64>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteRule {
    /// Name.
    #[serde(deserialize_with = "text")]
    pub name: Option<String>,
    /// Any of these; empty is the prefix `/`.
    #[serde(deserialize_with = "or_default")]
    pub matches: Vec<HttpRouteMatch>,
    /// Filters.
    #[serde(deserialize_with = "or_default")]
    pub filters: Vec<HttpRouteFilter>,
    /// Backends.
    #[serde(deserialize_with = "or_default")]
    pub backend_refs: Vec<BackendReference>,
    /// Timeouts.
    #[serde(deserialize_with = "or_default")]
    pub timeouts: HttpTimeouts,
    /// Retries.
    pub retry: Option<RetryPolicy>,
    /// Session persistence (experimental, not served).
    pub session_persistence: Option<Present>,
}

/// All parts of a match must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteMatch {
    /// Path.
    #[serde(deserialize_with = "or_default")]
    pub path: HttpPathMatch,
    /// Headers.
    #[serde(deserialize_with = "or_default")]
    pub headers: Vec<ValueMatcher>,
    /// Query parameters.
    #[serde(deserialize_with = "or_default")]
    pub query_params: Vec<ValueMatcher>,
    /// Method.
    #[serde(deserialize_with = "text")]
    pub method: Option<String>,
}

/// A path match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpPathMatch {
    /// How.
    #[serde(rename = "type")]
    pub kind: PathMatchType,
    /// What; `None` is `/`.
    #[serde(deserialize_with = "text")]
    pub value: Option<String>,
}

open_enum! {
    /// How a path is matched.
    PathMatchType { PathPrefix, Exact, RegularExpression }
}

/// A header or query parameter match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ValueMatcher {
    /// How.
    #[serde(rename = "type")]
    pub kind: MatchType,
    /// Name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Value.
    #[serde(deserialize_with = "or_default")]
    pub value: String,
}

open_enum! {
    /// How a header or query parameter is matched.
    MatchType { Exact, RegularExpression }
}

/// A filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteFilter {
    /// Which one; `None` where it is missing.
    #[serde(rename = "type", deserialize_with = "required_enum")]
    pub kind: Option<FilterType>,
    /// For `RequestHeaderModifier`.
    pub request_header_modifier: Option<HeaderFilter>,
    /// For `ResponseHeaderModifier`.
    pub response_header_modifier: Option<HeaderFilter>,
    /// For `RequestRedirect`.
    pub request_redirect: Option<RedirectFilter>,
    /// For `URLRewrite`.
    pub url_rewrite: Option<RewriteFilter>,
    /// For `RequestMirror`.
    pub request_mirror: Option<MirrorFilter>,
    /// For `CORS`.
    pub cors: Option<CorsFilter>,
    /// For `ExtensionRef` (not served).
    pub extension_ref: Option<Present>,
    /// For `ExternalAuth` (not served).
    pub external_auth: Option<Present>,
}

open_enum! {
    /// `type` of a filter.
    FilterType {
        RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, RequestRedirect, URLRewrite, ExtensionRef, CORS,
        ExternalAuth,
    }
}

/// Changes to headers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeaderFilter {
    /// Replace or create.
    #[serde(deserialize_with = "or_default")]
    pub set: Vec<HttpHeader>,
    /// Append.
    #[serde(deserialize_with = "or_default")]
    pub add: Vec<HttpHeader>,
    /// Remove by name.
    #[serde(deserialize_with = "or_default")]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpHeader {
    /// Name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Value.
    #[serde(deserialize_with = "or_default")]
    pub value: String,
}

/// `requestRedirect`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RedirectFilter {
    /// Scheme.
    #[serde(deserialize_with = "text")]
    pub scheme: Option<String>,
    /// Host.
    #[serde(deserialize_with = "text")]
    pub hostname: Option<String>,
    /// Path.
    pub path: Option<PathModifier>,
    /// Port.
    pub port: Option<i64>,
    /// Status; `None` is 302.
    pub status_code: Option<i64>,
}

/// `urlRewrite`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RewriteFilter {
    /// Host.
    #[serde(deserialize_with = "text")]
    pub hostname: Option<String>,
    /// Path.
    pub path: Option<PathModifier>,
}

/// `requestMirror`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MirrorFilter {
    /// Where copies go.
    #[serde(deserialize_with = "or_default")]
    pub backend_ref: BackendReference,
    /// How many of a hundred requests are copied; `None` is all.
    pub percent: Option<i64>,
    /// How many requests are copied, as a fraction; `None` is all.
    pub fraction: Option<Fraction>,
}

/// A fraction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Fraction {
    /// So many ...
    pub numerator: Option<i64>,
    /// ... of so many; `None` is 100.
    pub denominator: Option<i64>,
}

/// `cors`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CorsFilter {
    /// Origins.
    #[serde(deserialize_with = "or_default")]
    pub allow_origins: Vec<String>,
    /// May requests carry credentials?
    #[serde(deserialize_with = "or_default")]
    pub allow_credentials: bool,
    /// Methods.
    #[serde(deserialize_with = "or_default")]
    pub allow_methods: Vec<String>,
    /// Request headers.
    #[serde(deserialize_with = "or_default")]
    pub allow_headers: Vec<String>,
    /// Response headers.
    #[serde(deserialize_with = "or_default")]
    pub expose_headers: Vec<String>,
    /// Seconds; `None` is 5.
    pub max_age: Option<i64>,
}

/// `retry` of a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RetryPolicy {
    /// Statuses that count as failures.
    #[serde(deserialize_with = "or_default")]
    pub codes: Vec<i64>,
    /// How often at most; `None` is 1.
    pub attempts: Option<i64>,
    /// The first pause, in the format of GEP-2257.
    #[serde(deserialize_with = "text")]
    pub backoff: Option<String>,
}

/// How a path is changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PathModifier {
    /// How; required, so `None` is an error.
    #[serde(rename = "type", deserialize_with = "required_enum")]
    pub kind: Option<PathModifierType>,
    /// The new path; empty is allowed.
    pub replace_full_path: Option<String>,
    /// What takes the place of the matched prefix; empty is allowed.
    pub replace_prefix_match: Option<String>,
}

open_enum! {
    /// `type` of a path modifier.
    PathModifierType { ReplaceFullPath, ReplacePrefixMatch }
}

/// A backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendReference {
    /// API group; empty is core.
    #[serde(deserialize_with = "or_default")]
    pub group: String,
    /// Kind; `None` is `Service`.
    #[serde(deserialize_with = "text")]
    pub kind: Option<String>,
    /// Namespace; `None` is the route's own.
    #[serde(deserialize_with = "text")]
    pub namespace: Option<String>,
    /// Name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Port.
    pub port: Option<i64>,
    /// Weight; `None` is 1.
    pub weight: Option<i64>,
    /// Filters of this backend only.
    #[serde(deserialize_with = "or_default")]
    pub filters: Vec<HttpRouteFilter>,
}

/// Timeouts of a rule, in the format of GEP-2257.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpTimeouts {
    /// The whole request.
    #[serde(deserialize_with = "text")]
    pub request: Option<String>,
    /// One attempt at a backend.
    #[serde(deserialize_with = "text")]
    pub backend_request: Option<String>,
}
