//! The mirror: what a backend says is checked as strictly as what a client says.

use http::header::{CONNECTION, CONTENT_LENGTH, TRAILER, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode, response};

use super::headers::Survey;
use super::{Refused, framing, headers};

/// The mirror: removes hop-by-hop fields of a backend's response and refuses what would confuse
/// the client's connection. A 101 keeps `Upgrade` and gets a plain `Connection: upgrade`; whether
/// the client asked for it is for the caller to check ([`super::Canonical::upgrade`]).
///
/// # Errors
/// The backend's fault: 502. `close` is about the backend's connection.
pub fn response(parts: &mut response::Parts) -> Result<(), Refused> {
    let refuse = |reason| Refused { status: StatusCode::BAD_GATEWAY, reason, close: true };
    let survey = Survey::of(&parts.headers);
    if survey.too_many() {
        return Err(refuse("upstream_headers_too_large"));
    }
    if survey.framing {
        framing::response(parts.version, &parts.headers).map_err(refuse)?;
    }
    if !survey.hop {
        return Ok(());
    }
    let upgrade = match parts.status {
        StatusCode::SWITCHING_PROTOCOLS => parts.headers.get(UPGRADE).cloned(),
        _ => None,
    };
    let mut named = headers::named_by_connection(&parts.headers).unwrap_or_default();
    // A backend can't have its own framing or content removed.
    named.retain(|name| !headers::is_end_to_end(name));
    headers::strip(&mut parts.headers, &named);
    if let Some(upgrade) = upgrade {
        parts.headers.insert(UPGRADE, upgrade);
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    Ok(())
}

/// Removes from trailers, of requests and of responses, what may only stand in a head: framing,
/// routing, credentials, and what hops say to each other (RFC 9110 6.5.1).
pub fn trailers(fields: &mut HeaderMap) {
    const HEAD_ONLY: [&str; 4] = ["content-encoding", "content-range", "set-cookie", "www-authenticate"];
    headers::strip(fields, &[]);
    headers::remove_where(fields, |name| headers::is_end_to_end(name) || HEAD_ONLY.contains(&name.as_str()));
}

/// Removes from an interim response what concerns one connection or no body at all: hop-by-hop
/// fields and those that `Connection` names, framing, and what only the mesh says of itself.
pub fn interim(fields: &mut HeaderMap) {
    let named = headers::named_by_connection(fields).unwrap_or_default();
    headers::strip(fields, &named);
    headers::remove_where(fields, |name| {
        *name == CONTENT_LENGTH || *name == TRAILER || name.as_str().starts_with("x-meshgate-")
    });
}
