//! What the peers serve: a Gateway, Services with endpoints, routes, and the route that is edited.

use std::fmt::Write as _;

use crate::fleet::Node;
use crate::options::Options;
use meshgate_bench::folder::Folder;

/// Namespace of everything.
pub const NAMESPACE: &str = "bench";
/// The route that is edited.
pub const PROBE: &str = "probe";
/// The host that only it serves.
pub const PROBE_HOST: &str = "probe.bench.example";
/// File of the route that is edited.
pub const PROBE_FILE: &str = "probe.yaml";
/// What its redirects start with; the counter follows.
pub const PROBE_PATH: &str = "/v/";
/// Port of the Gateway.
pub const PORT: u16 = 8080;

/// Endpoint addresses of a node start there: 127.n.0.10.
const FIRST_POD: u32 = 10;
/// How many different ones are used. Nothing listens there.
const PODS: u32 = 240;

/// Writes everything; the edited route is one of `routes`.
///
/// # Errors
/// A file can't be written.
pub fn write(folder: &Folder, nodes: &[Node], routes: u32, options: &Options) -> anyhow::Result<()> {
    folder.put("gateway.yaml", &gateway())?;
    folder.put(PROBE_FILE, &probe(0))?;
    let others = routes.saturating_sub(1);
    for index in 0..others {
        folder.put(&format!("route-{index:05}.yaml"), &route(index, index / options.routes_per_service))?;
    }
    for index in 0..others.div_ceil(options.routes_per_service) {
        folder.put(&format!("service-{index:05}.yaml"), &service(index, nodes))?;
    }
    Ok(())
}

fn gateway() -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: meshgate}}
spec: {{controllerName: meshgate.dev/gateway-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: web, namespace: {NAMESPACE}}}
spec:
  gatewayClassName: meshgate
  listeners:
    - {{name: http, port: {PORT}, protocol: HTTP}}
"
    )
}

/// The edited route: a redirect, so that no backend takes part.
pub fn probe(counter: u64) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {PROBE}, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{name: web}}]
  hostnames: [{PROBE_HOST}]
  rules:
    - filters:
        - type: RequestRedirect
          requestRedirect:
            statusCode: 302
            path: {{type: ReplaceFullPath, replaceFullPath: {PROBE_PATH}{counter}}}
"
    )
}

fn route(index: u32, service: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: route-{index:05}, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{name: web}}]
  hostnames: [r{index:05}.bench.example]
  rules:
    - matches:
        - path: {{type: Exact, value: /health}}
      backendRefs: [{{name: service-{service:05}, port: 80}}]
    - matches:
        - path: {{type: PathPrefix, value: /}}
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier: {{set: [{{name: X-Route, value: \"{index}\"}}]}}
      backendRefs: [{{name: service-{service:05}, port: 80}}]
"
    )
}

fn service(index: u32, nodes: &[Node]) -> String {
    let mut text = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: service-{index:05}, namespace: {NAMESPACE}}}
spec:
  ports: [{{name: http, port: 80, targetPort: 9080}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: service-{index:05}-1
  namespace: {NAMESPACE}
  labels: {{kubernetes.io/service-name: service-{index:05}}}
addressType: IPv4
ports: [{{name: http, port: 9080, protocol: TCP}}]
endpoints:
"
    );
    let pod = FIRST_POD + index % PODS;
    for node in nodes {
        // Writing to a string never fails.
        let _ = writeln!(
            text,
            "  - {{addresses: [127.{}.0.{pod}], nodeName: {}, conditions: {{ready: true}}}}",
            node.number,
            node.name()
        );
    }
    text
}
