//! One exchange, from a request's head to the end of its answer. Counts and logs it when it is
//! dropped, however it ends.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::{StatusCode, Version, header, request};
use meshgate_core::balance::EndpointState;
use meshgate_core::snapshot::HeadId;
use meshgate_core::table::{Endpoint, Matched};

use super::access_log::{BodyBytes, Record, text, timestamp, trace_id};
use super::context::{ConnectionInfo, Local, ProxyContext};
use super::metrics::{End, OK, RuleMetrics, Via, backend_name};
use super::plan::Choice;

/// Why an exchange without another reason ended before its answer.
const CLIENT_GONE: &str = "client_gone";

/// An exchange.
pub struct Exchange {
    local: Arc<Local>,
    connection: Arc<ConnectionInfo>,
    started: u64,
    /// When the clock was last asked.
    now: u64,
    h2: bool,
    rule: Option<Arc<RuleMetrics>>,
    status: Option<StatusCode>,
    reason: &'static str,
    failed: bool,
    via: Option<Via>,
    /// When the attempt that counts was sent.
    sent: u64,
    /// Time waited for backends until the answer's head.
    upstream: u64,
    /// When the answer's head went out.
    answered: u64,
    retries: u32,
    /// Bytes of the answer's body so far.
    sent_bytes: u64,
    /// The backend that was chosen.
    backend: Option<usize>,
    /// Only where there is an access log.
    record: Option<Box<Record>>,
}

/// Counts in an endpoint's requests in flight while it lives.
pub struct InFlight(Arc<EndpointState>);

impl InFlight {
    /// One more request.
    pub fn new(state: &Arc<EndpointState>) -> Self {
        state.begins();
        InFlight(Arc::clone(state))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.ends();
    }
}

impl Exchange {
    /// A request's head came in.
    pub fn begin(local: &Arc<Local>, connection: &Arc<ConnectionInfo>, parts: &request::Parts) -> Self {
        let context = local.context();
        let now = context.clock.now();
        Exchange {
            local: Arc::clone(local),
            connection: Arc::clone(connection),
            started: now,
            now,
            h2: parts.version == Version::HTTP_2,
            rule: None,
            status: None,
            reason: CLIENT_GONE,
            failed: false,
            via: None,
            sent: 0,
            upstream: 0,
            answered: 0,
            retries: 0,
            sent_bytes: 0,
            backend: None,
            record: context.access_log.on().then(|| Box::new(record(context, connection, parts))),
        }
    }

    /// When its head came in, in nanoseconds of the context's clock.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// When it last went a step further: the clock costs too much to be asked at every turn.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// What the request asks for, and which table decides.
    pub fn asks(&mut self, host: &str, path: &str, head: HeadId) {
        if let Some(record) = &mut self.record {
            record.host = text(host.as_bytes());
            record.path = text(path.as_bytes());
            record.epoch = head.epoch;
            record.rev = head.rev;
        }
    }

    /// A rule matched.
    pub fn matched(&mut self, matched: &Matched<'_>, rule: Arc<RuleMetrics>) {
        self.rule = Some(rule);
        if let Some(record) = &mut self.record {
            record.listener = matched.listener.to_owned();
            record.route = format!("{}/{}", matched.route.namespace, matched.route.name);
            record.rule = Some(matched.rule);
        }
    }

    /// A backend was chosen.
    pub fn chose(&mut self, choice: &Choice<'_>) {
        self.backend = Some(choice.index);
        if let Some(record) = &mut self.record {
            record.backend = Some(backend_name(choice.backend));
        }
    }

    /// Counts what is read of the request's body, where someone wants to know.
    pub fn count_body(&self) -> Option<Arc<AtomicU64>> {
        self.record.as_ref().map(|record| Arc::clone(&record.req_bytes.0))
    }

    /// Bytes of the answer went on.
    pub fn sent_bytes(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
    }

    /// When the last attempt was sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// An endpoint was ejected.
    pub fn ejected(&self) {
        let backend = self.rule.as_deref().and_then(|rule| rule.backend(self.backend)).unwrap_or_default();
        self.local.context().metrics.ejected(backend);
    }

    /// An attempt begins.
    pub fn sends(&mut self, endpoint: &Endpoint, via: Via) {
        self.via = Some(via);
        self.sent = self.tick();
        self.local.context().metrics.picked(via);
        if let Some(record) = &mut self.record {
            record.dst = Some(endpoint.address);
            record.dst_pod.clone_from(&endpoint.pod);
            record.dst_node.clone_from(&endpoint.node);
        }
    }

    /// The attempt ended, with an answer's head or without. Returns (now, how long it took).
    pub fn waited(&mut self) -> (u64, u64) {
        let now = self.tick();
        let waited = now.saturating_sub(self.sent);
        self.upstream += waited;
        (now, waited)
    }

    /// There will be one more attempt.
    pub fn again(&mut self, why: &'static str) {
        self.retries += 1;
        self.local.context().metrics.retried(why, "again");
    }

    /// The answer's head goes out. `reason` is [`OK`] or what went wrong.
    pub fn answers(&mut self, status: StatusCode, reason: &'static str, failed: bool) {
        self.status = Some(status);
        self.reason = reason;
        self.failed = failed;
        // A backend's answer goes out as soon as it came, which was the last step.
        self.answered = if reason == OK { self.now } else { self.tick() };
        // Until the body has ended, whoever drops it did not read it to its end.
    }

    /// The answer broke off.
    pub fn broke(&mut self, reason: &'static str) {
        self.reason = reason;
        self.failed = true;
    }

    /// The client left before the answer's end.
    pub fn abandoned(&mut self) {
        if self.reason == OK {
            self.reason = CLIENT_GONE;
        }
    }

    fn tick(&mut self) -> u64 {
        self.now = self.local.context().clock.now();
        self.now
    }

    fn end(&mut self) {
        let now = self.local.context().clock.now();
        let answered = if self.answered == 0 { now } else { self.answered };
        let end = End {
            status: self.status,
            h2: self.h2,
            reason: self.reason,
            failed: self.failed,
            duration: now.saturating_sub(self.started),
            own: answered.saturating_sub(self.started).saturating_sub(self.upstream),
            via: self.via,
            backend: self.backend,
        };
        let unrouted;
        let rule = match &self.rule {
            Some(rule) => rule,
            None => {
                unrouted = self.local.view().unrouted(&self.connection.gateway);
                &unrouted
            }
        };
        self.local.context().metrics.finished(rule, &end);
        if let Some(mut record) = self.record.take() {
            record.status = self.status.map_or(0, |status| status.as_u16());
            record.reason = self.reason;
            record.dur_us = end.duration / 1_000;
            record.proxy_us = end.own / 1_000;
            record.ttfb_us = answered.saturating_sub(self.started) / 1_000;
            record.resp_bytes = self.sent_bytes;
            record.upstream_us = self.upstream / 1_000;
            record.retries = self.retries;
            record.via = self.via.map(Via::name);
            self.local.context().access_log.write(record);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end();
    }
}

fn record(context: &ProxyContext, connection: &ConnectionInfo, parts: &request::Parts) -> Record {
    Record {
        ts: timestamp(context.clock.wall()),
        kind: "http",
        node: Arc::clone(&context.node.0),
        gateway: format!("{}/{}", connection.gateway.namespace, connection.gateway.name),
        listener: String::new(),
        route: String::new(),
        rule: None,
        backend: None,
        method: text(parts.method.as_str().as_bytes()),
        host: String::new(),
        path: String::new(),
        status: 0,
        dur_us: 0,
        proxy_us: 0,
        upstream_us: 0,
        ttfb_us: 0,
        req_bytes: BodyBytes::default(),
        resp_bytes: 0,
        retries: 0,
        src_ip: connection.client_address(&parts.headers),
        client_cert: connection.certificate.clone(),
        dst: None,
        dst_pod: None,
        dst_node: None,
        via: None,
        protocol: if parts.version == Version::HTTP_2 { "HTTP/2.0" } else { "HTTP/1.1" },
        tls_version: connection.tls_version,
        sni: connection.sni.as_deref().map(|name| text(name.as_bytes())),
        reason: OK,
        epoch: 0,
        rev: 0,
        trace_id: parts.headers.get("traceparent").and_then(|parent| trace_id(parent.as_bytes())),
        user_agent: parts.headers.get(header::USER_AGENT).map(|agent| text(agent.as_bytes())),
    }
}
