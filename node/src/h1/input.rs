//! Reads from a socket into a buffer.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::spare;

/// Least room for a read.
const LEAST: usize = 1024;

/// Reads once, into at least [`LEAST`] bytes of room; `size` are made where there is less. Returns
/// the number of bytes read, zero at the other end's end.
///
/// tokio asks the kernel only where it does not know that nothing is there, and a read that does
/// not fill the room tells it so.
pub(super) fn poll_fill<S>(
    stream: &mut S,
    input: &mut BytesMut,
    size: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>>
where
    S: AsyncRead + Unpin,
{
    if input.capacity() == 0 && size <= spare::SIZE {
        *input = spare::take();
    } else if input.capacity() - input.len() < LEAST {
        input.reserve(size);
    }
    pin!(stream.read_buf(input)).poll(cx)
}
