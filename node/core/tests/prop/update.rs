//! Property: a table that was updated step by step answers as one that was built from nothing;
//! and endpoint state outlives tables, but not its endpoint.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use meshgate_core::balance::EndpointState;
use meshgate_core::snapshot::{
    AppProtocol, Attachment, Endpoint, EndpointSlice, Gateway, GatewayAddress, HeadId, HostPattern, HttpMatch, Key,
    Kind, Listener, PathMatch, Protocol, Resource, Route, RouteHost, Rule, Service, ServicePort, SessionAffinity,
    Timeouts, TlsVersions,
};
use meshgate_core::table::{Change, Place, Table};
use proptest::collection::vec;
use proptest::prelude::*;

use super::generate::{PORTS, Request, any_resource, requests};

/// Everything a table can be asked, in words.
fn all_answers(table: &Table, requests: &[Request]) -> Vec<String> {
    let mut answers = vec![format!("{:?}", table.binds()), format!("{:?}", table.certificates().collect::<Vec<_>>())];
    answers.extend(table.lines().iter().map(|line| format!("{line:?}")));
    for name in ["g1", "g2"] {
        let gateway = Key::new(Kind::Gateway, "infra", name);
        answers.push(format!("{:?}", table.gateway_address(&gateway)));
        for port in PORTS {
            answers
                .extend(requests.iter().map(|request| format!("{:?}", table.decide(&gateway, port, &request.head()))));
            answers.extend(
                [None, Some("a.test"), Some("other")]
                    .map(|sni| format!("{:?}", table.certificate(&gateway, port, sni))),
            );
        }
    }
    for name in ["s1", "s2"] {
        let service = Key::new(Kind::Service, "n1", name);
        answers.extend([80, 81].map(|port| format!("{:?}", table.service(&service, port))));
    }
    for node in ["", "m1", "m2"] {
        let addresses = (1..5).flat_map(|last| [8080, 8081].map(|port| SocketAddr::from(([10, 0, 0, last], port))));
        answers.extend(addresses.map(|address| format!("{:?}", table.hosted(node, address))));
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn an_updated_table_is_a_built_one(
        steps in vec(vec((any_resource(), prop::bool::weighted(0.75)), 1..8), 1..6),
        asked in vec(requests(), 12),
        node in prop::option::of(prop::sample::select(vec!["m1", "m2"])),
    ) {
        let place = Place { node: node.map(Arc::from), zone: None };
        let mut table = Table::at(place.clone());
        let mut resources: BTreeMap<Key, Arc<Resource>> = BTreeMap::new();
        for (rev, step) in steps.into_iter().enumerate() {
            let mut changes: Vec<Change> = Vec::new();
            for ((key, resource), stays) in step {
                if stays {
                    resources.insert(key.clone(), Arc::clone(&resource));
                } else {
                    resources.remove(&key);
                }
                changes.push((key, stays.then_some(resource)));
            }
            let head = HeadId { epoch: 1, rev: rev as u64 };
            let (next, held) = table.update(head, &changes);
            prop_assert!(held.is_empty(), "{:?}", held);
            prop_assert_eq!(next.head(), head);
            let all: Vec<Change> = resources.iter().map(|(key, one)| (key.clone(), Some(Arc::clone(one)))).collect();
            let (built, _) = Table::at(place.clone()).update(head, &all);
            prop_assert_eq!(all_answers(&next, &asked), all_answers(&built, &asked));
            table = next;
        }
    }
}

const NODE: &str = "m1";

fn service(name: &str) -> (Key, Option<Arc<Resource>>) {
    let port = ServicePort { name: String::new(), port: 80, app: AppProtocol::Http1 };
    let service = Service {
        ports: vec![port],
        affinity: SessionAffinity::None,
        distribution: Default::default(),
        internal_local: false,
    };
    (Key::new(Kind::Service, "n1", name), Some(Arc::new(Resource::Service(service))))
}

fn slice(of: &str, addresses: &[u8]) -> (Key, Option<Arc<Resource>>) {
    let endpoint = |&last: &u8| Endpoint {
        address: [10, 0, 0, last].into(),
        node: Some(NODE.into()),
        zone: None,
        pod: None,
        ready: true,
        serving: true,
        terminating: false,
        for_zones: vec![],
        for_nodes: vec![],
    };
    let endpoints = addresses.iter().map(endpoint).collect();
    let service = Key::new(Kind::Service, "n1", of);
    let slice = EndpointSlice { service, ports: vec![(String::new(), 8080)], endpoints };
    (Key::new(Kind::Endpoints, "n1", of), Some(Arc::new(Resource::Endpoints(slice))))
}

fn states(table: &Table, service: &str) -> Vec<Arc<EndpointState>> {
    let port = table.service(&Key::new(Kind::Service, "n1", service), 80).unwrap();
    port.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.state)).collect()
}

#[test]
fn endpoint_state_outlives_tables() {
    let changes = [service("s1"), slice("s1", &[1, 2]), service("s2"), slice("s2", &[2])];
    let (first, _) = Table::default().update(HeadId::default(), &changes);
    let before = states(&first, "s1");
    assert!(Arc::ptr_eq(&before[1], &states(&first, "s2")[0]), "one endpoint of two Services is one endpoint");

    // The Service changes, an endpoint comes; and everything moves to another slice at once.
    let (second, _) = first.update(HeadId::default(), &[service("s1"), slice("s1", &[1, 2, 3])]);
    let after = states(&second, "s1");
    assert!(Arc::ptr_eq(&before[0], &after[0]) && Arc::ptr_eq(&before[1], &after[1]));
    let (third, _) = second.update(HeadId::default(), &[slice("s1", &[]), slice("s2", &[1, 2])]);
    let moved = states(&third, "s2");
    assert!(Arc::ptr_eq(&before[0], &moved[0]) && Arc::ptr_eq(&before[1], &moved[1]));
}

#[test]
fn the_state_of_a_dropped_endpoint_goes_with_it() {
    let (first, _) = Table::default().update(HeadId::default(), &[service("s1"), slice("s1", &[1, 2])]);
    let weak: Vec<Weak<EndpointState>> = states(&first, "s1").iter().map(Arc::downgrade).collect();
    let (second, _) = first.update(HeadId::default(), &[slice("s1", &[2])]);
    drop(first);
    assert!(weak[0].upgrade().is_none());
    assert!(weak[1].upgrade().is_some());
    let (third, _) = second.update(HeadId::default(), &[(slice("s1", &[]).0, None)]);
    drop(second);
    assert!(weak[1].upgrade().is_none());
    assert!(states(&third, "s1").is_empty());
}

/// A table of so many routes: one Gateway, a host each, one host and one Service for all.
fn many(routes: u32) -> Table {
    let listener = Listener {
        name: "l0".into(),
        port: 80,
        protocol: Protocol::Http,
        hostname: HostPattern::Any,
        certificates: Vec::new(),
        versions: TlsVersions::default(),
        clients: None,
    };
    let gateway = Gateway { generation: 1, address: GatewayAddress::Loopback(1), listeners: vec![listener] };
    let key = Key::new(Kind::Gateway, "infra", "g1");
    let mut changes = vec![(key, Some(Arc::new(Resource::Gateway(gateway)))), service("s1"), slice("s1", &[1, 2])];
    changes.extend((0..routes).map(|n| plain_route(n, &format!("/{n}"))));
    Table::default().update(HeadId::default(), &changes).0
}

fn plain_route(n: u32, path: &str) -> Change {
    let one = HttpMatch { path: PathMatch::Prefix(path.into()), method: None, headers: vec![], query: vec![] };
    let rule = Rule {
        name: None,
        matches: vec![one],
        host: None,
        filters: vec![],
        backends: vec![],
        timeouts: Timeouts::default(),
        retry: None,
        broken: false,
    };
    let hosts = vec![HostPattern::Exact(format!("h{n}.test")), HostPattern::Exact("all.test".into())];
    let hosts = hosts.into_iter().map(RouteHost::named).collect();
    let gateway = Key::new(Kind::Gateway, "infra", "g1");
    let attachments = vec![Attachment { gateway, listener: "l0".into(), hosts }];
    let route = Route { generation: 1, created: None, attachments, rules: vec![rule], needs: vec![] };
    (Key::new(Kind::HttpRoute, "n1", &format!("r{n}")), Some(Arc::new(Resource::Route(route))))
}

#[test]
fn what_a_change_costs_does_not_grow_with_the_table() {
    let costs = [20, 2000].map(|routes| {
        let table = many(routes);
        let (edited, _) = table.update(HeadId::default(), &[plain_route(7, "/new")]);
        let (gone, _) = edited.update(HeadId::default(), &[(plain_route(7, "").0, None)]);
        let (moved, _) = gone.update(HeadId::default(), &[slice("s1", &[1, 2, 3])]);
        assert!(Arc::ptr_eq(table.listening(), moved.listening()), "no socket and no certificate changed");
        let (after, before) = (states(&moved, "s1"), states(&table, "s1"));
        assert!(before.iter().zip(&after).all(|(before, after)| Arc::ptr_eq(before, after)));
        [&edited, &gone, &moved].map(Table::touched)
    });
    assert_eq!(costs[0], costs[1], "20 routes and 2000");
    assert!(costs[0].iter().all(|touched| *touched < 10), "{costs:?}");
}

/// A Service with these ports (names and numbers), and a slice of it with these (names and target
/// ports).
fn named(slice_name: &str, ports: &[(&str, u16)], targets: &[(&str, u16)], node: &str) -> Vec<Change> {
    let port = |(name, port): &(&str, u16)| ServicePort { name: (*name).into(), port: *port, app: AppProtocol::Http1 };
    let service = Service {
        ports: ports.iter().map(port).collect(),
        affinity: SessionAffinity::None,
        distribution: Default::default(),
        internal_local: false,
    };
    let (key, Some(resource)) = slice("s1", &[1, 2]) else { return Vec::new() };
    let Resource::Endpoints(mut endpoints) = Resource::clone(&resource) else { return Vec::new() };
    endpoints.ports = targets.iter().map(|(name, port)| ((*name).into(), *port)).collect();
    endpoints.endpoints.iter_mut().for_each(|endpoint| endpoint.node = Some(node.into()));
    vec![
        (Key::new(Kind::Service, "n1", "s1"), Some(Arc::new(Resource::Service(service)))),
        (Key { name: slice_name.into(), ..key }, Some(Arc::new(Resource::Endpoints(endpoints)))),
    ]
}

#[test]
fn endpoint_state_stays_as_long_as_the_address_does() {
    let first = many(3).update(HeadId::default(), &named("s1", &[("", 80)], &[("", 8080)], NODE)).0;
    let before = states(&first, "s1");
    before[0].observe(0, 7);
    let kept = |table: &Table| {
        let after = states(table, "s1");
        assert_eq!(after.len(), before.len());
        assert!(before.iter().zip(&after).all(|(before, after)| Arc::ptr_eq(before, after)));
    };
    // A route changes, comes, goes.
    let table =
        first.update(HeadId::default(), &[plain_route(1, "/x"), plain_route(9, "/y"), (plain_route(2, "").0, None)]).0;
    kept(&table);
    // The slice gets another name, in one step and in two.
    let mut renamed = named("other", &[("", 80)], &[("", 8080)], NODE);
    renamed.push((slice("s1", &[]).0, None));
    let table = table.update(HeadId::default(), &renamed).0;
    kept(&table);
    let table = table.update(HeadId::default(), &named("third", &[("", 80)], &[("", 8080)], NODE)).0;
    let table = table.update(HeadId::default(), &[(Key::new(Kind::Endpoints, "n1", "other"), None)]).0;
    kept(&table);
    // The Service's port gets a name; another port comes before it.
    let table = table.update(HeadId::default(), &named("third", &[("web", 80)], &[("web", 8080)], NODE)).0;
    kept(&table);
    let ports = [("admin", 81), ("web", 80)];
    let table = table.update(HeadId::default(), &named("third", &ports, &[("web", 8080), ("admin", 9090)], NODE)).0;
    kept(&table);
    // The Service goes and comes; its slices stay.
    let table = table.update(HeadId::default(), &[(Key::new(Kind::Service, "n1", "s1"), None)]).0;
    let table = table.update(HeadId::default(), &[service("s1"), slice("s1", &[1, 2])]).0;
    kept(&table);
    // The Gateway goes.
    let table = table.update(HeadId::default(), &[(Key::new(Kind::Gateway, "infra", "g1"), None)]).0;
    kept(&table);
}
