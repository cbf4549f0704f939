//! Mirrors, client certificates, and what annotations make of an Ingress.

use meshgate_core::intent::*;
use meshgate_core::snapshot::{self, BackendTarget, ClientValidationMode, HostPattern, Key, Kind, PathMatch};

use crate::fixtures::*;

const G: ObjectKind = ObjectKind::Gateway;

fn mirror(to: &str) -> Filter {
    Filter::Mirror { index: 0, backend: backend(to), denominator: 100, numerator: 35 }
}

#[test]
fn a_mirror_resolves_like_a_backend_or_copies_nothing() {
    let with = |name: &str, to: &str| {
        let rule = HttpRule { filters: vec![mirror(to)], ..rule("/", &["web:80"]) };
        route(name, "gw/g/http", &[&name.replace('/', ".")], vec![rule])
    };
    let base = [
        gateway_class("meshgate"),
        gateway("gw/g", vec![listener("http HTTP 80")]),
        service("app/web", &["80"]),
        service("app/copy", &["80"]),
        with("app/good", "copy:80"),
        with("app/bad", "gone:80"),
    ];
    let world = World::of(base);
    let target = |name: &str| match &world.route(Kind::HttpRoute, name).expect("served").rules[0].filters[..] {
        [snapshot::Filter::Mirror(mirror)] => mirror.target.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        target("app/good"),
        BackendTarget::Service { service: Key::new(Kind::Service, "app", "copy"), port: 80 }
    );
    assert_eq!(target("app/bad"), BackendTarget::Invalid { reason: "BackendNotFound".into() });
    let field = "spec.rules[0].filters[0].requestMirror.backendRef.name";
    assert_eq!(world.findings(), [format!("MG0106 HTTPRoute app/bad {field}")]);
    let resolved = world.condition(ObjectKind::HttpRoute, "app/bad", "gw/g/http", "ResolvedRefs");
    assert_eq!(resolved, "False BackendNotFound");
}

fn authorities(name: &str) -> Object {
    object(ObjectKind::ConfigMap, name, Spec::TrustBundle(TrustBundle { certificates: vec![vec![9]] }))
}

/// A listener that trusts what `kind namespace/name` hold.
fn trusting(refs: &[(&str, &str)]) -> Listener {
    let reference = |(kind, name): &(&str, &str)| {
        let (namespace, name) = name.split_once('/').expect("a namespace");
        let (kind, namespace) = ((*kind).to_owned(), Some(namespace.to_owned()));
        ObjectReference { group: String::new(), kind, namespace, name: name.to_owned() }
    };
    let refs = refs.iter().map(reference).collect();
    let clients = ClientValidation { field: "v".into(), refs, mode: ClientValidationMode::AllowValidOnly };
    Listener { clients: Some(clients), ..tls("a HTTPS 443", &["cert"]) }
}

#[test]
fn client_certificates_need_somebody_to_trust() {
    let of = |refs: &[(&str, &str)]| {
        let gateway = gateway("gw/g", vec![trusting(refs), tls("b HTTPS 444", &["cert"])]);
        let objects = [gateway_class("meshgate"), secret("gw/cert"), authorities("gw/ca"), authorities("other/ca")];
        World::of(objects.into_iter().chain([gateway]))
    };
    let listeners = |world: &World| -> Vec<String> {
        world.gateway("gw/g").listeners.iter().map(|listener| listener.name.clone()).collect()
    };
    let good = of(&[("ConfigMap", "gw/ca")]);
    assert_eq!((listeners(&good), good.findings()), (vec!["a".into(), "b".into()], vec![]));
    assert!(good.get(Kind::TrustBundle, "gw/configmap/ca").is_some());
    // Part of them is enough; without any the listener is closed, and its neighbour is not.
    let part = of(&[("ConfigMap", "gw/ca"), ("Secret", "gw/gone")]);
    assert_eq!(
        (listeners(&part).len(), part.findings()),
        (2, vec!["MG0208 Gateway gw/g v.caCertificateRefs[1].name".into()])
    );
    let cases = [
        (("ConfigMap", "gw/gone"), "MG0208", "name", "InvalidCACertificateRef"),
        (("ConfigMap", "other/ca"), "MG0210", "namespace", "RefNotPermitted"),
        (("Vault", "gw/ca"), "MG0209", "kind", "InvalidCACertificateKind"),
    ];
    for (reference, code, field, reason) in cases {
        let world = of(&[reference]);
        assert_eq!(listeners(&world), ["b"], "{reference:?}");
        assert_eq!(world.findings(), [format!("{code} Gateway gw/g v.caCertificateRefs[0].{field}")]);
        assert_eq!(world.condition(G, "gw/g", "a", "ResolvedRefs"), format!("False {reason}"));
        assert_eq!(world.condition(G, "gw/g", "a", "Accepted"), "False NoValidCACertificate");
    }
}

fn world(more: impl IntoIterator<Item = Object>) -> World {
    let base = [ingress_class("meshgate", true), service("ns/web", &["http=80"]), secret("ns/a")];
    World::of(base.into_iter().chain(more))
}

fn with_options(object: Object, change: impl FnOnce(&mut IngressOptions)) -> Object {
    with_ingress(object, |ingress| change(&mut ingress.options))
}

/// For each rule: host, path, redirects.
fn rules(world: &World, name: &str) -> Vec<String> {
    let rules = world.route(Kind::Ingress, name).expect("served").rules.iter();
    let path = |path: &PathMatch| match path {
        PathMatch::Exact(path) => format!("= {path}"),
        PathMatch::Prefix(path) => path.clone(),
        PathMatch::Regex(path) | PathMatch::RegexPrefix(path) => format!("~ {path}"),
    };
    let redirects = |rule: &snapshot::Rule| -> String {
        let of = |filter: &snapshot::Filter| match filter {
            snapshot::Filter::Redirect(redirect) => format!(" {}", redirect.status),
            _ => String::new(),
        };
        rule.filters.iter().map(of).collect()
    };
    rules
        .map(|rule| {
            let host = rule.host.as_ref().unwrap_or(&HostPattern::Any);
            format!("{host} {}{}", path(&rule.matches[0].path), redirects(rule))
        })
        .collect()
}

#[test]
fn hosts_with_tls_redirect_to_it() {
    let paths = ["a.com / web:80", "b.com / web:80"];
    let of = |https| {
        let object = with_options(ingress("ns/i", None, &paths), |options| options.https = https);
        let tls = IngressTls { hosts: vec!["a.com".into()], secret: Some("a".into()) };
        world([with_ingress(object, |ingress| ingress.tls.push(tls))])
    };
    assert_eq!(rules(&of(HttpsRedirect::WithTls), "ns/i"), ["a.com / 308", "b.com /"]);
    assert_eq!(rules(&of(HttpsRedirect::Never), "ns/i"), ["a.com /", "b.com /"]);
    assert_eq!(rules(&of(HttpsRedirect::Always), "ns/i"), ["a.com / 308", "b.com / 308"]);
}

#[test]
fn an_app_root_comes_before_everything() {
    let object = ingress("ns/i", None, &["a.com / web:80"]);
    let world = world([with_options(object, |options| options.app_root = Some("/home".into()))]);
    assert_eq!(rules(&world, "ns/i"), ["a.com = / 302", "a.com /"]);
    assert_eq!(world.findings(), Vec::<String>::new());
}

#[test]
fn expressions_are_of_one_ingress_and_differences_are_said() {
    let exact = |ingress: &mut Ingress| ingress.paths[1].path_type = IngressPathType::Exact;
    let object = ingress("ns/i", None, &["a.com /x(/|$)(.*) web:80", "a.com /y web:80", "a.com /( web:80"]);
    let object = with_ingress(with_options(object, |options| options.regex = true), exact);
    let world = world([object, ingress("ns/j", None, &["a.com /z web:80"])]);
    assert_eq!(rules(&world, "ns/i"), [r"a.com ~ /x(/|$)(.*)", "a.com = /y", r"a.com ~ [^\s\S]"]);
    assert_eq!(rules(&world, "ns/j"), ["a.com /z"]);
    assert_eq!(
        world.findings(),
        [
            "MG0304 Ingress ns/i spec.rules[2].http.paths[0].path",
            "MG0406 Ingress ns/i spec.rules[0].http.paths[0].path",
            "MG0406 Ingress ns/i spec.rules[1].http.paths[0].pathType",
        ]
    );
}

#[test]
fn a_service_says_what_its_pods_speak() {
    let object = ingress("ns/i", None, &["a.com / web:80"]);
    let world = world([with_options(object, |options| options.app = Some(snapshot::AppProtocol::H2c))]);
    assert_eq!(world.findings(), ["MG0405 Ingress ns/i spec.rules[0].http.paths[0].backend"]);
}
