//! Requests to switch protocols (RFC 9110 7.8) and what becomes of their answers. Inside, every
//! such request is an `Upgrade` of HTTP/1.1, whatever the client and the pod speak: the edge and the
//! pool translate to extended CONNECT (RFC 8441) and back.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request, response};
use hyper::ext::Protocol;
use meshgate_core::sanitize::Canonical;

use super::answer::{self, Answer};
use crate::relay::Upgraded;

/// The protocol that needs fields of its own.
pub const WEBSOCKET: &str = "websocket";

/// What a key is joined with before it is hashed (RFC 6455 1.3).
const ACCEPT_SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Makes `parts` ask for an upgrade, if the client may and did. Otherwise it stays what it is: an
/// `Upgrade` that is ignored is as good as none (RFC 9110 7.8).
pub(super) fn ask(canonical: &Canonical, parts: &mut request::Parts, no_body: bool) {
    let bridged = !parts.extensions.is_empty() && is_bridged(parts);
    if bridged {
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        if let Ok(key) = HeaderValue::try_from(key) {
            parts.headers.insert(SEC_WEBSOCKET_KEY, key);
        }
    }
    let protocol = if bridged { Some(WEBSOCKET) } else { canonical.upgrade.as_deref() };
    let Some(protocol) = protocol.filter(|protocol| no_body && may(protocol, parts)) else { return };
    if let Ok(protocol) = HeaderValue::from_str(protocol) {
        parts.headers.insert(UPGRADE, protocol);
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// The client came by extended CONNECT.
fn is_bridged(parts: &request::Parts) -> bool {
    parts.extensions.get::<Protocol>().is_some()
}

/// A WebSocket without its fields would be none (RFC 6455 4.1).
fn may(protocol: &str, parts: &request::Parts) -> bool {
    let once = |name| {
        let mut lines = parts.headers.get_all(name).iter();
        lines.next().is_some() && lines.next().is_none()
    };
    parts.method == Method::GET && (protocol != WEBSOCKET || once(SEC_WEBSOCKET_KEY) && once(SEC_WEBSOCKET_VERSION))
}

/// Judges an answer before it is sanitized. The stream, if the pod switched to what it was asked
/// for.
///
/// # Errors
/// It switched to something else, or unasked; or it took an extended CONNECT for a plain request,
/// and a 2xx would tell the client that it had switched.
pub(super) fn judge(asked: &request::Parts, parts: &mut response::Parts) -> Result<Option<Upgraded>, Answer> {
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        let switches = parts.status.is_success() && !asked.extensions.is_empty() && is_bridged(asked);
        return if switches { Err(answer::UPGRADE_REFUSED) } else { Ok(None) };
    }
    let Some(protocol) = asked.headers.get(UPGRADE) else {
        tracing::debug!("a backend switched protocols unasked");
        return Err(answer::RESPONSE_REFUSED);
    };
    let same = only(&parts.headers)
        .is_some_and(|switched| switched.as_bytes().trim_ascii().eq_ignore_ascii_case(protocol.as_bytes()));
    let accepted = !is_bridged(asked) || accepts(&asked.headers, &parts.headers);
    match parts.extensions.remove::<Upgraded>() {
        Some(upgraded) if same && accepted => Ok(Some(upgraded)),
        _ => Err(answer::UPGRADE_REFUSED),
    }
}

fn only(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(UPGRADE).iter();
    lines.next().filter(|_| lines.next().is_none())
}

fn accepts(asked: &HeaderMap, answered: &HeaderMap) -> bool {
    asked.get(SEC_WEBSOCKET_KEY).and_then(accept) == answered.get(SEC_WEBSOCKET_ACCEPT).cloned()
}

/// What a server answers to a key (RFC 6455 4.2.2).
pub(super) fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(ACCEPT_SALT);
    HeaderValue::try_from(STANDARD.encode(hash.finish())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_standard() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    fn asking(method: Method, fields: &[(&'static str, &'static str)], upgrade: Option<&str>) -> bool {
        let (mut parts, ()) = http::Request::builder().method(method).body(()).unwrap().into_parts();
        for (name, value) in fields {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        let upgrade = upgrade.map(str::to_owned);
        let canonical = Canonical { host: "s".into(), port: None, path: "/".into(), query: None, upgrade };
        ask(&canonical, &mut parts, true);
        parts.headers.contains_key(UPGRADE)
    }

    #[test]
    fn only_a_whole_request_to_switch_is_one() {
        let key = ("sec-websocket-key", "k");
        let version = ("sec-websocket-version", "13");
        assert!(asking(Method::GET, &[key, version], Some("websocket")));
        assert!(asking(Method::GET, &[], Some("spdy/3.1")));
        assert!(!asking(Method::POST, &[key, version], Some("websocket")));
        assert!(!asking(Method::GET, &[key], Some("websocket")));
        assert!(!asking(Method::GET, &[version], Some("websocket")));
        assert!(!asking(Method::GET, &[key, key, version], Some("websocket")));
        assert!(!asking(Method::GET, &[key, version], None));
    }
}
