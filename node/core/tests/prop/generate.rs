//! Small worlds, dense enough that routes meet: few names, hosts, paths and values.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use meshgate_core::snapshot::*;
use meshgate_core::table::RequestHead;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

pub const HOSTS: [&str; 8] =
    ["test", "a.test", "b.a.test", "c.b.a.test", "x.test", "y.x.test", "other", "d.c.b.a.test"];
pub const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/a//b", "/caf%C3%A9"];
pub const PORTS: [u16; 2] = [80, 443];

/// A request that owns what a [`RequestHead`] borrows.
#[derive(Clone, Debug)]
pub struct Request {
    pub host: &'static str,
    pub path: &'static str,
    pub query: Option<&'static str>,
    pub method: Method,
    pub headers: HeaderMap,
    pub sni: Option<&'static str>,
}

impl Request {
    pub fn head(&self) -> RequestHead<'_> {
        RequestHead {
            host: self.host,
            path: self.path,
            query: self.query,
            method: &self.method,
            headers: &self.headers,
            sni: self.sni,
            verified: None,
        }
    }
}

pub fn requests() -> impl Strategy<Value = Request> {
    let headers = vec((select(vec!["h1", "h2"]), select(vec!["1", "2"])), 0..3).prop_map(|pairs| {
        let pairs = pairs.into_iter();
        pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    });
    let headers = headers.prop_map(|pairs: Vec<_>| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    });
    let query = select(vec![None, Some(""), Some("q1=1"), Some("q1=2&q1=1"), Some("%711=1&q2=2"), Some("q2=%32")]);
    let method = select(vec![Method::GET, Method::POST]);
    let sni = select(vec![None, None, None, None, Some(""), Some("a.test"), Some("b.a.test"), Some("other")]);
    (select(HOSTS.to_vec()), select(PATHS.to_vec()), query, method, headers, sni)
        .prop_map(|(host, path, query, method, headers, sni)| Request { host, path, query, method, headers, sni })
}

fn patterns() -> impl Strategy<Value = HostPattern> {
    let suffixes = || select(vec!["test", "a.test", "b.a.test"]).prop_map(String::from);
    prop_oneof![
        4 => Just(HostPattern::Any),
        2 => suffixes().prop_map(HostPattern::Wildcard),
        1 => suffixes().prop_map(HostPattern::WildcardOneLabel),
        2 => select(vec!["test", "a.test", "b.a.test", "other"]).prop_map(|name| HostPattern::Exact(name.into())),
    ]
}

fn paths() -> impl Strategy<Value = PathMatch> {
    let plain =
        || select(vec!["/", "/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/%61", "/café", "/x"]).prop_map(String::from);
    prop_oneof![
        2 => plain().prop_map(PathMatch::Exact),
        3 => plain().prop_map(PathMatch::Prefix),
        1 => select(vec!["/a.*", "/a|/ab", "/a/[a-c]", "/", ".*b"]).prop_map(|text| PathMatch::Regex(text.into())),
        1 => select(vec!["/a", "/A(/|$)(.*)", "/", "/[ax]", "/a/b"]).prop_map(|text| PathMatch::RegexPrefix(text.into())),
    ]
}

fn values(names: [&'static str; 2]) -> impl Strategy<Value = Vec<ValueMatch>> {
    let value = prop_oneof![
        3 => select(vec!["1", "2", "1,2"]).prop_map(|text| StringMatch::Exact(text.into())),
        1 => select(vec!["1|2", "^2", ","]).prop_map(|text| StringMatch::Regex(text.into())),
    ];
    (subsequence(names.to_vec(), 0..=2), vec(value, 2)).prop_map(|(names, values)| {
        let pairs = names.into_iter().zip(values);
        pairs.map(|(name, value)| ValueMatch { name: name.into(), value }).collect()
    })
}

fn matches() -> impl Strategy<Value = HttpMatch> {
    let nothing = || Just(Vec::new());
    let method = of(select(vec!["GET", "POST"]).prop_map(String::from));
    (
        paths(),
        method,
        prop_oneof![2 => nothing(), 1 => values(["h1", "h2"])],
        prop_oneof![2 => nothing(), 1 => values(["q1", "q2"])],
    )
        .prop_map(|(path, method, headers, query)| HttpMatch { path, method, headers, query })
}

fn rules() -> impl Strategy<Value = Rule> {
    (vec(matches(), 1..3), prop_oneof![3 => Just(None), 1 => patterns().prop_map(Some)], any::<bool>()).prop_map(
        |(matches, host, broken)| Rule {
            name: None,
            matches,
            host,
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            broken,
        },
    )
}

pub fn gateway_keys() -> impl Strategy<Value = Key> {
    select(vec!["g1", "g2"]).prop_map(|name| Key::new(Kind::Gateway, "infra", name))
}

fn routes() -> impl Strategy<Value = (Key, Resource)> {
    let key =
        (select(vec![Kind::HttpRoute, Kind::Ingress]), select(vec!["n1", "n2"]), select(vec!["r1", "r2", "r3", "r4"]))
            .prop_map(|(kind, namespace, name)| Key::new(kind, namespace, name));
    let attachment = (gateway_keys(), select(vec!["l0", "l1", "l2", "l3"]), vec((patterns(), patterns()), 1..4))
        .prop_map(|(gateway, listener, hosts)| {
            // Sometimes the route's own hostname is wider than what it serves.
            let host = |(served, wide): (HostPattern, HostPattern)| {
                let declared = if wide.covers(&served) { wide } else { served.clone() };
                RouteHost { served, declared }
            };
            let hosts = hosts.into_iter().map(host).collect();
            Attachment { gateway, listener: listener.into(), hosts }
        });
    (key, of(0i64..3), vec(attachment, 1..8), vec(rules(), 1..4)).prop_map(|(key, created, attachments, rules)| {
        (key, Resource::Route(Route { generation: 1, created, attachments, rules, needs: Vec::new() }))
    })
}

fn gateways() -> impl Strategy<Value = (Key, Resource)> {
    let listener = (select(PORTS.to_vec()), patterns(), subsequence(vec!["c1", "c2"], 0..=2));
    (gateway_keys(), vec(listener, 1..5), 1u8..4).prop_map(|(key, listeners, address)| {
        let listeners = listeners.into_iter().enumerate().map(|(number, (port, hostname, certificates))| Listener {
            name: format!("l{number}"),
            port,
            protocol: if port == 443 { Protocol::Https } else { Protocol::Http },
            hostname,
            certificates: certificates.into_iter().map(certificate_key).collect(),
            versions: TlsVersions::default(),
            clients: None,
        });
        let address = GatewayAddress::Loopback(address);
        (key, Resource::Gateway(Gateway { generation: 1, address, listeners: listeners.collect() }))
    })
}

fn certificate_key(name: &str) -> Key {
    Key::new(Kind::Certificate, "infra", name)
}

fn certificates() -> impl Strategy<Value = (Key, Resource)> {
    let names = subsequence(vec!["a.test", "*.a.test", "other"], 1..3);
    (select(vec!["c1", "c2"]), names).prop_map(|(name, dns_names)| {
        let dns_names = dns_names.into_iter().map(String::from).collect();
        let certificate = Certificate { chain: Vec::new(), key_hash: [0; 32], dns_names, not_after: 0 };
        (certificate_key(name), Resource::Certificate(certificate))
    })
}

fn service_keys() -> impl Strategy<Value = Key> {
    select(vec!["s1", "s2"]).prop_map(|name| Key::new(Kind::Service, "n1", name))
}

fn services() -> impl Strategy<Value = (Key, Resource)> {
    let port = (select(vec!["", "http"]), 80u16..82, any::<bool>()).prop_map(|(name, port, h2c)| ServicePort {
        name: name.into(),
        port,
        app: if h2c { AppProtocol::H2c } else { AppProtocol::Http1 },
    });
    let distribution = select(vec![
        TrafficDistribution::Any,
        TrafficDistribution::PreferSameZone,
        TrafficDistribution::PreferSameNode,
    ]);
    (service_keys(), vec(port, 0..3), distribution, any::<bool>()).prop_map(
        |(key, ports, distribution, internal_local)| {
            let affinity = SessionAffinity::None;
            (key, Resource::Service(Service { ports, affinity, distribution, internal_local }))
        },
    )
}

fn slices() -> impl Strategy<Value = (Key, Resource)> {
    let node = of(select(vec!["m1", "m2"]).prop_map(String::from));
    let zone = || select(vec!["z1", "z2"]).prop_map(String::from);
    let endpoint = (1u8..5, node, of(zone()), vec(zone(), 0..2), any::<(bool, bool, bool)>()).prop_map(
        |(last, node, zone, for_zones, (ready, serving, terminating))| {
            let address = [10, 0, 0, last].into();
            let (pod, for_nodes) = (None, Vec::new());
            Endpoint { address, node, zone, pod, ready, serving, terminating, for_zones, for_nodes }
        },
    );
    let port = (select(vec!["", "http"]).prop_map(String::from), 8080u16..8082);
    (service_keys(), 0u8..3, vec(port, 0..3), vec(endpoint, 0..5)).prop_map(|(service, number, ports, endpoints)| {
        let key = Key::new(Kind::Endpoints, "n1", &format!("slice-{number}"));
        (key, Resource::Endpoints(EndpointSlice { service, ports, endpoints }))
    })
}

/// Both Gateways and many routes.
pub fn world() -> impl Strategy<Value = BTreeMap<Key, Arc<Resource>>> {
    (vec(gateways(), 4), vec(routes(), 4..16)).prop_map(|(gateways, routes)| {
        gateways.into_iter().chain(routes).map(|(key, resource)| (key, Arc::new(resource))).collect()
    })
}

/// Resources of all kinds.
pub fn any_resource() -> impl Strategy<Value = (Key, Arc<Resource>)> {
    prop_oneof![2 => gateways(), 5 => routes(), 1 => certificates(), 2 => services(), 4 => slices()]
        .prop_map(|(key, resource)| (key, Arc::new(resource)))
}
