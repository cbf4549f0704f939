//! Frames on a stream: one byte kind, four bytes length, content. See `tunnel.proto`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::HeaderMap;
use http_body::Frame;
use quinn::{ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use tokio::io::{AsyncRead as _, ReadBuf};

use super::codec::{self, Malformed};

/// Reset code: the client is gone.
pub(super) const CLIENT_GONE: VarInt = VarInt::from_u32(1);
/// Reset code: the upstream failed.
pub(super) const UPSTREAM_FAILED: VarInt = VarInt::from_u32(2);
/// Reset code: the frames make no sense.
pub(super) const MALFORMED: VarInt = VarInt::from_u32(3);
/// Content of FAILED: nothing was sent to the pod.
pub(super) const UNSENT: &[u8] = &[1];
/// Reset code: given up before anything was accepted.
pub(super) const GIVEN_UP: VarInt = VarInt::from_u32(5);
/// Reset code: a deadline passed.
pub(super) const TOO_LATE: VarInt = VarInt::from_u32(4);

/// Largest frame that is not data.
const MAX_HEAD: usize = 256 * 1024;
/// Most packets' worth that is taken from QUIC at once, and so the most that is copied together.
const READ_BATCH: usize = 32;
/// Data up to this length is copied behind its frame header instead of sent as a chunk of its own.
const COPY_LIMIT: usize = 512;
const HEADER: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open = 1,
    Head = 2,
    Data = 3,
    Trailers = 4,
    End = 5,
    Accepted = 6,
    Refused = 7,
    Failed = 8,
    Interim = 9,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        use Kind::*;
        [Open, Head, Data, Trailers, End, Accepted, Refused, Failed, Interim]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// Why a stream can't be read or written any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("the stream ended without an end")]
    Truncated,
    #[error("the client is gone")]
    ClientGone,
    #[error("the upstream failed")]
    UpstreamFailed,
    #[error("the upstream took nothing")]
    UpstreamUnsent,
    #[error("reset with code {0}")]
    Reset(VarInt),
    #[error("{0}")]
    Connection(String),
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) if code == CLIENT_GONE => StreamError::ClientGone,
            ReadError::Reset(code) if code == UPSTREAM_FAILED => StreamError::UpstreamFailed,
            ReadError::Reset(code) => StreamError::Reset(code),
            other => StreamError::Connection(other.to_string()),
        }
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => StreamError::Reset(code),
            other => StreamError::Connection(other.to_string()),
        }
    }
}

/// Writes frames. What is queued survives the cancellation of a flush. Dropped before its end, it
/// resets the stream, since QUIC would otherwise make the drop look like an end.
pub(super) struct FrameWriter {
    stream: SendStream,
    scratch: BytesMut,
    queue: Vec<Bytes>,
    drop_code: VarInt,
    done: bool,
}

impl FrameWriter {
    pub(super) fn new(stream: SendStream, drop_code: VarInt) -> Self {
        FrameWriter { stream, scratch: BytesMut::new(), queue: Vec::new(), drop_code, done: false }
    }

    /// Queues a frame whose content `write` appends.
    pub(super) fn queue(&mut self, kind: Kind, write: impl FnOnce(&mut BytesMut)) {
        let start = self.scratch.len();
        self.scratch.put_u8(kind as u8);
        self.scratch.put_u32(0);
        write(&mut self.scratch);
        // Heads are far below 4 GiB; data is split before.
        let length = u32::try_from(self.scratch.len() - start - HEADER).unwrap_or(u32::MAX);
        self.scratch[start + 1..start + HEADER].copy_from_slice(&length.to_be_bytes());
    }

    /// Queues a frame of a body.
    pub(super) fn queue_body(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => self.queue_data(data),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.queue(Kind::Trailers, |buffer| codec::encode_trailers(&trailers, buffer));
                }
            }
        }
    }

    fn queue_data(&mut self, mut data: Bytes) {
        while !data.is_empty() {
            let part = data.split_to(data.len().min(u32::MAX as usize));
            if part.len() <= COPY_LIMIT {
                self.queue(Kind::Data, |buffer| buffer.put_slice(&part));
                continue;
            }
            self.scratch.put_u8(Kind::Data as u8);
            self.scratch.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
            self.queue.push(self.scratch.split().freeze());
            self.queue.push(part);
        }
    }

    /// Writes what is queued, as the peer's window allows. May be cancelled and called again.
    pub(super) async fn flush(&mut self) -> Result<(), StreamError> {
        if !self.scratch.is_empty() {
            self.queue.push(self.scratch.split().freeze());
        }
        while !self.queue.is_empty() {
            let written = self.stream.write_chunks(&mut self.queue).await?;
            self.queue.drain(..written.chunks);
        }
        Ok(())
    }

    /// Queues the end; [`FrameWriter::finish`] follows once it is flushed.
    pub(super) fn queue_end(&mut self) {
        self.queue(Kind::End, |_| {});
    }

    /// Flushes and closes the stream.
    pub(super) async fn finish(&mut self) -> Result<(), StreamError> {
        self.flush().await?;
        self.done = true;
        let _ = self.stream.finish();
        Ok(())
    }

    /// Writes bytes without a frame around them. Everything queued must be flushed.
    pub(super) fn poll_raw(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes).map_err(io::Error::from)
    }

    /// Closes the stream without a frame that says so.
    pub(super) fn end_raw(&mut self) {
        self.done = true;
        let _ = self.stream.finish();
    }

    /// With which code the stream is reset if this is dropped before its end.
    pub(super) fn set_drop_code(&mut self, code: VarInt) {
        self.drop_code = code;
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn reset(&mut self, code: VarInt) {
        self.done = true;
        let _ = self.stream.reset(code);
    }

    /// Resolves when the peer wants nothing more.
    pub(super) fn stopped(&self) -> impl Future<Output = Result<Option<VarInt>, StoppedError>> + Send + 'static {
        self.stream.stopped()
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        if !self.done {
            self.reset(self.drop_code);
        }
    }
}

/// What was read.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A whole frame of a kind that is not data.
    Frame(Kind, Bytes),
    /// A part of the body.
    Data(Bytes),
}

/// Reads frames; data is handed on as it comes. `next` may be cancelled.
pub(super) struct FrameReader {
    stream: RecvStream,
    buffer: Bytes,
    data_left: usize,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream) -> Self {
        FrameReader { stream, buffer: Bytes::new(), data_left: 0 }
    }

    pub(super) async fn next(&mut self) -> Result<Incoming, StreamError> {
        loop {
            if self.data_left > 0 {
                self.need(1).await?;
                let part = self.buffer.split_to(self.buffer.len().min(self.data_left));
                self.data_left -= part.len();
                return Ok(Incoming::Data(part));
            }
            self.need(HEADER).await?;
            let mut header = self.buffer.slice(..HEADER);
            let (code, length) = (header.get_u8(), header.get_u32() as usize);
            let kind = Kind::of(code).ok_or(Malformed("unknown kind of frame"))?;
            if kind == Kind::Data {
                self.buffer.advance(HEADER);
                self.data_left = length;
                continue;
            }
            if length > MAX_HEAD {
                return Err(Malformed("a frame is too long").into());
            }
            self.need(HEADER + length).await?;
            self.buffer.advance(HEADER);
            let content = self.buffer.split_to(length);
            if kind == Kind::Failed {
                let unsent = content == UNSENT;
                return Err(if unsent { StreamError::UpstreamUnsent } else { StreamError::UpstreamFailed });
            }
            if kind == Kind::End {
                // The end of the stream is usually there already; reading it lets QUIC forget it.
                let _ = self.stream.read_chunk(1, true).now_or_never();
            }
            return Ok(Incoming::Frame(kind, content));
        }
    }

    /// Reads bytes without a frame around them, from the end of the last frame on.
    pub(super) fn poll_raw(&mut self, into: &mut ReadBuf<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let part = self.buffer.split_to(self.buffer.len().min(into.remaining()));
        into.put_slice(&part);
        Poll::Ready(Ok(()))
    }

    /// Reads until the buffer holds `length` bytes.
    async fn need(&mut self, length: usize) -> Result<(), StreamError> {
        while self.buffer.len() < length {
            let mut chunks: [Bytes; READ_BATCH] = Default::default();
            let count = self.stream.read_chunks(&mut chunks).await?.ok_or(StreamError::Truncated)?;
            let chunks = &chunks[..count];
            if let ([only], true) = (chunks, self.buffer.is_empty()) {
                self.buffer = only.clone();
                continue;
            }
            let total = self.buffer.len() + chunks.iter().map(Bytes::len).sum::<usize>();
            let mut joined = BytesMut::with_capacity(total);
            joined.extend_from_slice(&self.buffer);
            chunks.iter().for_each(|chunk| joined.extend_from_slice(chunk));
            self.buffer = joined.freeze();
        }
        Ok(())
    }

    /// The next part of a body; nothing at its end.
    pub(super) async fn next_body(&mut self) -> Result<Option<Frame<Bytes>>, StreamError> {
        Ok(match self.next().await? {
            Incoming::Data(data) => Some(Frame::data(data)),
            Incoming::Frame(Kind::Trailers, content) => {
                let trailers: HeaderMap = codec::decode_trailers(content)?;
                Some(Frame::trailers(trailers))
            }
            Incoming::Frame(Kind::End, _) => None,
            Incoming::Frame(..) => return Err(Malformed("a frame out of place").into()),
        })
    }
}
