//! Ends HTTP/2 connections whose clients send more about the connection than on it: floods of
//! PING, SETTINGS, PRIORITY and frames of unknown types, each of which costs work and is answered by
//! none. What carries requests, and what the codec limits itself, is not counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stats::{EdgeStats, count};

/// Frames in a row that are read without a look at the clock.
const LIMIT: u32 = 1_000;

/// How long so many frames must take.
const WINDOW: Duration = Duration::from_secs(10);

/// Bytes sent to a client that earn it a frame more: who measures its connection sends a PING now
/// and then while it is sent much.
const EARNS: usize = 1024;

/// Bytes before the first frame (RFC 9113 3.4).
const PREFACE: usize = 24;

/// Bytes of a frame's header (RFC 9113 4.1).
const HEADER: usize = 9;

/// A stream on which frames are counted.
pub struct Guard<S> {
    inner: S,
    frames: Frames,
    stats: Arc<EdgeStats>,
}

struct Frames {
    /// Bytes until the next frame's header.
    skip: usize,
    header: [u8; HEADER],
    /// Bytes of the header that were read.
    have: usize,
    left: u32,
    since: Instant,
    sent: usize,
    flooded: bool,
}

impl<S> Guard<S> {
    /// Of a stream that begins with the preface; a flood is counted in `stats`.
    pub fn new(inner: S, stats: Arc<EdgeStats>) -> Self {
        let frames = Frames {
            skip: PREFACE,
            header: [0; HEADER],
            have: 0,
            left: LIMIT,
            since: Instant::now(),
            sent: 0,
            flooded: false,
        };
        Guard { inner, frames, stats }
    }
}

impl Frames {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let (part, rest) = bytes.split_at((HEADER - self.have).min(bytes.len()));
            for (to, from) in self.header.iter_mut().skip(self.have).zip(part) {
                *to = *from;
            }
            self.have += part.len();
            bytes = rest;
            if self.have == HEADER {
                let [a, b, c, kind, ..] = self.header;
                self.have = 0;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.count(kind);
            }
        }
    }

    fn count(&mut self, kind: u8) {
        // DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, CONTINUATION.
        if matches!(kind, 0 | 1 | 3 | 8 | 9) {
            return;
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.flooded |= self.since.elapsed() < WINDOW;
            (self.left, self.since) = (LIMIT, Instant::now());
        }
    }

    fn wrote(&mut self, bytes: usize) {
        self.sent += bytes;
        let earned = u32::try_from(self.sent / EARNS).unwrap_or(LIMIT);
        self.sent %= EARNS;
        self.left = (self.left + earned.min(LIMIT)).min(LIMIT);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.frames.read(buf.filled().get(before..).unwrap_or_default());
        if self.frames.flooded {
            count(&self.stats.floods);
            return Poll::Ready(Err(io::Error::other("a flood of control frames")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = written {
            self.frames.wrote(bytes);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(bytes)) = written {
            self.frames.wrote(bytes);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, 0, 0, 0, 0, 0];
        frame.resize(HEADER + length, 6);
        frame
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        for cut in [1, 2, 7, 9, 1000] {
            let mut guard = Guard::new((), Arc::default()).frames;
            let mut all = vec![b'P'; PREFACE];
            for _ in 0..LIMIT / 2 {
                all.extend(frame(6, 8));
                all.extend(frame(0, 300));
            }
            all.chunks(cut).for_each(|part| guard.read(part));
            assert_eq!((guard.left, guard.flooded), (LIMIT / 2, false), "{cut}");
            for _ in 0..LIMIT / 2 {
                guard.read(&frame(2, 5));
            }
            assert!(guard.flooded, "{cut}");
        }
    }

    #[test]
    fn what_is_sent_earns_frames() {
        let mut guard = Guard::new((), Arc::default()).frames;
        guard.skip = 0;
        for _ in 0..5 * LIMIT {
            guard.read(&frame(6, 8));
            guard.wrote(EARNS);
        }
        assert!(!guard.flooded);
    }
}
