//! Values to resources. Total: any bytes give a resource or an error, never a panic. Unknown
//! fields are ignored (the value's bytes are kept by whoever holds them); what must not be ignored
//! is named in `needs`.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use meshgate_core::snapshot::{
    AppProtocol, Certificate, ClientValidation, ClientValidationMode, Endpoint, EndpointSlice, Gateway, GatewayAddress,
    HostPattern, Key, Kind, Listener, Protocol, Resource, Service, ServicePort, SessionAffinity, TlsVersion,
    TlsVersions, TrafficDistribution, TrustBundle,
};
use meshgate_proto::snapshot as pb;
use prost::Message;

use super::decode_route::route;
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

pub(super) type Decoded<T> = Result<T, DecodeError>;

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
        Kind::TrustBundle => Resource::TrustBundle(trust_bundle(message(value)?)?),
        Kind::Other(_) => Resource::Unknown,
    })
}

fn message<M: Message + Default>(value: &Bytes) -> Decoded<M> {
    M::decode(value.clone()).map_err(|error| DecodeError::Malformed(error.to_string()))
}

pub(super) fn malformed(what: &str) -> DecodeError {
    DecodeError::Malformed(what.to_owned())
}

fn check_needs(needs: &[u32]) -> Decoded<()> {
    let lacking: Vec<u32> = needs.iter().copied().filter(|feature| !FEATURES.contains(feature)).collect();
    if lacking.is_empty() { Ok(()) } else { Err(DecodeError::Needs(lacking)) }
}

pub(super) fn all<T, U>(list: Vec<T>, one: impl Fn(T) -> Decoded<U>) -> Decoded<Vec<U>> {
    list.into_iter().map(one).collect()
}

pub(super) fn key(message: Option<pb::Key>) -> Decoded<Key> {
    message.and_then(key_from_proto).ok_or_else(|| malformed("a reference has no key"))
}

pub(super) fn port(number: u32) -> Decoded<u16> {
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
    let versions = TlsVersions { min: message.min_tls.map(tls_version), max: message.max_tls.map(tls_version) };
    Ok(Listener {
        versions,
        clients: message.clients.map(clients).transpose()?,
        name: message.name,
        port: port(message.port)?,
        protocol,
        hostname: host(message.hostname.unwrap_or_default())?,
        certificates: all(message.certificates, |certificate| key(Some(certificate)))?,
    })
}

/// A version that is not known is newer than all that are.
fn tls_version(number: i32) -> TlsVersion {
    match pb::TlsVersion::try_from(number) {
        Ok(pb::TlsVersion::TlsVersion12) => TlsVersion::V12,
        _ => TlsVersion::V13,
    }
}

/// A mode that is not known is the strict one.
fn clients(message: pb::ClientValidation) -> Decoded<ClientValidation> {
    let mode = match message.mode() {
        pb::ClientValidationMode::AllowValidOnly => ClientValidationMode::AllowValidOnly,
        pb::ClientValidationMode::AllowInsecureFallback => ClientValidationMode::AllowInsecureFallback,
    };
    Ok(ClientValidation { trust: all(message.trust, |bundle| key(Some(bundle)))?, mode })
}

pub(super) fn host(message: pb::HostPattern) -> Decoded<HostPattern> {
    use pb::host_pattern::Pattern;
    match message.pattern {
        Some(Pattern::Exact(name)) => Ok(HostPattern::Exact(name)),
        Some(Pattern::Wildcard(suffix)) => Ok(HostPattern::Wildcard(suffix)),
        Some(Pattern::WildcardOneLabel(suffix)) => Ok(HostPattern::WildcardOneLabel(suffix)),
        Some(Pattern::Any(_)) => Ok(HostPattern::Any),
        None => Err(malformed("an unknown kind of host pattern")),
    }
}

fn service(message: pb::Service) -> Decoded<Service> {
    check_needs(&message.needs)?;
    let affinity = match message.affinity() {
        pb::SessionAffinity::None => SessionAffinity::None,
        pb::SessionAffinity::ClientIp => {
            SessionAffinity::ClientIp { timeout: Duration::from_secs(message.affinity_seconds.into()) }
        }
    };
    let distribution = match message.distribution() {
        pb::TrafficDistribution::Any => TrafficDistribution::Any,
        pb::TrafficDistribution::PreferSameZone => TrafficDistribution::PreferSameZone,
        pb::TrafficDistribution::PreferSameNode => TrafficDistribution::PreferSameNode,
    };
    let internal_local = message.internal_local;
    let ports = all(message.ports, |message| {
        let app = match message.app() {
            pb::AppProtocol::Http1 => AppProtocol::Http1,
            pb::AppProtocol::H2c => AppProtocol::H2c,
        };
        Ok(ServicePort { port: port(message.port)?, name: message.name, app })
    })?;
    Ok(Service { ports, affinity, distribution, internal_local })
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

fn trust_bundle(message: pb::TrustBundle) -> Decoded<TrustBundle> {
    check_needs(&message.needs)?;
    Ok(TrustBundle { certificates: message.certificates.iter().map(|der| der.to_vec()).collect() })
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
        for_zones: message.for_zones,
        for_nodes: message.for_nodes,
    })
}
