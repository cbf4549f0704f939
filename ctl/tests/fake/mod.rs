//! A peer that answers with what a test puts into it, on loopback or on a Unix socket, and the real
//! binary run against it. It tests how meshctl asks and prints, not what a mesh does.

#![allow(dead_code, reason = "each test file uses its part of it")]
#![allow(clippy::unwrap_used, reason = "only tests use it, though it holds none")]

pub mod mesh;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshgate_proto::admin::admin_server::{Admin, AdminServer};
use meshgate_proto::admin::*;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{Request, Response, Status};

/// The answers of a peer, and what it was asked.
#[derive(Clone, Default)]
pub struct Fake {
    pub routes: Arc<Mutex<ListRoutesResponse>>,
    pub peers: ListPeersResponse,
    pub verify: VerifyResponse,
    pub leader: GetLeaderResponse,
    /// Given one after another; the last one again and again.
    pub waits: Arc<Mutex<Vec<WaitResponse>>>,
    pub findings: ListFindingsResponse,
    pub status: GetStatusResponse,
    /// Answers every question with this error instead.
    pub error: Option<Status>,
    /// Takes questions and never answers.
    pub silent: bool,
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    async fn answer<Q: std::fmt::Debug, A>(&self, question: Request<Q>, answer: A) -> Result<Response<A>, Status> {
        self.asked.lock().unwrap().push(format!("{:?}", question.get_ref()));
        if self.silent {
            std::future::pending::<()>().await;
        }
        match &self.error {
            Some(status) => Err(status.clone()),
            None => Ok(Response::new(answer)),
        }
    }

    /// Serves on a free loopback port.
    pub fn serve(self) -> Served {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(self.service());
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Served { address, _runtime: runtime }
    }

    /// Serves on a Unix socket.
    pub fn serve_unix(self, path: &Path) -> Served {
        let runtime = Runtime::new().unwrap();
        let guard = runtime.enter();
        let listener = UnixListener::bind(path).unwrap();
        drop(guard);
        let server = tonic::transport::Server::builder().add_service(self.service());
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Served { address: format!("unix:{}", path.display()), _runtime: runtime }
    }

    fn service(self) -> AdminServer<Self> {
        AdminServer::new(self).max_encoding_message_size(64 << 20)
    }
}

/// A peer that serves until it is dropped.
pub struct Served {
    pub address: String,
    _runtime: Runtime,
}

impl Served {
    /// Runs meshctl against this peer.
    pub fn run(&self, args: &str) -> Run {
        run(&format!("--server {} {args}", self.address))
    }
}

/// What meshctl did.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The binary, cut off from the environment.
pub fn meshctl(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    command.args(args.split_whitespace()).env_remove("MESHCTL_SERVER").env_remove("NO_COLOR");
    command
}

/// Runs meshctl to its end.
pub fn run(args: &str) -> Run {
    meshctl(args).output().unwrap().into()
}

/// A loopback port where nobody listens.
pub fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tonic::async_trait]
impl Admin for Fake {
    async fn list_routes(&self, q: Request<ListRoutesRequest>) -> Result<Response<ListRoutesResponse>, Status> {
        let routes = self.routes.lock().unwrap().clone();
        self.answer(q, routes).await
    }

    async fn list_peers(&self, q: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        self.answer(q, self.peers.clone()).await
    }

    async fn verify(&self, q: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        self.answer(q, self.verify.clone()).await
    }

    async fn get_leader(&self, q: Request<GetLeaderRequest>) -> Result<Response<GetLeaderResponse>, Status> {
        self.answer(q, self.leader.clone()).await
    }

    async fn wait(&self, q: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let answer = {
            let mut waits = self.waits.lock().unwrap();
            if waits.len() > 1 { waits.remove(0) } else { waits[0].clone() }
        };
        if answer.result == "timeout" {
            tokio::time::sleep(Duration::from_millis(q.get_ref().timeout_ms)).await;
        }
        self.answer(q, answer).await
    }

    async fn list_findings(&self, q: Request<ListFindingsRequest>) -> Result<Response<ListFindingsResponse>, Status> {
        self.answer(q, self.findings.clone()).await
    }

    async fn get_status(&self, q: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        self.answer(q, self.status.clone()).await
    }
}
