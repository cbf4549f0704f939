//! `ListRoutes`: this peer's own table as lines.

use std::collections::BTreeMap;

use meshgate_core::snapshot::{HostPattern, Protocol};
use meshgate_core::table::RouteLine;
use meshgate_proto::admin as pb;

/// Does a line pass the request's filters?
pub(super) fn wanted(line: &RouteLine, request: &pb::ListRoutesRequest) -> bool {
    let gateway = format!("{}/{}", line.gateway.namespace, line.gateway.name);
    let by_host = request.host.is_empty() || covers(&line.host, &request.host.to_ascii_lowercase());
    let by_namespace = request.namespace.is_empty() || *line.route.namespace == *request.namespace;
    let by_gateway = request.gateway.is_empty() || gateway == request.gateway || *line.gateway.name == *request.gateway;
    by_host && by_namespace && by_gateway
}

/// Is a host one of those that the pattern serves, or the pattern itself as shown?
fn covers(pattern: &HostPattern, host: &str) -> bool {
    pattern.to_string() == host || pattern.covers(&HostPattern::Exact(host.to_owned()))
}

/// A line as a message. `addresses` are this peer's sockets by Gateway (as shown) and port.
pub(super) fn to_proto(line: RouteLine, addresses: &BTreeMap<(String, u32), Vec<String>>) -> pb::Route {
    let gateway = line.gateway.to_string();
    let port = u32::from(line.port);
    pb::Route {
        host: line.host.to_string(),
        path: line.path,
        matches: line.matches,
        kind: line.route.kind.name().to_owned(),
        namespace: line.route.namespace.to_string(),
        name: line.route.name.to_string(),
        rule: u32::try_from(line.rule).unwrap_or(u32::MAX),
        rule_name: line.rule_name.unwrap_or_default(),
        backends: line.backends,
        policies: line.policies,
        generation: line.generation,
        gateway_namespace: line.gateway.namespace.to_string(),
        gateway_name: line.gateway.name.to_string(),
        listener: line.listener,
        port,
        protocol: protocol(line.protocol).to_owned(),
        addresses: addresses.get(&(gateway, port)).cloned().unwrap_or_default(),
    }
}

/// A protocol as listeners name it.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Https => "HTTPS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_filtered_as_they_are_served() {
        let wildcard = HostPattern::Wildcard("example.com".into());
        let one = HostPattern::WildcardOneLabel("example.com".into());
        for (pattern, host, expected) in [
            (&wildcard, "a.b.example.com", true),
            (&one, "a.b.example.com", false),
            (&one, "a.example.com", true),
            (&wildcard, "example.com", false),
            (&wildcard, "*.example.com", true),
            (&wildcard, "aexample.com", false),
            (&HostPattern::Any, "x", true),
            (&HostPattern::Exact("x".into()), "y", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
    }
}
