//! `meshctl analyze -f DIR`: every kind of bad input is reported by file, object and field, and
//! everything else compiles.

#![allow(clippy::unwrap_used, reason = "an integration test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use meshgate_api::Directory;
use meshgate_core::compile::{Allocations, Compiler, Settings};
use meshgate_core::snapshot::{Key, Kind};
use serde_json::Value;

const GOOD: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: meshgate}
spec: {controllerName: meshgate.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec:
  gatewayClassName: meshgate
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{port: 80}]}
";

/// An HTTPRoute in `shop` on host `<name>.example`, with one rule.
fn route(name: &str, host: &str, rule: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{name: web}}]
  hostnames: [{host}.example]
  rules:
  - {rule}
"
    )
}

const TO_CART: &str = "backendRefs: [{name: cart, port: 80}]";

fn secret(certificate: &str, key: &str) -> String {
    let indent = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: pair, namespace: shop}}\nstringData:\n  \
         tls.crt: |\n{}  tls.key: |\n{}",
        indent(certificate),
        indent(key)
    )
}

/// A directory with one good route and one of every mistake.
fn directory() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let pair = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (one, other) = (pair("a.example"), pair("b.example"));
    write("00-good.yaml", GOOD);
    write("10-route.yaml", &route("good", "good", TO_CART));
    write("20-broken.yaml", "kind: HTTPRoute\nspec: [");
    write("21-unknown.yaml", "apiVersion: example.dev/v1\nkind: Teapot\nmetadata: {name: brown}\n");
    write("22-missing.yaml", &route("missing", "missing", "backendRefs: [{name: nowhere, port: 80}]"));
    let regex = format!("matches: [{{path: {{type: RegularExpression, value: '/(['}}}}]\n    {TO_CART}");
    write("23-regex.yaml", &route("regex", "regex", &regex));
    write("24-field.yaml", &route("field", "field", "backendRefs: [{name: cart, port: http}]"));
    write("25-twice.yaml", &route("later", "good", TO_CART));
    write("26-copy.yaml", &route("good", "copy", TO_CART));
    write("27-pair.yaml", &secret(&one.cert.pem(), &other.signing_key.serialize_pem()));
    let large = format!("metadata: {{name: large, namespace: shop, annotations: {{a: '{}'}}}}", "x".repeat(2 << 20));
    write(
        "28-large.yaml",
        &route("large", "large", TO_CART).replace("metadata: {name: large, namespace: shop}", &large),
    );
    folder
}

fn analyze(folder: &Path) -> (i32, Vec<Value>) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_meshctl")).args(["analyze", "-o", "json", "-f"]).arg(folder).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), document["findings"].as_array().unwrap().clone())
}

#[test]
fn each_mistake_is_named_by_file_object_and_field() {
    let folder = directory();
    let (code, findings) = analyze(folder.path());
    assert_eq!(code, 1, "findings are exit code 1");
    let expected = [
        // file, object's name, field begins with, message contains
        ("20-broken.yaml", "", "", "unclosed"),
        ("21-unknown.yaml", "", "", "Teapot"),
        ("22-missing.yaml", "missing", "spec.rules[0].backendRefs[0].name", "nowhere"),
        ("23-regex.yaml", "regex", "spec.rules[0].matches[0].path.value", "unclosed"),
        ("24-field.yaml", "field", "spec.rules[0].backendRefs[0].port", ""),
        ("25-twice.yaml", "later", "spec.", "good"),
        ("26-copy.yaml", "good", "", "10-route.yaml"),
        ("27-pair.yaml", "pair", "data", "key"),
        ("28-large.yaml", "", "", ""),
    ];
    for (file, object, field, message) in expected {
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let found = findings.iter().any(|finding| {
            text(finding, "origin").starts_with(file)
                && finding["object"]["name"].as_str().unwrap_or_default().contains(object)
                && text(finding, "field").starts_with(field)
                && text(finding, "message").contains(message)
        });
        assert!(found, "{file}: no finding for {object} {field} with {message:?} in\n{findings:#?}");
    }
    let strangers = findings.iter().filter(|finding| {
        let origin = finding["origin"].as_str().unwrap_or_default();
        !expected.iter().any(|(file, ..)| origin.starts_with(file))
    });
    assert_eq!(strangers.count(), 0, "what is right is not complained about:\n{findings:#?}");
}

#[test]
fn everything_else_is_served() {
    let folder = directory();
    let batch = Directory::open(folder.path()).unwrap().read().unwrap();
    let mut compiler = Compiler::new(Settings::default(), Allocations::new());
    compiler.apply(batch.changes);
    let served = |name: &str| compiler.resources().contains_key(&Key::new(Kind::HttpRoute, "shop", name));
    assert!(served("good") && served("later"));
    assert!(!served("large") && !served("field"));
}

#[test]
fn a_directory_without_mistakes_has_no_findings() {
    let examples = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
        .join("../manifests/examples/demo");
    let (code, findings) = analyze(&examples);
    assert_eq!((code, findings.len()), (0, 0), "{findings:#?}");
}
