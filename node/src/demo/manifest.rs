//! The little that the demo itself must know of the manifests: which echo backends they need,
//! which ports they use, and where a TLS Secret takes a fresh certificate.
//!
//! The peers read the same files by their own, complete way; nothing here decides a route.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::certificate::Fresh;
use super::echo::Backend;
use super::fleet::NODES;

/// One YAML document, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Document {
    kind: String,
    metadata: Metadata,
    r#type: String,
    spec: serde_json::Value,
    endpoints: Vec<Endpoint>,
    ports: Vec<Port>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    labels: std::collections::BTreeMap<String, String>,
}

impl Metadata {
    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Endpoint {
    addresses: Vec<IpAddr>,
    node_name: Option<String>,
    target_ref: Target,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Target {
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    port: u16,
}

/// The documents of one file.
///
/// # Errors
/// Text that is not YAML, by line.
pub fn documents(text: &str) -> anyhow::Result<Vec<Document>> {
    split(text)
        .into_iter()
        .filter(|part| part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')))
        .map(|part| Ok(serde_saphyr::from_str(part)?))
        .collect()
}

/// Cuts a file at its `---` lines.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" {
            parts.push(&text[start..at]);
            start = at + line.len();
        }
        at += line.len();
    }
    parts.push(&text[start..]);
    parts
}

/// Echo backends for every endpoint of the documents.
///
/// # Errors
/// An endpoint on a node that the demo does not run.
pub fn backends(documents: &[Document]) -> anyhow::Result<Vec<Backend>> {
    let mut all: Vec<Backend> = Vec::new();
    for slice in documents.iter().filter(|document| document.kind == "EndpointSlice") {
        let service = slice.metadata.labels.get("kubernetes.io/service-name").unwrap_or(&slice.metadata.name);
        for endpoint in &slice.endpoints {
            let name = endpoint.node_name.as_deref().unwrap_or_default();
            let Some(node) = NODES.iter().find(|node| node.name == name) else {
                bail!("EndpointSlice {}: the demo runs no node {name:?}", slice.metadata.name);
            };
            for (address, port) in endpoint.addresses.iter().flat_map(|a| slice.ports.iter().map(move |p| (a, p))) {
                let address = SocketAddr::new(*address, port.port);
                // Two slices may name one pod.
                if all.iter().any(|known| known.address == address) {
                    continue;
                }
                all.push(Backend {
                    address,
                    pod: endpoint.target_ref.name.clone().unwrap_or_else(|| address.to_string()),
                    service: format!("{}/{service}", slice.metadata.namespace()),
                    node: node.name.to_owned(),
                    number: node.number,
                });
            }
        }
    }
    Ok(all)
}

/// Ports that the Gateways listen on, and 80 and 443 where an Ingress is; ascending.
pub fn ports(documents: &[Document]) -> Vec<u16> {
    let mut ports: Vec<u16> = documents
        .iter()
        .filter(|document| document.kind == "Gateway")
        .filter_map(|document| document.spec.get("listeners")?.as_array())
        .flatten()
        .filter_map(|listener| u16::try_from(listener.get("port")?.as_u64()?).ok())
        .collect();
    if documents.iter().any(|document| document.kind == "Ingress") {
        ports.extend([80, 443]);
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The text with every TLS Secret's content replaced by the fresh certificate.
///
/// # Errors
/// Text that is not YAML.
pub fn with_certificate(text: &str, fresh: &Fresh) -> anyhow::Result<String> {
    let mut parts = Vec::new();
    for part in split(text) {
        let secret = documents(part)?
            .into_iter()
            .find(|document| document.kind == "Secret" && document.r#type == "kubernetes.io/tls");
        parts.push(match secret {
            Some(secret) => fresh.secret(secret.metadata.namespace(), &secret.metadata.name),
            None => part.to_owned(),
        });
    }
    Ok(parts.join("---\n"))
}

/// All documents of the YAML files of a folder, by name of the file.
///
/// # Errors
/// The folder or a file can't be read. A file that is no YAML is left out: the peers report it.
pub fn of_folder(folder: &Path) -> anyhow::Result<Vec<Document>> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read the directory {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml") && path.is_file());
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        all.extend(documents(&text).unwrap_or_default());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  namespace: edge
  name: cart-1
  labels: {kubernetes.io/service-name: cart}
addressType: IPv4
ports: [{name: http, port: 9001, protocol: TCP}]
endpoints:
- addresses: [127.1.0.11]
  nodeName: node-a
  targetRef: {kind: Pod, name: cart-1}
- addresses: [127.2.0.11]
  nodeName: node-b
---
apiVersion: v1
kind: Secret
metadata: {namespace: edge, name: shop-tls}
type: kubernetes.io/tls
data: {tls.crt: '', tls.key: ''}
---
kind: Gateway
metadata: {namespace: edge, name: web}
spec: {listeners: [{name: a, port: 8443}, {name: b, port: 8080}]}
---
# nothing but a comment
";

    #[test]
    fn backends_come_from_endpoint_slices() {
        let all = backends(&documents(TEXT).unwrap()).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].pod.as_str(), all[0].service.as_str()), ("cart-1", "edge/cart"));
        assert_eq!((all[0].address.to_string().as_str(), all[0].number), ("127.1.0.11:9001", 1));
        assert_eq!((all[1].pod.as_str(), all[1].node.as_str()), ("127.2.0.11:9001", "node-b"));
    }

    #[test]
    fn an_unknown_node_is_an_error() {
        let documents = documents(&TEXT.replace("node-b", "node-z")).unwrap();
        assert!(backends(&documents).unwrap_err().to_string().contains("node-z"));
    }

    #[test]
    fn ports_come_from_gateways_and_ingresses() {
        assert_eq!(ports(&documents(TEXT).unwrap()), [8080, 8443]);
        let text = format!("{TEXT}---\nkind: Ingress\nmetadata: {{name: i}}\n");
        assert_eq!(ports(&documents(&text).unwrap()), [80, 443, 8080, 8443]);
    }

    #[test]
    fn only_the_secret_changes() {
        let fresh = Fresh::new(&["shop.example"]).unwrap();
        let text = with_certificate(TEXT, &fresh).unwrap();
        assert!(text.contains(&fresh.secret("edge", "shop-tls")));
        assert_eq!(documents(&text).unwrap().len(), 3);
        assert!(text.starts_with("# a comment"), "other documents keep their text");
        assert_eq!(text.matches("---\n").count(), TEXT.matches("---\n").count());
    }
}
