//! A bare reverse proxy on hyper: one thread, a pool of its own, no routing, metrics, limits or
//! timeouts. It shows what the machine and the library cost, so that the rest is ours.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsAcceptor;

/// A bare reverse proxy, to compare with.
#[derive(Debug, Parser)]
struct Options {
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
    /// Where it sends all requests.
    #[arg(long)]
    backend: SocketAddr,
    /// Certificate and key in one PEM file: it speaks TLS.
    #[arg(long)]
    tls: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    let acceptor = options.tls.as_ref().map(acceptor).transpose()?;
    let listener = TcpListener::bind(options.listen).await.context("cannot listen")?;
    let pool = Rc::new(Pool { backend: options.backend, idle: RefCell::default() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, pool) = (acceptor.clone(), Rc::clone(&pool));
        spawn_local(async move {
            match acceptor {
                Some(acceptor) => {
                    // Who breaks off in the handshake is gone.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    serve(stream, is_h2, pool).await;
                }
                None => serve(stream, false, pool).await,
            }
        });
    }
}

fn acceptor(pem: &PathBuf) -> anyhow::Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(pem)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config =
        builder.with_no_client_auth().with_single_cert(certificates, PrivateKeyDer::from_pem_file(pem)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Runs tasks of a connection on its thread.
#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S, is_h2: bool, pool: Rc<Pool>) {
    let service = service_fn(move |request| answer(Rc::clone(&pool), request));
    let stream = TokioIo::new(stream);
    // Clients go when they like.
    let _ = if is_h2 {
        hyper::server::conn::http2::Builder::new(OnThisThread).serve_connection(stream, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await
    };
}

/// Connections to the backend.
struct Pool {
    backend: SocketAddr,
    idle: RefCell<VecDeque<SendRequest<Incoming>>>,
}

impl Pool {
    fn take(&self) -> Option<SendRequest<Incoming>> {
        let mut idle = self.idle.borrow_mut();
        for _ in 0..idle.len() {
            let sender = idle.pop_front()?;
            if sender.is_ready() {
                return Some(sender);
            }
            if !sender.is_closed() {
                idle.push_back(sender);
            }
        }
        None
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Incoming>> {
        let stream = TcpStream::connect(self.backend).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        spawn_local(connection);
        Ok(sender)
    }

    async fn send(&self, request: Request<Incoming>) -> anyhow::Result<Response<Incoming>> {
        let mut sender = match self.take() {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let response = sender.send_request(request).await?;
        // In use until the body was read; `take` looks.
        self.idle.borrow_mut().push_back(sender);
        Ok(response)
    }
}

async fn answer(
    pool: Rc<Pool>,
    mut request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    if request.version() == Version::HTTP_2 {
        let host = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        host.map(|host| request.headers_mut().insert(header::HOST, host));
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        *request.version_mut() = Version::HTTP_11;
    }
    request.headers_mut().remove(header::CONNECTION);
    Ok(pool.send(request).await.map(|response| response.map(BodyExt::boxed)).unwrap_or_else(|_| {
        let mut bad = Response::new(Empty::new().map_err(|never| match never {}).boxed());
        *bad.status_mut() = StatusCode::BAD_GATEWAY;
        bad
    }))
}
