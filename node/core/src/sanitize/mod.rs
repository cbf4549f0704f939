//! One canonical view of a request, made once before routing, for HTTP/1.1 and HTTP/2 alike; and
//! its mirror for responses. What is matched is what is forwarded.

pub mod path;

use std::net::IpAddr;

use http::{StatusCode, request, response};

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
///
/// Header order and framing were checked by the codec; this is what hyper leaves to its user
/// (RFC 9110 7.2 and 7.6.1, RFC 9112 3.2 and 6.1, RFC 9113 8.2 and 8.3).
///
/// # Errors
/// The client's fault: 400 (authority, path, framing), 405 (`CONNECT`), 417, 431, 501.
pub fn request(parts: &mut request::Parts, connection: &Connection) -> Result<Canonical, Refused> {
    let _ = (parts, connection);
    Err(Refused { status: StatusCode::BAD_REQUEST, reason: "unimplemented", close: false })
}

/// The mirror: removes hop-by-hop fields of a backend's response and refuses what would confuse
/// the client's connection.
///
/// # Errors
/// The backend's fault: 502.
pub fn response(parts: &mut response::Parts) -> Result<(), Refused> {
    let _ = parts;
    Ok(())
}
