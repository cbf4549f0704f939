//! A copy of a request's head as it came. hyper drops a `Content-Length` beside a
//! `Transfer-Encoding` before anyone sees it, which RFC 9112 6.3 allows; this edge refuses such
//! requests, because who sends them wants two parsers to disagree.
//!
//! Heads that were sent ahead of an earlier answer are not copied: then hyper's way holds, which is
//! to ignore the length and to close the connection after the request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes kept between heads.
const KEPT: usize = 4096;

/// The copy; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct HeadCopy(Arc<Mutex<Copied>>);

#[derive(Debug, Default)]
struct Copied {
    on: bool,
    bytes: Vec<u8>,
}

/// A stream that copies what is read while a head is waited for.
#[derive(Debug)]
pub struct Copying<T> {
    inner: T,
    copy: HeadCopy,
}

impl HeadCopy {
    /// A head is waited for.
    pub fn begin(&self) {
        let mut copied = self.lock();
        copied.on = true;
        copied.bytes.clear();
        copied.bytes.shrink_to(KEPT);
    }

    /// The head is there.
    pub fn end(&self) {
        self.lock().on = false;
    }

    /// The last head had a field of this name (lower case).
    pub fn has(&self, name: &[u8]) -> bool {
        let copied = self.lock();
        let lines = copied.bytes.split(|byte| *byte == b'\n').skip(1);
        let mut head = lines.take_while(|line| !matches!(*line, b"" | b"\r"));
        head.any(|line| {
            let field = line.split(|byte| *byte == b':').next().unwrap_or_default();
            field.trim_ascii().eq_ignore_ascii_case(name)
        })
    }

    /// Copies what is read from a stream.
    pub fn of<T>(&self, inner: T) -> Copying<T> {
        Copying { inner, copy: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Copied> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Copying<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let mut copied = self.copy.lock();
        if copied.on {
            // Bounded by the codec, which stops reading at the limit of a head.
            copied.bytes.extend_from_slice(buf.filled().get(before..).unwrap_or_default());
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Copying<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
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
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn fields_of_the_head_are_found_and_those_of_the_body_are_not() {
        let copy = HeadCopy::default();
        let text = b"POST / HTTP/1.1\r\nContent-LENGTH: 4\r\nA: content-type\r\n\r\nX-Body: 1\r\n";
        let mut stream = copy.of(&text[..]);
        let mut read = vec![0; 128];
        copy.begin();
        assert!(stream.read(&mut read).await.unwrap() > 0);
        copy.end();
        assert!(copy.has(b"content-length") && copy.has(b"a"));
        assert!(!copy.has(b"content-type") && !copy.has(b"x-body"));
        copy.begin();
        assert!(!copy.has(b"a"));
    }
}
