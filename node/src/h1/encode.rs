//! Writes heads and bodies into the queue. What frames a message is written here and nowhere
//! else: of the fields in a map, `Content-Length` is obeyed, and `Connection` and
//! `Transfer-Encoding` are left out.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, StatusCode, Version, request, response};
use http_body::Frame;

use super::framing::{self, Framing};
use super::out::Out;
use super::{BodyError, date};

/// Writes one body.
#[derive(Debug)]
pub(super) struct Encoder(Framing);

impl Encoder {
    /// No more is wanted: there is no body, or its length is reached.
    pub(super) fn is_full(&self) -> bool {
        matches!(self.0, Framing::None | Framing::Unknown | Framing::Length(0))
    }

    /// Appends a piece. Returns whether it was the last one.
    ///
    /// # Errors
    /// There is more than the head said.
    pub(super) fn frame(&mut self, frame: Frame<Bytes>, out: &mut Out) -> Result<bool, BodyError> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let trailers = frame.into_trailers().ok().filter(|_| self.0 == Framing::Chunked);
                return Ok(trailers.is_some_and(|trailers| {
                    last_chunk(&trailers, out);
                    true
                }));
            }
        };
        match &mut self.0 {
            Framing::None | Framing::Unknown => return Err("a body where there is none".into()),
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or("more bytes than the head said")?;
                out.data(data);
                return Ok(*left == 0);
            }
            Framing::UntilClose => out.data(data),
            // A chunk of no bytes would be the last one.
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                number::<16>(data.len() as u64, out.buffer());
                out.buffer().extend_from_slice(b"\r\n");
                out.data(data);
                out.buffer().extend_from_slice(b"\r\n");
            }
        }
        Ok(false)
    }

    /// The body has ended.
    ///
    /// # Errors
    /// There is less than the head said.
    pub(super) fn end(&self, out: &mut Out) -> Result<(), BodyError> {
        match self.0 {
            Framing::Length(1..) => return Err("fewer bytes than the head said".into()),
            Framing::Chunked => last_chunk(&HeaderMap::new(), out),
            _ => {}
        }
        Ok(())
    }
}

fn last_chunk(trailers: &HeaderMap, out: &mut Out) {
    let buffer = out.buffer();
    buffer.extend_from_slice(b"0\r\n");
    fields(trailers, buffer);
    buffer.extend_from_slice(b"\r\n");
}

/// Writes a request's head in origin form. Returns how its body is to be written.
pub(super) fn request(head: &request::Parts, empty: bool, exact: Option<u64>, out: &mut Out) -> Encoder {
    let buffer = out.buffer();
    buffer.extend_from_slice(head.method.as_str().as_bytes());
    buffer.push(b' ');
    buffer.extend_from_slice(head.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    buffer.extend_from_slice(b" HTTP/1.1\r\n");
    fields(&head.headers, buffer);
    let framing = match (framing::length(&head.headers), empty, exact) {
        (Ok(Some(length)), ..) => Framing::Length(length),
        (_, true, _) | (.., Some(0)) => {
            if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
                length(0, buffer);
            }
            Framing::None
        }
        (.., Some(exact)) => length(exact, buffer),
        (.., None) => chunked(buffer),
    };
    upgrade(&head.headers, buffer);
    buffer.extend_from_slice(b"\r\n");
    Encoder(framing)
}

/// What an answer's writer must know of the request and of the connection.
#[derive(Debug)]
pub(super) struct Wire {
    /// The request's method.
    pub(super) method: Method,
    /// The client's version.
    pub(super) version: Version,
    /// The connection lives on.
    pub(super) keep: bool,
}

/// Writes a response's head. Returns how its body is to be written; where the body ends with the
/// connection, `wire` says so.
pub(super) fn response(
    head: &response::Parts,
    empty: bool,
    exact: Option<u64>,
    wire: &mut Wire,
    out: &mut Out,
) -> Encoder {
    let buffer = out.buffer();
    status_line(head.status, buffer);
    if head.status == StatusCode::NO_CONTENT && head.headers.contains_key(CONTENT_LENGTH) {
        // RFC 9110 8.6: not here, whatever a pod says.
        let mut others = head.headers.clone();
        others.remove(CONTENT_LENGTH);
        fields(&others, buffer);
    } else {
        fields(&head.headers, buffer);
    }
    if !head.headers.contains_key(DATE) {
        buffer.extend_from_slice(b"date: ");
        date::append(buffer);
        buffer.extend_from_slice(b"\r\n");
    }
    let framing = match (framing::length(&head.headers), exact) {
        _ if !framing::has_body(&wire.method, head.status) => Framing::None,
        (Ok(Some(length)), _) => Framing::Length(length),
        (_, Some(exact)) => length(exact, buffer),
        _ if empty => length(0, buffer),
        _ if wire.version == Version::HTTP_11 => chunked(buffer),
        _ => {
            wire.keep = false;
            Framing::UntilClose
        }
    };
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        upgrade(&head.headers, buffer);
    } else if !wire.keep {
        buffer.extend_from_slice(b"connection: close\r\n");
    } else if wire.version == Version::HTTP_10 {
        buffer.extend_from_slice(b"connection: keep-alive\r\n");
    }
    buffer.extend_from_slice(b"\r\n");
    Encoder(framing)
}

/// Writes an interim response (RFC 9110 15.2).
pub(super) fn interim(status: StatusCode, headers: &HeaderMap, out: &mut Out) {
    let buffer = out.buffer();
    status_line(status, buffer);
    fields(headers, buffer);
    buffer.extend_from_slice(b"\r\n");
}

fn status_line(status: StatusCode, buffer: &mut Vec<u8>) {
    if status == StatusCode::OK {
        return buffer.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    buffer.extend_from_slice(b"HTTP/1.1 ");
    buffer.extend_from_slice(status.as_str().as_bytes());
    buffer.push(b' ');
    buffer.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    buffer.extend_from_slice(b"\r\n");
}

fn fields(headers: &HeaderMap, buffer: &mut Vec<u8>) {
    for (name, value) in headers {
        if *name == CONNECTION || *name == TRANSFER_ENCODING {
            continue;
        }
        buffer.extend_from_slice(name.as_str().as_bytes());
        buffer.extend_from_slice(b": ");
        buffer.extend_from_slice(value.as_bytes());
        buffer.extend_from_slice(b"\r\n");
    }
}

fn upgrade(headers: &HeaderMap, buffer: &mut Vec<u8>) {
    if headers.contains_key(UPGRADE) {
        buffer.extend_from_slice(b"connection: upgrade\r\n");
    }
}

fn length(length: u64, buffer: &mut Vec<u8>) -> Framing {
    buffer.extend_from_slice(CONTENT_LENGTH.as_str().as_bytes());
    buffer.extend_from_slice(b": ");
    number::<10>(length, buffer);
    buffer.extend_from_slice(b"\r\n");
    Framing::Length(length)
}

fn chunked(buffer: &mut Vec<u8>) -> Framing {
    buffer.extend_from_slice(b"transfer-encoding: chunked\r\n");
    Framing::Chunked
}

/// Appends a number in a base up to 16.
fn number<const BASE: u64>(mut number: u64, buffer: &mut Vec<u8>) {
    let from = buffer.len();
    loop {
        let digit = u32::try_from(number % BASE).ok().and_then(|digit| char::from_digit(digit, 16));
        buffer.push(digit.map_or(b'0', |digit| digit as u8));
        number /= BASE;
        if number == 0 {
            break;
        }
    }
    if let Some(digits) = buffer.get_mut(from..) {
        digits.reverse();
    }
}
