//! Objects that become a resource by themselves: Services, EndpointSlices, Certificates.

use crate::intent::{Certificate, EndpointSlice, Meta, Service};
use crate::snapshot::{self, AppProtocol, Key, Kind, Resource};

/// A Service with its TCP ports.
pub(crate) fn service(declared: &Service) -> Resource {
    let tcp = declared.ports.iter().filter(|port| port.protocol == "TCP");
    let ports = tcp.map(|port| snapshot::ServicePort {
        name: port.name.clone(),
        port: port.port,
        app: app_protocol(port.app_protocol.as_deref()),
    });
    Resource::Service(snapshot::Service {
        ports: ports.collect(),
        affinity: declared.affinity,
        distribution: declared.distribution,
        internal_local: declared.internal_local,
    })
}

/// What the pods behind a port speak.
pub(crate) fn app_protocol(name: Option<&str>) -> AppProtocol {
    match name {
        Some("kubernetes.io/h2c" | "grpc") => AppProtocol::H2c,
        _ => AppProtocol::Http1,
    }
}

/// Do two versions of a Service look the same to those who refer to it?
pub(crate) fn same_shape(a: &Service, b: &Service) -> bool {
    a.external_name.is_some() == b.external_name.is_some() && a.ports == b.ports
}

/// A slice; `None` if it belongs to no Service. Whether that Service exists does not matter.
pub(crate) fn slice(meta: &Meta, declared: &EndpointSlice) -> Option<Resource> {
    let service = declared.service.as_deref()?;
    let tcp = declared.ports.iter().filter(|(_, _, protocol)| protocol == "TCP");
    Some(Resource::Endpoints(snapshot::EndpointSlice {
        service: Key { kind: Kind::Service, namespace: meta.object.namespace.clone(), name: service.into() },
        ports: tcp.map(|(name, port, _)| (name.clone(), *port)).collect(),
        endpoints: declared.endpoints.clone(),
    }))
}

/// Certificates of authorities.
pub(crate) fn trust_bundle(certificates: &[Vec<u8>]) -> Resource {
    Resource::TrustBundle(snapshot::TrustBundle { certificates: certificates.to_vec() })
}

/// The public half of a Secret.
pub(crate) fn certificate(declared: &Certificate) -> Resource {
    Resource::Certificate(snapshot::Certificate {
        chain: declared.chain.clone(),
        key_hash: declared.key_hash,
        dns_names: declared.dns_names.clone(),
        not_after: declared.not_after,
    })
}
