//! The backend: answers every request with a fixed number of bytes, and reads no more of it than
//! its end and the beginning of its path. Its thread is the load's too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use meshgate_bench::process::pin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

/// What a path begins with that asks for the large answer.
pub const LARGE_PATH: &str = "/10k";
/// Body bytes of the two answers.
const SMALL: usize = 128;
const LARGE: usize = 10 * 1024;
/// The largest head.
const MAX_HEAD: usize = 8192;

/// The running backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its runtime, for the load to run beside it: two threads would cost the core they share more.
    pub runtime: Handle,
    accepted: Arc<AtomicU64>,
}

impl Backend {
    /// Connections so far. Who keeps them alive needs few.
    pub fn connections(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Starts it on the core of the load, for as long as this process lives.
///
/// # Errors
/// No port or thread can be had.
pub fn start(core: usize) -> anyhow::Result<Backend> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no port for the backend")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let accepted = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&accepted);
    let run = move || -> anyhow::Result<()> {
        pin(&[core])?;
        runtime.block_on(accept(listener, &counted))
    };
    let reported = move || run().unwrap_or_else(|error| eprintln!("bench/run: the backend ended: {error:#}"));
    std::thread::Builder::new().name("backend".into()).spawn(reported)?;
    Ok(Backend { address, runtime: handle, accepted })
}

async fn accept(listener: std::net::TcpListener, accepted: &AtomicU64) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let answer = |length| {
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
        answer.extend(std::iter::repeat_n('x', length));
        answer.into_bytes()
    };
    let answers = Arc::new([answer(SMALL), answer(LARGE)]);
    loop {
        let (stream, _) = listener.accept().await?;
        accepted.fetch_add(1, Ordering::Relaxed);
        stream.set_nodelay(true)?;
        // Ends with its connection. Who breaks off is gone.
        tokio::spawn(serve(stream, Arc::clone(&answers)));
    }
}

/// Answers until the other side closes, or sends what is no request without a body.
async fn serve(mut stream: TcpStream, answers: Arc<[Vec<u8>; 2]>) -> std::io::Result<()> {
    let (mut buffer, mut filled) = ([0; MAX_HEAD], 0);
    let [small, large] = &*answers;
    while filled < buffer.len() {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            break;
        }
        filled += read;
        let head = &buffer[..filled];
        if head.ends_with(b"\r\n\r\n") {
            let is_large = head.get(4..).is_some_and(|path| path.starts_with(LARGE_PATH.as_bytes()));
            stream.write_all(if is_large { large } else { small }).await?;
            filled = 0;
        }
    }
    Ok(())
}
