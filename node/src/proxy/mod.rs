//! The proxy: from a request's head to its answer. Shared by the edge (requests of clients) and
//! the hosting side of the tunnel (requests of other peers for pods of this node).
//!
//! Way in: [`handle()`] for clients, [`PodHost`] for peers. The way of a request through the files:
//! [`handle`](mod@handle) (sanitize, decide, answer) -> [`forward`] (pick, attempt, pick again)
//! -> [`pool`] (a connection to a pod of this node) or [`Remote`] (the tunnel) -> [`body`]
//! (the response on its way back, and the end of the exchange).

pub mod access_log;
mod answer;
mod attempt;
pub mod body;
mod client_body;
mod clock;
mod context;
mod exchange;
mod forward;
mod grpc;
mod handle;
mod host;
mod latency;
pub mod metrics;
mod mirror;
mod plan;
pub mod pool;
mod remote;
mod retry;
mod tee;
mod upgrade;
mod view;

pub use access_log::{AccessLog, AccessLogTarget};
pub use body::ResponseBody;
pub use client_body::ClientBody;
pub use clock::Clock;
pub use context::{ConnectionInfo, ExpectedPeers, Local, ProxyContext};
pub use handle::{handle, refuse};
pub use host::PodHost;
pub use metrics::{ProxyMetrics, Totals};
pub use remote::{Remote, RemoteError};
pub use upgrade::WEBSOCKET;

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use meshgate_core::sanitize;

use crate::tunnel::BodyError;

/// What was read of a body, without the trailers that may only stand in a head.
fn clean<E>(polled: Poll<Option<Result<Frame<Bytes>, E>>>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
    polled.map_ok(|mut frame| {
        if let Some(trailers) = frame.trailers_mut() {
            sanitize::trailers(trailers);
        }
        frame
    })
}

/// The next piece of a body over HTTP/2. hyper takes a stream that was reset with NO_ERROR for one
/// that has ended; what is cut off must not look whole.
fn poll_h2(incoming: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    match Pin::new(&mut *incoming).poll_frame(cx) {
        Poll::Ready(None) if !incoming.is_end_stream() => {
            Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())))
        }
        polled => polled.map_err(Into::into),
    }
}

/// Locks; what a panicked thread left behind is used as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
