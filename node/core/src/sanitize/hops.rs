//! Trusted hops: whose word about the client's address is believed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderMap;

/// A range of addresses (RFC 4632): `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    bits: u32,
}

impl Cidr {
    /// Is the address in the range? An IPv4 address that is mapped into IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                (base.to_bits() ^ address.to_bits()).leading_zeros() >= self.bits
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                (base.to_bits() ^ address.to_bits()).leading_zeros() >= self.bits
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no range of addresses: write for instance 10.0.0.0/8 or fd00::/8");
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| bad())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| bad())?;
        if bits > most { Err(bad()) } else { Ok(Cidr { base, bits }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

/// The client's address as trusted hops tell it: the last one in `X-Forwarded-For` that is no
/// trusted hop itself. An entry that is no address ends the search, for whoever wrote it can't be
/// believed about those before it.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let mut client = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let entries = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(',').map(str::trim));
    for entry in entries {
        if !trusted.iter().any(|range| range.contains(client)) {
            break;
        }
        let Some(address) = address(entry) else { break };
        client = address.to_canonical();
    }
    client
}

/// An address as proxies write it: plain, in brackets, with or without a port.
fn address(entry: &str) -> Option<IpAddr> {
    let plain = entry.parse().ok();
    plain.or_else(|| entry.parse().ok().map(|with_port: std::net::SocketAddr| with_port.ip())).or_else(|| {
        let inside = entry.strip_prefix('[')?.strip_suffix(']')?;
        inside.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, lines: &[&'static str]) -> String {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "fd00::/8", "192.0.2.1"].map(|range| range.parse().unwrap()).into();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", http::HeaderValue::from_static(line));
        }
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_trusted_hop_is_the_client() {
        assert_eq!(seen("198.51.100.9", &["203.0.113.7"]), "198.51.100.9", "a stranger is not believed");
        assert_eq!(seen("10.1.1.1", &[]), "10.1.1.1");
        assert_eq!(seen("10.1.1.1", &["203.0.113.7"]), "203.0.113.7");
        assert_eq!(seen("10.1.1.1", &["6.6.6.6, 203.0.113.7, 10.9.9.9"]), "203.0.113.7", "not what the client wrote");
        assert_eq!(seen("192.0.2.1", &["6.6.6.6", "203.0.113.7:1234", "[fd00::1]"]), "203.0.113.7");
        assert_eq!(seen("::ffff:10.1.1.1", &["2001:db8::5"]), "2001:db8::5");
        assert_eq!(seen("10.1.1.1", &["10.2.2.2, 10.3.3.3"]), "10.2.2.2", "all are trusted: the first");
        assert_eq!(seen("10.1.1.1", &["203.0.113.7, unknown"]), "10.1.1.1");
        assert_eq!(seen("10.1.1.1", &["203.0.113.7,"]), "10.1.1.1");
    }

    #[test]
    fn ranges_are_checked() {
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/-1", "a/8", "10.0.0.0/"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
    }
}
