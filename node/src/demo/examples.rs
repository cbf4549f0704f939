//! The examples of manifests/examples/demo, carried in the program, so that a binary that was
//! moved finds them too.

use std::fs;

use anyhow::Context;

use super::certificate::Fresh;
use super::layout::Layout;
use super::manifest;

/// The host that is served over TLS.
pub const TLS_HOST: &str = "shop.example";

/// A file of the examples, by name and text.
macro_rules! example {
    ($name:literal) => {
        ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/examples/demo/", $name)))
    };
}

/// All files of the examples.
const FILES: [(&str, &str); 7] = [
    example!("00-namespaces.yaml"),
    example!("10-gateways.yaml"),
    example!("20-shop.yaml"),
    example!("30-team-b.yaml"),
    example!("40-ingress.yaml"),
    example!("50-services.yaml"),
    example!("shop-tls.yaml"),
];

/// Copies the examples into the demo's own source, with a fresh certificate.
///
/// # Errors
/// A file can't be written.
pub fn unpack(layout: &Layout) -> anyhow::Result<Fresh> {
    let fresh = Fresh::new(&[TLS_HOST])?;
    for (name, text) in FILES {
        let text = manifest::with_certificate(text, &fresh).with_context(|| format!("example {name}"))?;
        layout.put(name, &text)?;
    }
    let path = layout.certificate();
    fs::write(&path, &fresh.certificate_pem).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_carried() {
        let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
            .join("../manifests/examples/demo");
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".yaml"))
            .collect();
        names.sort();
        assert_eq!(names, FILES.map(|(name, _)| name));
    }

    #[test]
    fn the_copy_has_a_fresh_certificate_and_a_backend_on_each_node() {
        let layout = Layout::create(None).unwrap();
        let fresh = unpack(&layout).unwrap();
        let secret = fs::read_to_string(layout.source().join("shop-tls.yaml")).unwrap();
        assert!(secret.contains(&fresh.secret("certs", "shop-tls")), "{secret}");
        assert_eq!(fs::read_to_string(layout.certificate()).unwrap(), fresh.certificate_pem);

        let documents = manifest::of_folder(layout.source()).unwrap();
        assert_eq!(manifest::ports(&documents), [80, 443, 8080, 8443]);
        let backends = manifest::backends(&documents).unwrap();
        let nodes = |service: &str| {
            backends.iter().filter(|one| one.service == service).map(|one| one.node.clone()).collect::<Vec<_>>()
        };
        // The promises of `--check` count on these.
        assert_eq!(nodes("shop/cart"), ["node-b"]);
        assert_eq!(nodes("shop/checkout"), ["node-c"]);
        assert_eq!(nodes("shop/checkout-canary"), ["node-a"]);
        assert_eq!(nodes("team-b/echo"), ["node-a", "node-b", "node-c"]);
        assert_eq!(nodes("legacy/intranet"), ["node-c"]);
        assert!(backends.iter().all(|one| !one.pod.contains(':')), "each has a pod's name");
    }
}
