//! Hostnames: reading them and what two of them have in common.

use crate::snapshot::HostPattern;

/// A hostname as the Gateway API means it: `*.` covers one or more labels.
pub(crate) fn gateway_host(name: &str) -> HostPattern {
    parse(name, HostPattern::Wildcard)
}

/// A hostname as an Ingress means it: `*.` covers exactly one label.
pub(crate) fn ingress_host(name: &str) -> HostPattern {
    parse(name, HostPattern::WildcardOneLabel)
}

fn parse(name: &str, wildcard: fn(String) -> HostPattern) -> HostPattern {
    match name.strip_prefix("*.") {
        Some(suffix) => wildcard(suffix.to_owned()),
        None if name.is_empty() || name == "*" => HostPattern::Any,
        None => HostPattern::Exact(name.to_owned()),
    }
}

/// The hosts that both cover; `None` if there are none.
pub(crate) fn intersect(a: &HostPattern, b: &HostPattern) -> Option<HostPattern> {
    if b.covers(a) {
        Some(a.clone())
    } else if a.covers(b) {
        Some(b.clone())
    } else {
        None
    }
}

/// What a route's hostnames have in common with a listener's, sorted. A route without hostnames
/// takes the listener's.
pub(crate) fn common(route: &[HostPattern], listener: &HostPattern) -> Vec<HostPattern> {
    if route.is_empty() {
        return vec![listener.clone()];
    }
    let mut hosts: Vec<HostPattern> = route.iter().filter_map(|host| intersect(host, listener)).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intersections() {
        let cases = [
            ("a.com", "a.com", Some("a.com")),
            ("a.com", "b.com", None),
            ("*", "a.com", Some("a.com")),
            ("*", "*.a.com", Some("*.a.com")),
            ("*", "*", Some("*")),
            ("*.a.com", "x.a.com", Some("x.a.com")),
            ("*.a.com", "x.y.a.com", Some("x.y.a.com")),
            ("*.a.com", "a.com", None),
            ("*.a.com", "xa.com", None),
            ("*.a.com", ".a.com", None),
            ("*.a.com", "*.a.com", Some("*.a.com")),
            ("*.a.com", "*.b.a.com", Some("*.b.a.com")),
            ("*.a.com", "*.ba.com", None),
            ("*.a.com", "*.com", Some("*.a.com")),
        ];
        for (a, b, expected) in cases {
            let (a, b) = (gateway_host(a), gateway_host(b));
            let expected = expected.map(gateway_host);
            assert_eq!(intersect(&a, &b), expected, "{a} and {b}");
            assert_eq!(intersect(&b, &a), expected, "{b} and {a}");
        }
    }

    #[test]
    fn an_ingress_wildcard_covers_one_label() {
        let one = ingress_host("*.a.com");
        let cases = [
            (gateway_host("x.a.com"), Some("x.a.com")),
            (gateway_host("x.y.a.com"), None),
            (gateway_host("*.a.com"), Some("*.a.com")),
            (gateway_host("*.com"), Some("*.a.com")),
            (gateway_host("*.y.a.com"), None),
            (ingress_host("*.a.com"), Some("*.a.com")),
            (ingress_host("*.y.a.com"), None),
        ];
        for (other, expected) in cases {
            let expected = expected.map(ingress_host);
            assert_eq!(intersect(&one, &other), expected, "{other}");
            assert_eq!(intersect(&other, &one), expected, "{other}");
        }
    }

    #[test]
    fn hosts_in_common_are_sorted_and_single() {
        let route = ["b.a.com", "a.a.com", "b.a.com", "other.org"].map(gateway_host);
        assert_eq!(common(&route, &gateway_host("*.a.com")), ["a.a.com", "b.a.com"].map(gateway_host));
        assert_eq!(common(&[], &gateway_host("*.a.com")), [gateway_host("*.a.com")]);
        assert!(common(&route, &gateway_host("c.org")).is_empty());
    }
}
