//! Where a message ends: strict `Transfer-Encoding` and `Content-Length` (RFC 9112 6).

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use super::Refused;

/// Checks a request's framing and merges equal `Content-Length` lines.
///
/// # Errors
/// 400 or 501, and the connection must close: what follows can't be told from the body.
pub(super) fn request(headers: &mut HeaderMap, version: Version) -> Result<(), Refused> {
    let refuse = |reason| Refused { status: StatusCode::BAD_REQUEST, reason, close: true };
    if headers.contains_key(TRANSFER_ENCODING) {
        if version != Version::HTTP_11 {
            return Err(refuse("transfer_encoding_in_this_version"));
        }
        if headers.contains_key(CONTENT_LENGTH) {
            return Err(refuse("transfer_encoding_and_length"));
        }
        if !exactly_chunked(headers) {
            let status = if ends_chunked(headers) { StatusCode::NOT_IMPLEMENTED } else { StatusCode::BAD_REQUEST };
            return Err(Refused { status, ..refuse("transfer_encoding_unknown") });
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next().cloned() else { return Ok(()) };
    if !is_length(&first) {
        return Err(refuse("content_length_bad"));
    }
    if lengths.any(|length| *length != first) {
        return Err(refuse("content_length_differs"));
    }
    headers.insert(CONTENT_LENGTH, first);
    Ok(())
}

/// Checks a response's framing.
///
/// # Errors
/// A short reason, for an answer of 502.
pub(super) fn response(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(TRANSFER_ENCODING) {
        // HTTP/1.0 has none: where such a body ends, nobody can tell (RFC 9112 6.1).
        if version == Version::HTTP_10 {
            return Err("upstream_transfer_encoding_in_http_10");
        }
        if headers.contains_key(CONTENT_LENGTH) {
            return Err("upstream_transfer_encoding_and_length");
        }
        if !exactly_chunked(headers) {
            return Err("upstream_transfer_encoding_unknown");
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if lengths.next().is_some_and(|length| !is_length(length)) {
        return Err("upstream_content_length_bad");
    }
    if lengths.next().is_some() { Err("upstream_content_length_repeated") } else { Ok(()) }
}

fn exactly_chunked(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    let first = lines.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    first && lines.next().is_none()
}

/// Whether the final coding is `chunked`, so that only our support for the others is missing.
fn ends_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
    let last = last.and_then(|value| value.to_str().ok()?.rsplit(',').next());
    last.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

/// Digits only, and a number that fits (RFC 9110 8.6).
fn is_length(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    !bytes.is_empty()
        && bytes.iter().all(u8::is_ascii_digit)
        && value.to_str().is_ok_and(|digits| digits.parse::<u64>().is_ok())
}
