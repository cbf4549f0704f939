//! A backend that records what it gets, byte by byte, and reads it more strictly than any server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// For the end of a request that was broken off.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fields that belong to one connection only.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "upgrade",
    "http2-settings",
    "expect",
    "x-meshgate-identity",
];

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The head, without its empty line.
    pub head: String,
    /// The body, without its framing.
    pub body: Vec<u8>,
    /// Its end has come.
    pub whole: bool,
    /// What is wrong with it.
    pub wrong: Option<String>,
}

impl Seen {
    /// The request line.
    pub fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    /// All values of a field.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

/// All that arrived.
#[derive(Default)]
struct All {
    seen: Vec<Seen>,
    /// Requests whose end has not come.
    reading: usize,
}

/// The backend.
pub struct Recorder {
    pub address: SocketAddr,
    all: Arc<Mutex<All>>,
    task: JoinHandle<()>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recorder {
    pub async fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let all = Arc::new(Mutex::new(All::default()));
        let own = Arc::clone(&all);
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                open.spawn(serve(stream, Arc::clone(&own)));
            }
        });
        Recorder { address, all, task }
    }

    /// What arrived since the last call, once no request is under way any more.
    pub async fn settle(&self) -> Result<Vec<Seen>, String> {
        let begun = Instant::now();
        loop {
            {
                let mut all = self.all.lock().unwrap();
                if all.reading == 0 {
                    return Ok(std::mem::take(&mut all.seen));
                }
            }
            if begun.elapsed() > PATIENCE {
                return Err("the edge leaves a request to the backend without its end".into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn serve(stream: TcpStream, all: Arc<Mutex<All>>) {
    let mut reader = Reader { stream, buffer: Vec::new() };
    while let Some(head) = reader.until(b"\r\n\r\n").await {
        let mut seen = Seen { head: String::from_utf8_lossy(&head).into_owned(), ..Seen::default() };
        all.lock().unwrap().reading += 1;
        seen.wrong = unclean(&seen, &head);
        let ended = if seen.wrong.is_none() { reader.body(&mut seen).await } else { None };
        seen.whole = ended.is_some();
        let (is_whole, is_head) = (seen.whole, seen.line().starts_with("HEAD "));
        {
            let mut all = all.lock().unwrap();
            all.reading -= 1;
            all.seen.push(seen);
        }
        if !is_whole {
            return;
        }
        let body = if is_head { "" } else { "ok" };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
        if reader.stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
    if !reader.buffer.is_empty() {
        let head = String::from_utf8_lossy(&reader.buffer).into_owned();
        let wrong = Some("bytes that are no request".to_owned());
        all.lock().unwrap().seen.push(Seen { head, wrong, ..Seen::default() });
    }
}

/// What no backend should have to read.
fn unclean(seen: &Seen, head: &[u8]) -> Option<String> {
    let line: Vec<&str> = seen.line().split(' ').collect();
    let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    if line.len() != 3 || line[2] != "HTTP/1.1" || !line.iter().all(|part| visible(part)) {
        return Some(format!("request line {:?}", seen.line()));
    }
    if head.split(|byte| *byte == b'\n').rev().skip(1).any(|line| !line.ends_with(b"\r")) {
        return Some("a bare LF".into());
    }
    for field in seen.head.split("\r\n").skip(1) {
        let Some((name, value)) = field.split_once(':') else { return Some(format!("field {field:?}")) };
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let control = |byte: u8| (byte < 0x20 && byte != b'\t') || byte == 0x7f;
        if name.is_empty() || !name.bytes().all(token) || value.bytes().any(control) {
            return Some(format!("field {field:?}"));
        }
        if HOP_BY_HOP.contains(&name.to_ascii_lowercase().as_str()) || name.contains('_') {
            return Some(format!("field {field:?} was forwarded"));
        }
    }
    let lengths = seen.values("content-length");
    let codings = seen.values("transfer-encoding");
    let framed = match (lengths.as_slice(), codings.as_slice()) {
        ([], [] | ["chunked"]) => true,
        ([length], []) => length.bytes().all(|digit| digit.is_ascii_digit()) && length.parse::<u64>().is_ok(),
        _ => false,
    };
    if !framed {
        return Some(format!("framing {lengths:?} {codings:?}"));
    }
    let hosts = seen.values("host");
    if hosts.len() != 1 || hosts[0].is_empty() { Some(format!("hosts {hosts:?}")) } else { None }
}

struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Reader {
    /// More bytes. `None` at the end.
    async fn more(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.buffer).await.ok()?;
        (read > 0).then_some(())
    }

    /// Bytes up to an end, without it.
    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let found = self.buffer[..at].to_vec();
                self.buffer.drain(..at + end.len());
                return Some(found);
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// Reads a body. `None` if it does not end, or is not framed as it must be.
    async fn body(&mut self, seen: &mut Seen) -> Option<()> {
        if let Some(length) = seen.values("content-length").first().and_then(|length| length.parse().ok()) {
            seen.body = self.exactly(length).await?;
            return Some(());
        }
        if seen.values("transfer-encoding").is_empty() {
            return Some(());
        }
        loop {
            let size = String::from_utf8(self.until(b"\r\n").await?).ok()?;
            let plain = !size.is_empty() && size.len() <= 8 && size.bytes().all(|digit| digit.is_ascii_hexdigit());
            let size = usize::from_str_radix(&size, 16).ok().filter(|_| plain);
            let Some(size) = size else {
                seen.wrong = Some("a bad chunk".into());
                return None;
            };
            if size == 0 {
                break;
            }
            seen.body.extend(self.exactly(size).await?);
            if self.exactly(2).await? != b"\r\n" {
                seen.wrong = Some("a chunk without its end".into());
                return None;
            }
        }
        // Trailers, up to the empty line.
        loop {
            let line = String::from_utf8_lossy(&self.until(b"\r\n").await?).into_owned();
            if line.is_empty() {
                return Some(());
            }
            seen.head.push_str(&format!("\r\ntrailer-{line}"));
        }
    }
}
