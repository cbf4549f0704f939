//! Service and EndpointSlice.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use meshgate_core::intent::{EndpointSlice, Service, ServicePort};
use meshgate_core::snapshot::{Endpoint, SessionAffinity, TrafficDistribution};

use super::check::{Checker, quote};
use super::code;

/// The label that ties an EndpointSlice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

pub(super) fn service(service: core::Service, check: &mut Checker) -> Service {
    let spec = service.spec.unwrap_or_default();
    let declared = spec.ports.unwrap_or_default();
    let several = declared.len() > 1;
    let mut names = HashSet::new();
    let mut ports = Vec::with_capacity(declared.len());
    for (i, item) in declared.into_iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        let name = item.name.unwrap_or_default();
        if several && name.is_empty() {
            check.refuse(code::REQUIRED, &format!("{at}.name"), "is required where there are several ports");
        } else if !names.insert(name.clone()) {
            check.refuse(code::CONFLICT, &format!("{at}.name"), format!("{} occurs twice", quote(&name)));
        }
        let protocol = protocol(&format!("{at}.protocol"), item.protocol, check);
        let port = check.required_port(&format!("{at}.port"), item.port.into());
        ports.push(ServicePort { name, port, protocol, app_protocol: item.app_protocol });
    }
    let external_name = match spec.type_.as_deref() {
        Some("ExternalName") => Some(spec.external_name.unwrap_or_default()),
        None | Some("" | "ClusterIP" | "NodePort" | "LoadBalancer") => None,
        Some(other) => {
            check.unknown_value("spec.type", other, &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]);
            None
        }
    };
    if ports.is_empty() && external_name.is_none() && spec.cluster_ip.as_deref() != Some("None") {
        check.refuse(code::REQUIRED, "spec.ports", "at least one port is required");
    }
    let affinity = match spec.session_affinity.as_deref() {
        None | Some("" | "None") => SessionAffinity::None,
        Some("ClientIP") => {
            let config = spec.session_affinity_config.and_then(|config| config.client_ip);
            SessionAffinity::ClientIp {
                timeout: affinity_timeout(config.and_then(|config| config.timeout_seconds), check),
            }
        }
        Some(other) => {
            check.unknown_value("spec.sessionAffinity", other, &["None", "ClientIP"]);
            SessionAffinity::None
        }
    };
    let distribution = match spec.traffic_distribution.as_deref() {
        None | Some("") => TrafficDistribution::Any,
        Some("PreferSameZone" | "PreferClose") => TrafficDistribution::PreferSameZone,
        Some("PreferSameNode") => TrafficDistribution::PreferSameNode,
        Some(other) => {
            // An API server that knows it would take it, and it is only a wish.
            let message = format!("{} is ignored: PreferSameZone and PreferSameNode are known", quote(other));
            check.warn(code::UNSUPPORTED, "spec.trafficDistribution", message);
            TrafficDistribution::Any
        }
    };
    let internal_local = match spec.internal_traffic_policy.as_deref() {
        None | Some("" | "Cluster") => false,
        Some("Local") => true,
        Some(other) => {
            check.unknown_value("spec.internalTrafficPolicy", other, &["Cluster", "Local"]);
            false
        }
    };
    Service { ports, external_name, affinity, distribution, internal_local }
}

/// `clientIP.timeoutSeconds`: 1 second to a day, 3 hours by default.
fn affinity_timeout(declared: Option<i32>, check: &mut Checker) -> Duration {
    let seconds = declared.unwrap_or(10_800);
    if !(1..=86_400).contains(&seconds) {
        let message = format!("{seconds} is not allowed: 1 to 86400");
        check.refuse(code::VALUE, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", message);
    }
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn protocol(field: &str, declared: Option<String>, check: &mut Checker) -> String {
    let protocol = declared.filter(|protocol| !protocol.is_empty()).unwrap_or_else(|| "TCP".to_owned());
    if !PROTOCOLS.contains(&protocol.as_str()) {
        check.unknown_value(field, &protocol, &PROTOCOLS);
    }
    protocol
}

pub(super) fn endpoint_slice(slice: discovery::EndpointSlice, check: &mut Checker) -> EndpointSlice {
    let service = slice.metadata.labels.and_then(|mut labels| labels.remove(SERVICE_NAME));
    let mut ports = Vec::new();
    for (i, item) in slice.ports.unwrap_or_default().into_iter().enumerate() {
        let at = format!("ports[{i}]");
        let protocol = protocol(&format!("{at}.protocol"), item.protocol, check);
        // A port without a number stands for all ports, which no Service's port joins.
        let Some(number) = item.port else { continue };
        ports.push((item.name.unwrap_or_default(), check.port(&format!("{at}.port"), number.into()), protocol));
    }
    let endpoints = match slice.address_type.as_str() {
        "IPv4" | "IPv6" => endpoints(&slice.address_type, slice.endpoints, check),
        "FQDN" => {
            let message = "FQDN endpoints are not served: addresses of type IPv4 or IPv6 are";
            check.error(code::UNSUPPORTED, "addressType", message);
            Vec::new()
        }
        "" => {
            check.refuse(code::REQUIRED, "addressType", "is required: IPv4 or IPv6");
            Vec::new()
        }
        other => {
            check.unknown_value("addressType", other, &["IPv4", "IPv6", "FQDN"]);
            Vec::new()
        }
    };
    EndpointSlice { service, ports, endpoints }
}

fn endpoints(kind: &str, declared: Vec<discovery::Endpoint>, check: &mut Checker) -> Vec<Endpoint> {
    check.count("endpoints", declared.len(), 0, 1000);
    let mut out = Vec::with_capacity(declared.len());
    for (i, item) in declared.into_iter().enumerate() {
        let field = format!("endpoints[{i}].addresses");
        // The API lets consumers use the first address only.
        let Some(text) = item.addresses.first() else {
            check.refuse(code::REQUIRED, &field, "at least one address is required");
            continue;
        };
        let address = match text.parse::<IpAddr>() {
            Ok(address) if address.is_ipv4() == (kind == "IPv4") => address,
            _ => {
                let message = format!("{} is not an address of type {kind}", quote(text));
                check.refuse(code::VALUE, &format!("{field}[0]"), message);
                continue;
            }
        };
        let conditions = item.conditions.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let hints = item.hints.unwrap_or_default();
        let pod = item.target_ref.filter(|target| matches!(target.kind.as_deref(), None | Some("Pod")));
        out.push(Endpoint {
            address,
            node: item.node_name.filter(|name| !name.is_empty()),
            zone: item.zone.filter(|name| !name.is_empty()),
            pod: pod.and_then(|target| target.name),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            for_zones: hints.for_zones.unwrap_or_default().into_iter().map(|zone| zone.name).collect(),
            for_nodes: hints.for_nodes.unwrap_or_default().into_iter().map(|node| node.name).collect(),
        });
    }
    out
}
