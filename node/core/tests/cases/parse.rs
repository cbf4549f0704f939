//! The compact form of resources in `testdata`. Indented lines belong to the one above.
//!
//! ```text
//! gateway NS/NAME loopback=G
//!   listener NAME PORT http|https HOST [cert=NS/NAME,...]
//! route NS/NAME [created=SECONDS] [needs=FEATURE]        (an HTTPRoute; `ingress` likewise)
//!   attach NS/GATEWAY LISTENER HOST[<DECLARED] [HOST...]
//!   rule [NAME] [host=HOST] [broken]
//!     match exact|prefix|regex|regexprefix PATH [METHOD] [header:NAME=VALUE|~REGEX] [query:NAME=VALUE|~REGEX]
//!     to NS/SERVICE:PORT [weight=N]
//!     redirect STATUS [scheme=] [host=] [port=] [path=] [prefix=] [location=] [unless-tls]
//!     rewrite [host=] [path=] [prefix=] [template=]
//!     mirror NS/SERVICE:PORT NUMERATOR/DENOMINATOR
//!     cors ORIGIN [ORIGIN...]
//!     retry ATTEMPTS [STATUS...]
//!     timeout MILLISECONDS
//! service NS/NAME PORT[=PORTNAME][/h2c] ...
//! slice NS/NAME of=NS/SERVICE PORT[=PORTNAME] ...
//!   endpoint ADDRESS [node=NAME] [notready|terminating|draining]
//! certificate NS/NAME DNSNAME ...
//! ```
//!
//! Hosts: `name`, `*.suffix`, `?.suffix` (exactly one label), `*`. A draining endpoint terminates
//! and still serves.

use std::sync::Arc;
use std::time::Duration;

use meshgate_core::snapshot::*;
use meshgate_core::table::Change;

struct Line<'t> {
    depth: usize,
    words: Vec<&'t str>,
}

impl<'t> Line<'t> {
    fn word(&self, at: usize) -> &'t str {
        self.words.get(at).unwrap_or_else(|| panic!("word {at} is missing in {:?}", self.words))
    }

    fn rest(&self, from: usize) -> &[&'t str] {
        self.words.get(from..).unwrap_or_default()
    }

    fn option(&self, name: &str) -> Option<&'t str> {
        self.words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }
}

/// Parses resources; `gone KIND NS/NAME` is a change that takes one away.
pub fn resources(text: &str) -> Vec<Change> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    let lines: Vec<Line<'_>> = lines
        .map(|line| Line {
            depth: (line.len() - line.trim_start().len()) / 2,
            words: line.split_whitespace().collect(),
        })
        .collect();
    blocks(&lines).map(|(head, body)| resource(head, body)).collect()
}

/// Splits lines into blocks: a line and those that are indented deeper.
fn blocks<'l, 't>(lines: &'l [Line<'t>]) -> impl Iterator<Item = (&'l Line<'t>, &'l [Line<'t>])> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        let (head, after) = rest.split_first()?;
        let length = after.iter().position(|line| line.depth <= head.depth).unwrap_or(after.len());
        let (body, next) = after.split_at(length);
        rest = next;
        Some((head, body))
    })
}

fn resource(head: &Line<'_>, body: &[Line<'_>]) -> Change {
    if head.word(0) == "gone" {
        return (key(kind(head.word(1)), head.word(2)), None);
    }
    let resource = match head.word(0) {
        "gateway" => gateway(head, body),
        "route" | "ingress" => route(head, body),
        "service" => Resource::Service(Service {
            ports: head.rest(2).iter().map(|word| service_port(word)).collect(),
            affinity: SessionAffinity::None,
            distribution: TrafficDistribution::Any,
            internal_local: false,
        }),
        "slice" => slice(head, body),
        "certificate" => Resource::Certificate(Certificate {
            chain: Vec::new(),
            key_hash: [0; 32],
            dns_names: head.rest(2).iter().map(ToString::to_string).collect(),
            not_after: 0,
        }),
        other => panic!("unknown resource {other:?}"),
    };
    (key(kind(head.word(0)), head.word(1)), Some(Arc::new(resource)))
}

fn kind(word: &str) -> Kind {
    match word {
        "gateway" => Kind::Gateway,
        "route" => Kind::HttpRoute,
        "ingress" => Kind::Ingress,
        "service" => Kind::Service,
        "slice" => Kind::Endpoints,
        "certificate" => Kind::Certificate,
        other => panic!("unknown kind {other:?}"),
    }
}

/// A key from `NS/NAME`.
pub fn key(kind: Kind, name: &str) -> Key {
    let (namespace, name) = name.split_once('/').unwrap_or_else(|| panic!("{name:?} has no namespace"));
    Key::new(kind, namespace, name)
}

fn host(word: &str) -> HostPattern {
    match word.split_at(word.len().min(2)) {
        ("*", "") => HostPattern::Any,
        ("*.", suffix) => HostPattern::Wildcard(suffix.into()),
        ("?.", suffix) => HostPattern::WildcardOneLabel(suffix.into()),
        _ => HostPattern::Exact(word.into()),
    }
}

/// `SERVED` or, where the route's own hostname is another, `SERVED<DECLARED`.
fn route_host(word: &str) -> RouteHost {
    let (served, declared) = word.split_once('<').unwrap_or((word, word));
    RouteHost { served: host(served), declared: host(declared) }
}

fn number<N: std::str::FromStr>(word: &str) -> N {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is no number"))
}

fn gateway(head: &Line<'_>, body: &[Line<'_>]) -> Resource {
    let listener = |line: &Line<'_>| Listener {
        name: line.word(1).into(),
        port: number(line.word(2)),
        protocol: if line.word(3) == "https" { Protocol::Https } else { Protocol::Http },
        hostname: host(line.word(4)),
        certificates: line
            .option("cert")
            .iter()
            .flat_map(|list| list.split(','))
            .map(|name| key(Kind::Certificate, name))
            .collect(),
        versions: TlsVersions::default(),
        clients: None,
    };
    Resource::Gateway(Gateway {
        generation: 1,
        address: GatewayAddress::Loopback(number(head.option("loopback").unwrap_or("1"))),
        listeners: body.iter().map(listener).collect(),
    })
}

fn route(head: &Line<'_>, body: &[Line<'_>]) -> Resource {
    let attach = |line: &Line<'_>| Attachment {
        gateway: key(Kind::Gateway, line.word(1)),
        listener: line.word(2).into(),
        hosts: line.rest(3).iter().map(|word| route_host(word)).collect(),
    };
    Resource::Route(Route {
        generation: 1,
        created: head.option("created").map(number),
        attachments: body.iter().filter(|line| line.word(0) == "attach").map(attach).collect(),
        rules: blocks(body).filter(|(head, _)| head.word(0) == "rule").map(|(head, body)| rule(head, body)).collect(),
        needs: head.option("needs").map(number).into_iter().collect(),
    })
}

fn rule(head: &Line<'_>, body: &[Line<'_>]) -> Rule {
    let of = |word: &'static str| body.iter().filter(move |line| line.word(0) == word);
    let name = head.words.get(1).filter(|word| !word.contains('=') && **word != "broken");
    let redirects = of("redirect").map(|line| {
        Filter::Redirect(Redirect {
            scheme: line.option("scheme").map(Into::into),
            hostname: line.option("host").map(Into::into),
            path: path_rewrite(line),
            port: line.option("port").map(number),
            status: number(line.word(1)),
            location: line.option("location").map(Into::into),
            unless_tls: line.has("unless-tls"),
        })
    });
    let rewrites = of("rewrite").map(|line| {
        Filter::Rewrite(Rewrite { hostname: line.option("host").map(Into::into), path: path_rewrite(line) })
    });
    let mirrors = of("mirror").map(|line| {
        let (numerator, denominator) = line.word(2).split_once('/').unwrap_or_else(|| panic!("{:?}", line.words));
        let (numerator, denominator) = (number(numerator), number(denominator));
        Filter::Mirror(Mirror { target: backend(line).target, denominator, numerator })
    });
    let cors = of("cors").map(|line| {
        let allow_origins = line.rest(1).iter().map(ToString::to_string).collect();
        Filter::Cors(Cors { allow_origins, max_age: 5, ..Cors::default() })
    });
    Rule {
        name: name.map(ToString::to_string),
        matches: of("match").map(http_match).collect(),
        host: head.option("host").map(host),
        filters: redirects.chain(rewrites).chain(mirrors).chain(cors).collect(),
        backends: of("to").map(backend).collect(),
        timeouts: Timeouts {
            request: of("timeout").next().map(|line| Duration::from_millis(number(line.word(1)))),
            ..Timeouts::default()
        },
        retry: of("retry").next().map(|line| Retry {
            codes: line.rest(2).iter().map(|word| number(word)).collect(),
            attempts: number(line.word(1)),
            backoff: None,
        }),
        broken: head.has("broken"),
    }
}

fn path_rewrite(line: &Line<'_>) -> Option<PathRewrite> {
    let full = line.option("path").map(|path| PathRewrite::Full(path.into()));
    let prefix = line.option("prefix").map(|prefix| PathRewrite::Prefix(prefix.into()));
    full.or(prefix).or_else(|| line.option("template").map(|text| PathRewrite::Template(text.into())))
}

fn backend(line: &Line<'_>) -> Backend {
    let (service, port) = line.word(1).split_once(':').unwrap_or_else(|| panic!("{:?} has no port", line.words));
    Backend {
        target: BackendTarget::Service { service: key(Kind::Service, service), port: number(port) },
        weight: line.option("weight").map_or(1, number),
        filters: Vec::new(),
    }
}

fn http_match(line: &Line<'_>) -> HttpMatch {
    let path = line.word(2).to_owned();
    let values = |prefix: &str| {
        line.words.iter().filter_map(|word| word.strip_prefix(prefix)).map(value_match).collect::<Vec<_>>()
    };
    HttpMatch {
        path: match line.word(1) {
            "exact" => PathMatch::Exact(path),
            "prefix" => PathMatch::Prefix(path),
            "regex" => PathMatch::Regex(path),
            "regexprefix" => PathMatch::RegexPrefix(path),
            other => panic!("unknown path match {other:?}"),
        },
        method: line.rest(3).iter().find(|word| word.chars().all(char::is_uppercase)).map(ToString::to_string),
        headers: values("header:"),
        query: values("query:"),
    }
}

fn value_match(text: &str) -> ValueMatch {
    let at = text.find(['=', '~']).unwrap_or_else(|| panic!("{text:?} has no value"));
    let (name, value) = text.split_at(at);
    let value = match value.split_at(1) {
        ("=", exact) => StringMatch::Exact(exact.into()),
        (_, regex) => StringMatch::Regex(regex.into()),
    };
    ValueMatch { name: name.into(), value }
}

/// `PORT[=PORTNAME][/h2c]`.
fn service_port(word: &str) -> ServicePort {
    let (word, app) = match word.strip_suffix("/h2c") {
        Some(word) => (word, AppProtocol::H2c),
        None => (word, AppProtocol::Http1),
    };
    let (port, name) = word.split_once('=').unwrap_or((word, ""));
    ServicePort { name: name.into(), port: number(port), app }
}

fn slice(head: &Line<'_>, body: &[Line<'_>]) -> Resource {
    let endpoint = |line: &Line<'_>| Endpoint {
        address: number(line.word(1)),
        node: line.option("node").map(Into::into),
        zone: None,
        pod: None,
        ready: !line.has("notready") && !line.has("terminating") && !line.has("draining"),
        serving: !line.has("notready") && !line.has("terminating"),
        terminating: line.has("terminating") || line.has("draining"),
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    };
    let ports = head.rest(3).iter().map(|word| service_port(word));
    Resource::Endpoints(EndpointSlice {
        service: key(Kind::Service, head.option("of").unwrap_or_else(|| panic!("{:?} has no of=", head.words))),
        ports: ports.map(|port| (port.name, port.port)).collect(),
        endpoints: body.iter().map(endpoint).collect(),
    })
}
