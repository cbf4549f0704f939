//! Requests to try, ready to be copied: what `manifests/examples/demo` makes of them.

use std::path::Path;

use super::examples::TLS_HOST;
use super::fleet::NODES;
use super::places::Places;

/// One request to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// What it shows.
    pub what: String,
    /// The command; lines but the last end in a backslash.
    pub command: String,
}

/// All requests to try. Those to a listener that is not bound are left out: the screen names it.
pub fn all(places: &Places, certificate: &Path) -> Vec<Try> {
    let [a, b, _] = NODES;
    let web = |node| places.entry(node, "edge/web", 8080).ok();
    let plain = |what: &str, node, path: &str| {
        Some(Try {
            what: what.to_owned(),
            command: format!("curl -i -H 'Host: shop.example' http://{}{path}", web(node)?),
        })
    };
    [
        plain("plain: the storefront, at node-a", a, "/"),
        tls(places, certificate),
        plain("prefix, cross-node: node-a takes it, cart-b on node-b answers, through the tunnel", a, "/cart/items"),
        plain("same node: node-b takes it and answers, see x-meshgate-via", b, "/cart/items"),
        web(a).map(|address| Try {
            what: "weighted: 80 to checkout on node-c, 20 to checkout-canary on node-a".to_owned(),
            command: format!(
                "for i in $(seq 100); do curl -s -H 'Host: shop.example' http://{address}/checkout; \\\n\
                 done | grep -o '\"pod\":\"[^\"]*\"' | sort | uniq -c"
            ),
        }),
        places.entry(a, "team-b/api", 8080).ok().map(|address| Try {
            what: "the same port, another team's Gateway with an address of its own".to_owned(),
            command: format!("curl -i -H 'Host: v1.api.example' http://{address}/"),
        }),
        places.entry_of_port(a, 80).ok().map(|address| Try {
            what: "an Ingress (port 80)".to_owned(),
            command: format!("curl -i -H 'Host: intranet.example' http://{address}/wiki/start"),
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn tls(places: &Places, certificate: &Path) -> Option<Try> {
    let address = places.entry(NODES[0], "edge/web", 8443).ok()?;
    let (port, ip) = (address.port(), address.ip());
    Some(Try {
        what: "TLS and HTTP/2, with the certificate that was made a moment ago".to_owned(),
        command: format!(
            "curl -i --cacert {} \\\n  --resolve {TLS_HOST}:{port}:{ip} https://{TLS_HOST}:{port}/cart/items",
            certificate.display()
        ),
    })
}

#[cfg(test)]
mod tests {
    use meshgate_proto::admin::Bound;

    use super::super::screen::WIDTH;
    use super::*;

    fn places() -> Places {
        let bound = |gateway: &str, port: u32, address: String| Bound {
            gateway: gateway.into(),
            port,
            address,
            error: String::new(),
            protocol: "HTTP".into(),
        };
        let of = |n: u8| {
            vec![
                bound("edge/web", 8080, format!("127.{n}.1.1:8080")),
                bound("edge/web", 8443, format!("127.{n}.1.1:8443")),
                bound("team-b/api", 8080, format!("127.{n}.2.1:8080")),
                bound("legacy/ingress", 80, format!("127.{n}.3.1:10080")),
            ]
        };
        Places::new(NODES.iter().map(|node| (*node, of(node.number))).collect())
    }

    #[test]
    fn commands_can_be_copied_and_fit() {
        let all = all(&places(), Path::new("/dev/shm/meshgate-demo-AbCdEf/shop.pem"));
        assert_eq!(all.len(), 7);
        assert_eq!(all[0].command, "curl -i -H 'Host: shop.example' http://127.1.1.1:8080/");
        assert_eq!(
            all[1].command,
            "curl -i --cacert /dev/shm/meshgate-demo-AbCdEf/shop.pem \\\n  \
             --resolve shop.example:8443:127.1.1.1 https://shop.example:8443/cart/items"
        );
        assert!(all[6].command.ends_with("http://127.1.3.1:10080/wiki/start"));
        for line in all.iter().flat_map(|one| one.command.lines().chain(one.what.lines())) {
            assert!(line.len() + 4 <= WIDTH, "{line}");
        }
    }

    #[test]
    fn what_is_not_bound_is_left_out() {
        assert_eq!(all(&Places::default(), Path::new("/x")), []);
    }
}
