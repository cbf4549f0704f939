//! Hostnames: reading them and what two of them have in common.

use crate::snapshot::{HostPattern, RouteHost};

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

/// What a route's hostnames have in common with a listener's, sorted by what is served. A route
/// without hostnames takes the listener's. Of several hostnames that come to the same, the most
/// specific one counts.
pub(crate) fn common(route: &[HostPattern], listener: &HostPattern) -> Vec<RouteHost> {
    if route.is_empty() {
        return vec![RouteHost { served: listener.clone(), declared: HostPattern::Any }];
    }
    let meet = |host: &HostPattern| Some(RouteHost { served: intersect(host, listener)?, declared: host.clone() });
    let mut hosts: Vec<RouteHost> = route.iter().filter_map(meet).collect();
    hosts.sort_by(|a, b| a.served.cmp(&b.served).then_with(|| a.declared.specificity().cmp(&b.declared.specificity())));
    hosts.dedup_by(|a, b| a.served == b.served);
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
        let named = |name| RouteHost::named(gateway_host(name));
        assert_eq!(common(&route, &gateway_host("*.a.com")), ["a.a.com", "b.a.com"].map(named));
        assert!(common(&route, &gateway_host("c.org")).is_empty());
    }

    #[test]
    fn the_routes_own_hostname_is_kept() {
        let host = |served, declared| RouteHost { served: gateway_host(served), declared: gateway_host(declared) };
        let listener = gateway_host("a.b.com");
        assert_eq!(common(&[], &listener), [host("a.b.com", "*")]);
        for route in [["*.com", "*.b.com"], ["*.b.com", "*.com"]].map(|names| names.map(gateway_host)) {
            assert_eq!(common(&route, &listener), [host("a.b.com", "*.b.com")]);
        }
    }
}
