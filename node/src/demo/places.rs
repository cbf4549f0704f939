//! Where Gateways listen, as the peers themselves say.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;
use meshgate_proto::admin::Bound;

use super::fleet::Node;

/// Listening addresses by node.
#[derive(Clone, Debug, Default)]
pub struct Places(Vec<(Node, Vec<Bound>)>);

/// One Gateway's listeners, for the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// `namespace/name`.
    pub gateway: String,
    /// `127.n.1.1:8080 http`, with n for the node's number.
    pub listeners: Vec<String>,
}

impl Places {
    /// From what each node's status says. A Gateway may be named with its kind, `Gateway edge/web`.
    pub fn new(mut nodes: Vec<(Node, Vec<Bound>)>) -> Self {
        for bound in nodes.iter_mut().flat_map(|(_, bounds)| bounds) {
            if let Some((_, name)) = bound.gateway.rsplit_once(' ') {
                bound.gateway = name.to_owned();
            }
        }
        Places(nodes)
    }

    /// Where a node listens for a Gateway's (logical) port.
    ///
    /// # Errors
    /// The node has not bound it, with its reason.
    pub fn entry(&self, node: Node, gateway: &str, port: u16) -> anyhow::Result<SocketAddr> {
        self.find(node, port, |bound| bound.gateway == gateway)
            .with_context(|| format!("{} does not listen on port {port} of Gateway {gateway}", node.name))?
    }

    /// Where a node listens for a (logical) port that one Gateway only has: those of Ingress.
    ///
    /// # Errors
    /// The node has not bound it, with its reason.
    pub fn entry_of_port(&self, node: Node, port: u16) -> anyhow::Result<SocketAddr> {
        self.find(node, port, |_| true).with_context(|| format!("{} does not listen on port {port}", node.name))?
    }

    fn find(&self, node: Node, port: u16, wanted: impl Fn(&Bound) -> bool) -> Option<anyhow::Result<SocketAddr>> {
        let (_, all) = self.0.iter().find(|(known, _)| *known == node)?;
        let bound = all.iter().find(|bound| bound.port == u32::from(port) && wanted(bound))?;
        if !bound.error.is_empty() {
            return Some(Err(anyhow::anyhow!("port {port} of {}: {}", bound.gateway, bound.error)));
        }
        Some(bound.address.parse().with_context(|| format!("{:?} is no address", bound.address)))
    }

    /// Listeners that a node could not bind: `node-a edge/web:8080: address in use`.
    pub fn problems(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (node, bounds) in &self.0 {
            for bound in bounds.iter().filter(|bound| !bound.error.is_empty()) {
                all.push(format!("{} {}:{}: {}", node.name, bound.gateway, bound.port, bound.error));
            }
        }
        all
    }

    /// All Gateways, by name; the same listener on several nodes is one, with `n` in its address.
    pub fn summaries(&self) -> Vec<Summary> {
        let mut gateways: BTreeMap<String, Vec<(u32, String)>> = BTreeMap::new();
        for (node, bounds) in &self.0 {
            for bound in bounds.iter().filter(|bound| bound.error.is_empty()) {
                let listener = shown(*node, bound);
                let all = gateways.entry(named(&bound.gateway)).or_default();
                if !all.iter().any(|(_, known)| *known == listener) {
                    all.push((bound.port, listener));
                }
            }
        }
        gateways
            .into_iter()
            .map(|(gateway, mut listeners)| {
                listeners.sort();
                Summary { gateway, listeners: listeners.into_iter().map(|(_, listener)| listener).collect() }
            })
            .collect()
    }
}

/// A Gateway's name; what the Ingresses of a class share has no namespace.
fn named(gateway: &str) -> String {
    gateway.strip_prefix('/').map_or_else(|| gateway.to_owned(), |class| format!("Ingress class {class}"))
}

/// `127.n.1.1:10080 http (port 80)`
fn shown(node: Node, bound: &Bound) -> String {
    let protocol = bound.protocol.to_lowercase();
    let Ok(address) = bound.address.parse::<SocketAddr>() else {
        return format!("{} {protocol}", bound.address);
    };
    let place = match address.ip() {
        IpAddr::V4(ip) if ip.octets()[0] == Ipv4Addr::LOCALHOST.octets()[0] && ip.octets()[1] == node.number => {
            format!("127.n.{}.{}:{}", ip.octets()[2], ip.octets()[3], address.port())
        }
        _ => address.to_string(),
    };
    if u32::from(address.port()) == bound.port {
        format!("{place} {protocol}")
    } else {
        format!("{place} {protocol} (port {})", bound.port)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::NODES;
    use super::*;

    fn bound(gateway: &str, port: u32, address: &str, protocol: &str) -> Bound {
        Bound {
            gateway: gateway.into(),
            port,
            address: address.into(),
            error: String::new(),
            protocol: protocol.into(),
        }
    }

    fn places() -> Places {
        let failed = Bound { error: "address in use".into(), ..bound("edge/web", 9000, "", "HTTP") };
        Places::new(
            NODES[..2]
                .iter()
                .map(|node| {
                    let n = node.number;
                    let mut all = vec![
                        bound("edge/web", 8443, &format!("127.{n}.1.1:8443"), "HTTPS"),
                        bound("Gateway edge/web", 8080, &format!("127.{n}.1.1:8080"), "HTTP"),
                        bound("Gateway /mesh", 80, &format!("127.{n}.3.1:10080"), "HTTP"),
                    ];
                    if n == 1 {
                        all.push(failed.clone());
                    }
                    (*node, all)
                })
                .collect(),
        )
    }

    #[test]
    fn finds_the_bound_address() {
        let places = places();
        assert_eq!(places.entry(NODES[1], "edge/web", 8080).unwrap().to_string(), "127.2.1.1:8080");
        assert_eq!(places.entry_of_port(NODES[0], 80).unwrap().to_string(), "127.1.3.1:10080");
        assert!(places.entry(NODES[2], "edge/web", 8080).is_err());
        assert!(places.entry(NODES[0], "edge/web", 80).is_err());
        assert!(format!("{:#}", places.entry(NODES[0], "edge/web", 9000).unwrap_err()).contains("in use"));
        assert_eq!(places.problems(), ["node-a edge/web:9000: address in use"]);
    }

    #[test]
    fn one_line_a_gateway() {
        let all = places().summaries();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].gateway, "Ingress class mesh");
        assert_eq!(all[0].listeners, ["127.n.3.1:10080 http (port 80)"]);
        assert_eq!(all[1].listeners, ["127.n.1.1:8080 http", "127.n.1.1:8443 https"]);
    }
}
