//! A tunnel's stream behind a 101: bytes without frames, both ways, each with an end of its own.

use std::borrow::BorrowMut;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use super::frame::{FrameReader, FrameWriter};
use crate::relay::Upgraded;

/// The stream. Dropped before its own end, it is reset, so that the other side sees a break.
pub(super) struct Raw<W, T> {
    writer: W,
    reader: FrameReader,
    /// Goes with the stream.
    _held: T,
}

impl<W, T> Raw<W, T> {
    /// Of a stream whose frames were all written and read.
    pub(super) fn new(writer: W, reader: FrameReader, held: T) -> Self {
        Raw { writer, reader, _held: held }
    }
}

impl<W: Unpin, T: Unpin> AsyncRead for Raw<W, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.reader.poll_raw(buf, cx)
    }
}

impl<W: BorrowMut<FrameWriter> + Unpin, T: Unpin> AsyncWrite for Raw<W, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writer.borrow_mut().poll_raw(buf, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.borrow_mut().end_raw();
        Poll::Ready(Ok(()))
    }
}

/// The hosting side's share: copies until both ways have ended. How long silence may last is for
/// the sender to say, whose end is seen here.
pub(super) async fn copy(writer: &mut FrameWriter, reader: FrameReader, upgraded: &Upgraded) {
    let Some(mut pod) = upgraded.take() else { return };
    let mut stream = Raw::new(writer, reader, ());
    if let Err(error) = copy_bidirectional(&mut stream, &mut pod).await {
        tracing::debug!(%error, "an upgraded stream broke off");
    }
}
