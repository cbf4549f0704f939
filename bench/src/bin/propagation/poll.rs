//! Asks one peer over one connection, from a thread of its own, until it answers as edited.
//!
//! Blocking sockets and a thread's own sleep: the timers of tokio are no finer than a millisecond.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::sync::mpsc;

use crate::manifests::{PROBE_HOST, PROBE_PATH};

/// Connect, or one request, may take this long.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long an edit may take until it is served.
const GIVE_UP: Duration = Duration::from_secs(10);
/// The largest answer.
const MAX_ANSWER: usize = 8192;
/// Orders under way, and answers that nobody has taken yet.
const QUEUE: usize = 1;

/// What a thread saw from an order to the answer that was asked for.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When the answer was there.
    pub at: Instant,
    /// Requests made.
    pub requests: u32,
    /// What was wrong on the way: no answer, not a redirect, an older value than before.
    pub faults: Vec<String>,
    /// The answer was never seen.
    pub gave_up: bool,
}

/// A thread that asks one peer.
#[derive(Debug)]
pub struct Poller {
    orders: SyncSender<u64>,
    seen: mpsc::Receiver<Seen>,
}

impl Poller {
    /// Starts the thread; it ends when this is dropped.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(address: SocketAddr, pause: Duration) -> anyhow::Result<Self> {
        let (orders, inbox) = sync_channel(QUEUE);
        let (outbox, seen) = mpsc::channel(QUEUE);
        let client = Client { address, connection: None, last: 0 };
        let name = format!("poll {address}");
        std::thread::Builder::new().name(name).spawn(move || run(client, pause, &inbox, &outbox))?;
        Ok(Poller { orders, seen })
    }

    /// Asks from now on until the answer is `counter`.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn order(&self, counter: u64) -> anyhow::Result<()> {
        self.orders.send(counter).context("a polling thread ended")
    }

    /// What was seen.
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn seen(&mut self) -> anyhow::Result<Seen> {
        self.seen.recv().await.context("a polling thread ended")
    }
}

fn run(mut client: Client, pause: Duration, orders: &Receiver<u64>, seen: &mpsc::Sender<Seen>) {
    while let Ok(counter) = orders.recv() {
        if seen.blocking_send(client.follow(counter, pause)).is_err() {
            return;
        }
    }
}

/// One keep-alive connection.
#[derive(Debug)]
struct Client {
    address: SocketAddr,
    connection: Option<TcpStream>,
    last: u64,
}

impl Client {
    fn follow(&mut self, counter: u64, pause: Duration) -> Seen {
        let begun = Instant::now();
        let mut seen = Seen { at: begun, requests: 0, faults: Vec::new(), gave_up: false };
        loop {
            let answer = self.ask();
            seen.at = Instant::now();
            seen.requests += 1;
            match answer {
                Ok(value) if value < self.last || value > counter => {
                    seen.faults.push(format!("{}: {value} after {}", self.address, self.last));
                }
                Ok(value) => self.last = value,
                Err(error) => {
                    self.connection = None;
                    seen.faults.push(format!("{}: {error:#}", self.address));
                }
            }
            seen.gave_up = self.last != counter && begun.elapsed() > GIVE_UP;
            if self.last == counter || seen.gave_up {
                return seen;
            }
            std::thread::sleep(pause);
        }
    }

    /// One request; the counter in the answer.
    fn ask(&mut self) -> anyhow::Result<u64> {
        let stream = match &mut self.connection {
            Some(stream) => stream,
            empty => {
                let stream = TcpStream::connect_timeout(&self.address, TIMEOUT).context("cannot connect")?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                empty.insert(stream)
            }
        };
        let request = format!("GET / HTTP/1.1\r\nHost: {PROBE_HOST}\r\n\r\n");
        stream.write_all(request.as_bytes()).context("cannot send")?;
        let (mut buffer, mut filled) = ([0; MAX_ANSWER], 0);
        loop {
            ensure!(filled < MAX_ANSWER, "an answer of over {MAX_ANSWER} bytes");
            let read = stream.read(&mut buffer[filled..]).context("no answer")?;
            ensure!(read > 0, "the connection was closed");
            filled += read;
            if let Some(counter) = parse(&buffer[..filled])? {
                return Ok(counter);
            }
        }
    }
}

/// The counter of a whole answer; `None` while some of it is missing.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<u64>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).context("an answer that is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let (mut location, mut length) = (None, 0);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "location" => location = Some(value.trim()),
            "content-length" => length = value.trim().parse().context("a wrong Content-Length")?,
            "transfer-encoding" => bail!("an answer in chunks"),
            _ => {}
        }
    }
    if bytes.len() < end + 4 + length {
        return Ok(None);
    }
    let counter = location.and_then(|location| location.rsplit_once(PROBE_PATH)?.1.parse().ok());
    Ok(Some(counter.with_context(|| format!("not the expected redirect: {status}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_read_from_whole_answers_only() {
        let whole = "HTTP/1.1 302 Found\r\nLocation: http://probe.example:8080/v/42\r\ncontent-length: 2\r\n\r\nhi";
        assert_eq!(parse(whole.as_bytes()).unwrap(), Some(42));
        for end in 0..whole.len() {
            assert_eq!(parse(&whole.as_bytes()[..end]).unwrap(), None);
        }
        let error = parse(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }
}
