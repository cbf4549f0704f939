//! Resources to values. The same resource always gives the same bytes.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use meshgate_core::snapshot::{
    AppProtocol, Attachment, Backend, BackendTarget, Certificate, Endpoint, EndpointSlice, Filter, Gateway,
    GatewayAddress, HeaderModifier, HostPattern, HttpMatch, Listener, PathMatch, PathRewrite, Protocol, Redirect,
    Resource, Rewrite, Route, Rule, Service, SessionAffinity, StringMatch, ValueMatch,
};
use meshgate_proto::snapshot as pb;
use prost::Message;

use crate::commit::key_to_proto;

/// Encodes a resource. [`Resource::Unknown`] has no encoding of its own (its bytes are kept as
/// they were received): it gives an empty value.
pub fn encode(resource: &Resource) -> Bytes {
    match resource {
        Resource::Gateway(gateway) => gateway_message(gateway).encode_to_vec().into(),
        Resource::Route(route) => route_message(route).encode_to_vec().into(),
        Resource::Service(service) => service_message(service).encode_to_vec().into(),
        Resource::Certificate(certificate) => certificate_message(certificate).encode_to_vec().into(),
        Resource::Endpoints(slice) => endpoints_message(slice).encode_to_vec().into(),
        Resource::Unknown => Bytes::new(),
    }
}

fn gateway_message(gateway: &Gateway) -> pb::Gateway {
    let address = match &gateway.address {
        GatewayAddress::Loopback(number) => pb::gateway::Address::Loopback(u32::from(*number)),
        GatewayAddress::Fixed(addresses) => {
            pb::gateway::Address::Fixed(pb::FixedAddress { addresses: addresses.iter().map(ip).collect() })
        }
    };
    pb::Gateway {
        needs: Vec::new(),
        generation: gateway.generation,
        address: Some(address),
        listeners: gateway.listeners.iter().map(listener).collect(),
    }
}

fn listener(listener: &Listener) -> pb::Listener {
    let protocol = match listener.protocol {
        Protocol::Http => pb::Protocol::Http,
        Protocol::Https => pb::Protocol::Https,
    };
    pb::Listener {
        name: listener.name.clone(),
        port: u32::from(listener.port),
        protocol: protocol.into(),
        hostname: Some(host(&listener.hostname)),
        certificates: listener.certificates.iter().map(key_to_proto).collect(),
    }
}

fn host(pattern: &HostPattern) -> pb::HostPattern {
    use pb::host_pattern::Pattern;
    let pattern = match pattern {
        HostPattern::Exact(name) => Pattern::Exact(name.clone()),
        HostPattern::Wildcard(suffix) => Pattern::Wildcard(suffix.clone()),
        HostPattern::WildcardOneLabel(suffix) => Pattern::WildcardOneLabel(suffix.clone()),
        HostPattern::Any => Pattern::Any(pb::Any {}),
    };
    pb::HostPattern { pattern: Some(pattern) }
}

fn route_message(route: &Route) -> pb::Route {
    pb::Route {
        needs: route.needs.clone(),
        generation: route.generation,
        created: route.created,
        attachments: route.attachments.iter().map(attachment).collect(),
        rules: route.rules.iter().map(rule).collect(),
    }
}

fn attachment(attachment: &Attachment) -> pb::Attachment {
    pb::Attachment {
        gateway: Some(key_to_proto(&attachment.gateway)),
        listener: attachment.listener.clone(),
        hosts: attachment.hosts.iter().map(host).collect(),
    }
}

fn rule(rule: &Rule) -> pb::Rule {
    pb::Rule {
        name: rule.name.clone(),
        matches: rule.matches.iter().map(http_match).collect(),
        host: rule.host.as_ref().map(host),
        filters: rule.filters.iter().map(filter).collect(),
        backends: rule.backends.iter().map(backend).collect(),
        request_timeout_ns: rule.timeouts.request.map(nanos),
        backend_request_timeout_ns: rule.timeouts.backend_request.map(nanos),
        broken: rule.broken,
    }
}

fn http_match(matcher: &HttpMatch) -> pb::HttpMatch {
    use pb::path_match::Path;
    let path = match &matcher.path {
        PathMatch::Exact(path) => Path::Exact(path.clone()),
        PathMatch::Prefix(path) => Path::Prefix(path.clone()),
        PathMatch::Regex(regex) => Path::Regex(regex.clone()),
    };
    pb::HttpMatch {
        path: Some(pb::PathMatch { path: Some(path) }),
        method: matcher.method.clone(),
        headers: matcher.headers.iter().map(value_match).collect(),
        query: matcher.query.iter().map(value_match).collect(),
    }
}

fn value_match(matcher: &ValueMatch) -> pb::ValueMatch {
    use pb::value_match::Value;
    let value = match &matcher.value {
        StringMatch::Exact(value) => Value::Exact(value.clone()),
        StringMatch::Regex(regex) => Value::Regex(regex.clone()),
    };
    pb::ValueMatch { name: matcher.name.clone(), value: Some(value) }
}

fn filter(filter: &Filter) -> pb::Filter {
    use pb::filter::Filter as Kind;
    let filter = match filter {
        Filter::RequestHeaders(modifier) => Kind::RequestHeaders(header_modifier(modifier)),
        Filter::ResponseHeaders(modifier) => Kind::ResponseHeaders(header_modifier(modifier)),
        Filter::Redirect(to) => Kind::Redirect(redirect(to)),
        Filter::Rewrite(Rewrite { hostname, path }) => {
            Kind::Rewrite(pb::Rewrite { hostname: hostname.clone(), path: path.as_ref().map(path_rewrite) })
        }
    };
    pb::Filter { filter: Some(filter) }
}

fn header_modifier(modifier: &HeaderModifier) -> pb::HeaderModifier {
    let headers = |list: &[(String, String)]| {
        list.iter().map(|(name, value)| pb::Header { name: name.clone(), value: value.clone() }).collect()
    };
    pb::HeaderModifier { set: headers(&modifier.set), add: headers(&modifier.add), remove: modifier.remove.clone() }
}

fn redirect(redirect: &Redirect) -> pb::Redirect {
    pb::Redirect {
        scheme: redirect.scheme.clone(),
        hostname: redirect.hostname.clone(),
        path: redirect.path.as_ref().map(path_rewrite),
        port: redirect.port.map(u32::from),
        status: u32::from(redirect.status),
    }
}

fn path_rewrite(rewrite: &PathRewrite) -> pb::PathRewrite {
    use pb::path_rewrite::Rewrite;
    let rewrite = match rewrite {
        PathRewrite::Full(path) => Rewrite::Full(path.clone()),
        PathRewrite::Prefix(prefix) => Rewrite::Prefix(prefix.clone()),
    };
    pb::PathRewrite { rewrite: Some(rewrite) }
}

fn backend(backend: &Backend) -> pb::Backend {
    use pb::backend::Target;
    let target = match &backend.target {
        BackendTarget::Service { service, port } => {
            Target::Service(pb::ServiceRef { service: Some(key_to_proto(service)), port: u32::from(*port) })
        }
        BackendTarget::Invalid { reason } => Target::Invalid(reason.clone()),
    };
    pb::Backend { target: Some(target), weight: backend.weight, filters: backend.filters.iter().map(filter).collect() }
}

fn service_message(service: &Service) -> pb::Service {
    let affinity = match service.affinity {
        SessionAffinity::None => pb::SessionAffinity::None,
        SessionAffinity::ClientIp => pb::SessionAffinity::ClientIp,
    };
    let port = |port: &meshgate_core::snapshot::ServicePort| {
        let app = match port.app {
            AppProtocol::Http1 => pb::AppProtocol::Http1,
            AppProtocol::H2c => pb::AppProtocol::H2c,
        };
        pb::ServicePort { name: port.name.clone(), port: u32::from(port.port), app: app.into() }
    };
    pb::Service { needs: Vec::new(), ports: service.ports.iter().map(port).collect(), affinity: affinity.into() }
}

fn certificate_message(certificate: &Certificate) -> pb::Certificate {
    pb::Certificate {
        needs: Vec::new(),
        chain: certificate.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
        key_hash: Bytes::copy_from_slice(&certificate.key_hash),
        dns_names: certificate.dns_names.clone(),
        not_after: certificate.not_after,
    }
}

fn endpoints_message(slice: &EndpointSlice) -> pb::EndpointSlice {
    let port = |(name, port): &(String, u16)| pb::EndpointPort { name: name.clone(), port: u32::from(*port) };
    pb::EndpointSlice {
        needs: Vec::new(),
        service: Some(key_to_proto(&slice.service)),
        ports: slice.ports.iter().map(port).collect(),
        endpoints: slice.endpoints.iter().map(endpoint).collect(),
    }
}

fn endpoint(endpoint: &Endpoint) -> pb::Endpoint {
    pb::Endpoint {
        address: ip(&endpoint.address),
        node: endpoint.node.clone(),
        zone: endpoint.zone.clone(),
        pod: endpoint.pod.clone(),
        ready: endpoint.ready,
        serving: endpoint.serving,
        terminating: endpoint.terminating,
    }
}

fn ip(address: &IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    }
}

/// Whole nanoseconds; more than 584 years are that many.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
