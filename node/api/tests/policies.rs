//! What filters, retries, TLS and the annotations of ingress-nginx become.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may end at once")]

use std::time::Duration;

use meshgate_api::translate::{Translated, translate};
use meshgate_core::intent::Filter::{Mirror, Plain};
use meshgate_core::intent::{HttpsRedirect, Ingress, Severity, Spec};
use meshgate_core::snapshot::{
    AppProtocol, ClientValidationMode, Filter, HeaderModifier, PathRewrite, Redirect, Rewrite, TlsVersion,
};
use serde_json::{Value, json};

fn of_kind(kind: &str, spec: Value) -> Translated {
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": "x", "namespace": "n"},
        "spec": spec,
    });
    translate(object, "")
}

fn route(rule: Value) -> Translated {
    of_kind("HTTPRoute", json!({"parentRefs": [{"name": "g"}], "rules": [rule]}))
}

fn fields(translated: &Translated) -> Vec<String> {
    translated.findings.iter().map(|finding| format!("{} {}", finding.code, finding.field)).collect()
}

#[test]
fn mirrors_have_a_fraction() {
    let mirror = |more: Value| {
        let mut mirror = json!({"backendRef": {"name": "copy", "port": 80}});
        mirror.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        route(json!({"filters": [{"type": "RequestMirror", "requestMirror": mirror}]}))
    };
    let good = [
        (json!({}), (1, 1)),
        (json!({"percent": 35}), (35, 100)),
        (json!({"fraction": {"numerator": 1, "denominator": 3}}), (1, 3)),
        (json!({"fraction": {"numerator": 7}}), (7, 100)),
    ];
    for (more, expected) in good {
        let Some(Spec::HttpRoute(route)) = mirror(more.clone()).object.map(|object| object.spec) else {
            panic!("{more}")
        };
        let [Mirror { index: 0, backend, numerator, denominator }] = route.rules[0].filters.as_slice() else {
            panic!()
        };
        assert_eq!((backend.name.as_str(), (*numerator, *denominator)), ("copy", expected), "{more}");
    }
    let at = "spec.rules[0].filters[0].requestMirror";
    let bad = [
        (json!({"percent": 101}), "MG0012", "percent"),
        (json!({"percent": -1}), "MG0012", "percent"),
        (json!({"percent": 1, "fraction": {"numerator": 1}}), "MG0013", "fraction"),
        (json!({"fraction": {"numerator": 3, "denominator": 2}}), "MG0012", "fraction"),
        (json!({"fraction": {"numerator": 0, "denominator": 0}}), "MG0012", "fraction"),
        (json!({"fraction": {}}), "MG0011", "fraction.numerator"),
    ];
    for (more, code, field) in bad {
        let translated = mirror(more.clone());
        assert!(translated.object.is_none(), "{more}");
        assert_eq!(fields(&translated), [format!("{code} {at}.{field}")], "{more}");
    }
}

#[test]
fn cors_and_retry() {
    let rule = json!({
        "filters": [{"type": "CORS", "cors": {
            "allowOrigins": ["https://*.Example.com", "http://a.com:8080"], "allowMethods": ["PUT"],
            "allowCredentials": true, "exposeHeaders": ["x-a"],
        }}],
        "retry": {"codes": [500, 503], "backoff": "100ms"},
        "timeouts": {"request": "0s", "backendRequest": "5s"},
    });
    let translated = route(rule);
    assert_eq!(translated.findings, []);
    let Some(Spec::HttpRoute(made)) = translated.object.map(|object| object.spec) else { panic!() };
    let [Plain(Filter::Cors(cors))] = made.rules[0].filters.as_slice() else { panic!() };
    assert_eq!(cors.allow_origins, ["https://*.example.com", "http://a.com:8080"]);
    assert_eq!((cors.allow_credentials, cors.max_age), (true, 5));
    let retry = made.rules[0].retry.as_ref().unwrap();
    assert_eq!(
        (&retry.codes[..], retry.attempts, retry.backoff),
        (&[500, 503][..], 1, Some(Duration::from_millis(100)))
    );
    let bad = json!({
        "filters": [{"type": "CORS", "cors": {
            "allowOrigins": ["a.com", "*", "https://a.*.com"], "allowMethods": ["BREW"], "maxAge": 0,
        }}],
        "retry": {"codes": [399, 500, 500], "attempts": -1, "backoff": "1"},
        "timeouts": {"request": "1s", "backendRequest": "2s"},
    });
    let (at, retry) = ("spec.rules[0].filters[0].cors", "spec.rules[0].retry");
    assert_eq!(
        fields(&route(bad)),
        [
            format!("MG0013 {at}.allowOrigins"),
            format!("MG0012 {at}.allowOrigins[0]"),
            format!("MG0012 {at}.allowOrigins[2]"),
            format!("MG0012 {at}.allowMethods[0]"),
            format!("MG0012 {at}.maxAge"),
            "MG0013 spec.rules[0].timeouts.backendRequest".to_owned(),
            format!("MG0012 {retry}.codes[0]"),
            format!("MG0013 {retry}.codes[2]"),
            format!("MG0012 {retry}.attempts"),
            format!("MG0012 {retry}.backoff"),
        ]
    );
}

fn gateway(options: Value, frontend: Value) -> Translated {
    let listener = |name: &str, port: u16| {
        json!({"name": name, "port": port, "protocol": "HTTPS",
               "tls": {"certificateRefs": [{"name": "cert"}], "options": options}})
    };
    let listeners = json!([listener("a", 443), listener("b", 8443), {"name": "c", "port": 80, "protocol": "HTTP"}]);
    of_kind("Gateway", json!({"gatewayClassName": "c", "listeners": listeners, "tls": {"frontend": frontend}}))
}

#[test]
fn client_certificates_and_tls_versions_by_listener() {
    let validation = |name: &str, mode: &str| json!({"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": name}], "mode": mode});
    let frontend = json!({
        "default": {"validation": validation("all", "AllowInsecureFallback")},
        "perPort": [{"port": 8443, "tls": {"validation": validation("one", "AllowValidOnly")}}],
    });
    let options = json!({"meshgate.dev/min-tls-version": "1.3", "example.com/other": "x"});
    let translated = gateway(options, frontend);
    assert_eq!(translated.findings, []);
    let Some(Spec::Gateway(made)) = translated.object.map(|object| object.spec) else { panic!() };
    let clients: Vec<_> = made.listeners.iter().map(|listener| listener.clients.as_ref()).collect();
    let [Some(all), Some(one), None] = clients[..] else { panic!("{clients:?}") };
    assert_eq!((all.refs[0].name.as_str(), all.mode), ("all", ClientValidationMode::AllowInsecureFallback));
    assert_eq!((one.refs[0].name.as_str(), one.mode), ("one", ClientValidationMode::AllowValidOnly));
    assert_eq!(one.field, "spec.tls.frontend.perPort[0].tls.validation");
    assert_eq!((made.listeners[0].versions.min, made.listeners[0].versions.max), (Some(TlsVersion::V13), None));
}

#[test]
fn tls_that_makes_no_sense() {
    let at = |key: &str| format!("spec.listeners[0].tls.options[\"meshgate.dev/{key}\"]");
    let first = |options| fields(&gateway(options, json!({"default": {}}))).remove(0);
    assert_eq!(first(json!({"meshgate.dev/min-tls-version": "1.1"})), format!("MG0012 {}", at("min-tls-version")));
    assert_eq!(first(json!({"meshgate.dev/ciphers": "x"})), format!("MG0015 {}", at("ciphers")));
    let crossed = json!({"meshgate.dev/min-tls-version": "1.3", "meshgate.dev/max-tls-version": "1.2"});
    assert_eq!(first(crossed), "MG0013 spec.listeners[0].tls.options");
    let validation = json!({"default": {"validation": {"caCertificateRefs": [], "mode": "Maybe"}}});
    assert_eq!(
        fields(&gateway(json!({}), validation)),
        [
            "MG0014 spec.tls.frontend.default.validation.caCertificateRefs",
            "MG0012 spec.tls.frontend.default.validation.mode",
        ]
    );
}

/// An Ingress with annotations of ingress-nginx, and the fields of its findings in short.
fn ingress(annotations: &[(&str, &str)]) -> (Ingress, Vec<(Severity, String)>) {
    let full =
        |key: &str| if key.contains('/') { key.to_owned() } else { format!("nginx.ingress.kubernetes.io/{key}") };
    let all: serde_json::Map<_, _> = annotations.iter().map(|(key, value)| (full(key), json!(value))).collect();
    let translated = translate(
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "x", "namespace": "n", "annotations": all},
            "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}},
        }),
        "",
    );
    let Some(Spec::Ingress(ingress)) = translated.object.map(|object| object.spec) else { panic!() };
    let short = |field: &str| field.rsplit('/').next().unwrap_or_default().trim_end_matches("\"]").to_owned();
    (ingress, translated.findings.iter().map(|finding| (finding.severity, short(&finding.field))).collect())
}

#[test]
fn annotations_of_ingress_nginx() {
    let (made, findings) = ingress(&[
        ("rewrite-target", "/$2"),
        ("upstream-vhost", "inner.local"),
        ("x-forwarded-prefix", "/app"),
        ("app-root", "/home"),
        ("backend-protocol", "grpc"),
        ("proxy-read-timeout", "30"),
        ("proxy-send-timeout", "90"),
        ("force-ssl-redirect", "true"),
    ]);
    assert_eq!(findings, []);
    let options = made.options;
    let rewrite = Rewrite { hostname: Some("inner.local".into()), path: Some(PathRewrite::Template("/$2".into())) };
    let set = vec![("X-Forwarded-Prefix".to_owned(), "/app".to_owned())];
    let prefix = HeaderModifier { set, ..HeaderModifier::default() };
    assert_eq!(options.filters, [Filter::Rewrite(rewrite), Filter::RequestHeaders(prefix)]);
    assert!(options.regex, "rewrite-target implies it");
    assert_eq!((options.app_root.as_deref(), options.app), (Some("/home"), Some(AppProtocol::H2c)));
    assert_eq!((options.timeouts.idle, options.https), (Some(Duration::from_secs(90)), HttpsRedirect::Always));
}

#[test]
fn redirects_of_ingress_nginx() {
    let cases = [
        (("permanent-redirect", "https://b.org/x?y"), 301, Some("https://b.org/x?y"), None),
        (("temporal-redirect", "/moved"), 302, Some("/moved"), None),
        (("permanent-redirect", "http://b.org:8080$request_uri"), 301, None, Some(("b.org", Some(8080)))),
    ];
    for (annotation, status, location, host) in cases {
        let (made, findings) = ingress(&[annotation]);
        assert_eq!(findings, [], "{annotation:?}");
        let [Filter::Redirect(Redirect { status: s, location: l, hostname, port, .. })] = &made.options.filters[..]
        else {
            panic!("{annotation:?}")
        };
        assert_eq!((*s, l.as_deref()), (status, location), "{annotation:?}");
        assert_eq!(hostname.as_deref().map(|name| (name, *port)), host, "{annotation:?}");
    }
    let (made, _) = ingress(&[("permanent-redirect", "/x"), ("permanent-redirect-code", "308")]);
    assert!(matches!(&made.options.filters[..], [Filter::Redirect(Redirect { status: 308, .. })]));
}

#[test]
fn cors_of_ingress_nginx() {
    let (made, findings) = ingress(&[("enable-cors", "true")]);
    let cors = made.options.cors.expect("enabled");
    assert_eq!((findings, cors.allow_origins, cors.allow_credentials), (vec![], vec!["*".to_owned()], false));
    assert_eq!((cors.max_age, cors.allow_methods.len(), cors.allow_headers.len()), (1_728_000, 6, 9));
    let (made, findings) =
        ingress(&[("enable-cors", "true"), ("cors-allow-origin", "https://*.a.com, b.com"), ("cors-max-age", "9")]);
    let cors = made.options.cors.expect("enabled");
    assert_eq!(findings, [(Severity::Error, "cors-allow-origin".to_owned())]);
    assert_eq!(
        (&cors.allow_origins[..], cors.allow_credentials, cors.max_age),
        (&["https://*.a.com".to_owned()][..], true, 9)
    );
    let (made, findings) = ingress(&[("cors-allow-origin", "https://a.com")]);
    assert_eq!((made.options.cors, findings), (None, vec![]));
}

#[test]
fn no_annotation_is_ignored_silently() {
    let cases = [
        (("proxy-body-size", "8m"), Severity::Warning, false),
        (("configuration-snippet", "deny all;"), Severity::Error, true),
        (("server-snippet", "deny all;"), Severity::Error, true),
        (("auth-snippet", "x"), Severity::Error, true),
        (("modsecurity-snippet", "x"), Severity::Error, true),
        (("auth-url", "http://auth"), Severity::Error, true),
        (("whitelist-source-range", "10.0.0.0/8"), Severity::Error, true),
        (("ssl-redirect", "maybe"), Severity::Error, false),
        (("rewrite-target", "/$uri"), Severity::Error, false),
        (("upstream-vhost", "$host"), Severity::Error, false),
        (("permanent-redirect", "https://$host/x"), Severity::Error, false),
        (("backend-protocol", "HTTPS"), Severity::Error, false),
        (("meshgate.dev/teleport", "x"), Severity::Warning, false),
    ];
    for (annotation, severity, broken) in cases {
        let (made, findings) = ingress(&[annotation]);
        let name = annotation.0.rsplit('/').next().unwrap_or_default();
        assert_eq!(findings, [(severity, name.to_owned())], "{annotation:?}");
        assert_eq!(made.options.broken, broken, "{annotation:?}");
    }
    let https = |annotations: &[(&str, &str)]| ingress(annotations).0.options.https;
    assert_eq!(https(&[]), HttpsRedirect::WithTls);
    assert_eq!(https(&[("ssl-redirect", "false")]), HttpsRedirect::Never);
    assert_eq!(https(&[("meshgate.dev/ssl-redirect", "false"), ("force-ssl-redirect", "true")]), HttpsRedirect::Never);
    assert_eq!(ingress(&[("other.io/x", "y")]).1, []);
}

#[test]
fn a_canary_is_no_ingress_of_its_own() {
    let (made, findings) = ingress(&[("canary", "true")]);
    assert_eq!(findings, [(Severity::Error, "canary".to_owned())]);
    assert!(made.paths.is_empty() && made.default_backend.is_none() && made.tls.is_empty() && !made.options.broken);
    let (made, findings) = ingress(&[("canary", "false")]);
    assert_eq!(findings, []);
    assert!(made.default_backend.is_some());
}

#[test]
fn certificates_of_authorities() {
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let map = |data: Value| {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data});
        translate(object, "")
    };
    let other = map(json!({"app.conf": "x"}));
    assert!(other.name.is_none() && other.findings.is_empty(), "of no interest");
    for bad in [pem, "", "nonsense"] {
        let translated = map(json!({"ca.crt": bad}));
        assert!(translated.name.is_some() && translated.object.is_none(), "{bad:?}");
        assert_eq!(fields(&translated), ["MG0020 data[\"ca.crt\"]"], "{bad:?}");
    }
}
