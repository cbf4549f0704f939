//! Resources made by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use meshgate_core::snapshot::{
    AppProtocol, Attachment, Backend, BackendTarget, Certificate, Endpoint, EndpointSlice, Filter, Gateway,
    GatewayAddress, HeadId, HostPattern, HttpMatch, Key, Kind, Listener, PathMatch, Protocol, Resource, Route,
    RouteHost, Rule, Service, ServicePort, SessionAffinity, Timeouts,
};
use meshgate_core::table::{Change, Place, Table};

/// The resources of a mesh.
#[derive(Clone, Default)]
pub struct Resources {
    node: Option<Arc<str>>,
    /// What tables were made of until now.
    told: Arc<Mutex<BTreeSet<Key>>>,
    pub all: BTreeMap<Key, Arc<Resource>>,
}

pub fn gateway_key() -> Key {
    Key::new(Kind::Gateway, "default", "web")
}

pub fn route_key(name: &str) -> Key {
    Key::new(Kind::HttpRoute, "default", name)
}

pub fn service_key(name: &str) -> Key {
    Key::new(Kind::Service, "default", name)
}

pub fn certificate_key(name: &str) -> Key {
    Key::new(Kind::Certificate, "default", name)
}

/// A listener for all hosts, or for one.
pub fn listener(name: &str, port: u16, host: Option<&str>, certificate: Option<&str>) -> Listener {
    let hostname = host.map_or(HostPattern::Any, |host| HostPattern::Exact(host.to_owned()));
    let protocol = if certificate.is_some() { Protocol::Https } else { Protocol::Http };
    let certificates = certificate.map(certificate_key).into_iter().collect();
    Listener {
        name: name.to_owned(),
        port,
        protocol,
        hostname,
        certificates,
        versions: Default::default(),
        clients: None,
    }
}

/// A rule for all requests below a prefix, to one Service's port 80.
pub fn rule(path: PathMatch, services: &[(&str, u32)]) -> Rule {
    Rule {
        name: None,
        matches: vec![HttpMatch { path, method: None, headers: Vec::new(), query: Vec::new() }],
        host: None,
        filters: Vec::new(),
        backends: services.iter().map(|(service, weight)| backend(service, *weight)).collect(),
        timeouts: Timeouts::default(),
        retry: None,
        broken: false,
    }
}

pub fn prefix(path: &str, service: &str) -> Rule {
    rule(PathMatch::Prefix(path.to_owned()), &[(service, 1)])
}

pub fn filtered(path: &str, service: &str, filter: Filter) -> Rule {
    Rule { filters: vec![filter], ..prefix(path, service) }
}

fn backend(service: &str, weight: u32) -> Backend {
    let target = BackendTarget::Service { service: service_key(service), port: 80 };
    Backend { target, weight, filters: Vec::new() }
}

impl Resources {
    /// Nothing yet, for the tables of a node.
    pub fn at(node: &str) -> Resources {
        Resources { node: Some(node.into()), ..Resources::default() }
    }

    pub fn put(&mut self, key: Key, resource: Resource) {
        self.all.insert(key, Arc::new(resource));
    }

    pub fn gateway(&mut self, addresses: Vec<IpAddr>, listeners: Vec<Listener>) {
        let gateway = Gateway { generation: 1, address: GatewayAddress::Fixed(addresses), listeners };
        self.put(gateway_key(), Resource::Gateway(gateway));
    }

    /// A route on listeners, each with a host.
    pub fn route(&mut self, name: &str, listeners: &[(&str, HostPattern)], rules: Vec<Rule>) {
        let attachments = listeners
            .iter()
            .map(|(listener, host)| Attachment {
                gateway: gateway_key(),
                listener: (*listener).to_owned(),
                hosts: vec![RouteHost::named(host.clone())],
            })
            .collect();
        let route = Route { generation: 1, created: None, attachments, rules, needs: Vec::new() };
        self.put(route_key(name), Resource::Route(route));
    }

    pub fn service(&mut self, name: &str, app: AppProtocol, endpoints: &[(SocketAddr, Option<&str>)]) {
        let ports = vec![ServicePort { name: "http".into(), port: 80, app }];
        self.put(
            service_key(name),
            Resource::Service(Service {
                ports,
                affinity: SessionAffinity::None,
                distribution: Default::default(),
                internal_local: false,
            }),
        );
        self.endpoints(name, endpoints);
    }

    /// One slice an endpoint, so that each may have a port of its own.
    pub fn endpoints(&mut self, name: &str, endpoints: &[(SocketAddr, Option<&str>)]) {
        let own = format!("{name}-slice-");
        self.all.retain(|key, _| !(key.kind == Kind::Endpoints && key.name.starts_with(&own)));
        for (index, (address, node)) in endpoints.iter().enumerate() {
            let endpoint = Endpoint {
                address: address.ip(),
                node: node.map(str::to_owned),
                zone: None,
                pod: Some(format!("{name}-{index}")),
                ready: true,
                serving: true,
                terminating: false,
                for_zones: vec![],
                for_nodes: vec![],
            };
            let slice = EndpointSlice {
                service: service_key(name),
                ports: vec![("http".into(), address.port())],
                endpoints: vec![endpoint],
            };
            self.put(Key::new(Kind::Endpoints, "default", &format!("{own}{index}")), Resource::Endpoints(slice));
        }
    }

    pub fn certificate(&mut self, name: &str, certificate: Certificate) {
        self.put(certificate_key(name), Resource::Certificate(certificate));
    }

    /// The table of these resources alone.
    pub fn table(&self, rev: u64) -> Table {
        self.update(&Table::at(Place { node: self.node.clone(), zone: None }), rev)
    }

    /// The table after `old`.
    pub fn update(&self, old: &Table, rev: u64) -> Table {
        let gone =
            self.told.lock().unwrap().iter().filter(|key| !self.all.contains_key(key)).cloned().collect::<Vec<_>>();
        let kept = self.all.iter().map(|(key, one)| (key.clone(), Some(Arc::clone(one))));
        let changes: Vec<Change> = gone.into_iter().map(|key| (key, None)).chain(kept).collect();
        self.told.lock().unwrap().extend(self.all.keys().cloned());
        let (table, held) = old.update(HeadId { epoch: 1, rev }, &changes);
        assert!(held.is_empty(), "{held:?}");
        table
    }
}
