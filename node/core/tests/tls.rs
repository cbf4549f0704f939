//! Which listener may answer whom: the server name of a connection against the host of a request
//! (GEP-3567), and connections that are older than a listener's demand for client certificates.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use http::{HeaderMap, Method};
use meshgate_core::snapshot::{
    Attachment, ClientValidation, ClientValidationMode, Gateway, GatewayAddress, HeadId, HostPattern, HttpMatch, Key,
    Kind, Listener, PathMatch, Protocol, Resource, Route, RouteHost, Rule, Timeouts, TlsVersions,
};
use meshgate_core::table::{Decision, RequestHead, Table};

fn gateway_key() -> Key {
    Key::new(Kind::Gateway, "infra", "web")
}

fn bundle(name: &str) -> Key {
    Key::new(Kind::TrustBundle, "infra", name)
}

fn pattern(host: &str) -> HostPattern {
    match host.strip_prefix("*.") {
        _ if host == "*" => HostPattern::Any,
        Some(suffix) => HostPattern::Wildcard(suffix.into()),
        None => HostPattern::Exact(host.into()),
    }
}

fn listener(name: &str, hostname: &str, clients: Option<ClientValidation>) -> Listener {
    Listener {
        name: name.into(),
        port: 443,
        protocol: Protocol::Https,
        hostname: pattern(hostname),
        certificates: vec![Key::new(Kind::Certificate, "infra", name)],
        versions: TlsVersions::default(),
        clients,
    }
}

/// A route of the listener's name that serves hosts on it.
fn route(listener: &str, hosts: &[&str]) -> (Key, Arc<Resource>) {
    let attachment = Attachment {
        gateway: gateway_key(),
        listener: listener.into(),
        hosts: hosts.iter().map(|host| RouteHost::named(pattern(host))).collect(),
    };
    let path = PathMatch::Prefix("/".into());
    let rule = Rule {
        name: None,
        matches: vec![HttpMatch { path, method: None, headers: Vec::new(), query: Vec::new() }],
        host: None,
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        broken: false,
    };
    let route =
        Route { generation: 1, created: None, attachments: vec![attachment], rules: vec![rule], needs: Vec::new() };
    (Key::new(Kind::HttpRoute, "infra", listener), Arc::new(Resource::Route(route)))
}

fn table(listeners: Vec<Listener>, routes: Vec<(Key, Arc<Resource>)>) -> Table {
    let gateway = Gateway { generation: 1, address: GatewayAddress::Loopback(1), listeners };
    let mut all = routes;
    all.push((gateway_key(), Arc::new(Resource::Gateway(gateway))));
    let (table, held) = Table::build(HeadId::default(), all.iter().map(|(key, resource)| (key, resource)));
    assert!(held.is_empty(), "{held:?}");
    table
}

/// The route that serves, or the status.
fn decide(table: &Table, sni: &str, host: &str, verified: Option<&[Key]>) -> String {
    let headers = HeaderMap::new();
    let (method, query, sni) = (&Method::GET, None, Some(sni));
    let head = RequestHead { host, path: "/x", query, method, headers: &headers, sni, verified };
    match table.decide(&gateway_key(), 443, &head) {
        Decision::Rule(matched) => matched.route.name.to_string(),
        Decision::Reject(status, _) => status.as_str().to_owned(),
    }
}

/// Four listeners as in the conformance test of misdirected requests.
fn four() -> Table {
    let listeners = vec![
        listener("any", "*", None),
        listener("second", "second-example.org", None),
        listener("wild", "*.wildcard.org", None),
        listener("fourth", "fourth-example.wildcard.org", None),
    ];
    let routes = vec![
        route("any", &["example.org"]),
        route("second", &["second-example.org"]),
        route("wild", &["*.wildcard.org"]),
        route("fourth", &["fourth-example.wildcard.org"]),
    ];
    table(listeners, routes)
}

#[test]
fn a_misdirected_request_is_answered_as_the_specification_says() {
    let table = four();
    let cases = [
        ("example.org", "example.org", "any"),
        ("example.org", "second-example.org", "421"),
        ("example.org", "unknown-example.org", "404"),
        ("second-example.org", "second-example.org", "second"),
        ("second-example.org", "example.org", "421"),
        ("second-example.org", "unknown-example.org", "421"),
        ("third-example.wildcard.org", "third-example.wildcard.org", "wild"),
        ("third-example.wildcard.org", "fith-example.wildcard.org", "wild"),
        ("third-example.wildcard.org", "fourth-example.wildcard.org", "421"),
        ("third-example.wildcard.org", "second-example.org", "421"),
        ("third-example.wildcard.org", "unknown-example.org", "421"),
        ("fourth-example.wildcard.org", "fourth-example.wildcard.org", "fourth"),
        ("fourth-example.wildcard.org", "fith-example.wildcard.org", "421"),
        ("unknown-example.org", "example.org", "any"),
        ("unknown-example.org", "unknown-example.org", "404"),
        // A client that named nobody is on the listener for every host, and on no other.
        ("", "example.org", "any"),
        ("", "second-example.org", "421"),
        ("", "third-example.wildcard.org", "421"),
        // Server names are compared as hosts are.
        ("Second-Example.ORG.", "second-example.org", "second"),
        ("192.0.2.1", "second-example.org", "421"),
    ];
    for (sni, host, expected) in cases {
        assert_eq!(decide(&table, sni, host, None), expected, "server name {sni:?}, host {host:?}");
    }
}

#[test]
fn without_a_listener_for_every_host_an_unknown_host_is_not_found() {
    let listeners = vec![listener("a", "a.example", None), listener("b", "b.example", None)];
    let table = table(listeners, vec![route("a", &["a.example"]), route("b", &["b.example"])]);
    for (sni, host, expected) in [
        ("a.example", "a.example", "a"),
        ("a.example", "b.example", "421"),
        ("a.example", "c.example", "404"),
        ("", "c.example", "404"),
        ("", "a.example", "421"),
        // The listener went away under the connection.
        ("c.example", "a.example", "421"),
    ] {
        assert_eq!(decide(&table, sni, host, None), expected, "server name {sni:?}, host {host:?}");
    }
}

#[test]
fn a_connection_older_than_a_demand_for_certificates_is_misdirected() {
    let demand = |mode, trust: &str| Some(ClientValidation { trust: vec![bundle(trust)], mode });
    let asked = |clients| table(vec![listener("a", "a.example", clients)], vec![route("a", &["a.example"])]);
    let strict = asked(demand(ClientValidationMode::AllowValidOnly, "new"));
    let (new, old) = ([bundle("new")], [bundle("old")]);
    assert_eq!(decide(&strict, "a.example", "a.example", Some(&new)), "a");
    assert_eq!(decide(&strict, "a.example", "a.example", None), "421");
    assert_eq!(decide(&strict, "a.example", "a.example", Some(&old)), "421", "verified for somebody else");
    let fallback = asked(demand(ClientValidationMode::AllowInsecureFallback, "new"));
    assert_eq!(decide(&fallback, "a.example", "a.example", None), "a");
    assert_eq!(decide(&asked(None), "a.example", "a.example", Some(&old)), "a");
}
