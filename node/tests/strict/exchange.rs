//! A client of bytes: sends a case, then an ordinary request on the same connection, and reads all
//! answers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// For an answer, or for the end. The edge may need its time for heads until it gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Follows a case on its connection. Where it is not answered, the connection was closed, or the
/// bytes before it were not read to their end.
pub const FOLLOWING: &str = "GET /ok/following HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// Its path.
pub const FOLLOWING_PATH: &str = "/ok/following";

/// What the client saw.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Answers, without interim ones.
    pub answers: Vec<Answer>,
    /// The edge closed the connection (in the end).
    pub closed: bool,
    /// Bytes that are no whole answer.
    pub rest: String,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Bytes of a piece: a few of a short case, so that no token arrives whole.
const PIECES: [usize; 3] = [1, 4, 3];
/// A case of more bytes comes in larger pieces.
const SHORT: usize = 2000;

/// Sends a case, at once or in pieces, waits for its answer, sends the following request, and reads
/// to the end.
pub async fn exchange(address: SocketAddr, bytes: &[u8], head_only: bool, in_pieces: bool) -> Outcome {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut read = Read { reader, buffer: Vec::new(), ended: false, head_only };
    let mut outcome = Outcome::default();
    // Who refuses early does not read the rest: writing may fail.
    let written = tokio::time::timeout(PATIENCE, write(&mut writer, bytes, in_pieces));
    let (_, first) = tokio::join!(written, read.answer());
    outcome.answers.extend(first);
    if !read.ended && !outcome.answers.is_empty() {
        read.head_only = false;
        let _ = writer.write_all(FOLLOWING.as_bytes()).await;
        while let Some(answer) = read.answer().await {
            outcome.answers.push(answer);
        }
    }
    outcome.closed = read.ended;
    outcome.rest = String::from_utf8_lossy(&read.buffer).into_owned();
    outcome
}

async fn write(writer: &mut OwnedWriteHalf, bytes: &[u8], in_pieces: bool) -> std::io::Result<()> {
    if !in_pieces {
        return writer.write_all(bytes).await;
    }
    let factor = 1 + bytes.len() / SHORT * 200;
    let (mut rest, mut turn) = (bytes, 0);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((PIECES[turn % PIECES.len()] * factor).min(rest.len()));
        writer.write_all(piece).await?;
        tokio::task::yield_now().await;
        (rest, turn) = (behind, turn + 1);
    }
    Ok(())
}

struct Read {
    reader: OwnedReadHalf,
    buffer: Vec<u8>,
    ended: bool,
    head_only: bool,
}

impl Read {
    /// The next final answer. `None` at the end of the connection or of patience.
    async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some(answer) = self.parse() {
                if answer.status >= 200 {
                    return Some(answer);
                }
                continue;
            }
            let read = tokio::time::timeout(PATIENCE, self.reader.read_buf(&mut self.buffer)).await;
            match read {
                Ok(Ok(more)) if more > 0 => {}
                // The end, or a reset, which is an end as well.
                Ok(_) => {
                    self.ended = true;
                    return None;
                }
                Err(_) => return None,
            }
        }
    }

    fn parse(&mut self) -> Option<Answer> {
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let status =
            head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()?;
        let value = |name: &str| {
            let fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
            let mut values =
                fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
            values.next().map(str::to_owned)
        };
        let bare = self.head_only || status < 200 || status == 204 || status == 304;
        let (body, length) = if bare {
            (Vec::new(), 0)
        } else if value("transfer-encoding").is_some() {
            chunked(&self.buffer[end..])?
        } else {
            let length = value("content-length").and_then(|length| length.parse().ok())?;
            (self.buffer.get(end..end + length)?.to_vec(), length)
        };
        self.buffer.drain(..end + length);
        Some(Answer { status, body })
    }
}

/// A body in chunks and how many bytes it took. `None` while some are missing.
fn chunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).ok()?, 16).ok()?;
        at += line + 2;
        body.extend(bytes.get(at..at + size)?);
        at += size + 2;
        if size == 0 {
            return bytes.get(..at).map(|_| (body, at));
        }
    }
}
