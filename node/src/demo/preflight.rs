//! Is every address free that the demo needs? Said before anything starts, by address.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::bail;

use super::fleet::NODES;
use super::layout::LOW_PORT_OFFSET;
use crate::config::Ports;

/// An address that the demo is going to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Where.
    pub address: SocketAddr,
    /// UDP instead of TCP.
    pub udp: bool,
    /// What for, for the message.
    pub purpose: String,
}

/// What the peers themselves listen on, and where their first Gateway will: a wildcard socket of
/// another program on a listener's port shows on any address.
pub fn needs(ports: Ports, listeners: &[u16]) -> Vec<Need> {
    let mut all = Vec::new();
    for node in NODES {
        for (port, udp, what) in [
            (ports.tunnel, true, "tunnel"),
            (ports.sync, false, "replication"),
            (ports.admin, false, "admin API"),
            (ports.metrics, false, "metrics and readiness"),
        ] {
            all.push(Need { address: node.at(port), udp, purpose: format!("{what} of {}", node.name) });
        }
        for port in listeners {
            let first = IpAddr::V4(Ipv4Addr::new(127, node.number, 1, 1));
            let purpose = format!("Gateway port {port} on {}", node.name);
            all.push(Need { address: SocketAddr::new(first, *port), udp: false, purpose });
        }
    }
    all
}

/// Checks that each address can be bound now.
///
/// # Errors
/// The first one that can't, with what it is for and what to do.
pub fn check(needs: &[Need]) -> anyhow::Result<()> {
    for need in needs {
        let (mut tried, mut bound) = (need.address, bind(need.address, need.udp));
        // Without the capability the peer goes to port + 10000.
        if need.address.port() < 1024 && matches!(&bound, Err(error) if error.kind() == ErrorKind::PermissionDenied) {
            tried.set_port(tried.port() + LOW_PORT_OFFSET);
            bound = bind(tried, need.udp);
        }
        let Err(error) = bound else { continue };
        let (address, purpose) = (tried, &need.purpose);
        match error.kind() {
            ErrorKind::AddrInUse => bail!(
                "{address} ({purpose}) is in use: does another demo run? `ss -lnp 'sport = :{}'` shows who listens",
                address.port()
            ),
            ErrorKind::AddrNotAvailable => {
                bail!(
                    "{address} ({purpose}) does not exist here: the demo needs Linux, where all of 127.0.0.0/8 is local"
                )
            }
            _ => bail!("cannot listen on {address} ({purpose}): {error}"),
        }
    }
    Ok(())
}

fn bind(address: SocketAddr, udp: bool) -> std::io::Result<()> {
    if udp { UdpSocket::bind(address).map(drop) } else { TcpListener::bind(address).map(drop) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_and_listener_is_needed() {
        let all = needs(Ports::default(), &[8080]);
        assert_eq!(all.len(), NODES.len() * 5);
        assert!(all.iter().any(|need| need.udp && need.address.to_string() == "127.2.0.1:15443"));
        assert!(all.iter().any(|need| !need.udp && need.address.to_string() == "127.3.1.1:8080"));
    }

    #[test]
    fn an_address_in_use_is_named_with_its_purpose() {
        let holder = TcpListener::bind("127.7.7.7:0").unwrap();
        let address = holder.local_addr().unwrap();
        let need = Need { address, udp: false, purpose: "admin API of node-a".into() };
        let message = check(std::slice::from_ref(&need)).unwrap_err().to_string();
        assert!(message.contains(&address.to_string()) && message.contains("admin API of node-a"), "{message}");
        // The same port is free for UDP, and for TCP once its holder is gone.
        check(&[Need { udp: true, ..need.clone() }]).unwrap();
        drop(holder);
        check(&[need]).unwrap();
    }

    #[test]
    fn a_wildcard_holder_is_found_too() {
        let holder = TcpListener::bind("0.0.0.0:0").unwrap();
        let address = SocketAddr::new("127.7.7.8".parse().unwrap(), holder.local_addr().unwrap().port());
        assert!(check(&[Need { address, udp: false, purpose: String::new() }]).is_err());
    }

    #[test]
    fn an_address_that_is_not_of_this_machine_is_explained() {
        let need = Need { address: "192.0.2.1:15000".parse().unwrap(), udp: false, purpose: "x".into() };
        assert!(check(&[need]).unwrap_err().to_string().contains("needs Linux"));
    }
}
