//! What is refused, with which field; and what defaults make of the rest.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use meshgate_api::{Translated, translate};
use meshgate_core::intent::Filter::Plain;
use meshgate_core::intent::{AllowedNamespaces, Finding, HttpRoute, LabelRequirement, PortRef, Severity, Spec};
use meshgate_core::snapshot::{Filter, PathMatch, PathRewrite, StringMatch};
use serde_json::{Value, json};

fn gateway_api(kind: &str, spec: Value) -> Translated {
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": "x", "namespace": "n"}, "spec": spec,
    });
    translate(object, "f.yaml:3")
}

fn route(rule: Value) -> Translated {
    gateway_api("HTTPRoute", json!({"parentRefs": [{"name": "g"}], "rules": [rule]}))
}

fn good_route(translated: Translated) -> HttpRoute {
    assert_eq!(translated.findings, []);
    let Some(Spec::HttpRoute(route)) = translated.object.map(|object| object.spec) else { panic!("not a route") };
    route
}

/// The object is refused for exactly these fields.
#[track_caller]
fn refused(translated: &Translated, fields: &[(&str, &str)]) {
    assert!(translated.object.is_none(), "accepted");
    assert!(translated.name.is_some(), "refused without its name");
    let found: Vec<_> = translated.findings.iter().map(|f| (f.code, f.field.as_str())).collect();
    assert_eq!(found, fields, "{:#?}", translated.findings);
    for finding in &translated.findings {
        assert_eq!((finding.severity, finding.origin.as_str()), (Severity::Error, "f.yaml:3"));
    }
}

#[test]
fn an_empty_route_gets_every_default() {
    let route =
        good_route(gateway_api("HTTPRoute", json!({"parentRefs": [{"name": "g"}], "rules": null, "hostnames": null})));
    let parent = &route.parents[0];
    assert_eq!((parent.group.as_str(), parent.kind.as_str()), ("gateway.networking.k8s.io", "Gateway"));
    assert_eq!((&parent.namespace, &parent.section_name, parent.port), (&None, &None, None));
    assert_eq!(route.rules.len(), 1);
    assert_eq!(route.rules[0].matches[0].path, PathMatch::Prefix("/".to_owned()));
    assert!(route.rules[0].backends.is_empty());
}

#[test]
fn null_empty_and_missing_are_the_same() {
    let missing = json!({"backendRefs": [{"name": "s", "port": 80}]});
    let empty = json!({
        "name": "", "matches": [], "filters": [], "timeouts": {},
        "backendRefs": [{"name": "s", "port": 80, "group": "", "kind": "", "namespace": "", "filters": []}],
    });
    let null = json!({
        "name": null, "matches": null, "filters": null, "timeouts": null, "retry": null, "sessionPersistence": null,
        "backendRefs": [{"name": "s", "port": 80, "group": null, "kind": null, "namespace": null, "weight": null, "filters": null}],
    });
    let [missing, empty, null] = [missing, empty, null].map(|rule| good_route(route(rule)));
    assert_eq!(missing, empty);
    assert_eq!(missing, null);
    let backend = &missing.rules[0].backends[0];
    assert_eq!((backend.kind.as_str(), backend.weight, &backend.port), ("Service", 1, &Some(PortRef::Number(80))));
}

#[test]
fn paths_are_checked_as_the_crd_does() {
    for bad in ["a", "/a//b", "/a/../b", "/%2F", "/a#b", "/a b", "/a/."] {
        let rule = json!({"matches": [{}, {"path": {"type": "Exact", "value": bad}}]});
        refused(&route(rule), &[("MG0012", "spec.rules[0].matches[1].path.value")]);
    }
    refused(
        &route(json!({"matches": [{"path": {"type": "Glob", "value": "/"}}]})),
        &[("MG0012", "spec.rules[0].matches[0].path.type")],
    );
    good_route(route(json!({"matches": [{"path": {"type": "RegularExpression", "value": "//.*"}}]})));
}

#[test]
fn matches_are_normalised() {
    let rule = json!({"matches": [{
        "method": "GET",
        "headers": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}],
        "queryParams": [{"name": "Q", "value": "a+", "type": "RegularExpression"}, {"name": "q", "value": "b"}],
    }]});
    let route = good_route(self::route(rule));
    let item = &route.rules[0].matches[0];
    assert_eq!(item.headers.len(), 1, "only the first of equal names");
    assert_eq!((item.headers[0].name.as_str(), &item.headers[0].value), ("x-a", &StringMatch::Exact("1".to_owned())));
    assert_eq!(item.query.len(), 2, "parameters tell cases apart");
    assert_eq!(item.query[0].value, StringMatch::Regex("a+".to_owned()));
    refused(
        &self::route(
            json!({"matches": [{"method": "get", "headers": [{"name": "a b", "value": "1"}, {"name": "c"}]}]}),
        ),
        &[
            ("MG0012", "spec.rules[0].matches[0].method"),
            ("MG0012", "spec.rules[0].matches[0].headers[0].name"),
            ("MG0011", "spec.rules[0].matches[0].headers[1].value"),
        ],
    );
}

#[test]
fn counts_have_limits() {
    let rules = |rules: usize, matches: usize| {
        let rule = json!({"matches": vec![json!({}); matches]});
        gateway_api("HTTPRoute", json!({"rules": vec![rule; rules]}))
    };
    good_route(rules(16, 8));
    good_route(rules(2, 64));
    refused(&rules(17, 1), &[("MG0014", "spec.rules")]);
    refused(&rules(1, 65), &[("MG0014", "spec.rules[0].matches")]);
    refused(&rules(16, 9), &[("MG0014", "spec.rules")]);
}

#[test]
fn filters_become_what_they_say() {
    let rule = json!({
        "matches": [{"path": {"value": "/a"}}],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "A", "value": "b"}], "remove": ["c"]}},
            {"type": "URLRewrite", "urlRewrite": {"hostname": "h.example", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}}},
        ],
    });
    let route = good_route(self::route(rule));
    let [Plain(Filter::RequestHeaders(headers)), Plain(Filter::Rewrite(rewrite))] = route.rules[0].filters.as_slice()
    else {
        panic!()
    };
    assert_eq!(headers.set, [("A".to_owned(), "b".to_owned())]);
    assert_eq!(rewrite.path, Some(PathRewrite::Prefix(String::new())));
    let route = good_route(self::route(
        json!({"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]}),
    ));
    let [Plain(Filter::Redirect(redirect))] = route.rules[0].filters.as_slice() else { panic!() };
    assert_eq!((redirect.status, redirect.port), (302, None));
}

#[test]
fn filters_that_contradict_are_refused() {
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {}});
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {}});
    let prefix = json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}});
    refused(&route(json!({"filters": [redirect, rewrite]})), &[("MG0013", "spec.rules[0].filters")]);
    refused(&route(json!({"filters": [rewrite, rewrite]})), &[("MG0013", "spec.rules[0].filters")]);
    refused(
        &route(json!({"filters": [redirect], "backendRefs": [{"name": "s", "port": 1}]})),
        &[("MG0013", "spec.rules[0].backendRefs")],
    );
    refused(
        &route(json!({"filters": [prefix], "matches": [{"path": {"type": "Exact", "value": "/a"}}]})),
        &[("MG0013", "spec.rules[0].filters")],
    );
    refused(
        &route(json!({"backendRefs": [{"name": "s", "port": 1, "filters": [{"type": "CORS", "urlRewrite": {}}]}]})),
        &[
            ("MG0013", "spec.rules[0].backendRefs[0].filters[0].urlRewrite"),
            ("MG0011", "spec.rules[0].backendRefs[0].filters[0].cors"),
        ],
    );
    refused(
        &route(
            json!({"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 200, "scheme": "ftp"}}, {}]}),
        ),
        &[
            ("MG0012", "spec.rules[0].filters[0].requestRedirect.scheme"),
            ("MG0012", "spec.rules[0].filters[0].requestRedirect.statusCode"),
            ("MG0011", "spec.rules[0].filters[1].type"),
        ],
    );
}

#[test]
fn what_is_not_supported_is_listed_not_ignored() {
    let rule = json!({
        "filters": [{"type": "Teleport"}],
        "backendRefs": [{"name": "s", "port": 1, "filters": [
            {"type": "ExtensionRef", "extensionRef": {}},
            {"type": "CORS", "cors": {}},
            {"type": "RequestRedirect", "requestRedirect": {}},
        ]}],
    });
    let route = good_route(self::route(rule));
    let listed: Vec<_> =
        route.rules[0].unsupported.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
    let expected = [
        ("filters[0].type", "Teleport"),
        ("backendRefs[0].filters[0].type", "ExtensionRef"),
        ("backendRefs[0].filters[1].type", "CORS"),
        ("backendRefs[0].filters[2].type", "RequestRedirect"),
    ];
    assert_eq!(listed, expected);
}

#[test]
fn backends_and_timeouts() {
    refused(
        &route(json!({"backendRefs": [{"name": "s"}, {"name": "s", "port": 65536, "weight": 1_000_001}, {"port": 1}]})),
        &[
            ("MG0011", "spec.rules[0].backendRefs[0].port"),
            ("MG0012", "spec.rules[0].backendRefs[1].port"),
            ("MG0012", "spec.rules[0].backendRefs[1].weight"),
            ("MG0011", "spec.rules[0].backendRefs[2].name"),
        ],
    );
    let ok = good_route(route(json!({"timeouts": {"request": "0s", "backendRequest": "1m30s"}})));
    assert_eq!(ok.rules[0].timeouts.request, Some(Duration::ZERO));
    assert_eq!(ok.rules[0].timeouts.backend_request, Some(Duration::from_secs(90)));
    refused(&route(json!({"timeouts": {"request": "1.5s"}})), &[("MG0012", "spec.rules[0].timeouts.request")]);
    refused(
        &route(json!({"timeouts": {"request": "1s", "backendRequest": "1001ms"}})),
        &[("MG0013", "spec.rules[0].timeouts.backendRequest")],
    );
}

#[test]
fn a_wrong_type_is_named_by_its_path() {
    let translated = route(json!({"backendRefs": [{"name": "s", "port": "http"}]}));
    refused(&translated, &[("MG0010", "spec.rules[0].backendRefs[0].port")]);
    assert!(translated.findings[0].message.contains("invalid type: string \"http\""), "{:?}", translated.findings);
}

#[test]
fn references_to_one_parent_must_differ() {
    let parents = |parents: Value| gateway_api("HTTPRoute", json!({"parentRefs": parents}));
    good_route(parents(json!([{"name": "g", "sectionName": "a"}, {"name": "g", "sectionName": "b"}, {"name": "h"}])));
    refused(&parents(json!([{"name": "g"}, {"name": "g"}])), &[("MG0013", "spec.parentRefs[1]")]);
    refused(&parents(json!([{"name": "g", "port": 1}, {"name": "g"}])), &[("MG0013", "spec.parentRefs[1]")]);
    refused(
        &gateway_api("HTTPRoute", json!({"hostnames": ["ok.example", "Bad.example"]})),
        &[("MG0012", "spec.hostnames[1]")],
    );
}

fn gateway(listeners: Value) -> Translated {
    gateway_api("Gateway", json!({"gatewayClassName": "c", "listeners": listeners}))
}

#[test]
fn listeners_are_defaulted_and_checked() {
    let translated = gateway(json!([
        {"name": "a", "port": 80, "protocol": "HTTP"},
        {"name": "b", "port": 443, "protocol": "HTTPS", "hostname": "*.x", "tls": {"certificateRefs": [{"name": "s"}]},
         "allowedRoutes": {"kinds": [{"kind": "HTTPRoute"}], "namespaces": {"from": "Selector", "selector":
            {"matchLabels": {"k": "v"}, "matchExpressions": [{"key": "e", "operator": "Exists"}]}}}},
    ]));
    assert_eq!(translated.findings, []);
    let Some(Spec::Gateway(gateway)) = translated.object.map(|object| object.spec) else { panic!() };
    assert_eq!(gateway.listeners[0].allowed_namespaces, AllowedNamespaces::Same);
    let secure = &gateway.listeners[1];
    assert!(secure.tls_terminate);
    assert_eq!((secure.certificates[0].kind.as_str(), secure.certificates[0].group.as_str()), ("Secret", ""));
    assert_eq!(secure.allowed_kinds, [("gateway.networking.k8s.io".to_owned(), "HTTPRoute".to_owned())]);
    let AllowedNamespaces::Selector(selector) = &secure.allowed_namespaces else { panic!() };
    let expected =
        [LabelRequirement::In("k".to_owned(), vec!["v".to_owned()]), LabelRequirement::Exists("e".to_owned())];
    assert_eq!(selector.requirements, expected);
}

#[test]
fn listeners_that_an_api_server_refuses() {
    refused(&gateway(json!([])), &[("MG0014", "spec.listeners")]);
    refused(
        &gateway(json!([{"name": "a", "port": 80, "protocol": "HTTP"}, {"name": "a", "port": 81, "protocol": "HTTP"}])),
        &[("MG0013", "spec.listeners[1].name")],
    );
    refused(
        &gateway(json!([{"name": "a", "port": 80, "protocol": "HTTP"}, {"name": "b", "port": 80, "protocol": "HTTP"}])),
        &[("MG0013", "spec.listeners[1]")],
    );
    refused(
        &gateway(json!([{"name": "a", "port": 70000, "protocol": "HTTP"}])),
        &[("MG0012", "spec.listeners[0].port")],
    );
    refused(
        &gateway(json!([{"name": "a", "port": 443, "protocol": "HTTPS", "tls": {}}])),
        &[("MG0011", "spec.listeners[0].tls.certificateRefs")],
    );
    refused(
        &gateway(json!([{"name": "a", "port": 443, "protocol": "HTTPS", "tls": {"mode": "Passthrough"}}])),
        &[("MG0013", "spec.listeners[0].tls.mode")],
    );
    refused(
        &gateway(
            json!([{"name": "a", "port": 80, "protocol": "HTTP", "hostname": "a b", "allowedRoutes": {"namespaces": {"from": "None"}}}]),
        ),
        &[("MG0012", "spec.listeners[0].hostname"), ("MG0012", "spec.listeners[0].allowedRoutes.namespaces.from")],
    );
}

#[test]
fn a_grant_needs_both_sides() {
    refused(
        &gateway_api("ReferenceGrant", json!({"from": [{"group": "g", "kind": "K"}], "to": []})),
        &[("MG0014", "spec.to"), ("MG0011", "spec.from[0].namespace")],
    );
}

fn ingress(spec: Value) -> Translated {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "spec": spec,
        "metadata": {"name": "x", "namespace": "n", "annotations": {"kubernetes.io/ingress.class": "old"}},
    });
    translate(object, "f.yaml:3")
}

#[test]
fn ingresses() {
    let backend = json!({"service": {"name": "s", "port": {"name": "http"}}});
    let path = |path: &str, kind: &str| json!({"path": path, "pathType": kind, "backend": backend});
    let translated = ingress(json!({
        "rules": [{"host": "a.b"}, {"http": {"paths": [path("/x", "Prefix"), path("", "ImplementationSpecific")]}}],
        "tls": [{"hosts": ["a.b"], "secretName": "t"}],
    }));
    assert_eq!(translated.findings, []);
    let Some(Spec::Ingress(ok)) = translated.object.map(|object| object.spec) else { panic!() };
    assert_eq!(ok.class.as_deref(), Some("old"));
    let paths: Vec<_> = ok.paths.iter().map(|path| (path.field.as_str(), path.path.as_str())).collect();
    assert_eq!(paths, [("spec.rules[1].http.paths[0]", "/x"), ("spec.rules[1].http.paths[1]", "/")]);
    assert_eq!(ok.paths[0].backend.port, Some(PortRef::Name("http".to_owned())));

    refused(&ingress(json!({})), &[("MG0011", "spec")]);
    refused(
        &ingress(json!({"rules": [{"host": "1.2.3.4", "http": {"paths": [path("x", "Exact"), path("/", "Other")]}}]})),
        &[
            ("MG0012", "spec.rules[0].host"),
            ("MG0012", "spec.rules[0].http.paths[0].path"),
            ("MG0012", "spec.rules[0].http.paths[1].pathType"),
        ],
    );
    let resource = ingress(json!({"defaultBackend": {"resource": {"apiGroup": "g", "kind": "Bucket", "name": "b"}}}));
    let Some(Spec::Ingress(ok)) = resource.object.map(|object| object.spec) else { panic!() };
    assert_eq!(ok.default_backend.unwrap().kind, "Bucket");
    assert_eq!(resource.findings[0].field, "spec.defaultBackend.resource");
}

fn slice(kind: &str, endpoints: Value) -> Translated {
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind, "endpoints": endpoints,
        "metadata": {"name": "x", "labels": {"kubernetes.io/service-name": "s"}}, "ports": [{"port": 80}, {"name": "any"}],
    });
    translate(object, "f.yaml:3")
}

#[test]
fn endpoint_conditions_have_defaults() {
    let translated = slice(
        "IPv4",
        json!([
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": null}, "nodeName": "n"},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        ]),
    );
    assert_eq!(translated.findings, []);
    let Some(Spec::EndpointSlice(slice)) = translated.object.map(|object| object.spec) else { panic!() };
    assert_eq!(slice.service.as_deref(), Some("s"));
    assert_eq!(slice.ports, [(String::new(), 80, "TCP".to_owned())]);
    let states: Vec<_> = slice.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
    assert_eq!(states, [(true, true, false), (false, false, false), (false, true, true)]);

    refused(&self::slice("IPv6", json!([{"addresses": ["10.0.0.1"]}])), &[("MG0012", "endpoints[0].addresses[0]")]);
    let names = self::slice("FQDN", json!([{"addresses": ["a.example"]}]));
    assert!(names.object.is_some());
    assert_eq!(names.findings[0].field, "addressType");
}

#[test]
fn names_and_kinds() {
    let named =
        |name: Value| translate(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}), "o");
    let field =
        |translated: &Translated| translated.findings.iter().map(|f: &Finding| f.field.clone()).collect::<Vec<_>>();
    assert!(named(json!("a")).findings.is_empty());
    assert_eq!(named(json!("a")).object.unwrap().meta.labels["kubernetes.io/metadata.name"], "a");
    for bad in [json!("A"), json!(1), json!(null), json!("a.b")] {
        let translated = named(bad);
        assert!(translated.name.is_none() && translated.object.is_none());
        assert_eq!(field(&translated), ["metadata.name"]);
    }
    let other = translate(json!({"apiVersion": "gateway.networking.k8s.io/v9", "kind": "Gateway"}), "o");
    assert_eq!((other.findings[0].code, other.findings[0].severity), ("MG0004", Severity::Warning));
    assert_eq!(translate(json!([1]), "o").findings[0].code, "MG0005");
}
