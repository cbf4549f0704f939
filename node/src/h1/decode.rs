//! Reads a body off the input: a number of bytes, chunks (RFC 9112 7.1), or all that comes.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::framing::Framing;
use super::head::{self, Scan};
use super::{MAX_EXTENSIONS, MAX_TRAILERS};

/// Digits of a chunk's size.
const MAX_DIGITS: usize = 16;

/// A body that is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadBody {
    #[error("a chunk's size is not hexadecimal digits and CRLF")]
    Size,
    #[error("the chunk extensions are too long or have control characters")]
    Extension,
    #[error("a chunk does not end with CRLF")]
    ChunkEnd,
    #[error("the trailers are too long or not valid")]
    Trailers,
    #[error("the body broke off")]
    Short,
}

/// What the input held.
#[derive(Debug)]
pub(super) enum Decoded {
    Frame(Frame<Bytes>),
    /// The body has ended.
    End,
    /// More bytes are needed.
    More,
}

/// Reads one body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    extensions: usize,
}

#[derive(Debug)]
enum State {
    Length(u64),
    UntilClose,
    Size,
    Chunk(u64),
    ChunkEnd,
    Trailers(Scan),
    Done,
    Broken(BadBody),
}

impl Decoder {
    /// A decoder of a body with this framing.
    pub(super) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Unknown | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        };
        Decoder { state, extensions: 0 }
    }

    /// The body was read to its end.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// What is known of what is still to come.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self.state {
            State::Length(left) => SizeHint::with_exact(left),
            State::Done => SizeHint::with_exact(0),
            _ => SizeHint::new(),
        }
    }

    /// The next piece of the body.
    ///
    /// # Errors
    /// The body is not valid; it stays so.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, BadBody> {
        let decoded = self.step(input);
        if let Err(error) = &decoded {
            self.state = State::Broken(*error);
        }
        decoded
    }

    /// The other end says no more.
    ///
    /// # Errors
    /// It should have.
    pub(super) fn end_of_input(&mut self) -> Result<(), BadBody> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Broken(error) => Err(error),
            _ => {
                self.state = State::Broken(BadBody::Short);
                Err(BadBody::Short)
            }
        }
    }

    fn step(&mut self, input: &mut BytesMut) -> Result<Decoded, BadBody> {
        loop {
            match &mut self.state {
                State::Done => return Ok(Decoded::End),
                State::Broken(error) => return Err(*error),
                _ if input.is_empty() => return Ok(Decoded::More),
                State::UntilClose => return Ok(data(input.split())),
                State::Length(left) => {
                    let piece = piece(input, left);
                    if *left == 0 {
                        self.state = State::Done;
                    }
                    return Ok(data(piece));
                }
                State::Chunk(left) => {
                    let piece = piece(input, left);
                    if *left == 0 {
                        self.state = State::ChunkEnd;
                    }
                    return Ok(data(piece));
                }
                State::ChunkEnd => {
                    if !b"\r\n".starts_with(input.get(..input.len().min(2)).unwrap_or_default()) {
                        return Err(BadBody::ChunkEnd);
                    }
                    if input.len() < 2 {
                        return Ok(Decoded::More);
                    }
                    input.advance(2);
                    self.state = State::Size;
                }
                State::Size => match size(input, &mut self.extensions)? {
                    None => return Ok(Decoded::More),
                    Some(0) => self.state = State::Trailers(Scan::default()),
                    Some(size) => self.state = State::Chunk(size),
                },
                State::Trailers(scan) => match trailers(scan, input)? {
                    None => return Ok(Decoded::More),
                    Some(fields) => {
                        self.state = State::Done;
                        let none = fields.is_empty();
                        return Ok(if none { Decoded::End } else { Decoded::Frame(Frame::trailers(fields)) });
                    }
                },
            }
        }
    }
}

fn data(bytes: BytesMut) -> Decoded {
    Decoded::Frame(Frame::data(bytes.freeze()))
}

/// At most `left` bytes of the input.
fn piece(input: &mut BytesMut, left: &mut u64) -> BytesMut {
    let length = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= length as u64;
    if length == input.len() { input.split() } else { input.split_to(length) }
}

/// The size of the next chunk, whose line is taken off the input.
fn size(input: &mut BytesMut, extensions: &mut usize) -> Result<Option<u64>, BadBody> {
    let end = memchr::memchr(b'\n', input);
    let line = input.get(..end.unwrap_or(input.len())).unwrap_or_default();
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let rest = line.get(digits..).unwrap_or_default();
    if digits > MAX_DIGITS || digits == 0 && !rest.is_empty() {
        return Err(BadBody::Size);
    }
    if *extensions + rest.len() > MAX_EXTENSIONS {
        return Err(BadBody::Extension);
    }
    if !matches!(rest.first(), None | Some(b'\r' | b';')) {
        return Err(BadBody::Size);
    }
    let Some(end) = end else { return Ok(None) };
    let extension = rest.strip_suffix(b"\r").ok_or(BadBody::Size)?;
    if extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(BadBody::Extension);
    }
    *extensions += extension.len();
    let digits = line.get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
    let size = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(BadBody::Size)?;
    input.advance(end + 1);
    Ok(Some(size))
}

/// The trailers, which are taken off the input.
fn trailers(scan: &mut Scan, input: &mut BytesMut) -> Result<Option<HeaderMap>, BadBody> {
    let end = scan.end(input).map_err(|_| BadBody::Trailers)?;
    if end.unwrap_or(input.len()) > MAX_TRAILERS {
        return Err(BadBody::Trailers);
    }
    match end {
        None => Ok(None),
        Some(end) => head::trailers(input.split_to(end).freeze()).map(Some).ok_or(BadBody::Trailers),
    }
}
