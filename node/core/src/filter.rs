//! Applies filters to requests and responses. Pure: heads in, heads out.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;

use crate::sanitize::path::rewritten;
use crate::snapshot::{BackendTarget, Filter, HeaderModifier, PathRewrite, Redirect, Rewrite};

mod cors;

pub use cors::{allow_origin, cors, preflight};

/// How a request's path was matched.
#[derive(Clone, Copy, Debug)]
pub enum MatchedPath<'a> {
    /// Whole.
    Exact,
    /// By this prefix.
    Prefix(&'a str),
    /// By this expression.
    Regex(&'a Regex),
}

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
    /// How the path was matched.
    pub matched: MatchedPath<'a>,
}

/// What `URLRewrite` filters make of the request's host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// New host, if changed.
    pub host: Option<String>,
    /// New path without query, if changed. Normalised.
    pub path: Option<String>,
}

/// Where copies of a request go. `random` gives a number for each mirror, evenly distributed.
pub fn mirrors(filters: &[Filter], mut random: impl FnMut() -> u32) -> impl Iterator<Item = &BackendTarget> {
    filters.iter().filter_map(move |filter| match filter {
        // The share of all numbers that is below the fraction.
        Filter::Mirror(mirror) => {
            let chosen = (u64::from(random()) * u64::from(mirror.denominator)) >> 32 < u64::from(mirror.numerator);
            chosen.then_some(&mirror.target)
        }
        _ => None,
    })
}

/// The redirect that answers a request, if one does.
pub fn redirect(filters: &[Filter], tls: bool) -> Option<&Redirect> {
    filters.iter().find_map(|filter| match filter {
        Filter::Redirect(redirect) if !(tls && redirect.unless_tls) => Some(redirect),
        _ => None,
    })
}

/// The `Location` of a redirect (HTTPRouteFilter RequestRedirect: scheme, port and path rules).
///
/// The port is the one that is given; else the well-known one of a scheme that is given; else the
/// listener's. Never the one of the request's authority. A scheme's own port is left out.
pub fn redirect_location(redirect: &Redirect, context: &RedirectContext<'_>) -> String {
    if let Some(location) = &redirect.location {
        return location.clone();
    }
    let scheme = redirect.scheme.as_deref().unwrap_or(context.scheme);
    let host = redirect.hostname.as_deref().unwrap_or(context.host);
    let well_known = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let implied = redirect.scheme.as_ref().and(well_known).unwrap_or(context.listener_port);
    let port = redirect.port.unwrap_or(implied);
    let path = redirect.path.as_ref().and_then(|path| rewrite_path(path, context.path, context.matched));
    let path = path.as_deref().unwrap_or(context.path);
    let mut location = format!("{scheme}://{host}");
    if well_known != Some(port) {
        location.push_str(&format!(":{port}"));
    }
    location.push_str(path);
    if let Some(query) = context.query {
        location.push('?');
        location.push_str(query);
    }
    location
}

/// A path after a rewrite: normalised, never with dot segments. `None` when a prefix is to be
/// replaced but none matched.
fn rewrite_path(rewrite: &PathRewrite, path: &str, matched: MatchedPath<'_>) -> Option<String> {
    match rewrite {
        PathRewrite::Full(full) => Some(rewritten(full)),
        PathRewrite::Template(template) => Some(rewritten(&filled(template, path, matched))),
        PathRewrite::Prefix(replacement) => {
            let MatchedPath::Prefix(prefix) = matched else { return None };
            let rest = path.strip_prefix(prefix.trim_end_matches('/'))?;
            if rest.is_empty() {
                return Some(rewritten(replacement));
            }
            if !rest.starts_with('/') {
                return None;
            }
            // `rest` starts with the `/` that ended the prefix, and is a part of a normalised
            // path: only the replacement needs to be made fit.
            let replacement = rewritten(replacement);
            Some(format!("{}{rest}", replacement.trim_end_matches('/')))
        }
    }
}

/// A template with `$1` to `$9` replaced by what the groups of the expression caught in `path`;
/// groups that there are not are empty. A `$` before anything else stands for itself.
fn filled(template: &str, path: &str, matched: MatchedPath<'_>) -> String {
    let captures = match matched {
        MatchedPath::Regex(regex) => regex.captures(path),
        MatchedPath::Exact | MatchedPath::Prefix(_) => None,
    };
    let mut filled = String::with_capacity(template.len() + path.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        match after.chars().next().and_then(|digit| digit.to_digit(10)) {
            Some(number) if number > 0 => {
                let group = captures.as_ref().and_then(|captures| captures.get(number as usize));
                filled.push_str(group.map_or("", |group| group.as_str()));
                rest = after.get(1..).unwrap_or_default();
            }
            _ => {
                filled.push('$');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// Applies a header modifier: set, add, remove. Names and values that HTTP does not allow are
/// skipped, and so are the fields that frame messages or name the host: a route that could set
/// `Transfer-Encoding` could smuggle requests.
pub fn modify_headers(modifier: &HeaderModifier, headers: &mut HeaderMap) {
    for (name, value) in &modifier.set {
        if let Some((name, value)) = field(name, value) {
            headers.insert(name, value);
        }
    }
    for (name, value) in &modifier.add {
        if let Some((name, value)) = field(name, value) {
            headers.append(name, value);
        }
    }
    for name in modifier.remove.iter().filter_map(|name| modifiable(name)) {
        headers.remove(name);
    }
}

fn field(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((modifiable(name)?, HeaderValue::from_str(value.trim()).ok()?))
}

fn modifiable(name: &str) -> Option<HeaderName> {
    const OURS: [HeaderName; 7] = [CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !OURS.contains(name))
}

/// Applies the request-side filters to headers and returns what the URL becomes. A new host is
/// put into `Host` too. Of several rewrites the last counts, each starting from `path`.
pub fn apply_request(filters: &[Filter], path: &str, matched: MatchedPath<'_>, headers: &mut HeaderMap) -> Rewritten {
    let mut result = Rewritten::default();
    for filter in filters {
        match filter {
            Filter::RequestHeaders(modifier) => modify_headers(modifier, headers),
            Filter::Rewrite(Rewrite { hostname, path: new }) => {
                if let Some(host) = hostname
                    && let Ok(value) = HeaderValue::from_str(host)
                {
                    headers.insert(HOST, value);
                    result.host = Some(host.clone());
                }
                if let Some(new) = new.as_ref().and_then(|new| rewrite_path(new, path, matched)) {
                    result.path = Some(new);
                }
            }
            Filter::ResponseHeaders(_) | Filter::Redirect(_) | Filter::Mirror(_) | Filter::Cors(_) => {}
        }
    }
    result
}

/// Applies the response-side filters.
pub fn apply_response(filters: &[Filter], headers: &mut HeaderMap) {
    for filter in filters {
        if let Filter::ResponseHeaders(modifier) = filter {
            modify_headers(modifier, headers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIRECT: Redirect = Redirect {
        scheme: None,
        hostname: None,
        path: None,
        port: None,
        status: 302,
        location: None,
        unless_tls: false,
    };

    fn context(scheme: &'static str, listener_port: u16) -> RedirectContext<'static> {
        RedirectContext {
            scheme,
            host: "example.org",
            listener_port,
            path: "/a/b",
            query: Some("q=1"),
            matched: MatchedPath::Prefix("/a"),
        }
    }

    #[test]
    fn the_port_of_a_redirect_follows_the_specification() {
        // Client's scheme, listener's port, redirect's scheme and port, start of the Location.
        let cases = [
            ("http", 80, None, None, "http://example.org/"),
            ("http", 80, None, Some(80), "http://example.org/"),
            ("http", 80, None, Some(8080), "http://example.org:8080/"),
            ("http", 80, Some("https"), None, "https://example.org/"),
            ("http", 80, Some("https"), Some(443), "https://example.org/"),
            ("http", 80, Some("https"), Some(8443), "https://example.org:8443/"),
            ("http", 8080, None, None, "http://example.org:8080/"),
            ("http", 8080, None, Some(80), "http://example.org/"),
            ("http", 8080, Some("https"), None, "https://example.org/"),
            ("https", 443, None, None, "https://example.org/"),
            ("https", 443, None, Some(443), "https://example.org/"),
            ("https", 443, None, Some(8443), "https://example.org:8443/"),
            ("https", 443, Some("http"), None, "http://example.org/"),
            ("https", 443, Some("http"), Some(80), "http://example.org/"),
            ("https", 443, Some("http"), Some(8080), "http://example.org:8080/"),
            ("http", 80, Some("http"), Some(443), "http://example.org:443/"),
        ];
        for (client, listener_port, scheme, port, expected) in cases {
            let redirect = Redirect { scheme: scheme.map(Into::into), port, ..REDIRECT };
            let location = redirect_location(&redirect, &context(client, listener_port));
            assert_eq!(location, format!("{expected}a/b?q=1"), "{client} {listener_port} {scheme:?} {port:?}");
        }
    }

    #[test]
    fn a_redirect_replaces_host_and_path_and_keeps_the_query() {
        let to = |path| Redirect { hostname: Some("example.com".into()), path: Some(path), ..REDIRECT };
        let full = redirect_location(&to(PathRewrite::Full("/x".into())), &context("http", 80));
        assert_eq!(full, "http://example.com/x?q=1");
        let prefix = redirect_location(&to(PathRewrite::Prefix("/x".into())), &context("http", 80));
        assert_eq!(prefix, "http://example.com/x/b?q=1");
    }

    #[test]
    fn prefixes_are_replaced_by_whole_segments() {
        // The specification's table (HTTPPathModifier), then what it leaves open.
        let cases = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
            ("/", "/", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "/a/../b", "/b/bar"),
        ];
        for (path, prefix, replacement, expected) in cases {
            let new = rewrite_path(&PathRewrite::Prefix(replacement.into()), path, MatchedPath::Prefix(prefix));
            assert_eq!(new.as_deref(), Some(expected), "{path} {prefix} {replacement}");
        }
        assert_eq!(rewrite_path(&PathRewrite::Prefix("/x".into()), "/foo", MatchedPath::Exact), None);
    }

    fn modifier(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderModifier {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        HeaderModifier { set: pairs(set), add: pairs(add), remove: remove.iter().map(|&name| name.into()).collect() }
    }

    #[test]
    fn headers_are_set_added_and_removed_in_any_case() {
        let mut headers = HeaderMap::new();
        headers.append("x-set", HeaderValue::from_static("old"));
        headers.append("x-set", HeaderValue::from_static("older"));
        headers.append("x-add", HeaderValue::from_static("one"));
        headers.append("x-gone", HeaderValue::from_static("x"));
        modify_headers(&modifier(&[("X-Set", "new")], &[("x-ADD", "two")], &["X-Gone"]), &mut headers);
        let values = |name: &str| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().concat();
        assert_eq!(values("x-set"), b"new");
        assert_eq!(values("x-add"), b"onetwo");
        assert_eq!(values("x-gone"), b"");
    }

    #[test]
    fn framing_and_nonsense_are_left_alone() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
        let bad =
            modifier(&[("Transfer-Encoding", "chunked"), ("a b", "x"), ("x-a", "a\r\nb: c")], &[], &["content-length"]);
        modify_headers(&bad, &mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers.get(CONTENT_LENGTH), Some(&HeaderValue::from_static("3")));
    }

    #[test]
    fn a_rewrite_changes_host_and_path() {
        let rewrite = Rewrite { hostname: Some("one.example".into()), path: Some(PathRewrite::Full("/x".into())) };
        let filters = [Filter::RequestHeaders(modifier(&[("x-a", "b")], &[], &[])), Filter::Rewrite(rewrite)];
        let mut headers = HeaderMap::new();
        let result = apply_request(&filters, "/foo", MatchedPath::Exact, &mut headers);
        assert_eq!(result, Rewritten { host: Some("one.example".into()), path: Some("/x".into()) });
        assert_eq!(headers.get(HOST), Some(&HeaderValue::from_static("one.example")));
        assert_eq!(headers.get("x-a"), Some(&HeaderValue::from_static("b")));
    }

    #[test]
    fn a_mirror_gets_its_fraction() {
        let mirror = |numerator, denominator| {
            let target = BackendTarget::Invalid { reason: format!("{numerator}/{denominator}") };
            Filter::Mirror(crate::snapshot::Mirror { target, numerator, denominator })
        };
        let filters = [mirror(0, 100), mirror(35, 100), mirror(1, 3), mirror(1, 1)];
        let copies = |random: u32| mirrors(&filters, || random).count();
        assert_eq!([0, 0x4000_0000, 0x5555_5556, 0x7fff_ffff, u32::MAX].map(copies), [3, 3, 2, 1, 1]);
        let share = (0..1000).filter(|n| copies(n * (u32::MAX / 1000)) == 3).count();
        assert!((330..=336).contains(&share), "{share} of 1000 had a third");
    }

    #[test]
    fn a_template_is_filled_and_normalised() {
        let regex = crate::compile::path_prefix_regex("/App(/|$)(.*)").expect("it parses");
        let cases = [
            ("/$2", "/app/x/y", "/x/y"),
            ("/$2", "/APP", "/"),
            ("/new/$2/$9", "/app/x", "/new/x/"),
            ("/$2/../etc", "/app/x", "/etc"),
            ("/$2/../../etc", "/app/x", "/"),
            ("/$2", "/app/..%2f", "/"),
            ("/cost$/$0", "/app/", "/cost$/$0"),
        ];
        for (template, path, expected) in cases {
            let template = PathRewrite::Template(template.into());
            let new = rewrite_path(&template, path, MatchedPath::Regex(&regex)).expect("a path");
            assert!(new.eq_ignore_ascii_case(expected), "{template:?} {path}: {new}");
        }
        let plain = rewrite_path(&PathRewrite::Template("/x$1".into()), "/a", MatchedPath::Prefix("/a"));
        assert_eq!(plain.as_deref(), Some("/x"));
    }

    #[test]
    fn a_redirect_may_be_for_requests_without_tls_only() {
        let to_https = Redirect { scheme: Some("https".into()), status: 308, unless_tls: true, ..REDIRECT };
        let verbatim = Redirect { location: Some("https://b.org/?x".into()), ..REDIRECT };
        let filters = [Filter::Redirect(to_https.clone()), Filter::Redirect(verbatim.clone())];
        assert_eq!(redirect(&filters, false), Some(&to_https));
        assert_eq!(redirect(&filters, true), Some(&verbatim));
        assert_eq!(redirect(&filters[..1], true), None);
        assert_eq!(redirect_location(&verbatim, &context("http", 80)), "https://b.org/?x");
    }
}
