//! A backend that says what it got.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A backend on a port of its own; its connections end with it.
pub struct Backend {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a backend speaks.
#[derive(Clone, Copy, PartialEq)]
pub enum Speaks {
    H1,
    H2c,
}

impl Backend {
    pub async fn start(name: &'static str) -> Backend {
        Backend::speaking(name, Speaks::H1).await
    }

    pub async fn speaking(name: &'static str, speaks: Speaks) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, served) = (Arc::clone(&connections), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let served = Arc::clone(&served);
                let service = service_fn(move |request| {
                    served.fetch_add(1, Ordering::SeqCst);
                    answer(name, request)
                });
                open.spawn(async move {
                    let _ = match speaks {
                        Speaks::H1 => {
                            hyper::server::conn::http1::Builder::new()
                                .serve_connection(TokioIo::new(stream), service)
                                .await
                        }
                        Speaks::H2c => {
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                                .serve_connection(TokioIo::new(stream), service)
                                .await
                        }
                    };
                });
            }
        });
        Backend { address, connections, requests, task }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// `/echo` returns the body, `/big?n` sends n bytes, `/status?n` a status, `/trailers` trailers,
/// `/hang` never answers, `/slow?ms` late; all else says what was asked.
async fn answer(name: &str, request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    let number = request.uri().query().and_then(|query| query.parse::<u64>().ok()).unwrap_or(0);
    let path = request.uri().path().to_owned();
    let mut response = match path.rsplit('/').next().unwrap_or_default() {
        "echo" => Response::new(request.into_body().boxed()),
        "big" => {
            let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
            let full = number / chunk.len() as u64;
            let rest = chunk.slice(..(number % chunk.len() as u64) as usize);
            let chunks = (0..full).map(move |_| chunk.clone()).collect::<Vec<_>>().into_iter().chain([rest]);
            let stream = futures_util::stream::iter(chunks.map(|chunk| Ok(Frame::data(chunk))));
            Response::new(BodyExt::boxed(StreamBody::new(stream)))
        }
        "trailers" => {
            let trailers: HeaderMap = ["x-sum", "x-real-ip"]
                .map(|name| (name.parse().unwrap(), HeaderValue::from_static("7")))
                .into_iter()
                .collect();
            let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))));
            response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum, x-real-ip"));
            response
        }
        "hang" => std::future::pending().await,
        "slow" => {
            tokio::time::sleep(std::time::Duration::from_millis(number)).await;
            full("slow".into())
        }
        "status" => {
            let mut response = full(String::new());
            *response.status_mut() = StatusCode::from_u16(number as u16).unwrap();
            response
        }
        _ => full(said(name, request).await),
    };
    response.headers_mut().insert("x-backend", HeaderValue::from_str(name).unwrap());
    Ok(response)
}

async fn said(name: &str, request: Request<Incoming>) -> String {
    let (parts, body) = request.into_parts();
    let length = body.collect().await.map(|body| body.to_bytes().len()).unwrap_or_default();
    let mut lines = vec![format!("{name} {} {}", parts.method, parts.uri), format!("body {length}")];
    for (field, value) in &parts.headers {
        lines.push(format!("{field}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    lines.join("\n")
}

fn full(text: String) -> Response<BoxBody<Bytes, hyper::Error>> {
    Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed())
}
