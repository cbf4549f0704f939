//! What meshgate serves: a Gateway, one route or a route a host, and a Service with the backend.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::certificate::{Certificate, HOST};
use crate::load::host_name;
use crate::scenario::Shape;

/// Namespace of everything.
const NAMESPACE: &str = "bench";

/// All objects in one file. JSON is YAML.
pub fn all(shape: &Shape, node: &str, port: u16, backend: SocketAddr, certificate: &Certificate) -> String {
    let mut objects = vec![
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": "meshgate"}, "spec": {"controllerName": "meshgate.dev/gateway-controller"},
        }),
        gateway(shape, port),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": named("backend"),
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": backend.port()}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "backend-1", "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": "backend"},
            },
            "addressType": "IPv4", "ports": [{"name": "http", "port": backend.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [backend.ip()], "nodeName": node, "conditions": {"ready": true}}],
        }),
    ];
    if shape.tls {
        objects.push(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": named("certificate"),
            "data": {"tls.crt": STANDARD.encode(&certificate.chain), "tls.key": STANDARD.encode(&certificate.key)},
        }));
    }
    match shape.hosts {
        0 => objects.push(route("all", HOST, &["/"])),
        hosts => {
            objects.extend((0..hosts).map(|host| route(&format!("route-{host}"), &host_name(host), &["/a", "/b"])))
        }
    }
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

fn named(name: &str) -> Value {
    json!({"name": name, "namespace": NAMESPACE})
}

fn gateway(shape: &Shape, port: u16) -> Value {
    let listener = if shape.tls {
        let tls = json!({"mode": "Terminate", "certificateRefs": [{"name": "certificate"}]});
        json!({"name": "web", "port": port, "protocol": "HTTPS", "tls": tls})
    } else {
        json!({"name": "web", "port": port, "protocol": "HTTP"})
    };
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": named("web"),
        "spec": {"gatewayClassName": "meshgate", "listeners": [listener]},
    })
}

fn route(name: &str, host: &str, prefixes: &[&str]) -> Value {
    let rule = |prefix: &&str| {
        json!({
            "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
            "backendRefs": [{"name": "backend", "port": 80}],
        })
    };
    let rules: Vec<Value> = prefixes.iter().map(rule).collect();
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": named(name),
        "spec": {"parentRefs": [{"name": "web"}], "hostnames": [host], "rules": rules},
    })
}
