//! The manifests: a Gateway, routes with a host each, Services with their endpoints.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// How large it is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub routes: u32,
    pub services: u32,
    /// Of each Service.
    pub endpoints: u32,
    /// All routes have the same host, and differ by path.
    pub one_host: bool,
}

/// Writes all manifests, a file an object.
///
/// # Errors
/// A file can't be written.
pub fn write(folder: &Path, size: Size) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("gateway.yaml"), GATEWAY)?;
    for index in 0..size.routes {
        edit(folder, size, index, 0)?;
    }
    for index in 0..size.services {
        fs::write(folder.join(format!("service-{index:05}.yaml")), service(index, size.endpoints))?;
    }
    Ok(())
}

/// Writes a route as it is after so many edits; returns its file.
///
/// # Errors
/// The file can't be written.
pub fn edit(folder: &Path, size: Size, index: u32, edits: u32) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("route-{index:05}.yaml"));
    // Aside and renamed, so that nobody reads half a file.
    let aside = folder.join(".new");
    fs::write(&aside, route(index, index % size.services.max(1), size.one_host, edits))?;
    fs::rename(&aside, &path)?;
    Ok(path)
}

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: meshgate}
spec: {controllerName: meshgate.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: bench}
spec:
  gatewayClassName: meshgate
  listeners:
    - {name: http, port: 8080, protocol: HTTP}
    - {name: more, port: 8081, protocol: HTTP}
";

fn route(index: u32, service: u32, one_host: bool, edits: u32) -> String {
    let host = if one_host { "all".to_owned() } else { format!("r{index:05}") };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route-{index:05}, namespace: bench}}
spec:
  parentRefs: [{{name: web}}]
  hostnames: [{host}.bench.example]
  rules:
    - matches:
        - path: {{type: Exact, value: /{index}/health}}
      backendRefs: [{{name: service-{service:05}, port: 80}}]
    - matches:
        - path: {{type: PathPrefix, value: /{index}/{edits}}}
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier: {{set: [{{name: X-Edit, value: \"{edits}\"}}]}}
      backendRefs: [{{name: service-{service:05}, port: 80}}]
"
    )
}

fn service(index: u32, endpoints: u32) -> String {
    let mut text = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: service-{index:05}, namespace: bench}}
spec:
  ports: [{{name: http, port: 80, targetPort: 9080}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: service-{index:05}-1
  namespace: bench
  labels: {{kubernetes.io/service-name: service-{index:05}}}
addressType: IPv4
ports: [{{name: http, port: 9080, protocol: TCP}}]
endpoints:
"
    );
    for number in 0..endpoints {
        let at = index * endpoints + number;
        let (high, low, node) = (at / 250 % 250, at % 250 + 1, at % 3);
        // Writing to a string never fails.
        let _ =
            writeln!(text, "  - {{addresses: [10.1.{high}.{low}], nodeName: n{node}, conditions: {{ready: true}}}}");
    }
    text
}
