//! Resources to values. The same resource always gives the same bytes.

use std::net::IpAddr;

use bytes::Bytes;
use meshgate_core::snapshot::{
    AppProtocol, Certificate, ClientValidation, ClientValidationMode, Endpoint, EndpointSlice, Gateway, GatewayAddress,
    HostPattern, Listener, Protocol, Resource, Service, SessionAffinity, TlsVersion, TrafficDistribution, TrustBundle,
};
use meshgate_proto::snapshot as pb;
use prost::Message;

use super::encode_route::route_message;
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
        Resource::TrustBundle(bundle) => trust_bundle_message(bundle).encode_to_vec().into(),
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
        min_tls: listener.versions.min.map(|version| tls_version(version).into()),
        max_tls: listener.versions.max.map(|version| tls_version(version).into()),
        clients: listener.clients.as_ref().map(clients),
    }
}

fn tls_version(version: TlsVersion) -> pb::TlsVersion {
    match version {
        TlsVersion::V12 => pb::TlsVersion::TlsVersion12,
        TlsVersion::V13 => pb::TlsVersion::TlsVersion13,
    }
}

fn clients(validation: &ClientValidation) -> pb::ClientValidation {
    let mode = match validation.mode {
        ClientValidationMode::AllowValidOnly => pb::ClientValidationMode::AllowValidOnly,
        ClientValidationMode::AllowInsecureFallback => pb::ClientValidationMode::AllowInsecureFallback,
    };
    pb::ClientValidation { trust: validation.trust.iter().map(key_to_proto).collect(), mode: mode.into() }
}

pub(super) fn host(pattern: &HostPattern) -> pb::HostPattern {
    use pb::host_pattern::Pattern;
    let pattern = match pattern {
        HostPattern::Exact(name) => Pattern::Exact(name.clone()),
        HostPattern::Wildcard(suffix) => Pattern::Wildcard(suffix.clone()),
        HostPattern::WildcardOneLabel(suffix) => Pattern::WildcardOneLabel(suffix.clone()),
        HostPattern::Any => Pattern::Any(pb::Any {}),
    };
    pb::HostPattern { pattern: Some(pattern) }
}

fn service_message(service: &Service) -> pb::Service {
    let (affinity, affinity_seconds) = match service.affinity {
        SessionAffinity::None => (pb::SessionAffinity::None, 0),
        SessionAffinity::ClientIp { timeout } => {
            (pb::SessionAffinity::ClientIp, u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX))
        }
    };
    let distribution = match service.distribution {
        TrafficDistribution::Any => pb::TrafficDistribution::Any,
        TrafficDistribution::PreferSameZone => pb::TrafficDistribution::PreferSameZone,
        TrafficDistribution::PreferSameNode => pb::TrafficDistribution::PreferSameNode,
    };
    let port = |port: &meshgate_core::snapshot::ServicePort| {
        let app = match port.app {
            AppProtocol::Http1 => pb::AppProtocol::Http1,
            AppProtocol::H2c => pb::AppProtocol::H2c,
        };
        pb::ServicePort { name: port.name.clone(), port: u32::from(port.port), app: app.into() }
    };
    pb::Service {
        needs: Vec::new(),
        ports: service.ports.iter().map(port).collect(),
        affinity: affinity.into(),
        affinity_seconds,
        distribution: distribution.into(),
        internal_local: service.internal_local,
    }
}

fn certificate_message(certificate: &Certificate) -> pb::Certificate {
    pb::Certificate {
        needs: Vec::new(),
        chain: ders(&certificate.chain),
        key_hash: Bytes::copy_from_slice(&certificate.key_hash),
        dns_names: certificate.dns_names.clone(),
        not_after: certificate.not_after,
    }
}

fn trust_bundle_message(bundle: &TrustBundle) -> pb::TrustBundle {
    pb::TrustBundle { needs: Vec::new(), certificates: ders(&bundle.certificates) }
}

fn ders(certificates: &[Vec<u8>]) -> Vec<Bytes> {
    certificates.iter().map(|der| Bytes::copy_from_slice(der)).collect()
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
        for_zones: endpoint.for_zones.clone(),
        for_nodes: endpoint.for_nodes.clone(),
    }
}

fn ip(address: &IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    }
}
