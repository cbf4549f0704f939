//! The way to a peer: addresses, connecting, and asking one peer after another. Every call only
//! reads, so asking another peer again is always safe.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use meshgate_proto::admin::admin_client::AdminClient;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::cli::Global;
use crate::failure::{Attempt, Failure};

/// Where a peer's admin socket is on its own machine.
const SOCKET: &str = "/run/meshgate/admin.sock";
/// Where the demo's peers listen.
const DEMO: [&str; 3] = ["127.1.0.1:15000", "127.2.0.1:15000", "127.3.0.1:15000"];
/// How long connecting to one peer may take, unless --timeout says otherwise.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one peer may take to answer before the next is asked.
pub const ANSWER: Duration = Duration::from_secs(5);
/// An answer's limit: 100,000 routes fit.
const MAX_ANSWER: usize = 64 << 20;
/// The stream window: several thousand routes arrive without waiting for an update of it.
const WINDOW: u32 = 4 << 20;

/// The address of a peer's admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// `host:port`
    Tcp(String),
    /// `unix:PATH`
    Unix(PathBuf),
}

impl Server {
    /// Reads `host:port`, `[v6]:port` or `unix:PATH`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = || Failure::Usage(format!("--server `{text}` is neither host:port nor unix:PATH"));
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(wrong()) } else { Ok(Server::Unix(PathBuf::from(path))) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let odd = host.contains(|c: char| c == '/' || c == '@' || c.is_whitespace()) || host.contains(':') != bracketed;
        if host.is_empty() || odd || port.parse::<u16>().map_or(true, |port| port == 0) {
            return Err(wrong());
        }
        Ok(Server::Tcp(text.to_owned()))
    }

    async fn connect(&self) -> Result<Channel, Box<dyn Error>> {
        match self {
            Server::Tcp(address) => Ok(endpoint(format!("http://{address}"))?.connect().await?),
            Server::Unix(path) => {
                let path = path.clone();
                let connector = tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
                });
                // The authority is of no account on a socket, but HTTP/2 wants one.
                Ok(endpoint("http://localhost".to_owned())?.connect_with_connector(connector).await?)
            }
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Tcp(address) => f.write_str(address),
            Server::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn endpoint(uri: String) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(uri)?.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW))
}

/// The peers to ask.
pub struct Mesh {
    servers: Vec<Server>,
    connect: Duration,
    /// Who answered last, and so is asked first.
    first: Cell<usize>,
}

impl Mesh {
    /// The peers that the flags name, or the usual ones.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let named = global.servers.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
        let mut servers = named.map(Server::parse).collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() {
            servers = usual(Path::new(SOCKET))
        }
        Ok(Self { servers, connect: global.timeout.unwrap_or(CONNECT), first: Cell::new(0) })
    }

    /// The same peers, with the usual time to connect whatever --timeout says.
    pub fn with_usual_connect(&self) -> Self {
        Self { servers: self.servers.clone(), connect: CONNECT, first: self.first.clone() }
    }

    /// Asks one peer after another until one answers within `limit`.
    pub async fn call<T>(
        &self,
        limit: Duration,
        ask: impl AsyncFn(AdminClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let mut attempts = Vec::new();
        let count = self.servers.len();
        for index in (0..count).map(|n| (self.first.get() + n) % count) {
            let server = &self.servers[index];
            let mut failed = |problem, silent| attempts.push(Attempt { server: server.to_string(), problem, silent });
            let channel = match timeout(self.connect, server.connect()).await {
                Ok(Ok(channel)) => channel,
                Ok(Err(error)) => {
                    failed(root_cause(&*error), false);
                    continue;
                }
                Err(_) => {
                    failed(format!("no connection within {:?}", self.connect), false);
                    continue;
                }
            };
            let client = AdminClient::new(channel).max_decoding_message_size(MAX_ANSWER);
            match timeout(limit, ask(client)).await {
                Ok(Ok(answer)) => {
                    self.first.set(index);
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) if is_elsewhere_better(&status) => failed(describe(&status), false),
                Ok(Err(status)) => return Err(refusal(server, &status)),
                Err(_) => failed(format!("connected, but no answer within {limit:?}"), true),
            }
        }
        Err(Failure::Unreachable(attempts))
    }
}

/// The local peer if its socket exists, else the demo's.
fn usual(socket: &Path) -> Vec<Server> {
    if socket.exists() {
        return vec![Server::Unix(socket.to_owned())];
    }
    DEMO.iter().map(|address| Server::Tcp((*address).to_owned())).collect()
}

/// Another peer may answer what this one could not: it is away, or no meshgate at all.
fn is_elsewhere_better(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Cancelled) || status.source().is_some()
}

fn refusal(server: &Server, status: &Status) -> Failure {
    match status.code() {
        Code::InvalidArgument => Failure::Usage(describe(status)),
        Code::DeadlineExceeded => {
            Failure::Unreachable(vec![Attempt { server: server.to_string(), problem: describe(status), silent: true }])
        }
        _ => Failure::Refused { server: server.to_string(), problem: describe(status) },
    }
}

/// What a status says, in words.
fn describe(status: &Status) -> String {
    let message = match status.source() {
        Some(source) => root_cause(source),
        None => status.message().to_owned(),
    };
    let text = match (status.code(), message.is_empty()) {
        (code, true) => code.to_string(),
        (Code::InvalidArgument, false) => message,
        (code, false) => format!("{message} ({code:?})"),
    };
    crate::table::clean(&text)
}

/// The innermost error, which is the one that says something.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(Server::parse("127.0.0.1:15000").unwrap(), Server::Tcp("127.0.0.1:15000".into()));
        assert_eq!(Server::parse("[::1]:15000").unwrap(), Server::Tcp("[::1]:15000".into()));
        assert_eq!(Server::parse("unix:/run/a.sock").unwrap(), Server::Unix("/run/a.sock".into()));
        for wrong in ["", "host", "host:", ":1", "host:0", "host:65536", "::1:15000", "unix:", "http://host:1"] {
            assert!(Server::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_local_socket_comes_before_the_demo() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        assert_eq!(usual(&socket).len(), 3);
        std::fs::write(&socket, "").unwrap();
        assert_eq!(usual(&socket), [Server::Unix(socket)]);
    }
}
