//! Tells HTTP/2 by prior knowledge from HTTP/1 by a connection's first bytes.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::h1::Prefixed;

/// What an HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes read at once: most heads fit, so the sniff costs no read of its own.
const READ: usize = 4096;

/// Reads until it is clear what is spoken. `true`: HTTP/2. The stream begins with what was read.
///
/// # Errors
/// The connection broke, or ended before a byte.
pub async fn sniff<T: AsyncRead + Unpin>(mut inner: T) -> io::Result<(bool, Prefixed<T>)> {
    let mut prefix = BytesMut::with_capacity(READ);
    loop {
        if inner.read_buf(&mut prefix).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = prefix.len().min(PREFACE.len());
        let h2 = prefix.get(..known) == PREFACE.get(..known);
        if !h2 || known == PREFACE.len() {
            return Ok((h2, Prefixed { prefix, inner }));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn sniffed(pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(64);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let writer = tokio::spawn(async move {
            for piece in pieces {
                client.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (h2, mut stream) = sniff(server).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        writer.await.unwrap();
        (h2, all)
    }

    #[tokio::test]
    async fn nothing_is_lost_whatever_is_spoken() {
        assert_eq!(sniffed(&[b"GET / HTTP/1.1\r\n\r\n"]).await, (false, b"GET / HTTP/1.1\r\n\r\n".to_vec()));
        assert_eq!(sniffed(&[b"PRI * HTTP/1.1"]).await, (false, b"PRI * HTTP/1.1".to_vec()));
        let (h2, all) = sniffed(&[b"PRI * HT", b"TP/2.0\r\n\r\nSM", b"\r\n\r\nrest"]).await;
        assert!(h2);
        assert_eq!(all, [PREFACE, b"rest"].concat());
    }
}
