//! The `x-meshgate-via` header: which way a request took.

use std::fmt;
use std::str::FromStr;

/// How a request reached its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The pod runs on the node that took the request.
    Local,
    /// Through the tunnel to the peer of the pod's node.
    Tunnel,
    /// The endpoint names no node of the mesh: dialled directly.
    Direct,
    /// The peer of the pod's node is dead: dialled directly.
    Fallback,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Way::Local => "local",
            Way::Tunnel => "tunnel",
            Way::Direct => "direct",
            Way::Fallback => "fallback",
        })
    }
}

/// `<way> node=<node> route=<namespace/name>#<rule> rev=<epoch>/<rev>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// How.
    pub way: Way,
    /// The node whose peer took the request.
    pub node: String,
    /// Route and rule that decided, `namespace/name#0`.
    pub route: String,
    /// Epoch and rev that decided.
    pub head: (u64, u64),
}

/// The header is not as peers write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("x-meshgate-via is not as peers write it")]
pub struct Malformed;

impl FromStr for Via {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut words = text.split_whitespace();
        let way = match words.next() {
            Some("local") => Way::Local,
            Some("tunnel") => Way::Tunnel,
            Some("direct") => Way::Direct,
            Some("fallback") => Way::Fallback,
            _ => return Err(Malformed),
        };
        let (mut node, mut route, mut head) = (None, None, None);
        for word in words {
            match word.split_once('=') {
                Some(("node", value)) => node = Some(value.to_owned()),
                Some(("route", value)) => route = Some(value.to_owned()),
                Some(("rev", value)) => head = pair(value),
                // Later peers may say more.
                _ => {}
            }
        }
        Ok(Via { way, node: node.ok_or(Malformed)?, route: route.ok_or(Malformed)?, head: head.ok_or(Malformed)? })
    }
}

fn pair(text: &str) -> Option<(u64, u64)> {
    let (epoch, rev) = text.split_once('/')?;
    Some((epoch.parse().ok()?, rev.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_peers_write() {
        let via: Via = "tunnel node=node-b route=edge/cart#1 rev=3/17".parse().unwrap();
        assert_eq!(via.way, Way::Tunnel);
        assert_eq!((via.node.as_str(), via.route.as_str(), via.head), ("node-b", "edge/cart#1", (3, 17)));
        assert!("local node=node-a rev=1/1 route=a/b#0 more=x".parse::<Via>().is_ok());
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "tunnel", "carrier-pigeon node=a route=a/b#0 rev=1/1", "local node=a route=a/b#0 rev=1"] {
            assert_eq!(text.parse::<Via>(), Err(Malformed), "{text}");
        }
    }
}
