//! Copies of requests for other Services, whose answers nobody reads (HTTPRoute `RequestMirror`).
//!
//! A copy is sent beside the request, never before it and never instead: whatever becomes of it,
//! the client's request takes as long as without. Copies on their way are bounded for each thread,
//! and in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::request;
use http_body_util::BodyExt;
use meshgate_core::balance::{Asked, Picked, pick};
use meshgate_core::snapshot::{BackendTarget, Key, Timeouts};
use meshgate_core::table::{Endpoint, ServicePort};

use super::attempt::{Failed, Sender};
use super::body::Inner;
use super::context::{ConnectionInfo, Local};
use super::exchange::InFlight;
use super::forward::{DEFAULT_HEAD_TIMEOUT, positive};
use super::retry::{Policy, Tried};
use super::tee::Copy;
use super::view::View;
use crate::tunnel::Replay;

/// Copies on their way at the same time on a thread.
const MAX_COPIES: usize = 256;

/// Bytes of an answer that are read, so that its connection can be used again.
const MAX_ANSWER: usize = 1024 * 1024;

/// Copies on their way on a thread.
#[derive(Debug, Default)]
pub struct Mirrors {
    count: Arc<AtomicUsize>,
    /// Bytes of their bodies that are kept. Not those of requests: a copy must never be why a
    /// request can't be sent again. Bounded by the number of copies, too.
    retained: Arc<AtomicUsize>,
}

/// A place for one copy.
struct Place(Arc<AtomicUsize>);

impl Mirrors {
    fn place(&self) -> Option<Place> {
        let taken = self.count.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&self.count));
        (taken < MAX_COPIES).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all copies of one request share.
pub struct Original<'a> {
    /// The thread's share.
    pub local: &'a Arc<Local>,
    /// The client's connection.
    pub connection: &'a Arc<ConnectionInfo>,
    /// The table that decided.
    pub view: &'a Arc<View>,
    /// Timeouts of the rule.
    pub timeouts: Timeouts,
    /// The head, as it is sent.
    pub parts: &'a request::Parts,
}

impl Original<'_> {
    /// Sends a copy; `body` makes its body, if the copy is sent.
    pub fn mirror(&self, target: &BackendTarget, body: impl FnOnce() -> Copy) {
        let metrics = &self.local.context().metrics;
        let BackendTarget::Service { service, port } = target else {
            return metrics.mirrored("invalid");
        };
        let Some(place) = self.local.mirrors.place() else {
            return metrics.mirrored("skipped");
        };
        let body = body();
        let lagged = body.lagged();
        let job = Job {
            local: Arc::clone(self.local),
            connection: Arc::clone(self.connection),
            view: Arc::clone(self.view),
            service: service.clone(),
            port: *port,
            parts: clone(self.parts),
            body: Replay::new(body, &self.local.mirrors.retained),
        };
        let limit = limit(self.timeouts);
        let local = Arc::clone(self.local);
        tokio::spawn(async move {
            let outcome = tokio::time::timeout(limit, job.run()).await.unwrap_or("timeout");
            local.context().metrics.mirrored(if lagged() { "lagged" } else { outcome });
            drop(place);
        });
    }
}

/// How long a copy may take.
fn limit(timeouts: Timeouts) -> Duration {
    let rule = timeouts.request.or(timeouts.backend_request).and_then(positive);
    rule.unwrap_or(DEFAULT_HEAD_TIMEOUT).min(DEFAULT_HEAD_TIMEOUT)
}

fn clone(parts: &request::Parts) -> request::Parts {
    let mut request = http::Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.version_mut() = parts.version;
    *request.headers_mut() = parts.headers.clone();
    request.into_parts().0
}

/// One copy on its way.
struct Job {
    local: Arc<Local>,
    connection: Arc<ConnectionInfo>,
    view: Arc<View>,
    service: Key,
    port: u16,
    parts: request::Parts,
    body: Replay,
}

impl Job {
    /// Sends the copy to an endpoint, and to others where nothing was taken. Returns what became of
    /// it.
    async fn run(self) -> &'static str {
        let Some(port) = self.view.table.service(&self.service, self.port) else { return "invalid" };
        let head = self.view.table.head();
        let (local, connection) = (&self.local, &self.connection);
        // Interim responses are as little read as the answer.
        let sender = Sender { local, connection, interim: None, head, app: port.app };
        let clock = &self.local.context().clock;
        let mut tried = Tried::default();
        while !tried.over(Policy::new(None)) {
            let Some(endpoint) = self.pick(port, &tried) else { break };
            let Some(body) = self.body.attempt() else { return "failed" };
            let _in_flight = InFlight::new(&endpoint.state);
            let via = sender.via(endpoint);
            let sent = clock.now();
            match sender.send((endpoint, via), tried.dial, &self.parts, body).await {
                Ok((_, inner)) => {
                    let now = clock.now();
                    endpoint.state.observe(now, now.saturating_sub(sent));
                    self.body.forget();
                    discard(inner).await;
                    return "sent";
                }
                Err(Failed::Stale) => tried.redial(endpoint, via),
                Err(Failed::Node(why)) => tried.node(why, endpoint, port, clock.now()),
                Err(Failed::Refused(_)) => {
                    tried.attempts += 1;
                    tried.refused(endpoint, clock.now());
                }
                Err(Failed::Broken { .. } | Failed::Late) => return "failed",
            }
        }
        "refused"
    }

    fn pick<'p>(&self, port: &'p ServicePort, tried: &Tried<'_>) -> Option<&'p Endpoint> {
        let context = self.local.context();
        let asked = Asked {
            now: context.clock.now(),
            entropy: rand::random(),
            exclude: &tried.refused,
            client: self.connection.client_address(&self.parts.headers),
            limit: context.max_requests_per_endpoint,
            // A copy says nothing of how its endpoint fares.
            may_try: false,
        };
        match pick(port, &asked) {
            Picked::Endpoint(endpoint) => Some(endpoint),
            Picked::Full | Picked::Nothing => None,
        }
    }
}

/// Reads an answer to its end, if that is not far.
async fn discard(mut inner: Inner) {
    let mut read = 0;
    while let Some(Ok(frame)) = inner.frame().await {
        read += frame.data_ref().map_or(0, bytes::Bytes::len);
        if read > MAX_ANSWER {
            return;
        }
    }
}
