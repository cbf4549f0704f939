//! What waits to be written: small pieces are joined, large ones are not copied.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Bytes up to which a piece is copied behind what waits: cheaper than a second piece in the
/// system call.
const COPIED: usize = 2 * 1024;

/// Bytes that may wait before no more are taken.
const ROOM: usize = 16 * 1024;

/// First size of what is joined: most heads fit.
const FIRST: usize = 1024;

/// Bytes to write, in order: what was joined, a large piece, what was joined behind it.
#[derive(Debug, Default)]
pub(super) struct Out {
    joined: Vec<u8>,
    written: usize,
    large: Bytes,
    behind: Vec<u8>,
    /// Bytes that were written, ever.
    pub(super) total: u64,
}

impl Out {
    /// Where small pieces are appended.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if !self.large.is_empty() {
            return &mut self.behind;
        }
        if self.joined.capacity() == 0 {
            self.joined.reserve(FIRST);
        }
        &mut self.joined
    }

    /// Appends a piece of a body. Ask [`Out::has_room`] first.
    pub(super) fn data(&mut self, data: Bytes) {
        if data.len() <= COPIED || !self.large.is_empty() {
            self.buffer().extend_from_slice(&data);
        } else {
            self.large = data;
        }
    }

    /// Whether more may be appended.
    pub(super) fn has_room(&self) -> bool {
        self.large.is_empty() && self.joined.len() < ROOM
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.large.is_empty()
    }

    /// Writes all that waits.
    pub(super) fn poll_write<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.is_empty() {
            let joined = self.joined.get(self.written..).unwrap_or_default();
            let stream = Pin::new(&mut *stream);
            let written = if self.large.is_empty() {
                ready!(stream.poll_write(cx, joined))?
            } else if joined.is_empty() && self.behind.is_empty() {
                ready!(stream.poll_write(cx, &self.large))?
            } else {
                let pieces = [IoSlice::new(joined), IoSlice::new(&self.large), IoSlice::new(&self.behind)];
                ready!(stream.poll_write_vectored(cx, &pieces))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.total += written as u64;
            self.advance(written);
        }
        Pin::new(stream).poll_flush(cx)
    }

    fn advance(&mut self, written: usize) {
        let joined = written.min(self.joined.len() - self.written);
        let large = (written - joined).min(self.large.len());
        self.written += joined;
        self.large.advance(large);
        if self.written < self.joined.len() || !self.large.is_empty() {
            return;
        }
        // What was behind the large piece is first now.
        self.joined.clear();
        std::mem::swap(&mut self.joined, &mut self.behind);
        self.written = written - joined - large;
        if self.written == self.joined.len() {
            self.joined.clear();
            self.written = 0;
        }
    }

    /// Gives memory back where nothing waits.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            (self.joined, self.behind) = (Vec::new(), Vec::new());
        }
    }
}
