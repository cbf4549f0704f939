//! Sends a request to one of a Service's endpoints, and to another one where nothing was taken.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version, header, request, response};
use meshgate_core::balance::pick;
use meshgate_core::filter;
use meshgate_core::sanitize;
use meshgate_core::snapshot::{Filter, HeadId, Timeouts};
use meshgate_core::table::{Endpoint, ServicePort};

use super::answer::{self, Answer};
use super::body::{Guards, Inner, ResponseBody};
use super::context::{ConnectionInfo, Local, ProxyContext};
use super::exchange::{Exchange, InFlight};
use super::handle::own;
use super::metrics::{OK, Via};
use super::pool::{RequestBody, SendError, Target};
use super::remote::RemoteError;
use super::upgrade;
use crate::identity::NodeName;
use crate::timer::Deadline;
use crate::tunnel::{Attempt, Refusal, Replay, StreamHeader};

/// Endpoints that are tried for one request.
const MAX_ATTEMPTS: usize = 3;

/// As how slow an endpoint counts that refused, in nanoseconds. A refusal is quick; without this,
/// it would make its endpoint the best one.
const PENALTY: u64 = 1_000_000_000;

/// How long an answer's head may take where the rule sets no timeout.
const DEFAULT_HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Says how a response came, where the context asks for it.
pub(super) const VIA: HeaderName = HeaderName::from_static("x-meshgate-via");

/// A request on its way to a Service.
pub struct Forward<'a> {
    /// The process's share.
    pub context: &'a ProxyContext,
    /// The thread's share.
    pub local: &'a Local,
    /// The client's connection.
    pub connection: &'a ConnectionInfo,
    /// The table that decided.
    pub head: HeadId,
    /// Where to.
    pub port: &'a ServicePort,
    /// Filters of the rule and of the backend, for the answer.
    pub filters: [&'a [Filter]; 2],
    /// Timeouts of the rule.
    pub timeouts: Timeouts,
    /// The request's head, in origin form.
    pub parts: request::Parts,
    /// The request's body.
    pub body: Replay,
}

/// What an attempt brought.
type Attempted = Result<(response::Parts, Inner), Failed>;

/// Why an attempt brought no answer.
enum Failed {
    /// Nothing was taken: another endpoint may be tried.
    Refused(&'static str),
    /// The endpoint's peer takes nothing, for whatever pod of its node; nothing was taken.
    Node(NodeFailure),
    /// The pooled connection was stale, and nothing was sent: the endpoint itself may be fine.
    Stale,
    /// Something was sent. `silent`: no byte of an answer came; `reused`: on a connection that had
    /// served before, so that the endpoint itself may be fine.
    Broken { silent: bool, reused: bool },
    /// Time is over.
    Late,
}

/// Why a peer takes nothing.
#[derive(Clone, Copy)]
enum NodeFailure {
    /// It can't be reached, and its node may be gone as well.
    Dead,
    /// It is ending, its node's pods are not.
    Draining,
    /// It has no room. To dial its pods would go around its limit.
    Full,
}

impl NodeFailure {
    fn name(self) -> &'static str {
        match self {
            NodeFailure::Dead => "peer_dead",
            NodeFailure::Draining => "peer_draining",
            NodeFailure::Full => "peer_full",
        }
    }
}

/// Endpoints that were tried, and what the next attempt may do.
#[derive(Default)]
struct Tried<'a> {
    refused: Vec<SocketAddr>,
    /// Its peer takes nothing, but it may be reached without it.
    unreached: Option<&'a Endpoint>,
    /// Why there must be another attempt: the answer, if none succeeds.
    last: Option<Answer>,
    /// An idle connection was of no use: the next attempt dials.
    dial: bool,
}

/// Forwards the request and returns the answer, a backend's or our own.
pub async fn forward(forward: Forward<'_>, mut exchange: Exchange) -> Response<ResponseBody> {
    let mut tried = Tried::default();
    let mut attempts = 0;
    while attempts <= MAX_ATTEMPTS {
        let last = attempts == MAX_ATTEMPTS;
        let Some((endpoint, via)) = forward.next(&mut tried, last, exchange.now()) else {
            return own(forward.context, exchange, &tried.last.unwrap_or(answer::NO_ENDPOINTS));
        };
        let Some(body) = forward.body.attempt() else {
            // Its start is gone, which is no harm where everyone has refused it.
            let refused = tried.last.filter(|_| !forward.body.broke());
            return own(forward.context, exchange, &refused.unwrap_or_else(|| forward.broken()));
        };
        exchange.sends(endpoint, via);
        let in_flight = InFlight::new(&endpoint.state);
        let attempted = forward.attempt(&exchange, (endpoint, via), tried.dial, body).await;
        let (now, waited) = exchange.waited();
        match attempted {
            Ok((parts, inner)) => {
                endpoint.state.observe(now, waited);
                return forward.answer(via, parts, inner, in_flight, exchange);
            }
            Err(failed) => {
                // A stale connection says nothing of its endpoint; the next attempt dials, so that
                // there is one such failure at most.
                attempts += usize::from(!matches!(failed, Failed::Stale));
                if let Some(answer) = forward.failed(failed, endpoint, via, &mut tried, &mut exchange) {
                    return own(forward.context, exchange, &answer);
                }
            }
        }
    }
    own(forward.context, exchange, &tried.last.unwrap_or(answer::ALL_REFUSED))
}

impl<'a> Tried<'a> {
    /// An idle connection to the endpoint was of no use.
    fn redial(&mut self, endpoint: &'a Endpoint, via: Via) {
        self.dial = true;
        if via == Via::Fallback {
            self.unreached = Some(endpoint);
        }
    }

    /// The endpoint is not asked again, and others are preferred for a while.
    fn refused(&mut self, endpoint: &Endpoint, now: u64) {
        endpoint.state.observe(now, PENALTY);
        self.refused.push(endpoint.address);
    }

    /// The peer takes nothing: no endpoint on its node is asked through it again.
    fn node(&mut self, why: NodeFailure, endpoint: &'a Endpoint, port: &ServicePort, now: u64) {
        for other in port.endpoints.iter().filter(|other| other.node == endpoint.node) {
            self.refused(other, now);
        }
        match why {
            NodeFailure::Draining => self.unreached = Some(endpoint),
            // What is known to run is dialled rather than what may be gone.
            NodeFailure::Dead => self.unreached = self.unreached.or(Some(endpoint)),
            NodeFailure::Full => {}
        }
    }
}

impl<'a> Forward<'a> {
    /// The next endpoint. At last, and where none is left, one whose peer takes nothing is dialled.
    fn next(&self, tried: &mut Tried<'a>, last: bool, now: u64) -> Option<(&'a Endpoint, Via)> {
        let picked = (!last)
            .then(|| pick(self.port, now, rand::random(), &tried.refused))
            .flatten()
            .filter(|endpoint| !tried.refused.contains(&endpoint.address));
        match picked {
            Some(endpoint) => Some((endpoint, self.via(endpoint))),
            None => tried.unreached.take().map(|endpoint| (endpoint, Via::Fallback)),
        }
    }

    fn via(&self, endpoint: &Endpoint) -> Via {
        match &endpoint.node {
            Some(node) if **node == *self.context.node.0 => Via::Local,
            Some(node) if self.context.expected.load().contains(&NodeName(Arc::clone(node))) => Via::Tunnel,
            _ => Via::Direct,
        }
    }

    async fn attempt(
        &self,
        exchange: &Exchange,
        (endpoint, via): (&Endpoint, Via),
        dial: bool,
        body: Attempt,
    ) -> Attempted {
        let deadline = self.head_deadline(exchange).map(|at| self.local.timer.at(at));
        let attempt = async {
            match (via, &endpoint.node) {
                (Via::Tunnel, Some(node)) => self.remote(NodeName(Arc::clone(node)), endpoint, body).await,
                _ => self.direct(endpoint, dial, body).await,
            }
        };
        before(deadline, attempt).await.unwrap_or(Err(Failed::Late))
    }

    async fn direct(&self, endpoint: &Endpoint, dial: bool, body: Attempt) -> Attempted {
        let target = Target { address: endpoint.address, app: self.port.app };
        let pool = &self.local.pool;
        let lease = if dial { pool.fresh(target).await } else { pool.checkout(target).await };
        let lease = lease.map_err(|_| Failed::Refused("connect"))?;
        let lease = lease.interim(self.connection.interim.as_ref());
        match lease.send(&self.parts, RequestBody::from(body)).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Ok((parts, Inner::Pooled(body)))
            }
            Err(SendError { unsent: true, reused: true, .. }) => Err(Failed::Stale),
            Err(SendError { unsent: true, .. }) => Err(Failed::Refused("unsent")),
            Err(SendError { silent, reused, error, .. }) => {
                tracing::debug!(endpoint = %endpoint.address, %error, "a backend broke off");
                Err(Failed::Broken { silent, reused })
            }
        }
    }

    async fn remote(&self, node: NodeName, endpoint: &Endpoint, body: Attempt) -> Attempted {
        let header = StreamHeader { endpoint: endpoint.address, client: self.connection.client, chosen_by: self.head };
        match self.context.remote.send(&node, header, &self.parts, body.interim(self.connection.interim.as_ref())).await
        {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Ok((parts, Inner::Remote(body)))
            }
            Err(RemoteError::Refused(Refusal::Draining)) => Err(Failed::Node(NodeFailure::Draining)),
            Err(RemoteError::Refused(Refusal::Overloaded)) => Err(Failed::Node(NodeFailure::Full)),
            Err(RemoteError::Refused(_)) => Err(Failed::Refused("refused")),
            Err(RemoteError::Unreachable(_)) => Err(Failed::Node(NodeFailure::Dead)),
            Err(RemoteError::Broken(error)) => {
                tracing::debug!(%node, endpoint = %endpoint.address, %error, "a tunnelled request broke off");
                Err(Failed::Broken { silent: true, reused: false })
            }
        }
    }

    /// What becomes of a failed attempt: an answer, or `None` for one more.
    fn failed(
        &self,
        failed: Failed,
        endpoint: &'a Endpoint,
        via: Via,
        tried: &mut Tried<'a>,
        exchange: &mut Exchange,
    ) -> Option<Answer> {
        let broken = matches!(failed, Failed::Broken { .. });
        match failed {
            // Says nothing of the endpoint.
            _ if self.body.broke() => return Some(answer::CLIENT_BROKEN),
            Failed::Late => return Some(answer::TIMEOUT),
            Failed::Stale => {
                tried.redial(endpoint, via);
                exchange.again("stale");
            }
            Failed::Refused(why) => {
                tried.refused(endpoint, self.context.clock.now());
                exchange.again(why);
            }
            Failed::Node(why) => {
                tried.node(why, endpoint, self.port, self.context.clock.now());
                exchange.again(why.name());
            }
            Failed::Broken { silent, reused } => {
                let repeatable = silent && self.parts.method.is_safe() && self.body.is_empty();
                if !repeatable || !self.local.retries.withdraw() {
                    return Some(self.broken());
                }
                if reused {
                    tried.redial(endpoint, via);
                } else {
                    tried.refused.push(endpoint.address);
                }
                exchange.again("broken");
            }
        }
        // Once something may have been seen, the answer must not say that a retry is safe.
        if broken || tried.last.is_none() {
            tried.last = Some(if broken { answer::UPSTREAM_BROKEN } else { answer::ALL_REFUSED });
        }
        None
    }

    /// Says who broke off.
    fn broken(&self) -> Answer {
        if self.body.broke() { answer::CLIENT_BROKEN } else { answer::UPSTREAM_BROKEN }
    }

    fn answer(
        &self,
        via: Via,
        mut parts: response::Parts,
        inner: Inner,
        in_flight: InFlight,
        mut exchange: Exchange,
    ) -> Response<ResponseBody> {
        self.body.forget();
        let upgraded = match upgrade::judge(&self.parts, &mut parts) {
            Ok(upgraded) => upgraded,
            Err(refused) => return own(self.context, exchange, &refused),
        };
        if let Err(refused) = sanitize::response(&mut parts) {
            tracing::debug!(reason = refused.reason, "a backend's answer was refused");
            return own(self.context, exchange, &answer::RESPONSE_REFUSED);
        }
        for filters in self.filters {
            if !filters.is_empty() {
                filter::apply_response(filters, &mut parts.headers);
            }
        }
        if self.context.debug_headers {
            parts.headers.insert(VIA, HeaderValue::from_static(via.name()));
        }
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        exchange.answers(parts.status, OK, false);
        if let Some(upgraded) = upgraded {
            parts.extensions.insert(upgraded);
            return Response::from_parts(parts, ResponseBody::upgraded(exchange, in_flight));
        }
        let deadline = self.end_deadline(&exchange).map(|at| self.local.timer.at(at));
        let length = self.length(&parts);
        let guards = Guards { exchange, in_flight, deadline };
        Response::from_parts(parts, ResponseBody::backend(inner, guards, length))
    }

    /// Bytes of the answer's body, if that is known.
    fn length(&self, parts: &response::Parts) -> Option<u64> {
        let none = self.parts.method == Method::HEAD
            || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if none { Some(0) } else { length }
    }

    /// When the answer's head must be there.
    fn head_deadline(&self, exchange: &Exchange) -> Option<Instant> {
        let timeout = match (self.timeouts.backend_request, self.timeouts.request) {
            (Some(timeout), _) => positive(timeout),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_HEAD_TIMEOUT),
        };
        let attempt = timeout.map(|timeout| self.context.clock.instant(exchange.now()) + timeout);
        [attempt, self.end_deadline(exchange)].into_iter().flatten().min()
    }

    /// When the answer's end must be there.
    fn end_deadline(&self, exchange: &Exchange) -> Option<Instant> {
        let timeout = self.timeouts.request.and_then(positive)?;
        Some(self.context.clock.instant(exchange.started()) + timeout)
    }
}

/// Zero means none.
fn positive(timeout: Duration) -> Option<Duration> {
    (!timeout.is_zero()).then_some(timeout)
}

/// `future`'s output, or `None` once the deadline is over.
async fn before<F: Future>(deadline: Option<Deadline>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let Some(mut deadline) = deadline else { return Some(future.await) };
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Pin::new(&mut deadline).poll(cx).map(|()| None),
    })
    .await
}
