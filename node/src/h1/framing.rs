//! Where bodies end (RFC 9112 6), and whether a connection lives on (RFC 9112 9.3).

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

/// How a message says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
    /// Nobody can tell: nothing behind the head is read. `sanitize` refuses such a message.
    Unknown,
}

/// The framing of a request (RFC 9112 6.3).
pub(super) fn of_request(version: Version, headers: &HeaderMap) -> Framing {
    match (headers.contains_key(TRANSFER_ENCODING), length(headers)) {
        (true, Ok(None)) if version == Version::HTTP_11 && exactly_chunked(headers) => Framing::Chunked,
        (true, _) | (false, Err(())) => Framing::Unknown,
        (false, Ok(None | Some(0))) => Framing::None,
        (false, Ok(Some(length))) => Framing::Length(length),
    }
}

/// The framing of a response to a request with this method.
pub(super) fn of_response(method: &Method, status: StatusCode, version: Version, headers: &HeaderMap) -> Framing {
    if !has_body(method, status) {
        return Framing::None;
    }
    match (headers.contains_key(TRANSFER_ENCODING), length(headers)) {
        (true, Ok(None)) if version == Version::HTTP_11 && exactly_chunked(headers) => Framing::Chunked,
        (true, _) | (false, Err(())) => Framing::Unknown,
        (false, Ok(None)) => Framing::UntilClose,
        (false, Ok(Some(0))) => Framing::None,
        (false, Ok(Some(length))) => Framing::Length(length),
    }
}

/// Whether a response may have a body at all.
pub(super) fn has_body(method: &Method, status: StatusCode) -> bool {
    let none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || status.is_informational();
    !none && *method != Method::HEAD
}

/// Whether the sender of this head wants to go on with the connection.
pub(super) fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let said = |token| has_token(headers, CONNECTION, token);
    !said(b"close") && (version == Version::HTTP_11 || said(b"keep-alive"))
}

/// Whether a list has a token.
fn names<'a>(values: impl IntoIterator<Item = &'a HeaderValue>, token: &[u8]) -> bool {
    let mut tokens = values.into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.any(|one| one.trim_ascii().eq_ignore_ascii_case(token))
}

/// Whether a field's lines hold a token.
pub(super) fn has_token(headers: &HeaderMap, name: HeaderName, token: &[u8]) -> bool {
    names(headers.get_all(name), token)
}

/// The one length; lines that agree are one (RFC 9110 8.6).
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    if lines.any(|line| line != first) || !first.as_bytes().iter().all(u8::is_ascii_digit) {
        return Err(());
    }
    first.to_str().ok().and_then(|digits| digits.parse().ok()).map(Some).ok_or(())
}

fn exactly_chunked(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    let first = lines.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    first && lines.next().is_none()
}
