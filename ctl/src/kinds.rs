//! Object names as kubectl takes them: any case, plurals and short names, with or without a group.

use crate::failure::Failure;

/// Kind as in a manifest, other names, whether it lives in a namespace.
const KINDS: [(&str, &[&str], bool); 14] = [
    ("HTTPRoute", &["httproutes", "hr"], true),
    ("GRPCRoute", &["grpcroutes"], true),
    ("TLSRoute", &["tlsroutes"], true),
    ("TCPRoute", &["tcproutes"], true),
    ("UDPRoute", &["udproutes"], true),
    ("Gateway", &["gateways", "gtw", "gw"], true),
    ("GatewayClass", &["gatewayclasses", "gc"], false),
    ("ReferenceGrant", &["referencegrants", "refgrant"], true),
    ("Ingress", &["ingresses", "ing"], true),
    ("IngressClass", &["ingressclasses"], false),
    ("Service", &["services", "svc"], true),
    ("EndpointSlice", &["endpointslices"], true),
    ("Secret", &["secrets"], true),
    ("Namespace", &["namespaces", "ns"], false),
];

/// An object of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// `HTTPRoute`, `Gateway`, ...
    pub kind: &'static str,
    /// Empty for kinds without one.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Object {
    /// Reads `kind/name` or `kind/namespace/name`; `namespace` is that of -n.
    pub fn parse(text: &str, namespace: Option<&str>) -> Result<Self, Failure> {
        let wrong = || Failure::Usage(format!("`{text}` is no object; try httproute/NAME or httproute/NAMESPACE/NAME"));
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(wrong());
        }
        let (kind, inner, name) = match parts[..] {
            [kind, name] => (kind, None, name),
            [kind, inner, name] => (kind, Some(inner), name),
            _ => return Err(wrong()),
        };
        let (kind, namespaced) = resolve(kind)?;
        let namespace = match (namespaced, inner, namespace) {
            (false, None, _) => "",
            (false, Some(_), _) => return Err(Failure::Usage(format!("a {kind} has no namespace: `{text}`"))),
            (true, Some(inner), Some(flag)) if inner != flag => {
                return Err(Failure::Usage(format!("`{text}` and -n {flag} name two namespaces")));
            }
            (true, inner, flag) => inner.or(flag).unwrap_or("default"),
        };
        Ok(Self { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// The manifest's kind for any of its names, and whether it lives in a namespace.
fn resolve(text: &str) -> Result<(&'static str, bool), Failure> {
    let bare = text.split('.').next().unwrap_or(text).to_ascii_lowercase();
    let found = KINDS.iter().find(|(kind, others, _)| kind.to_ascii_lowercase() == bare || others.contains(&&*bare));
    found.map(|(kind, _, namespaced)| (*kind, *namespaced)).ok_or_else(|| {
        let known: Vec<String> = KINDS.iter().map(|(kind, ..)| kind.to_ascii_lowercase()).collect();
        Failure::Usage(format!("`{text}` is no kind that meshgate reads; known: {}", known.join(", ")))
    })
}

/// `httproute/shop/cart`, as `meshctl wait` takes it.
pub fn reference(kind: &str, namespace: &str, name: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    if namespace.is_empty() { format!("{kind}/{name}") } else { format!("{kind}/{namespace}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, namespace: Option<&str>) -> Option<String> {
        let object = Object::parse(text, namespace).ok()?;
        Some(format!("{} {} {}", object.kind, object.namespace, object.name))
    }

    #[test]
    fn names_as_in_kubectl() {
        for kind in ["httproute", "HTTPRoute", "httproutes", "hr", "httproutes.gateway.networking.k8s.io"] {
            assert_eq!(parsed(&format!("{kind}/shop/cart"), None).as_deref(), Some("HTTPRoute shop cart"));
        }
        assert_eq!(parsed("gtw/edge", Some("infra")).as_deref(), Some("Gateway infra edge"));
        assert_eq!(parsed("ing/edge", None).as_deref(), Some("Ingress default edge"));
        assert_eq!(parsed("hr/shop/cart", Some("shop")).as_deref(), Some("HTTPRoute shop cart"));
        assert_eq!(parsed("gc/meshgate", Some("shop")).as_deref(), Some("GatewayClass  meshgate"));
    }

    #[test]
    fn what_is_no_object() {
        for text in ["cart", "hr/", "hr//cart", "hr/a/b/c", "pod/cart", "gc/shop/meshgate"] {
            assert_eq!(parsed(text, None), None, "{text}");
        }
        assert_eq!(parsed("hr/shop/cart", Some("other")), None);
    }
}
