//! Header fields: limits, hop-by-hop fields, forwarded fields, names with `_`, cookies.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use super::{Connection, HEADER_BYTES, HEADER_COUNT, Refused};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What one look over all fields finds: most requests have nothing special, and need not be searched
/// for each of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Survey {
    lines: usize,
    bytes: usize,
    /// A value starts or ends with white space, which HTTP/2 forbids and a codec for HTTP/1.1
    /// would trim (RFC 9113 8.2.1).
    pub(super) padded: bool,
    /// `Content-Length` or `Transfer-Encoding`.
    pub(super) framing: bool,
    /// Fields of one connection.
    pub(super) hop: bool,
    /// `Expect`.
    pub(super) expect: bool,
    /// Names with `_`.
    pub(super) underscores: bool,
    /// Several lines of `Cookie`.
    pub(super) cookies: bool,
    /// Fields that only a trusted hop may send.
    forwarded: bool,
}

impl Survey {
    /// Looks at all fields once.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        let mut survey = Survey::default();
        let mut cookie = false;
        for (name, value) in headers {
            let (text, value) = (name.as_str(), value.as_bytes());
            survey.lines += 1;
            survey.bytes += text.len() + value.len() + 4;
            survey.padded |= blank(value.first()) || blank(value.last());
            survey.framing |= matches!(text, "content-length" | "transfer-encoding");
            survey.hop |= is_hop_by_hop(text);
            survey.expect |= text == "expect";
            survey.underscores |= text.as_bytes().contains(&b'_');
            survey.forwarded |= is_forwarded(text);
            survey.cookies |= cookie && text == "cookie";
            cookie |= text == "cookie";
        }
        survey
    }

    /// Whether there are more fields, or longer ones, than the limits allow.
    pub(super) fn too_many(&self) -> bool {
        self.lines > HEADER_COUNT || self.bytes > HEADER_BYTES
    }
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

/// Fields of one connection; also `Proxy`, which no specification knows and CGI takes for the
/// variable `HTTP_PROXY`.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "te" | "transfer-encoding" | "upgrade" | "http2-settings" | "proxy")
        || name.starts_with("proxy-")
}

/// Removes the hop-by-hop fields and those in `named`.
pub(super) fn strip(headers: &mut HeaderMap, named: &[HeaderName]) {
    remove_where(headers, |name| is_hop_by_hop(name.as_str()) || named.contains(name));
}

/// The fields that `Connection` names; its own words are none. `None` when it is no list of names.
pub(super) fn named_by_connection(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        let own = |token: &str| token.eq_ignore_ascii_case("keep-alive") || token.eq_ignore_ascii_case("close");
        let tokens = value.to_str().ok()?.split(',').map(str::trim);
        for token in tokens.filter(|token| !token.is_empty() && !own(token)) {
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
pub(super) fn forwarded(headers: &mut HeaderMap, survey: &Survey, connection: &Connection, host: &HeaderValue) {
    let mut chain: Vec<u8> = Vec::with_capacity(16);
    if survey.forwarded {
        if connection.trusted {
            remove_where(headers, |name| name.as_str().starts_with("x-meshgate-"));
        } else {
            remove_where(headers, |name| is_forwarded(name.as_str()));
        }
        for value in headers.get_all(X_FORWARDED_FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
    }
    address(connection.client, &mut chain);
    // Valid values, a comma and an address are a valid value.
    if let Ok(value) = HeaderValue::from_bytes(&chain) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    let proto = HeaderValue::from_static(if connection.tls { "https" } else { "http" });
    headers.entry(X_FORWARDED_PROTO).or_insert(proto);
    headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    headers.entry(X_FORWARDED_PORT).or_insert_with(|| HeaderValue::from(connection.port));
}

/// Appends an address; one that is IPv4 in IPv6's clothes as IPv4.
fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                let digits = [octet / 100, octet / 10 % 10, octet % 10];
                let leading = digits.iter().take(2).take_while(|digit| **digit == 0).count();
                out.extend(digits.iter().skip(leading).map(|digit| b'0' + digit));
            }
        }
        IpAddr::V6(address) => out.extend_from_slice(address.to_string().as_bytes()),
    }
}

/// Removes all fields whose names fulfil a condition.
pub(super) fn remove_where(headers: &mut HeaderMap, condition: impl Fn(&HeaderName) -> bool) {
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| condition(name)).cloned().collect();
    unwanted.iter().for_each(|name| drop(headers.remove(name)));
}
