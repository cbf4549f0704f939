//! HTTP/2 by hand: frames and field blocks with whatever bytes (RFC 9113, RFC 7541).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(10);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Bytes of a field block in a frame; more would need CONTINUATION.
const MAX_FRAME: usize = 16 * 1024;

/// A request: its field block, DATA, and trailers.
#[derive(Clone, Debug, Default)]
pub struct Request {
    block: Vec<u8>,
    data: Option<Vec<u8>>,
    trailers: Option<Vec<u8>>,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Status(u16),
    Reset(u32),
    Gone(u32),
    Closed,
    Nothing,
}

impl Request {
    /// A GET of `/ok/h2`, with further fields.
    pub fn get(fields: &[(&str, &str)]) -> Request {
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/ok/h2"), (":authority", "a")];
        Request::of(&[&pseudo, fields].concat())
    }

    /// These fields and no others.
    pub fn of(fields: &[(&str, &str)]) -> Request {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        Request { block: block(&fields), ..Request::default() }
    }

    /// One more field.
    pub fn field(mut self, name: &[u8], value: &[u8]) -> Request {
        self.block.extend(block(&[(name, value)]));
        self
    }

    /// A body.
    pub fn data(self, data: &str) -> Request {
        Request { data: Some(data.as_bytes().to_vec()), ..self }
    }

    /// Fields behind the body.
    pub fn trailers(self, fields: &[(&str, &str)]) -> Request {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        Request { trailers: Some(block(&fields)), ..self }
    }

    fn frames(&self) -> Vec<u8> {
        assert!(self.block.len() <= MAX_FRAME);
        let last = |behind: bool| if behind { 0 } else { END_STREAM };
        let (data, trailers) = (self.data.is_some(), self.trailers.is_some());
        let mut bytes = frame(HEADERS, END_HEADERS | last(data || trailers), 1, &self.block);
        if let Some(data) = &self.data {
            bytes.extend(frame(DATA, last(trailers), 1, data));
        }
        if let Some(trailers) = &self.trailers {
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, trailers));
        }
        bytes
    }
}

/// Sends a request on a connection of its own. The first thing that is said about it.
pub async fn send(address: SocketAddr, request: &Request) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(request.frames());
    stream.write_all(&bytes).await.unwrap();
    tokio::time::timeout(PATIENCE, reply(&mut stream)).await.unwrap_or(Reply::Nothing)
}

async fn reply(stream: &mut TcpStream) -> Reply {
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return Reply::Closed;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).await.is_err() {
            return Reply::Closed;
        }
        let number =
            |at: usize| payload.get(at..at + 4).map_or(0, |bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
        match (head[3], head[4]) {
            (HEADERS, _) => match status(&payload) {
                100..200 => {}
                status => return Reply::Status(status),
            },
            (RST_STREAM, _) => return Reply::Reset(number(0)),
            (GOAWAY, _) => return Reply::Gone(number(4)),
            (SETTINGS, flags) if flags & ACK == 0 => {
                let _ = stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await;
            }
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Literal fields, never indexed, without Huffman codes (RFC 7541 6.2.3).
fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0x10);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend(*text);
        }
    }
    bytes
}

/// An integer with a prefix of 7 bits (RFC 7541 5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        bytes.push(length as u8);
        return;
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

/// The status, which stands first: indexed, or a literal with an indexed name.
fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [indexed @ 0x88..=0x8e, ..] => INDEXED[usize::from(indexed - 0x88)],
        [_, length, text @ ..] if length & 0x80 == 0 => std::str::from_utf8(&text[..3]).unwrap().parse().unwrap(),
        [_, _, text @ ..] => digits(text),
        _ => 0,
    }
}

/// Three digits in Huffman code: `0` to `2` are 5 bits, the others 6 (RFC 7541 B).
fn digits(text: &[u8]) -> u16 {
    let bits =
        text.iter().take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (4 - text.len().min(3)));
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = (bits << at) >> 27;
        let six = (bits << at) >> 26;
        let (digit, width) = if five < 3 { (five, 5) } else { (six - 0x19 + 3, 6) };
        number = number * 10 + digit;
        at += width;
    }
    number as u16
}

#[test]
fn statuses_are_read() {
    assert_eq!(status(&[0x8c, 1]), 400);
    assert_eq!(status(b"\x48\x03405"), 405);
    // As in RFC 7541 C.6.1 (302) and C.6.2 (307).
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), 302);
    assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), 307);
}
