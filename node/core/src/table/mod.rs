//! Answers requests. Built from resources, swapped whole; a request sees one table from start to
//! end.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};

use crate::balance::EndpointState;
use crate::snapshot::{
    AppProtocol, Backend, Certificate, Filter, GatewayAddress, HeadId, HostPattern, Key, Protocol, Resource,
    SessionAffinity, Timeouts,
};

/// Features that this version has (`Route::needs`).
pub const FEATURES: &[u32] = &[];

/// A change of one resource.
pub type Change = (Key, Option<Arc<Resource>>);

/// The whole routing state of a peer.
#[derive(Debug, Default)]
pub struct Table {
    head: HeadId,
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
    /// SNI of the connection, for HTTPS listeners.
    pub sni: Option<&'a str>,
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
    /// The prefix that matched, for prefix rewrites; `None` for exact and regex matches.
    pub prefix: Option<&'t str>,
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
    /// Every request gets 500.
    pub broken: bool,
}

/// A port of a Service with its endpoints.
#[derive(Debug)]
pub struct ServicePort {
    /// What its pods speak.
    pub app: AppProtocol,
    /// Session affinity.
    pub affinity: SessionAffinity,
    /// Endpoints that may be picked: the ready ones; if none is, those that are serving though
    /// terminating (kube-proxy's rule).
    pub endpoints: Vec<Endpoint>,
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
    /// A table from nothing.
    pub fn build<'a>(
        head: HeadId,
        resources: impl IntoIterator<Item = (&'a Key, &'a Arc<Resource>)>,
    ) -> (Self, Vec<Held>) {
        let changes: Vec<Change> =
            resources.into_iter().map(|(key, resource)| (key.clone(), Some(Arc::clone(resource)))).collect();
        Table::default().update(head, &changes)
    }

    /// The next table: what did not change is reused, endpoint state is carried over. Resources
    /// that can't be applied keep their previous version and are named.
    pub fn update(&self, head: HeadId, changes: &[Change]) -> (Self, Vec<Held>) {
        let _ = changes;
        (Table { head }, Vec::new())
    }

    /// The head that this table shows.
    pub fn head(&self) -> HeadId {
        self.head
    }

    /// The sockets wanted, sorted, without duplicates.
    pub fn binds(&self) -> Vec<Bind> {
        Vec::new()
    }

    /// Where a Gateway listens.
    pub fn gateway_address(&self, gateway: &Key) -> Option<&GatewayAddress> {
        let _ = gateway;
        None
    }

    /// The certificate a TLS client that names `sni` is shown on a Gateway's port: of the
    /// listener with the most specific matching hostname; among its certificates the first that
    /// covers the name, else its first.
    pub fn certificate(&self, gateway: &Key, port: u16, sni: Option<&str>) -> Option<&Certificate> {
        let _ = (gateway, port, sni);
        None
    }

    /// All certificates that listeners refer to; whoever serves them needs their keys.
    pub fn certificates(&self) -> impl Iterator<Item = (&Key, &Certificate)> {
        std::iter::empty()
    }

    /// Decides a request that came in on a Gateway's port.
    pub fn decide(&self, gateway: &Key, port: u16, head: &RequestHead<'_>) -> Decision<'_> {
        let _ = (gateway, port, head);
        Decision::Reject(StatusCode::NOT_FOUND, "no_route")
    }

    /// A Service's port. `None`: the Service or the port does not exist.
    pub fn service(&self, service: &Key, port: u16) -> Option<&ServicePort> {
        let _ = (service, port);
        None
    }

    /// What is known here of an endpoint that another peer wants to reach on `node`.
    pub fn hosted(&self, node: &str, address: SocketAddr) -> Hosted {
        let _ = (node, address);
        Hosted::NotHere
    }

    /// One line for each (listener, host, match), in order of precedence within a host.
    pub fn lines(&self) -> Vec<RouteLine> {
        Vec::new()
    }
}
