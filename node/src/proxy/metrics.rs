//! Metrics of requests. Label sets are bounded; the counters of a rule are resolved once a table
//! and thread, so that a request hashes no labels.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use http::StatusCode;
use meshgate_core::snapshot::{Backend, BackendTarget, Key};
use meshgate_core::table::Matched;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::latency::Latency;
use super::lock;

/// Label sets of `meshgate_http_requests_total`; what comes later counts as `other`.
const MAX_REQUEST_SERIES: usize = 2_000;

/// Label sets of the histogram of durations, which are dearer.
const MAX_DURATION_SERIES: usize = 400;

/// Backends that have ejections of their own.
const MAX_EJECTION_SERIES: usize = 500;

/// The label value of what is over a limit.
const OTHER: &str = "other";

/// The reason of a request that went as it should.
pub const OK: &str = "ok";

/// Where a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// To a pod of this node.
    Local,
    /// Through the tunnel.
    Tunnel,
    /// To an address whose node has no peer.
    Direct,
    /// To a pod of another node whose peer is dead.
    Fallback,
}

impl Via {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Via::Local => "local",
            Via::Tunnel => "tunnel",
            Via::Direct => "direct",
            Via::Fallback => "fallback",
        }
    }
}

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    reporter: &'static str,
    gateway: String,
    route: String,
    rule: String,
    backend: String,
    code_class: &'static str,
    protocol: &'static str,
    reason: &'static str,
}

/// Labels of a duration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    reporter: &'static str,
    gateway: String,
    route: String,
    backend: String,
}

/// Labels of what happens to a backend's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    backend: String,
}

/// Labels of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MirrorLabels {
    outcome: &'static str,
}

/// Labels of a pick.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PickLabels {
    via: &'static str,
}

/// Labels of a retry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    reason: &'static str,
    outcome: &'static str,
}

/// Labels of a failed TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    reason: &'static str,
}

/// A label set that has a stand-in for those over the limit.
trait Overflow {
    fn overflow(&self) -> Self;
}

impl Overflow for RequestLabels {
    fn overflow(&self) -> Self {
        RequestLabels {
            gateway: OTHER.into(),
            route: OTHER.into(),
            rule: OTHER.into(),
            backend: OTHER.into(),
            reason: OTHER,
            ..self.clone()
        }
    }
}

impl Overflow for DurationLabels {
    fn overflow(&self) -> Self {
        DurationLabels { gateway: OTHER.into(), route: OTHER.into(), backend: OTHER.into(), ..self.clone() }
    }
}

impl Overflow for BackendLabels {
    fn overflow(&self) -> Self {
        BackendLabels { backend: OTHER.into() }
    }
}

/// A family with at most `limit` label sets, and stand-ins.
struct Bounded<L, M> {
    family: Family<L, M>,
    known: Mutex<HashSet<L>>,
    limit: usize,
}

impl<L, M> Bounded<L, M>
where
    L: Clone + Eq + Hash + Overflow,
    M: Clone + Default,
{
    fn new(limit: usize) -> Self {
        Bounded { family: Family::default(), known: Mutex::new(HashSet::new()), limit }
    }

    fn get(&self, labels: &L) -> M {
        let mut known = lock(&self.known);
        if known.contains(labels) {
            return self.family.get_or_create_owned(labels);
        }
        if known.len() < self.limit {
            known.insert(labels.clone());
            return self.family.get_or_create_owned(labels);
        }
        self.family.get_or_create_owned(&labels.overflow())
    }
}

/// Simple totals, for the status of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests answered.
    pub requests: u64,
    /// Of those, sent to a pod of this node.
    pub local: u64,
    /// Of those, sent through the tunnel.
    pub tunnel: u64,
    /// Of those, answered with a 5xx of our own.
    pub failed: u64,
    /// Requests of other peers for pods of this node.
    pub hosted: u64,
}

/// The proxy's metrics.
pub struct ProxyMetrics {
    requests: Bounded<RequestLabels, Counter>,
    durations: Bounded<DurationLabels, Latency>,
    /// Time from a request's head to its answer's, less the time that the backend took.
    pub own_time: Latency,
    retries: Family<RetryLabels, Counter>,
    mirrors: Family<MirrorLabels, Counter>,
    ejections: Bounded<BackendLabels, Counter>,
    picks: Family<PickLabels, Counter>,
    handshakes: Family<HandshakeLabels, Counter>,
    /// Connections of clients.
    pub connections: Gauge,
    picked: [Counter; 4],
    total: Sums,
}

#[derive(Default)]
struct Sums {
    requests: AtomicU64,
    local: AtomicU64,
    tunnel: AtomicU64,
    failed: AtomicU64,
    hosted: AtomicU64,
}

/// The counters of one rule.
pub struct RuleMetrics {
    gateway: String,
    route: String,
    rule: String,
    /// Of requests for which no backend was chosen.
    none: Series,
    /// Of the rule's backends.
    backends: Vec<Series>,
}

/// The counters of a rule's backend.
#[derive(Default)]
struct Series {
    backend: String,
    /// By class of the status and protocol, for requests that went as they should.
    ok: [[OnceLock<Counter>; 2]; 6],
    /// The same by reason, for those that did not. Few: each is searched for in turn.
    others: Mutex<Vec<(&'static str, usize, usize, Counter)>>,
    duration: OnceLock<Latency>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The status sent; `None` where the client left before.
    pub status: Option<StatusCode>,
    /// HTTP/2, else HTTP/1.
    pub h2: bool,
    /// [`OK`] or what went wrong.
    pub reason: &'static str,
    /// The proxy itself answered with a 5xx.
    pub failed: bool,
    /// From the request's head to the end of the answer, in nanoseconds.
    pub duration: u64,
    /// Time in the proxy until the answer's head, in nanoseconds.
    pub own: u64,
    /// Where it was sent at last.
    pub via: Option<Via>,
    /// Which of the rule's backends was chosen.
    pub backend: Option<usize>,
}

impl ProxyMetrics {
    /// Makes the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let picks = Family::<PickLabels, Counter>::default();
        let pick = |via: Via| picks.get_or_create_owned(&PickLabels { via: via.name() });
        let metrics = ProxyMetrics {
            requests: Bounded::new(MAX_REQUEST_SERIES),
            durations: Bounded::new(MAX_DURATION_SERIES),
            own_time: Latency::default(),
            retries: Family::default(),
            mirrors: Family::default(),
            ejections: Bounded::new(MAX_EJECTION_SERIES),
            picked: [pick(Via::Local), pick(Via::Tunnel), pick(Via::Direct), pick(Via::Fallback)],
            picks: picks.clone(),
            handshakes: Family::default(),
            connections: Gauge::default(),
            total: Sums::default(),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        fn family<L, M>(registry: &mut Registry, name: &str, help: &str, family: &Family<L, M>)
        where
            L: EncodeLabelSet + Clone + Eq + Hash + Send + Sync + std::fmt::Debug + 'static,
            M: EncodeMetric + TypedMetric + Send + Sync + std::fmt::Debug + 'static,
        {
            registry.register(name, help, family.clone());
        }
        family(registry, "meshgate_http_requests", "Requests answered", &self.requests.family);
        family(
            registry,
            "meshgate_http_request_duration_seconds",
            "From a request's head to the end of its answer",
            &self.durations.family,
        );
        registry.register("meshgate_proxy_duration_seconds", "Time spent in the proxy itself", self.own_time.clone());
        family(registry, "meshgate_http_retries", "Further attempts at a request", &self.retries);
        family(registry, "meshgate_http_mirrors", "Copies of requests, by what became of them", &self.mirrors);
        family(
            registry,
            "meshgate_endpoint_ejections",
            "Endpoints left out for a while after failures in a row",
            &self.ejections.family,
        );
        family(registry, "meshgate_picks", "Endpoints picked, by the way to them", &self.picks);
        family(registry, "meshgate_tls_handshake_failures", "TLS handshakes of clients that failed", &self.handshakes);
        registry.register("meshgate_connections_active", "Open connections of clients", self.connections.clone());
    }

    /// The counters of a rule.
    pub fn rule(&self, gateway: &Key, matched: &Matched<'_>) -> RuleMetrics {
        let backends = matched.action.backends.iter().map(backend_name);
        RuleMetrics {
            backends: backends.map(|backend| Series { backend, ..Series::default() }).collect(),
            ..RuleMetrics::named(short(gateway), short(matched.route), matched.rule.to_string())
        }
    }

    /// An endpoint of a backend was ejected.
    pub fn ejected(&self, backend: &str) {
        self.ejections.get(&BackendLabels { backend: backend.to_owned() }).inc();
    }

    /// A request was to be copied; `outcome` says what became of it.
    pub fn mirrored(&self, outcome: &'static str) {
        self.mirrors.get_or_create(&MirrorLabels { outcome }).inc();
    }

    /// An endpoint was picked.
    pub fn picked(&self, via: Via) {
        if let Some(counter) = self.picked.get(via as usize) {
            counter.inc();
        }
    }

    /// A client's TLS handshake failed.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.handshakes.get_or_create(&HandshakeLabels { reason }).inc();
    }

    /// One more attempt was made (`outcome` `again`) or not (`outcome` says why not).
    pub fn retried(&self, reason: &'static str, outcome: &'static str) {
        self.retries.get_or_create(&RetryLabels { reason, outcome }).inc();
    }

    /// A request of another peer was served.
    pub fn hosted(&self) {
        self.total.hosted.fetch_add(1, Ordering::Relaxed);
    }

    /// A request came to its end.
    pub fn finished(&self, rule: &RuleMetrics, end: &End) {
        self.total.requests.fetch_add(1, Ordering::Relaxed);
        let way = match end.via {
            Some(Via::Local) => Some(&self.total.local),
            Some(Via::Tunnel) => Some(&self.total.tunnel),
            _ => None,
        };
        if let Some(way) = way {
            way.fetch_add(1, Ordering::Relaxed);
        }
        if end.failed {
            self.total.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.own_time.observe(end.own);
        rule.finished(self, end);
    }

    /// Totals since the start.
    pub fn totals(&self) -> Totals {
        let read = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        Totals {
            requests: read(&self.total.requests),
            local: read(&self.total.local),
            tunnel: read(&self.total.tunnel),
            failed: read(&self.total.failed),
            hosted: read(&self.total.hosted),
        }
    }
}

impl RuleMetrics {
    /// Of a Gateway's requests that no rule matched.
    pub fn unrouted(gateway: &Key) -> Self {
        RuleMetrics::named(short(gateway), String::new(), String::new())
    }

    fn named(gateway: String, route: String, rule: String) -> Self {
        RuleMetrics { gateway, route, rule, none: Series::default(), backends: Vec::new() }
    }

    /// The name of one of the rule's backends.
    pub fn backend(&self, index: Option<usize>) -> Option<&str> {
        self.backends.get(index?).map(|series| series.backend.as_str())
    }

    fn finished(&self, metrics: &ProxyMetrics, end: &End) {
        let class = end.status.map_or(0, |status| usize::from(status.as_u16() / 100).min(5));
        let protocol = usize::from(end.h2);
        let series = end.backend.and_then(|index| self.backends.get(index)).unwrap_or(&self.none);
        let slot = series.ok.get(class).and_then(|slots| slots.get(protocol));
        match slot.filter(|_| end.reason == OK) {
            Some(slot) => {
                slot.get_or_init(|| self.counter(metrics, series, (class, protocol), OK)).inc();
            }
            None => self.other(metrics, series, (class, protocol), end.reason),
        }
        let labels = || DurationLabels {
            reporter: "edge",
            gateway: self.gateway.clone(),
            route: self.route.clone(),
            backend: series.backend.clone(),
        };
        series.duration.get_or_init(|| metrics.durations.get(&labels())).observe(end.duration);
    }

    /// Counts a request that did not go as it should: resolved once, like the others.
    fn other(&self, metrics: &ProxyMetrics, series: &Series, (class, protocol): (usize, usize), reason: &'static str) {
        let mut others = lock(&series.others);
        let same = |known: &&(&str, usize, usize, Counter)| (known.0, known.1, known.2) == (reason, class, protocol);
        if let Some((.., counter)) = others.iter().find(same) {
            counter.inc();
            return;
        }
        let counter = self.counter(metrics, series, (class, protocol), reason);
        counter.inc();
        others.push((reason, class, protocol, counter));
    }

    fn counter(
        &self,
        metrics: &ProxyMetrics,
        series: &Series,
        (class, protocol): (usize, usize),
        reason: &'static str,
    ) -> Counter {
        const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
        metrics.requests.get(&RequestLabels {
            reporter: "edge",
            gateway: self.gateway.clone(),
            route: self.route.clone(),
            rule: self.rule.clone(),
            backend: series.backend.clone(),
            code_class: CLASSES.get(class).copied().unwrap_or(OTHER),
            protocol: if protocol == 1 { "h2" } else { "h1" },
            reason,
        })
    }
}

/// `namespace/name:port` of a backend's Service; `invalid` for one that does not resolve.
pub fn backend_name(backend: &Backend) -> String {
    match &backend.target {
        BackendTarget::Service { service, port } => format!("{}/{}:{port}", service.namespace, service.name),
        BackendTarget::Invalid { .. } => "invalid".to_owned(),
    }
}

/// `namespace/name`.
fn short(key: &Key) -> String {
    format!("{}/{}", key.namespace, key.name)
}
