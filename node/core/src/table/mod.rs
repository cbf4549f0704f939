//! Answers requests. Built from resources, swapped whole; a request sees one table from start to
//! end.

mod gateway;
mod host;
mod lines;
mod path;
mod query;
mod route;
mod service;
mod shared;
mod tls;
mod topology;
mod update;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};

use crate::balance::{EndpointState, RetryBudget};
use crate::filter::MatchedPath;
use crate::snapshot::{
    AppProtocol, Backend, Filter, GatewayAddress, HeadId, HostPattern, Key, Protocol, Resource, Retry, SessionAffinity,
    Timeouts,
};

use gateway::GatewayEntry;
use route::CompiledRoute;
use service::Services;
use shared::SharedMap;
pub use topology::Place;

pub use tls::{covers_name, server_name};

/// Features that this version has (`Route::needs`).
pub const FEATURES: &[u32] = &[];

/// A change of one resource.
pub type Change = (Key, Option<Arc<Resource>>);

/// The whole routing state of a peer.
///
/// Cheap to clone: everything is shared.
#[derive(Clone, Debug, Default)]
pub struct Table {
    head: HeadId,
    held: Arc<BTreeMap<Key, Held>>,
    gateways: SharedMap<Key, Arc<GatewayEntry>>,
    routes: SharedMap<Key, Arc<CompiledRoute>>,
    services: Services,
    /// Certificates and trust bundles.
    certificates: SharedMap<Key, Arc<Resource>>,
    listening: Arc<Listening>,
    touched: usize,
}

/// The sockets and certificates that all listeners want. The very same value in two tables says that
/// both want the same, so whoever serves them has nothing to do.
#[derive(Debug, Default)]
pub struct Listening {
    /// Sorted, without duplicates.
    binds: Vec<Bind>,
    /// Sorted by key.
    certificates: Vec<(Key, Arc<Resource>)>,
}

/// A resource that can't be applied; its previous version goes on serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub key: Key,
    /// Why (a regular expression that does not compile here).
    pub reason: String,
}

/// One socket that the table wants: a Gateway's port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bind {
    /// The Gateway.
    pub gateway: Key,
    /// The listeners' port (logical; the shell may map it).
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// A request as the table sees it: already canonical ([`crate::sanitize`]).
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Host of the canonical authority: lower case, no port, no trailing dot.
    pub host: &'a str,
    /// Normalised path, without query.
    pub path: &'a str,
    /// Query string without `?`, if any.
    pub query: Option<&'a str>,
    /// Method.
    pub method: &'a Method,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// SNI of the connection, for HTTPS listeners; the empty string for a TLS client that named
    /// nobody (it is on the listener for every host), `None` where there is no TLS.
    pub sni: Option<&'a str>,
    /// The trust bundles against which the client's certificate was verified in the handshake;
    /// `None` where it showed none that is valid, or was not asked.
    pub verified: Option<&'a [Key]>,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Decision<'t> {
    /// A rule matched.
    Rule(Matched<'t>),
    /// Nothing matched, or nothing may: answer with this status and reason.
    Reject(StatusCode, &'static str),
}

/// The rule that matched.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'t> {
    /// The listener's name.
    pub listener: &'t str,
    /// The route.
    pub route: &'t Key,
    /// Index of the rule in the route.
    pub rule: usize,
    /// How the path was matched, for rewrites.
    pub path: MatchedPath<'t>,
    /// What the rule does.
    pub action: &'t Action,
}

/// What a rule does, ready to execute.
#[derive(Debug)]
pub struct Action {
    /// Filters, in order.
    pub filters: Vec<Filter>,
    /// Weighted backends.
    pub backends: Vec<Backend>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// When to try again; `None` is the peer's own rule.
    pub retry: Option<Retry>,
    /// Every request gets 500.
    pub broken: bool,
}

/// A port of a Service with its endpoints.
#[derive(Clone, Debug)]
pub struct ServicePort {
    /// What its pods speak.
    pub app: AppProtocol,
    /// Session affinity.
    pub affinity: SessionAffinity,
    /// Endpoints that may be picked: the ready ones; if none is, those that are serving though
    /// terminating (kube-proxy's rule).
    pub endpoints: Vec<Endpoint>,
    /// So many at the start of `endpoints` are the ones that topology prefers; all of them where
    /// it prefers none. The others are for when none of these can be had.
    pub preferred: usize,
    /// How much may be repeated. Outlives the table, as long as the port exists.
    pub retries: Arc<RetryBudget>,
}

/// An endpoint with its live state, which outlives the table.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// The node it runs on, if known.
    pub node: Option<Arc<str>>,
    /// The pod, for display.
    pub pod: Option<Arc<str>>,
    /// Requests in flight and latency as seen from this peer.
    pub state: Arc<EndpointState>,
}

/// What the hosting peer knows of an address that another peer wants to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosted {
    /// It is here and may be used. Which protocol its pods speak.
    Here(AppProtocol),
    /// It is here but going away, and others of its Service are ready.
    Terminating,
    /// No such endpoint on this node.
    NotHere,
}

/// One line of `meshctl routes`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteLine {
    /// Gateway and listener.
    pub gateway: Key,
    /// Listener name.
    pub listener: String,
    /// Port of the listener.
    pub port: u16,
    /// Protocol of the listener.
    pub protocol: Protocol,
    /// Host.
    pub host: HostPattern,
    /// Path as shown: `/cart`, `/cart/*`, `~ regex`.
    pub path: String,
    /// Method, headers and query in short; empty for none.
    pub matches: String,
    /// The route.
    pub route: Key,
    /// Rule index.
    pub rule: usize,
    /// Rule name.
    pub rule_name: Option<String>,
    /// `name:port` with weights in percent when there are several.
    pub backends: String,
    /// Filters and timeouts in short.
    pub policies: String,
    /// Generation of the route.
    pub generation: u64,
}

impl Table {
    /// An empty table of the peer at `place`; all that are made from it are that peer's.
    pub fn at(place: Place) -> Self {
        Table { services: Services::at(place), ..Table::default() }
    }

    /// A table from nothing, of a peer that is nowhere.
    pub fn build<'a>(
        head: HeadId,
        resources: impl IntoIterator<Item = (&'a Key, &'a Arc<Resource>)>,
    ) -> (Self, Vec<Held>) {
        let changes: Vec<Change> =
            resources.into_iter().map(|(key, resource)| (key.clone(), Some(Arc::clone(resource)))).collect();
        Table::default().update(head, &changes)
    }

    /// The next table: what did not change is reused, endpoint state is carried over. Resources
    /// that can't be applied keep their previous version; all that are held back now are named,
    /// also those of earlier updates. [`Table::build`] is its oracle.
    pub fn update(&self, head: HeadId, changes: &[Change]) -> (Self, Vec<Held>) {
        let next = update::update(self, head, changes);
        let held = next.held.values().cloned().collect();
        (next, held)
    }

    /// The head that this table shows.
    pub fn head(&self) -> HeadId {
        self.head
    }

    /// The sockets wanted, sorted, without duplicates.
    pub fn binds(&self) -> Vec<Bind> {
        self.listening.binds.clone()
    }

    /// What all listeners want; the same value as long as no Gateway and no certificate changes.
    pub fn listening(&self) -> &Arc<Listening> {
        &self.listening
    }

    /// How many resources, candidates and endpoints the update that made this table looked at: what
    /// it cost, whatever else the table holds. For tests.
    pub fn touched(&self) -> usize {
        self.touched
    }

    /// Where a Gateway listens.
    pub fn gateway_address(&self, gateway: &Key) -> Option<&GatewayAddress> {
        self.gateways.get(gateway).map(|entry| &entry.address)
    }

    /// Decides a request that came in on a Gateway's port.
    ///
    /// The listener is the one whose hostname matches the host most specifically, and no other
    /// (GEP-3567 adds: 421 when the connection's SNI chose another one). 421 also answers a client
    /// that was not asked for the certificate which the listener demands: its connection is older
    /// than the demand. Within the listener, hosts are tried from the most specific, and matches
    /// of a host in order of precedence.
    pub fn decide(&self, gateway: &Key, port: u16, head: &RequestHead<'_>) -> Decision<'_> {
        const NO_ROUTE: Decision<'_> = Decision::Reject(StatusCode::NOT_FOUND, "no_route");
        let Some(entry) = self.gateways.get(gateway) else { return NO_ROUTE };
        let Some(listener) = entry.listener(port, head.host) else { return NO_ROUTE };
        if let Some(sni) = head.sni {
            let connected = entry.listener(port, &server_name(sni));
            let here = connected.is_some_and(|connected| std::ptr::eq(connected, listener));
            if !here || !tls::vouched(&listener.listener, head.verified) {
                return Decision::Reject(StatusCode::MISDIRECTED_REQUEST, "misdirected");
            }
        }
        let Some(found) = listener.hosts.find(head.host, |paths| paths.find(head)) else { return NO_ROUTE };
        Decision::Rule(Matched {
            listener: &listener.listener.name,
            route: &found.route.key,
            rule: found.rule,
            path: found.compiled().matched(),
            action: &found.route.rules[found.rule].action,
        })
    }

    /// A Service's port. `None`: the Service or the port does not exist.
    pub fn service(&self, service: &Key, port: u16) -> Option<&ServicePort> {
        self.services.port(service, port)
    }

    /// What is known here of an endpoint that another peer wants to reach on `node`.
    pub fn hosted(&self, node: &str, address: SocketAddr) -> Hosted {
        self.services.hosted(node, address)
    }
}
