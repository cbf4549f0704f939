//! Values to resources. Total: any bytes give a resource or an error, never a panic. Unknown
//! fields are ignored (the value's bytes are kept by whoever holds them); what must not be ignored
//! is named in `needs`.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use meshgate_core::snapshot::{
    AppProtocol, Attachment, Backend, BackendTarget, Certificate, Endpoint, EndpointSlice, Filter, Gateway,
    GatewayAddress, HeaderModifier, HostPattern, HttpMatch, Key, Kind, Listener, PathMatch, PathRewrite, Protocol,
    Redirect, Resource, Rewrite, Route, Rule, Service, ServicePort, SessionAffinity, StringMatch, Timeouts, ValueMatch,
};
use meshgate_proto::snapshot as pb;
use prost::Message;

use crate::MAX_VALUE_BYTES;
use crate::commit::key_from_proto;

/// Features that this version has for kinds that can't carry `needs` to the table (all but
/// routes).
const FEATURES: &[u32] = &[];

/// Why a value is no resource here. Such a resource is held back alone: its previous version goes
/// on serving.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The leader's fault, or a newer leader's: this version can't read it.
    #[error("cannot read it: {0}")]
    Malformed(String),
    /// Nobody's fault: it needs a newer peer.
    #[error("it needs features {0:?} that this version lacks")]
    Needs(Vec<u32>),
    /// The leader's fault.
    #[error("{0} bytes are over the limit of {MAX_VALUE_BYTES} for one resource")]
    TooLarge(usize),
}

type Decoded<T> = Result<T, DecodeError>;

/// Decodes the value of a resource of `kind`.
///
/// A route that needs features which this version lacks decodes, with its `needs`: the table
/// answers 500 for it. A filter that this version does not know breaks its rule for the same
/// reason: a policy that is ignored would fail open.
///
/// # Errors
/// The value can't be read by this version.
pub fn decode(kind: Kind, value: &Bytes) -> Result<Resource, DecodeError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(DecodeError::TooLarge(value.len()));
    }
    Ok(match kind {
        Kind::Gateway => Resource::Gateway(gateway(message(value)?)?),
        Kind::HttpRoute | Kind::Ingress => Resource::Route(route(message(value)?)?),
        Kind::Service => Resource::Service(service(message(value)?)?),
        Kind::Certificate => Resource::Certificate(certificate(message(value)?)?),
        Kind::Endpoints => Resource::Endpoints(endpoint_slice(message(value)?)?),
        Kind::Other(_) => Resource::Unknown,
    })
}

fn message<M: Message + Default>(value: &Bytes) -> Decoded<M> {
    M::decode(value.clone()).map_err(|error| DecodeError::Malformed(error.to_string()))
}

fn malformed(what: &str) -> DecodeError {
    DecodeError::Malformed(what.to_owned())
}

fn check_needs(needs: &[u32]) -> Decoded<()> {
    let lacking: Vec<u32> = needs.iter().copied().filter(|feature| !FEATURES.contains(feature)).collect();
    if lacking.is_empty() { Ok(()) } else { Err(DecodeError::Needs(lacking)) }
}

fn all<T, U>(list: Vec<T>, one: impl Fn(T) -> Decoded<U>) -> Decoded<Vec<U>> {
    list.into_iter().map(one).collect()
}

fn key(message: Option<pb::Key>) -> Decoded<Key> {
    message.and_then(key_from_proto).ok_or_else(|| malformed("a reference has no key"))
}

fn port(number: u32) -> Decoded<u16> {
    u16::try_from(number).map_err(|_| malformed("a port is out of range"))
}

fn ip(bytes: &[u8]) -> Decoded<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| malformed("an address is not 4 or 16 bytes"))
}

fn gateway(message: pb::Gateway) -> Decoded<Gateway> {
    check_needs(&message.needs)?;
    let address = match message.address {
        Some(pb::gateway::Address::Loopback(number)) => {
            GatewayAddress::Loopback(u8::try_from(number).map_err(|_| malformed("a loopback number is out of range"))?)
        }
        Some(pb::gateway::Address::Fixed(fixed)) => {
            GatewayAddress::Fixed(all(fixed.addresses, |address| ip(&address))?)
        }
        None => return Err(malformed("an unknown kind of address")),
    };
    Ok(Gateway { generation: message.generation, address, listeners: all(message.listeners, listener)? })
}

fn listener(message: pb::Listener) -> Decoded<Listener> {
    let protocol = match message.protocol() {
        pb::Protocol::Http => Protocol::Http,
        pb::Protocol::Https => Protocol::Https,
        pb::Protocol::Unspecified => return Err(malformed("an unknown protocol")),
    };
    Ok(Listener {
        name: message.name,
        port: port(message.port)?,
        protocol,
        hostname: host(message.hostname.unwrap_or_default())?,
        certificates: all(message.certificates, |certificate| key(Some(certificate)))?,
    })
}

fn host(message: pb::HostPattern) -> Decoded<HostPattern> {
    use pb::host_pattern::Pattern;
    match message.pattern {
        Some(Pattern::Exact(name)) => Ok(HostPattern::Exact(name)),
        Some(Pattern::Wildcard(suffix)) => Ok(HostPattern::Wildcard(suffix)),
        Some(Pattern::WildcardOneLabel(suffix)) => Ok(HostPattern::WildcardOneLabel(suffix)),
        Some(Pattern::Any(_)) => Ok(HostPattern::Any),
        None => Err(malformed("an unknown kind of host pattern")),
    }
}

fn route(message: pb::Route) -> Decoded<Route> {
    Ok(Route {
        generation: message.generation,
        created: message.created,
        attachments: all(message.attachments, attachment)?,
        rules: all(message.rules, rule)?,
        needs: message.needs,
    })
}

fn attachment(message: pb::Attachment) -> Decoded<Attachment> {
    Ok(Attachment { gateway: key(message.gateway)?, listener: message.listener, hosts: all(message.hosts, host)? })
}

fn rule(message: pb::Rule) -> Decoded<Rule> {
    let (filters, unknown) = filters(message.filters)?;
    let mut broken = message.broken || unknown;
    let mut backends = Vec::with_capacity(message.backends.len());
    for message in message.backends {
        let (backend, unknown) = backend(message)?;
        broken |= unknown;
        backends.push(backend);
    }
    Ok(Rule {
        name: message.name,
        matches: all(message.matches, http_match)?,
        host: message.host.map(host).transpose()?,
        filters,
        backends,
        timeouts: Timeouts {
            request: message.request_timeout_ns.map(Duration::from_nanos),
            backend_request: message.backend_request_timeout_ns.map(Duration::from_nanos),
        },
        broken,
    })
}

fn http_match(message: pb::HttpMatch) -> Decoded<HttpMatch> {
    use pb::path_match::Path;
    let path = match message.path.and_then(|path| path.path) {
        Some(Path::Exact(path)) => PathMatch::Exact(path),
        Some(Path::Prefix(path)) => PathMatch::Prefix(path),
        Some(Path::Regex(regex)) => PathMatch::Regex(regex),
        None => return Err(malformed("an unknown kind of path match")),
    };
    Ok(HttpMatch {
        path,
        method: message.method,
        headers: all(message.headers, value_match)?,
        query: all(message.query, value_match)?,
    })
}

fn value_match(message: pb::ValueMatch) -> Decoded<ValueMatch> {
    use pb::value_match::Value;
    let value = match message.value {
        Some(Value::Exact(value)) => StringMatch::Exact(value),
        Some(Value::Regex(regex)) => StringMatch::Regex(regex),
        None => return Err(malformed("an unknown kind of value match")),
    };
    Ok(ValueMatch { name: message.name, value })
}

/// The filters that are known, and whether there are others.
fn filters(messages: Vec<pb::Filter>) -> Decoded<(Vec<Filter>, bool)> {
    use pb::filter::Filter as Kind;
    let mut known = Vec::with_capacity(messages.len());
    let mut unknown = false;
    for message in messages {
        match message.filter {
            Some(Kind::RequestHeaders(modifier)) => known.push(Filter::RequestHeaders(header_modifier(modifier))),
            Some(Kind::ResponseHeaders(modifier)) => known.push(Filter::ResponseHeaders(header_modifier(modifier))),
            Some(Kind::Redirect(to)) => known.push(Filter::Redirect(redirect(to)?)),
            Some(Kind::Rewrite(to)) => known
                .push(Filter::Rewrite(Rewrite { hostname: to.hostname, path: to.path.map(path_rewrite).transpose()? })),
            None => unknown = true,
        }
    }
    Ok((known, unknown))
}

fn header_modifier(message: pb::HeaderModifier) -> HeaderModifier {
    let headers = |list: Vec<pb::Header>| list.into_iter().map(|header| (header.name, header.value)).collect();
    HeaderModifier { set: headers(message.set), add: headers(message.add), remove: message.remove }
}

fn redirect(message: pb::Redirect) -> Decoded<Redirect> {
    Ok(Redirect {
        scheme: message.scheme,
        hostname: message.hostname,
        path: message.path.map(path_rewrite).transpose()?,
        port: message.port.map(port).transpose()?,
        status: u16::try_from(message.status).map_err(|_| malformed("a status is out of range"))?,
    })
}

fn path_rewrite(message: pb::PathRewrite) -> Decoded<PathRewrite> {
    use pb::path_rewrite::Rewrite;
    match message.rewrite {
        Some(Rewrite::Full(path)) => Ok(PathRewrite::Full(path)),
        Some(Rewrite::Prefix(prefix)) => Ok(PathRewrite::Prefix(prefix)),
        None => Err(malformed("an unknown kind of path rewrite")),
    }
}

/// The backend, and whether it has filters that are not known.
fn backend(message: pb::Backend) -> Decoded<(Backend, bool)> {
    use pb::backend::Target;
    let target = match message.target {
        Some(Target::Service(service)) => {
            BackendTarget::Service { service: key(service.service)?, port: port(service.port)? }
        }
        Some(Target::Invalid(reason)) => BackendTarget::Invalid { reason },
        None => BackendTarget::Invalid { reason: "UnknownKind".to_owned() },
    };
    let (filters, unknown) = filters(message.filters)?;
    Ok((Backend { target, weight: message.weight, filters }, unknown))
}

fn service(message: pb::Service) -> Decoded<Service> {
    check_needs(&message.needs)?;
    let affinity = match message.affinity() {
        pb::SessionAffinity::None => SessionAffinity::None,
        pb::SessionAffinity::ClientIp => SessionAffinity::ClientIp,
    };
    let ports = all(message.ports, |message| {
        let app = match message.app() {
            pb::AppProtocol::Http1 => AppProtocol::Http1,
            pb::AppProtocol::H2c => AppProtocol::H2c,
        };
        Ok(ServicePort { port: port(message.port)?, name: message.name, app })
    })?;
    Ok(Service { ports, affinity })
}

fn certificate(message: pb::Certificate) -> Decoded<Certificate> {
    check_needs(&message.needs)?;
    Ok(Certificate {
        chain: message.chain.iter().map(|der| der.to_vec()).collect(),
        key_hash: message.key_hash.as_ref().try_into().map_err(|_| malformed("key_hash is not 32 bytes"))?,
        dns_names: message.dns_names,
        not_after: message.not_after,
    })
}

fn endpoint_slice(message: pb::EndpointSlice) -> Decoded<EndpointSlice> {
    check_needs(&message.needs)?;
    Ok(EndpointSlice {
        service: key(message.service)?,
        ports: all(message.ports, |message| Ok((message.name, port(message.port)?)))?,
        endpoints: all(message.endpoints, endpoint)?,
    })
}

fn endpoint(message: pb::Endpoint) -> Decoded<Endpoint> {
    Ok(Endpoint {
        address: ip(&message.address)?,
        node: message.node,
        zone: message.zone,
        pod: message.pod,
        ready: message.ready,
        serving: message.serving,
        terminating: message.terminating,
    })
}
