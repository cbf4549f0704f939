//! One canonical view of a request, made once before routing, for HTTP/1.1 and HTTP/2 alike; and
//! its mirror for responses. What is matched is what is forwarded.

mod authority;
mod framing;
mod headers;
mod hops;
pub mod path;
mod response;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::{Method, StatusCode, request};

use headers::Survey;
pub use hops::{Cidr, client_address};
pub use response::{interim, response, trailers};

/// Header fields in one message, at most; more are answered with 431 (or 502).
pub const HEADER_COUNT: usize = 100;

/// Bytes of all header fields of one message, at most: names, values and 4 for each field.
pub const HEADER_BYTES: usize = 64 * 1024;

/// What the shell knows of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The client's address.
    pub client: IpAddr,
    /// TLS ended here.
    pub tls: bool,
    /// Port of the listener (logical), for `X-Forwarded-Port`.
    pub port: u16,
    /// The client is trusted to have set forwarded headers.
    pub trusted: bool,
}

/// The canonical view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// Host: lower case, no port, no trailing dot; an IPv6 address keeps its brackets.
    pub host: String,
    /// Port in the authority, if any.
    pub port: Option<u16>,
    /// Normalised path: what is matched and what is forwarded.
    pub path: String,
    /// Query without `?`.
    pub query: Option<String>,
    /// The protocol asked for by `Connection: upgrade`, lower case (`websocket`).
    pub upgrade: Option<String>,
}

/// A request that must not be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Status for the client.
    pub status: StatusCode,
    /// Short snake_case reason for logs and metrics.
    pub reason: &'static str,
    /// The connection's framing can't be trusted any more: close it.
    pub close: bool,
}

/// Checks a request and makes it canonical: rewrites `parts.headers` (one `Host`, no hop-by-hop
/// fields, no untrusted forwarded fields, own forwarded fields) and returns the view to route by.
/// `parts.uri` stays as it was.
///
/// Header order and framing were checked by the codec; this is what hyper leaves to its user
/// (RFC 9110 7.2 and 7.6.1, RFC 9112 3.2 and 6.1, RFC 9113 8.2 and 8.3). HTTP/1.0 needs a `Host`
/// too: without one there is nothing to route by.
///
/// # Errors
/// The client's fault: 400 (authority, path, framing), 405 (`CONNECT`), 417, 431, 501.
pub fn request(parts: &mut request::Parts, connection: &Connection) -> Result<Canonical, Refused> {
    let bad = |reason| Refused { status: StatusCode::BAD_REQUEST, reason, close: false };
    let survey = Survey::of(&parts.headers);
    if survey.framing {
        framing::request(&mut parts.headers, parts.version)?;
    }
    if parts.method == Method::CONNECT {
        return Err(Refused { status: StatusCode::METHOD_NOT_ALLOWED, reason: "connect", close: true });
    }
    if survey.too_many() {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Refused { status, reason: "headers_too_large", close: true });
    }
    if survey.padded {
        return Err(bad("header_padded"));
    }
    let authority = authority::of(parts, connection.tls).map_err(bad)?;
    let path = target_path(parts).map_err(bad)?;
    let query = parts.uri.query().map(query).transpose().map_err(bad)?;
    if survey.expect {
        headers::expect(&mut parts.headers)?;
    }
    let upgrade = if survey.hop { headers::remove_hop_by_hop(&mut parts.headers, parts.version)? } else { None };
    if survey.underscores {
        headers::remove_underscores(&mut parts.headers);
    }
    if survey.cookies {
        headers::join_cookies(&mut parts.headers);
    }
    let host = authority.set(&mut parts.headers).ok_or_else(|| bad("authority_bad_host"))?;
    headers::forwarded(&mut parts.headers, &survey, connection, &host);
    Ok(Canonical { host: authority.host, port: authority.port, path, query, upgrade })
}

/// The normalised path of the request target; `*` only for `OPTIONS` (RFC 9112 3.2.4).
fn target_path(parts: &request::Parts) -> Result<String, &'static str> {
    match parts.uri.path() {
        "*" if parts.method == Method::OPTIONS => Ok("*".to_owned()),
        path => path::normalise(path),
    }
}

/// The query as it is; only bytes that can't stand in a URI are refused.
fn query(raw: &str) -> Result<String, &'static str> {
    match raw.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        true => Ok(raw.to_owned()),
        false => Err("query_bad_character"),
    }
}
