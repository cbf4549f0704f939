//! One resource of each kind with every field set, for tests.

use std::net::IpAddr;
use std::time::Duration;

use meshgate_core::snapshot::{
    AppProtocol, Attachment, Backend, BackendTarget, Certificate, ClientValidation, ClientValidationMode, Cors,
    Endpoint, EndpointSlice, Filter, Gateway, GatewayAddress, HeaderModifier, HostPattern, HttpMatch, Key, Kind,
    Listener, Mirror, PathMatch, PathRewrite, Protocol, Redirect, Resource, Retry, Rewrite, Route, RouteHost, Rule,
    Service, ServicePort, SessionAffinity, StringMatch, Timeouts, TlsVersion, TlsVersions, TrafficDistribution,
    TrustBundle, ValueMatch,
};

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// The examples by key.
pub fn resources() -> Vec<(Key, Resource)> {
    vec![
        (Key::new(Kind::Gateway, "shop", "fixed"), gateway(GatewayAddress::Fixed(addresses()))),
        (Key::new(Kind::Gateway, "shop", "web"), gateway(GatewayAddress::Loopback(7))),
        (Key::new(Kind::HttpRoute, "shop", "cart"), Resource::Route(route())),
        (Key::new(Kind::Ingress, "shop", "old"), Resource::Route(Route { created: None, ..route() })),
        (Key::new(Kind::Service, "shop", "cart"), service()),
        (Key::new(Kind::Certificate, "shop", "tls"), certificate()),
        (Key::new(Kind::Endpoints, "shop", "cart-1"), endpoints()),
        (Key::new(Kind::TrustBundle, "shop", "configmap/clients"), trust_bundle()),
    ]
}

fn addresses() -> Vec<IpAddr> {
    vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]
}

fn gateway(address: GatewayAddress) -> Resource {
    let listener = |name: &str, protocol, hostname| Listener {
        name: name.to_owned(),
        port: 443,
        protocol,
        hostname,
        certificates: vec![Key::new(Kind::Certificate, "shop", "tls")],
        versions: TlsVersions { min: Some(TlsVersion::V12), max: Some(TlsVersion::V13) },
        clients: (protocol == Protocol::Https).then(|| ClientValidation {
            trust: vec![Key::new(Kind::TrustBundle, "shop", "configmap/clients")],
            mode: ClientValidationMode::AllowInsecureFallback,
        }),
    };
    Resource::Gateway(Gateway {
        generation: 3,
        address,
        listeners: vec![
            listener("a", Protocol::Https, HostPattern::Exact("a.example".to_owned())),
            listener("b", Protocol::Https, HostPattern::Wildcard("example".to_owned())),
            listener("c", Protocol::Http, HostPattern::WildcardOneLabel("example".to_owned())),
            listener("d", Protocol::Http, HostPattern::Any),
        ],
    })
}

fn route() -> Route {
    Route {
        generation: 9,
        created: Some(-1),
        attachments: vec![Attachment {
            gateway: Key::new(Kind::Gateway, "shop", "web"),
            listener: "a".to_owned(),
            hosts: vec![
                RouteHost::named(HostPattern::Exact("a.example".to_owned())),
                RouteHost {
                    served: HostPattern::Exact("b.example".to_owned()),
                    declared: HostPattern::Wildcard("example".to_owned()),
                },
            ],
        }],
        rules: vec![
            rule(PathMatch::Exact("/a".to_owned())),
            rule(PathMatch::Prefix("/".to_owned())),
            rule(PathMatch::RegexPrefix("/b".to_owned())),
        ],
        needs: vec![1, 300],
    }
}

fn rule(path: PathMatch) -> Rule {
    let value = |value| ValueMatch { name: "x".to_owned(), value };
    Rule {
        name: Some("first".to_owned()),
        matches: vec![
            HttpMatch { path, method: Some("GET".to_owned()), headers: vec![], query: vec![] },
            HttpMatch {
                path: PathMatch::Regex("/v[0-9]+".to_owned()),
                method: None,
                headers: vec![value(StringMatch::Exact("1".to_owned()))],
                query: vec![value(StringMatch::Regex("^a".to_owned()))],
            },
        ],
        host: Some(HostPattern::Any),
        filters: filters(),
        backends: vec![
            Backend {
                target: BackendTarget::Service { service: Key::new(Kind::Service, "shop", "cart"), port: 80 },
                weight: 9,
                filters: filters(),
            },
            Backend {
                target: BackendTarget::Invalid { reason: "BackendNotFound".to_owned() },
                weight: 0,
                filters: vec![],
            },
        ],
        timeouts: Timeouts {
            request: Some(Duration::ZERO),
            backend_request: Some(Duration::from_millis(1500)),
            idle: Some(Duration::from_secs(60)),
        },
        retry: Some(Retry { codes: vec![500, 503], attempts: 2, backoff: Some(Duration::from_millis(100)) }),
        broken: true,
    }
}

fn filters() -> Vec<Filter> {
    let modifier = HeaderModifier {
        set: vec![pair("x-set", "1")],
        add: vec![pair("x-add", "2")],
        remove: vec!["x-gone".to_owned()],
    };
    vec![
        Filter::RequestHeaders(modifier.clone()),
        Filter::ResponseHeaders(modifier),
        Filter::Redirect(Redirect {
            scheme: Some("https".to_owned()),
            hostname: Some("b.example".to_owned()),
            path: Some(PathRewrite::Full("/".to_owned())),
            port: Some(8443),
            status: 308,
            location: Some("https://c.example/".to_owned()),
            unless_tls: true,
        }),
        Filter::Rewrite(Rewrite { hostname: None, path: Some(PathRewrite::Prefix("/new".to_owned())) }),
        Filter::Rewrite(Rewrite { hostname: None, path: Some(PathRewrite::Template("/$1".to_owned())) }),
        Filter::Mirror(Mirror {
            target: BackendTarget::Service { service: Key::new(Kind::Service, "shop", "copy"), port: 80 },
            denominator: 100,
            numerator: 35,
        }),
        Filter::Cors(Cors {
            allow_origins: vec!["https://*.example".to_owned()],
            allow_credentials: true,
            allow_methods: vec!["GET".to_owned(), "PUT".to_owned()],
            allow_headers: vec!["x-a".to_owned()],
            expose_headers: vec!["x-b".to_owned()],
            max_age: 5,
        }),
    ]
}

fn service() -> Resource {
    let port = |name: &str, port, app| ServicePort { name: name.to_owned(), port, app };
    Resource::Service(Service {
        ports: vec![port("http", 80, AppProtocol::Http1), port("grpc", 9000, AppProtocol::H2c)],
        affinity: SessionAffinity::ClientIp { timeout: Duration::from_secs(10_800) },
        distribution: TrafficDistribution::PreferSameZone,
        internal_local: true,
    })
}

fn certificate() -> Resource {
    Resource::Certificate(Certificate {
        chain: vec![vec![1, 2, 3], vec![4]],
        key_hash: [7; 32],
        dns_names: vec!["a.example".to_owned(), "*.example".to_owned()],
        not_after: 1_800_000_000,
    })
}

fn endpoints() -> Resource {
    let endpoint = |address: IpAddr, node: Option<&str>| Endpoint {
        address,
        node: node.map(str::to_owned),
        zone: node.map(|node| format!("zone of {node}")),
        pod: node.map(|node| format!("pod on {node}")),
        ready: node.is_some(),
        serving: true,
        terminating: node.is_none(),
        for_zones: vec!["zone-1".to_owned()],
        for_nodes: vec!["node-a".to_owned()],
    };
    Resource::Endpoints(EndpointSlice {
        service: Key::new(Kind::Service, "shop", "cart"),
        ports: vec![("http".to_owned(), 8080)],
        endpoints: vec![
            endpoint("10.0.0.1".parse().unwrap(), Some("node-a")),
            endpoint("2001:db8::2".parse().unwrap(), None),
        ],
    })
}

fn trust_bundle() -> Resource {
    Resource::TrustBundle(TrustBundle { certificates: vec![vec![1, 2, 3], vec![4]] })
}
