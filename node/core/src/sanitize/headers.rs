//! Header fields: limits, hop-by-hop fields, forwarded fields, names with `_`, cookies.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HOST, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use super::{Connection, HEADER_BYTES, HEADER_COUNT, Refused};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether there are more fields, or longer ones, than the limits allow.
pub(super) fn too_many(headers: &HeaderMap) -> bool {
    let bytes = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    headers.len() > HEADER_COUNT || headers.iter().map(bytes).sum::<usize>() > HEADER_BYTES
}

/// Whether a value starts or ends with white space, which HTTP/2 forbids and a codec for HTTP/1.1
/// would trim (RFC 9113 8.2.1).
pub(super) fn padded(headers: &HeaderMap) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    headers.values().any(|value| blank(value.as_bytes().first()) || blank(value.as_bytes().last()))
}

/// Removes what belongs to one connection only (RFC 9110 7.6.1): `Connection` and what it names,
/// `Keep-Alive`, `Proxy-*`, `TE` but for `trailers`, `Transfer-Encoding`, `Upgrade`. Returns the
/// protocol to upgrade to, when the request asks for one that may be forwarded.
///
/// # Errors
/// 400 when `Connection` names a field that it may not, or stands in HTTP/2.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap, version: Version) -> Result<Option<String>, Refused> {
    let refuse = |reason| Refused { status: StatusCode::BAD_REQUEST, reason, close: false };
    let modern = matches!(version, Version::HTTP_2 | Version::HTTP_3);
    if modern && (headers.contains_key(CONNECTION) || headers.contains_key(UPGRADE)) {
        return Err(refuse("connection_in_this_version"));
    }
    let named = named_by_connection(headers).ok_or_else(|| refuse("connection_bad"))?;
    if named.iter().any(is_end_to_end) {
        return Err(refuse("connection_names_end_to_end"));
    }
    let upgrade = if version == Version::HTTP_11 && named.contains(&UPGRADE) { upgrade(headers) } else { None };
    let trailers = accepts_trailers(headers);
    strip(headers, &named);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(upgrade)
}

/// Removes the hop-by-hop fields and those in `named`; also `Proxy`, which no specification knows
/// and CGI takes for the variable `HTTP_PROXY`.
pub(super) fn strip(headers: &mut HeaderMap, named: &[HeaderName]) {
    const FIELDS: [&str; 6] = ["connection", "keep-alive", "te", "transfer-encoding", "upgrade", "http2-settings"];
    named.iter().for_each(|name| drop(headers.remove(name)));
    FIELDS.iter().for_each(|name| drop(headers.remove(*name)));
    remove_where(headers, |name| name == "proxy" || name.as_str().starts_with("proxy-"));
}

/// The fields that `Connection` names. `None` when it is no list of names.
pub(super) fn named_by_connection(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.to_str().ok()?.split(',').map(str::trim).filter(|token| !token.is_empty()) {
            named.push(HeaderName::from_bytes(token.as_bytes()).ok()?);
        }
    }
    Some(named)
}

/// Fields that matter to whoever answers; a client that has them removed on the way wants to
/// deceive the backend.
pub(super) fn is_end_to_end(name: &HeaderName) -> bool {
    const FIELDS: [HeaderName; 8] =
        [HOST, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, TRANSFER_ENCODING, TRAILER];
    FIELDS.contains(name) || is_forwarded(name.as_str())
}

fn is_forwarded(name: &str) -> bool {
    // `client-cert` and its like say that a proxy saw a client's certificate (RFC 9440 2.4).
    const PREFIXES: [&str; 6] =
        ["x-forwarded-", "x-envoy-", "x-meshgate-", "client-cert", "ssl-client-", "x-ssl-client-"];
    matches!(name, "forwarded" | "x-real-ip" | "x-client-cert")
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The one protocol that `Upgrade` names. HTTP/2 and TLS are never upgraded to: the requests
/// inside would pass unseen.
fn upgrade(headers: &HeaderMap) -> Option<String> {
    let mut lines = headers.get_all(UPGRADE).iter();
    let protocol = lines.next()?.to_str().ok()?.trim().to_ascii_lowercase();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/' | b'+');
    let one = lines.next().is_none() && !protocol.is_empty() && protocol.bytes().all(token);
    let family = protocol.split('/').next().unwrap_or_default();
    (one && !matches!(family, "h2c" | "h2" | "http" | "tls")).then_some(protocol)
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Checks `Expect` and removes it: whoever reads the body from the client answers it.
///
/// # Errors
/// 417 for anything but `100-continue`.
pub(super) fn expect(headers: &mut HeaderMap) -> Result<(), Refused> {
    let known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !headers.get_all(EXPECT).iter().all(known) {
        return Err(Refused { status: StatusCode::EXPECTATION_FAILED, reason: "expect_unknown", close: true });
    }
    headers.remove(EXPECT);
    Ok(())
}

/// Removes names with `_`, which many backends can't tell from `-`. gRPC metadata keeps them,
/// unless they could be taken for a field that we rely on.
pub(super) fn remove_underscores(headers: &mut HeaderMap) {
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    remove_where(headers, |name| {
        let name = name.as_str();
        name.contains('_') && (!grpc || is_guarded(&name.replace('_', "-")))
    });
}

fn is_guarded(name: &str) -> bool {
    name.starts_with("proxy-") || HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| is_end_to_end(&name))
}

/// Joins cookies that HTTP/2 split (RFC 9113 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter();
    let Some(first) = lines.next() else { return };
    let mut joined = first.as_bytes().to_vec();
    let alone = joined.len();
    for line in lines {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    // Parts of valid values, joined by valid bytes, are a valid value.
    if joined.len() > alone
        && let Ok(value) = HeaderValue::from_bytes(&joined)
    {
        headers.insert(COOKIE, value);
    }
}

/// Removes forwarded fields of untrusted clients, and sets our own. Of a trusted client's only
/// the identity that peers assert (`X-Meshgate-*`) goes; its chain is continued.
pub(super) fn forwarded(headers: &mut HeaderMap, connection: &Connection, host: &HeaderValue) {
    if connection.trusted {
        remove_where(headers, |name| name.as_str().starts_with("x-meshgate-"));
    } else {
        remove_where(headers, |name| *name == FORWARDED || is_forwarded(name.as_str()));
    }
    let client = match connection.client {
        IpAddr::V6(address) => address.to_canonical(),
        address => address,
    };
    let mut chain: Vec<u8> = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(client.to_string().as_bytes());
    // Valid values, a comma and an address are a valid value.
    if let Ok(value) = HeaderValue::from_bytes(&chain) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    let proto = HeaderValue::from_static(if connection.tls { "https" } else { "http" });
    headers.entry(X_FORWARDED_PROTO).or_insert(proto);
    headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    headers.entry(X_FORWARDED_PORT).or_insert_with(|| HeaderValue::from(connection.port));
}

/// Removes all fields whose names fulfil a condition.
pub(super) fn remove_where(headers: &mut HeaderMap, condition: impl Fn(&HeaderName) -> bool) {
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| condition(name)).cloned().collect();
    unwanted.iter().for_each(|name| drop(headers.remove(name)));
}
