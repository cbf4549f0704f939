//! Finds the end of a head and parses it. Strict where two readers could disagree: every line
//! ends with CRLF, no folded lines, no white space before a colon, no control characters.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, request, response,
};

use super::refused::{self, Refused};
use super::{MAX_FIELDS, MAX_HEAD, MAX_TARGET};

/// Room for fields that the proxy adds, so that a map does not grow.
const SPARE_FIELDS: usize = 8;

/// Bytes of a method and what stands around a target, which don't count as the target.
const AROUND_TARGET: usize = 64;

/// Looks for the end of a head, each byte once, however slowly they come.
#[derive(Debug, Default)]
pub(super) struct Scan {
    seen: usize,
}

/// A line ended with LF alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BareLf;

impl Scan {
    /// The length of the head that `bytes` begins with, once its end is there.
    ///
    /// # Errors
    /// A line ends with LF alone.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, BareLf> {
        let from = self.seen;
        for found in memchr::memchr_iter(b'\n', bytes.get(from..).unwrap_or_default()) {
            let end = from + found + 1;
            let line = bytes.get(..end).unwrap_or_default();
            if !line.ends_with(b"\r\n") {
                return Err(BareLf);
            }
            if line.ends_with(b"\r\n\r\n") || line.len() == 2 {
                return Ok(Some(end));
            }
        }
        self.seen = bytes.len();
        Ok(None)
    }
}

/// Takes a request's head off the input, once it is complete.
///
/// # Errors
/// The input does not begin with a request.
pub(super) fn take_request(scan: &mut Scan, input: &mut BytesMut) -> Result<Option<request::Parts>, Refused> {
    // Empty lines before a request are ignored (RFC 9112 2.2).
    while scan.seen == 0 && input.starts_with(b"\r\n") {
        input.advance(2);
    }
    if input.as_ref() == b"\r" {
        return Ok(None);
    }
    let end = scan.end(input).map_err(|BareLf| refused::BARE_LF)?;
    let Some(end) = end else { return too_long(input).map(|()| None) };
    if end > MAX_HEAD {
        return Err(refused::HEAD_TOO_LARGE);
    }
    *scan = Scan::default();
    request(input.split_to(end).freeze()).map(Some)
}

/// Refuses what can't become a request, before its end is there.
fn too_long(input: &[u8]) -> Result<(), Refused> {
    let first = input.first().is_none_or(|byte| byte.is_ascii_graphic() || *byte == b'\r');
    if !first {
        return Err(refused::REQUEST_LINE);
    }
    if input.len() > MAX_TARGET + AROUND_TARGET
        && memchr::memchr(b'\n', input.get(..MAX_TARGET + AROUND_TARGET).unwrap_or_default()).is_none()
    {
        return Err(refused::TARGET_TOO_LONG);
    }
    if input.len() >= MAX_HEAD { Err(refused::HEAD_TOO_LARGE) } else { Ok(()) }
}

/// Parses a request's head.
///
/// # Errors
/// It is not one.
pub(super) fn request(head: Bytes) -> Result<request::Parts, Refused> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let complete = parsed.parse_with_uninit_headers(&head, &mut fields).map_err(|error| flaw(error, &head))?;
    let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(refused::REQUEST_LINE);
    };
    if complete != httparse::Status::Complete(head.len()) {
        return Err(refused::REQUEST_LINE);
    }
    if path.len() > MAX_TARGET {
        return Err(refused::TARGET_TOO_LONG);
    }
    // `Uri` would drop a fragment, and what is matched would not be what was sent.
    if memchr::memchr(b'#', path.as_bytes()).is_some() {
        return Err(refused::TARGET);
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| refused::REQUEST_LINE)?;
    parts.uri = Uri::from_maybe_shared(head.slice_ref(path.as_bytes())).map_err(|_| refused::TARGET)?;
    parts.version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = map(&head, parsed.headers).ok_or(refused::FIELD_NAME)?;
    Ok(parts)
}

fn flaw(error: httparse::Error, head: &[u8]) -> Refused {
    match error {
        httparse::Error::TooManyHeaders => refused::HEAD_TOO_LARGE,
        httparse::Error::HeaderName => refused::FIELD_NAME,
        httparse::Error::HeaderValue => refused::FIELD_VALUE,
        _ if other_version(head) => refused::VERSION,
        _ => refused::REQUEST_LINE,
    }
}

/// The first line is a request of a version that is not spoken here.
fn other_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    match words.as_slice() {
        [_, _, version] => version.strip_prefix(b"HTTP/").is_some_and(|number| {
            matches!(number, [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
                && !matches!(number, b"1.0" | b"1.1")
        }),
        _ => false,
    }
}

/// Parses a response's head. `None`: it is not one.
pub(super) fn response(head: Bytes) -> Option<response::Parts> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let complete =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, &head, &mut fields).ok()?;
    if complete != httparse::Status::Complete(head.len()) {
        return None;
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(parsed.code?).ok()?;
    parts.version = if parsed.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = map(&head, parsed.headers)?;
    Some(parts)
}

/// Parses the fields of a trailer section, its empty line included.
pub(super) fn trailers(section: Bytes) -> Option<HeaderMap> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(&section, &mut fields).ok()? {
        httparse::Status::Complete((length, fields)) if length == section.len() => map(&section, fields),
        _ => None,
    }
}

/// Values share the head's memory.
fn map(head: &Bytes, fields: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len() + SPARE_FIELDS);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?;
        headers.append(name, value);
    }
    Some(headers)
}
