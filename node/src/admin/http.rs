//! `/metrics`, `/healthz` and `/readyz` on a port of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Readiness;
use crate::drain::{Drain, Phase};
use crate::telemetry::{OPENMETRICS, TEXT, Telemetry};

/// Scrapes and probes that may be under way at once.
const MAX_CONNECTIONS: usize = 64;
/// A probe that sends no head for this long is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What the endpoints answer from.
#[derive(Clone)]
pub struct Health {
    /// The metrics.
    pub telemetry: Telemetry,
    /// Is the peer ready, and if not, why?
    pub readiness: Arc<dyn Readiness>,
}

/// Serves until the process is cut: probes must see "not ready" while it drains.
pub async fn serve(listener: TcpListener, health: Health, drain: Drain) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.reached(Phase::Cut) => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let health = health.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&health, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A probe that went away is not our problem.
            let _ = connection.await;
            drop(permit);
        });
    }
    connections.shutdown().await;
}

fn answer(health: &Health, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match health.readiness.not_ready() {
            None => text(StatusCode::OK, "ready\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        "/metrics" => metrics(health, request),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}

fn metrics(health: &Health, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let (encoded, kind) = if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
        (health.telemetry.openmetrics(), OPENMETRICS)
    } else {
        (health.telemetry.text(), TEXT)
    };
    let Ok(encoded) = encoded else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "a metric could not be encoded; this is a bug\n");
    };
    let mut response = text(StatusCode::OK, encoded);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
