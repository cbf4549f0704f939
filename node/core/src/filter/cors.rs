//! CORS: what the answer to a preflight and what other responses say (HTTPCORSFilter; the Fetch
//! standard, "HTTP CORS protocol").

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use crate::snapshot::{Cors, Filter};

/// The policy of a rule, if it has one.
pub fn cors(filters: &[Filter]) -> Option<&Cors> {
    filters.iter().find_map(|filter| match filter {
        Filter::Cors(cors) => Some(cors),
        _ => None,
    })
}

/// The headers of the answer to a preflight, which is 204 and never reaches a backend. `None`: the
/// request is no preflight (an `OPTIONS` with an origin and the method to come).
///
/// A preflight from an origin that is not allowed gets an answer that allows nothing.
pub fn preflight(cors: &Cors, method: &Method, request: &HeaderMap) -> Option<HeaderMap> {
    let (origin, wanted) = (request.get(ORIGIN)?, request.get(ACCESS_CONTROL_REQUEST_METHOD)?);
    if method != Method::OPTIONS {
        return None;
    }
    let mut answer = HeaderMap::new();
    if varies(cors) {
        answer.append(VARY, HeaderValue::from_static("Origin"));
    }
    let Some(allowed) = allowed(cors, origin) else { return Some(answer) };
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    let headers = request.get(ACCESS_CONTROL_REQUEST_HEADERS);
    let lists = [
        (&cors.allow_methods, Some(wanted), ACCESS_CONTROL_ALLOW_METHODS, "Access-Control-Request-Method"),
        (&cors.allow_headers, headers, ACCESS_CONTROL_ALLOW_HEADERS, "Access-Control-Request-Headers"),
    ];
    for (list, wanted, name, asked) in lists {
        let value = if is_any(list) && cors.allow_credentials {
            // With credentials `*` is only the name of a header or method.
            answer.append(VARY, HeaderValue::from_static(asked));
            wanted.cloned()
        } else {
            joined(list)
        };
        answer.extend(value.map(|value| (name, value)));
    }
    credentials(cors, &mut answer);
    answer.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.into());
    Some(answer)
}

/// Adds what a response to any other request from `origin` says. What the backend said about
/// origins itself is removed: the policy is the rule's.
pub fn allow_origin(cors: &Cors, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
    for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS] {
        response.remove(name);
    }
    if varies(cors) {
        response.append(VARY, HeaderValue::from_static("Origin"));
    }
    let Some(allowed) = origin.and_then(|origin| allowed(cors, origin)) else { return };
    let exposed = if is_any(&cors.expose_headers) && cors.allow_credentials {
        let names: Vec<String> = response.keys().map(ToString::to_string).collect();
        joined(&names)
    } else {
        joined(&cors.expose_headers)
    };
    response.extend(exposed.map(|names| (ACCESS_CONTROL_EXPOSE_HEADERS, names)));
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    credentials(cors, response);
}

fn credentials(cors: &Cors, headers: &mut HeaderMap) {
    if cors.allow_credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

fn is_any(list: &[String]) -> bool {
    matches!(list, [only] if only == "*")
}

/// Do responses differ by origin?
fn varies(cors: &Cors) -> bool {
    cors.allow_credentials || !is_any(&cors.allow_origins)
}

fn joined(names: &[String]) -> Option<HeaderValue> {
    if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
}

/// The value of `Access-Control-Allow-Origin`, if the origin is allowed.
fn allowed(cors: &Cors, origin: &HeaderValue) -> Option<HeaderValue> {
    if !varies(cors) {
        return Some(HeaderValue::from_static("*"));
    }
    if is_any(&cors.allow_origins) {
        return Some(origin.clone());
    }
    let text = origin.to_str().ok()?.to_ascii_lowercase();
    let parts = Origin::parse(&text)?;
    let matches = |declared: &String| Origin::parse(declared).is_some_and(|declared| declared.covers(&parts));
    cors.allow_origins.iter().any(matches).then(|| origin.clone())
}

/// `scheme://host[:port]`, the port defaulted.
#[derive(Debug)]
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: &'a str,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let default = match scheme {
            "http" => "80",
            "https" => "443",
            _ => "",
        };
        let (host, port) = match authority.rsplit_once(':') {
            // Not within the brackets of an IPv6 address.
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (authority, default),
        };
        (!host.is_empty()).then_some(Origin { scheme, host, port })
    }

    /// `*` stands for one or more labels on the left, or for every host.
    fn covers(&self, origin: &Origin<'_>) -> bool {
        let host = match self.host.strip_prefix('*') {
            Some(suffix) => origin.host.strip_suffix(suffix).is_some_and(|labels| !labels.is_empty()),
            None => self.host == origin.host,
        };
        host && self.scheme == origin.scheme && self.port == origin.port
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Origins, methods, headers, exposed headers; credentials.
    fn policy(lists: [&str; 4], allow_credentials: bool) -> Cors {
        let [allow_origins, allow_methods, allow_headers, expose_headers] = lists.map(list);
        Cors { allow_origins, allow_credentials, allow_methods, allow_headers, expose_headers, max_age: 5 }
    }

    /// Headers as `name: value` lines.
    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn origins() {
        let cases = [
            ("https://a.com", "https://a.com", true),
            ("https://a.com", "https://A.com", true),
            ("https://a.com", "https://a.com:443", true),
            ("http://a.com:80", "http://a.com", true),
            ("https://a.com", "http://a.com", false),
            ("https://a.com", "https://a.com:8443", false),
            ("https://a.com:8443", "https://a.com:8443", true),
            ("https://a.com", "https://b.a.com", false),
            ("https://*.a.com", "https://b.a.com", true),
            ("https://*.a.com", "https://c.b.a.com", true),
            ("https://*.a.com", "https://a.com", false),
            ("https://*.a.com", "https://xa.com", false),
            ("https://*.a.com", "https://a.com.evil.org", false),
            ("https://*.a.com:8443", "https://b.a.com", false),
            ("https://*", "https://any.org", true),
            ("https://*", "http://any.org", false),
            ("https://a.com", "null", false),
            ("http://b.com https://a.com", "https://a.com", true),
            ("", "https://a.com", false),
        ];
        for (declared, origin, expected) in cases {
            let cors = policy([declared, "", "", ""], false);
            let answer = allowed(&cors, &HeaderValue::from_static(origin));
            assert_eq!(answer.is_some(), expected, "{declared:?} allows {origin}");
            assert!(answer.is_none_or(|answer| answer == origin), "{declared:?} reflects {origin}");
        }
    }

    #[test]
    fn preflights() {
        let request = |origin: &'static str| {
            headers(&[
                ("origin", origin),
                ("access-control-request-method", "PUT"),
                ("access-control-request-headers", "x-a,x-b"),
            ])
        };
        let named = ["https://a.com", "PUT DELETE", "x-a x-c", "x-d"];
        let cases: [(Cors, &'static str, &[&str]); 5] = [
            (
                policy(named, true),
                "https://a.com",
                &[
                    "access-control-allow-credentials: true",
                    "access-control-allow-headers: x-a, x-c",
                    "access-control-allow-methods: PUT, DELETE",
                    "access-control-allow-origin: https://a.com",
                    "access-control-max-age: 5",
                    "vary: Origin",
                ],
            ),
            (policy(named, true), "https://evil.org", &["vary: Origin"]),
            (
                policy(["*", "*", "*", "*"], false),
                "https://a.com",
                &[
                    "access-control-allow-headers: *",
                    "access-control-allow-methods: *",
                    "access-control-allow-origin: *",
                    "access-control-max-age: 5",
                ],
            ),
            (
                policy(["*", "*", "*", "*"], true),
                "https://a.com",
                &[
                    "access-control-allow-credentials: true",
                    "access-control-allow-headers: x-a,x-b",
                    "access-control-allow-methods: PUT",
                    "access-control-allow-origin: https://a.com",
                    "access-control-max-age: 5",
                    "vary: Access-Control-Request-Headers",
                    "vary: Access-Control-Request-Method",
                    "vary: Origin",
                ],
            ),
            // The methods and headers that need no permission are all that is left.
            (
                policy(["*", "", "", ""], false),
                "https://a.com",
                &["access-control-allow-origin: *", "access-control-max-age: 5"],
            ),
        ];
        for (cors, origin, expected) in cases {
            let answer = preflight(&cors, &Method::OPTIONS, &request(origin)).expect("a preflight");
            assert_eq!(text(&answer), expected, "{cors:?} {origin}");
        }
    }

    #[test]
    fn what_is_no_preflight_goes_on() {
        let cors = policy(["*", "*", "*", "*"], false);
        let full = headers(&[("origin", "https://a.com"), ("access-control-request-method", "PUT")]);
        assert!(preflight(&cors, &Method::GET, &full).is_none());
        assert!(preflight(&cors, &Method::OPTIONS, &headers(&[("origin", "https://a.com")])).is_none());
        let without = headers(&[("access-control-request-method", "PUT")]);
        assert!(preflight(&cors, &Method::OPTIONS, &without).is_none());
        let bare = headers(&[("origin", "https://a.com"), ("access-control-request-method", "PUT")]);
        let answer = preflight(&policy(["*", "*", "*", "*"], true), &Method::OPTIONS, &bare).expect("a preflight");
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_HEADERS), "nothing was asked for");
    }

    #[test]
    fn responses() {
        let cases: [(Cors, Option<&'static str>, &[&str]); 5] = [
            (
                policy(["https://a.com", "PUT", "x-a", "x-b x-c"], true),
                Some("https://a.com"),
                &[
                    "access-control-allow-credentials: true",
                    "access-control-allow-origin: https://a.com",
                    "access-control-expose-headers: x-b, x-c",
                    "vary: Accept",
                    "vary: Origin",
                ],
            ),
            (
                policy(["https://a.com", "", "", "x-b"], false),
                Some("https://evil.org"),
                &["vary: Accept", "vary: Origin"],
            ),
            (policy(["https://a.com", "", "", "x-b"], false), None, &["vary: Accept", "vary: Origin"]),
            (
                policy(["*", "", "", "*"], false),
                Some("https://a.com"),
                &["access-control-allow-origin: *", "access-control-expose-headers: *", "vary: Accept"],
            ),
            (
                policy(["*", "", "", "*"], true),
                Some("https://a.com"),
                &[
                    "access-control-allow-credentials: true",
                    "access-control-allow-origin: https://a.com",
                    "access-control-expose-headers: vary",
                    "vary: Accept",
                    "vary: Origin",
                ],
            ),
        ];
        for (cors, origin, expected) in cases {
            let mut response = headers(&[("vary", "Accept"), ("access-control-allow-origin", "https://backend.org")]);
            allow_origin(&cors, origin.map(HeaderValue::from_static).as_ref(), &mut response);
            assert_eq!(text(&response), expected, "{cors:?} {origin:?}");
        }
    }
}
