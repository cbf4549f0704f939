//! Sends a request to one of a Service's endpoints, and to another one where nothing was taken.

use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version, header, request, response};
use meshgate_core::balance::{self, Asked, Picked, pick};
use meshgate_core::filter;
use meshgate_core::sanitize;
use meshgate_core::snapshot::{Filter, Timeouts};
use meshgate_core::table::{Endpoint, ServicePort};

use super::answer::{self, Answer};
use super::attempt::{Failed, Patience, Sender};
use super::body::{Guards, Inner, ResponseBody};
use super::context::ProxyContext;
use super::exchange::{Exchange, InFlight};
use super::handle::own;
use super::metrics::{OK, Via};
use super::retry::{Policy, Tried};
use super::upgrade;
use crate::tunnel::Replay;

/// How long an answer's head may take where the rule sets no timeout.
pub(super) const DEFAULT_HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Says how a response came, where the context asks for it.
pub(super) const VIA: HeaderName = HeaderName::from_static("x-meshgate-via");

/// Says how many attempts a response took, where the context asks for it.
const ATTEMPTS: HeaderName = HeaderName::from_static("x-meshgate-attempts");

/// A request on its way to a Service.
pub struct Forward<'a> {
    /// The process's share.
    pub context: &'a ProxyContext,
    /// Sends it.
    pub sender: Sender<'a>,
    /// Where to.
    pub port: &'a ServicePort,
    /// Filters of the rule and of the backend, for the answer.
    pub filters: [&'a [Filter]; 2],
    /// Timeouts of the rule.
    pub timeouts: Timeouts,
    /// When to try again.
    pub policy: Policy<'a>,
    /// The request's head, in origin form.
    pub parts: request::Parts,
    /// The request's body.
    pub body: Replay,
}

/// What follows a failure.
enum Then {
    /// This answer.
    Answer(Answer),
    /// One more attempt, after a pause.
    Again(Duration),
}

/// Forwards the request and returns the answer, a backend's or our own.
pub async fn forward(forward: Forward<'_>, mut exchange: Exchange) -> Response<ResponseBody> {
    let mut tried = Tried::default();
    loop {
        let (endpoint, via) = match forward.next(&mut tried, exchange.now()) {
            Ok(next) => next,
            Err(answer) => return own(forward.context, exchange, &answer),
        };
        let Some(body) = forward.body.attempt() else {
            // Its start is gone, which is no harm where everyone has refused it.
            let refused = tried.last.filter(|_| !forward.body.broke());
            return own(forward.context, exchange, &refused.unwrap_or_else(|| forward.broken()));
        };
        exchange.sends(endpoint, via);
        let in_flight = InFlight::new(&endpoint.state);
        let patience = forward.patience(&exchange);
        let attempt = forward.sender.send((endpoint, via), tried.dial, &forward.parts, body);
        let attempted = patience.wait(attempt).await.unwrap_or(Err(Failed::Late));
        let (now, waited) = exchange.waited();
        let then = match attempted {
            Ok((parts, inner)) => {
                endpoint.state.observe(now, waited);
                forward.judge(parts.status, endpoint, &exchange);
                match forward.wants_other(parts.status, endpoint, &mut tried, &mut exchange) {
                    Some(pause) => Then::Again(pause),
                    None => {
                        tried.attempts += 1;
                        return forward.answer((via, tried.attempts), parts, inner, in_flight, exchange);
                    }
                }
            }
            Err(failed) => forward.failed(failed, (endpoint, via), &mut tried, &mut exchange),
        };
        drop(in_flight);
        match then {
            Then::Answer(answer) => return own(forward.context, exchange, &answer),
            Then::Again(pause) if pause.is_zero() => {}
            // Seldom, so that it has no place in every request's future; shorter than a tick of the
            // thread's timer.
            Then::Again(pause) => Box::pin(tokio::time::sleep(pause)).await,
        }
    }
}

impl<'a> Forward<'a> {
    /// The next endpoint. At last, and where none is left, one whose peer takes nothing is dialled.
    fn next(&self, tried: &mut Tried<'a>, now: u64) -> Result<(&'a Endpoint, Via), Answer> {
        let over = tried.over(self.policy);
        let mut full = false;
        if !over {
            match self.pick(tried, now) {
                Picked::Endpoint(endpoint) => return Ok((endpoint, self.sender.via(endpoint))),
                Picked::Full => full = true,
                Picked::Nothing => {}
            }
        }
        if let Some(endpoint) = tried.unreached.take() {
            return Ok((endpoint, Via::Fallback));
        }
        // All were asked, and the rule wants more: once more from the start.
        if !over && !full && self.policy.asked() && tried.attempts > 0 {
            tried.refused.clear();
            if let Picked::Endpoint(endpoint) = self.pick(tried, now) {
                return Ok((endpoint, self.sender.via(endpoint)));
            }
        }
        let none = match (over, full) {
            (true, _) => answer::ALL_REFUSED,
            (_, true) => answer::OVERLOADED,
            _ => answer::NO_ENDPOINTS,
        };
        Err(tried.last.take().unwrap_or(none))
    }

    fn pick(&self, tried: &Tried<'_>, now: u64) -> Picked<'a> {
        let asked = Asked {
            now,
            entropy: rand::random(),
            exclude: &tried.refused,
            client: self.sender.connection.client_address(&self.parts.headers),
            limit: self.context.max_requests_per_endpoint,
            may_try: true,
        };
        pick(self.port, &asked)
    }

    /// Says of an endpoint that answered whether it is well.
    fn judge(&self, status: StatusCode, endpoint: &Endpoint, exchange: &Exchange) {
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                self.blame(endpoint, exchange);
            }
            _ => endpoint.state.succeeded(exchange.now(), exchange.sent()),
        }
    }

    fn blame(&self, endpoint: &Endpoint, exchange: &Exchange) {
        if balance::failed(self.port, endpoint, exchange.now()) {
            tracing::debug!(endpoint = %endpoint.address, "an endpoint failed too often and is left out for a while");
            exchange.ejected();
        }
    }

    /// The pause before another attempt, where the rule wants one after this status and one can be
    /// made.
    fn wants_other(
        &self,
        status: StatusCode,
        endpoint: &'a Endpoint,
        tried: &mut Tried<'a>,
        exchange: &mut Exchange,
    ) -> Option<Duration> {
        if !self.policy.covers(status.as_u16()) || tried.attempts + 1 >= self.policy.attempts() || !self.body.returns()
        {
            return None;
        }
        let pause = self.policy.pause(tried.attempts + 1, rand::random());
        if !self.in_time(pause, exchange) || !self.affords("status", exchange) {
            return None;
        }
        tried.attempts += 1;
        tried.dial = false;
        tried.refused.push(endpoint.address);
        tried.last = Some(answer::UPSTREAM_BROKEN);
        exchange.again("status");
        Some(pause)
    }

    /// The retry budget has room for one more.
    fn affords(&self, reason: &'static str, exchange: &Exchange) -> bool {
        let affords = self.port.retries.withdraw(self.port, exchange.now());
        if !affords {
            self.context.metrics.retried(reason, "over_budget");
        }
        affords
    }

    /// The request's time is not over after a pause.
    fn in_time(&self, pause: Duration, exchange: &Exchange) -> bool {
        let then = self.context.clock.instant(exchange.now()) + pause;
        self.end(exchange).is_none_or(|end| then < end)
    }

    /// What becomes of a failed attempt.
    fn failed(
        &self,
        failed: Failed,
        (endpoint, via): (&'a Endpoint, Via),
        tried: &mut Tried<'a>,
        exchange: &mut Exchange,
    ) -> Then {
        let repeats = self.policy.repeats(&self.parts.method, !self.body.is_empty());
        let mut pause = Duration::ZERO;
        match failed {
            // Says nothing of the endpoint.
            _ if self.body.broke() => return Then::Answer(answer::CLIENT_BROKEN),
            // A stale connection says nothing of its endpoint; the next attempt dials, so that there
            // is one such failure at most.
            Failed::Stale => {
                tried.redial(endpoint, via);
                exchange.again("stale");
            }
            Failed::Node(why) => {
                tried.node(why, endpoint, self.port, exchange.now());
                exchange.again(why.name());
            }
            Failed::Refused(why) => {
                self.blame(endpoint, exchange);
                tried.attempts += 1;
                tried.refused(endpoint, exchange.now());
                // Who has not been asked need not wait.
                let all_asked = tried.refused.len() >= self.port.endpoints.len();
                if self.policy.has_backoff() || self.policy.asked() && all_asked {
                    pause = self.policy.pause(tried.attempts, rand::random());
                }
                exchange.again(why);
            }
            Failed::Broken { silent, reused } => {
                if !(reused && silent) {
                    self.blame(endpoint, exchange);
                }
                if !(silent && repeats && self.may_repeat("broken", tried, exchange)) {
                    return Then::Answer(self.broken());
                }
                if reused {
                    tried.redial(endpoint, via);
                } else {
                    tried.refused.push(endpoint.address);
                }
                pause = self.pause_after_loss(tried);
            }
            // Nobody can answer what has not come.
            Failed::Late if self.body.awaited() => return Then::Answer(answer::CLIENT_SLOW),
            Failed::Late => {
                self.blame(endpoint, exchange);
                // Without a rule's word nobody wants to wait as long again.
                if !(repeats && self.policy.asked() && self.may_repeat("timeout", tried, exchange)) {
                    return Then::Answer(answer::TIMEOUT);
                }
                tried.refused.push(endpoint.address);
                tried.last = Some(answer::TIMEOUT);
                pause = self.pause_after_loss(tried);
            }
        }
        // Once something may have been seen, the answer must not say that a retry is safe.
        let broken = matches!(failed, Failed::Broken { .. });
        if broken || tried.last.is_none() {
            tried.last = Some(if broken { answer::UPSTREAM_BROKEN } else { answer::ALL_REFUSED });
        }
        if pause.is_zero() || self.in_time(pause, exchange) {
            return Then::Again(pause);
        }
        Then::Answer(tried.last.take().unwrap_or(answer::TIMEOUT))
    }

    /// Counts an attempt that may have reached a pod, and says whether another one may follow.
    fn may_repeat(&self, reason: &'static str, tried: &mut Tried<'a>, exchange: &mut Exchange) -> bool {
        tried.attempts += 1;
        let may = tried.attempts < self.policy.attempts()
            && self.body.returns()
            && self.in_time(Duration::ZERO, exchange)
            && self.affords(reason, exchange);
        if may {
            exchange.again(reason);
        }
        may
    }

    fn pause_after_loss(&self, tried: &Tried<'_>) -> Duration {
        if self.policy.asked() { self.policy.pause(tried.attempts, rand::random()) } else { Duration::ZERO }
    }

    /// Says who broke off.
    fn broken(&self) -> Answer {
        if self.body.broke() { answer::CLIENT_BROKEN } else { answer::UPSTREAM_BROKEN }
    }

    fn answer(
        &self,
        (via, attempts): (Via, u32),
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
            parts.headers.insert(ATTEMPTS, HeaderValue::from(attempts));
        }
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        exchange.answers(parts.status, OK, false);
        if let Some(upgraded) = upgraded {
            let body = ResponseBody::upgraded(exchange, in_flight, upgraded.copied());
            parts.extensions.insert(upgraded);
            return Response::from_parts(parts, body);
        }
        let timer = &self.sender.local.timer;
        let deadline = self.ends(&exchange).map(|at| timer.at(at));
        let idle = self.timeouts.idle.and_then(positive).map(|idle| (idle, timer.at(Instant::now() + idle)));
        let length = self.length(&parts);
        let guards = Guards { exchange, in_flight, deadline, idle };
        Response::from_parts(parts, ResponseBody::backend(inner, guards, length))
    }

    /// Bytes of the answer's body, if that is known.
    fn length(&self, parts: &response::Parts) -> Option<u64> {
        let none = self.parts.method == Method::HEAD
            || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if none { Some(0) } else { length }
    }

    /// How long an attempt's answer may be waited for. Where the rule does not say, silence is
    /// bounded, not the time that a long body takes.
    fn patience(&self, exchange: &Exchange) -> Patience<'_> {
        let timer = &self.sender.local.timer;
        let Timeouts { request, backend_request, idle } = self.timeouts;
        let silence = match (request, backend_request, idle) {
            (_, _, Some(idle)) => positive(idle),
            (None, None, None) => Some(DEFAULT_HEAD_TIMEOUT),
            _ => None,
        };
        let sent = self.context.clock.instant(exchange.sent());
        Patience {
            deadline: self.ends(exchange).map(|at| timer.at(at)),
            silence: silence.map(|silence| (silence, timer.at(sent + silence))),
            body: &self.body,
        }
    }

    /// When the attempt's answer must have ended, for whatever reason.
    fn ends(&self, exchange: &Exchange) -> Option<Instant> {
        [self.attempt_end(exchange), self.end(exchange)].into_iter().flatten().min()
    }

    /// When the attempt's answer must have ended (`backendRequest`).
    fn attempt_end(&self, exchange: &Exchange) -> Option<Instant> {
        let timeout = self.timeouts.backend_request.and_then(positive)?;
        Some(self.context.clock.instant(exchange.sent()) + timeout)
    }

    /// When the answer must have ended (`request`), whatever attempts there were.
    fn end(&self, exchange: &Exchange) -> Option<Instant> {
        let timeout = self.timeouts.request.and_then(positive)?;
        Some(self.context.clock.instant(exchange.started()) + timeout)
    }
}

/// Zero means none.
pub(super) fn positive(timeout: Duration) -> Option<Duration> {
    (!timeout.is_zero()).then_some(timeout)
}
