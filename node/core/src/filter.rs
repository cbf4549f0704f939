//! Applies filters to requests and responses. Pure: heads in, heads out.

use http::HeaderMap;

use crate::snapshot::{Filter, HeaderModifier, Redirect};

/// What a redirect must know of the request.
#[derive(Clone, Copy, Debug)]
pub struct RedirectContext<'a> {
    /// `http` or `https`: what the client spoke.
    pub scheme: &'a str,
    /// Canonical host, without port.
    pub host: &'a str,
    /// Port of the listener (logical).
    pub listener_port: u16,
    /// Normalised path.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// The prefix that matched, for prefix replacement.
    pub prefix: Option<&'a str>,
}

/// What `URLRewrite` filters make of the request's host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// New host, if changed.
    pub host: Option<String>,
    /// New path without query, if changed.
    pub path: Option<String>,
}

/// The `Location` of a redirect (HTTPRouteFilter RequestRedirect: scheme, port and path rules).
pub fn redirect_location(redirect: &Redirect, context: &RedirectContext<'_>) -> String {
    let _ = (redirect, context);
    String::new()
}

/// Applies a header modifier: set, add, remove. Names that HTTP does not allow are skipped.
pub fn modify_headers(modifier: &HeaderModifier, headers: &mut HeaderMap) {
    let _ = (modifier, headers);
}

/// Applies the request-side filters to headers and returns what the URL becomes.
pub fn apply_request(filters: &[Filter], path: &str, prefix: Option<&str>, headers: &mut HeaderMap) -> Rewritten {
    let _ = (filters, path, prefix, headers);
    Rewritten::default()
}

/// Applies the response-side filters.
pub fn apply_response(filters: &[Filter], headers: &mut HeaderMap) {
    let _ = (filters, headers);
}
