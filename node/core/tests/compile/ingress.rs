//! Ingresses: classes, listeners by TLS host, rules.

use meshgate_core::intent::*;
use meshgate_core::snapshot::{BackendTarget, HostPattern, Kind, PathMatch};

use crate::fixtures::*;

const I: ObjectKind = ObjectKind::Ingress;

fn world(more: impl IntoIterator<Item = Object>) -> World {
    let base = [
        ingress_class("meshgate", true),
        service("ns/web", &["http=80"]),
        service("other/web", &["80"]),
        secret("ns/a"),
        secret("ns/b"),
        secret("other/a"),
    ];
    World::of(base.into_iter().chain(more))
}

fn with_tls(object: Object, hosts: &[&str], secret: Option<&str>) -> Object {
    let hosts = hosts.iter().map(ToString::to_string).collect();
    with_ingress(object, |ingress| ingress.tls.push(IngressTls { hosts, secret: secret.map(Into::into) }))
}

/// Classes, the class that the Ingress names, whether it is served, findings.
type ClassCase = (Vec<Object>, Option<&'static str>, bool, &'static [&'static str]);

#[test]
fn a_class_is_named_or_the_default_one_or_not_ours() {
    let foreign = |is_default| {
        let class = IngressClass { controller: "example.com/other".into(), is_default };
        object(ObjectKind::IngressClass, "foreign", Spec::IngressClass(class))
    };
    let cases: Vec<ClassCase> = vec![
        (vec![ingress_class("ours", false)], Some("ours"), true, &[]),
        (vec![ingress_class("ours", true)], None, true, &[]),
        (vec![ingress_class("ours", false)], None, false, &["MG0401 Ingress ns/i spec.ingressClassName"]),
        (vec![ingress_class("ours", true)], Some("typo"), false, &["MG0102 Ingress ns/i spec.ingressClassName"]),
        (vec![ingress_class("ours", true), foreign(false)], Some("foreign"), false, &[]),
        (vec![ingress_class("ours", false), foreign(true)], None, false, &[]),
        (vec![born(ingress_class("ours", true), 2), born(foreign(true), 1)], None, true, &[]),
        (vec![born(ingress_class("ours", true), 1), born(foreign(true), 2)], None, false, &[]),
    ];
    for (classes, class, served, findings) in cases {
        let ingress = ingress("ns/i", class, &["a.com / web:80"]);
        let world = World::of(classes.clone().into_iter().chain([service("ns/web", &["80"]), ingress]));
        let case = format!("{class:?} of {classes:?}");
        assert_eq!(world.route(Kind::Ingress, "ns/i").is_some(), served, "{case}");
        assert_eq!(world.get(Kind::Gateway, "/ours").is_some(), served, "{case}");
        assert_eq!(world.findings(), findings, "{case}");
    }
}

#[test]
fn rules_become_matches_and_the_default_backend_comes_last() {
    let object = with_ingress(
        ingress("ns/i", None, &["a.com /x web:http", "*.b.com /y web:80", "- /z web:80", "a.com /w web:80"]),
        |ingress| {
            ingress.paths[0].path_type = IngressPathType::Exact;
            ingress.paths[1].path_type = IngressPathType::ImplementationSpecific;
            ingress.default_backend = Some(backend("web:80"));
        },
    );
    let world = world([object]);
    let made = world.route(Kind::Ingress, "ns/i").expect("it is served");
    let rules: Vec<String> = made
        .rules
        .iter()
        .map(|rule| {
            let host = rule.host.as_ref().map_or("every".to_owned(), ToString::to_string);
            assert!(matches!(rule.backends[0].target, BackendTarget::Service { port: 80, .. }), "{rule:?}");
            match &rule.matches[0].path {
                PathMatch::Exact(path) => format!("{host} = {path}"),
                PathMatch::Prefix(path) => format!("{host} {path}"),
                PathMatch::Regex(path) => format!("{host} ~ {path}"),
                PathMatch::RegexPrefix(path) => format!("{host} ~* {path}"),
            }
        })
        .collect();
    assert_eq!(rules, ["a.com = /x", "*.b.com /y", "* /z", "a.com /w", "every /"]);
    assert_eq!(made.rules[1].host, Some(HostPattern::WildcardOneLabel("b.com".into())));
    assert_eq!(world.attachments(Kind::Ingress, "ns/i"), ["http: a.com *.b.com *"]);
    assert_eq!(world.findings(), Vec::<String>::new());
}

#[test]
fn each_tls_host_has_a_listener_of_its_own() {
    let first =
        with_tls(ingress("ns/i", None, &["a.com / web:80", "x.b.com / web:80"]), &["a.com", "*.b.com"], Some("a"));
    let first = with_tls(first, &["a.com"], Some("a"));
    let second = with_tls(ingress("other/j", None, &["c.com / web:80", "- /d web:80"]), &[], Some("a"));
    let plain = ingress("ns/k", None, &["a.com /more web:80"]);
    let mut world = world([first.clone(), second.clone(), plain]);
    let listeners = |world: &World| -> Vec<String> {
        let line = |listener: &meshgate_core::snapshot::Listener| {
            let keys: Vec<String> = listener.certificates.iter().map(ToString::to_string).collect();
            format!("{} {} {} {}", listener.name, listener.port, listener.hostname, keys.join(","))
        };
        world.gateway("/meshgate").listeners.iter().map(line).collect()
    };
    assert_eq!(
        listeners(&world),
        [
            "http 80 * ",
            "https-a.com 443 a.com Secret ns/a",
            "https-*.b.com 443 *.b.com Secret ns/a",
            "https 443 * Secret other/a",
        ]
    );
    let attached = |world: &World, name| world.attachments(Kind::Ingress, name);
    assert_eq!(
        attached(&world, "ns/i"),
        ["http: a.com x.b.com", "https-a.com: a.com", "https-*.b.com: x.b.com", "https: a.com x.b.com"]
    );
    assert_eq!(attached(&world, "other/j"), ["http: c.com *", "https-a.com: *", "https-*.b.com: *", "https: c.com *"]);
    assert_eq!(attached(&world, "ns/k"), ["http: a.com", "https-a.com: a.com", "https: a.com"]);

    world.apply(vec![gone(&first), gone(&second)]);
    assert_eq!(listeners(&world), ["http 80 * "]);
    assert_eq!(world.get(Kind::Certificate, "ns/a"), None, "nobody refers to it any more");
}

#[test]
fn the_oldest_ingress_chooses_the_certificate_of_a_host() {
    let old = born(with_tls(ingress("other/z", None, &["a.com / web:80"]), &["a.com"], Some("a")), 1);
    let young = born(with_tls(ingress("ns/a", None, &["a.com /x web:80"]), &["a.com"], Some("b")), 2);
    let world = world([young, old]);
    let keys: Vec<String> =
        world.gateway("/meshgate").listeners[1].certificates.iter().map(ToString::to_string).collect();
    assert_eq!(keys, ["Secret other/a", "Secret ns/b"]);
    assert_eq!(world.findings(), ["MG0403 Ingress ns/a spec.tls[0].hosts[0]"]);
}

#[test]
fn what_is_wrong_with_an_ingress_is_said_and_the_rest_serves() {
    let plain =
        ingress("ns/i", None, &["a.com / web:80", "a.com /x gone:80", "a.com /y web:nope", "a.com /z other/web:80"]);
    let object = with_tls(with_tls(plain, &["a.com"], Some("missing")), &["a.com"], None);
    let object = with_ingress(object, |ingress| {
        let mut reference = backend("bucket:80");
        (reference.group, reference.kind) = ("x.io".into(), "Bucket".into());
        ingress.default_backend = Some(reference);
    });
    // It would allow it, if an Ingress could be allowed.
    let mut grant = grant("other/g", "Ingress ns", "Service");
    if let Spec::ReferenceGrant(grant) = &mut grant.spec {
        grant.from[0].group = ObjectKind::Ingress.group().into();
    }
    let world = world([object, grant]);
    assert_eq!(
        world.findings(),
        [
            "MG0103 Ingress ns/i spec.tls[0].secretName",
            "MG0106 Ingress ns/i spec.rules[1].http.paths[0].backend.service.name",
            "MG0107 Ingress ns/i spec.rules[2].http.paths[0].backend.service.port.name",
            "MG0108 Ingress ns/i spec.rules[3].http.paths[0].backend.service.name",
            "MG0109 Ingress ns/i spec.defaultBackend.resource",
            "MG0404 Ingress ns/i spec.tls[1].secretName",
        ]
    );
    assert_eq!(world.condition(I, "ns/i", "", "ResolvedRefs"), "False BackendNotFound");
    let made = world.route(Kind::Ingress, "ns/i").expect("it is served");
    let served = |rule: usize| matches!(made.rules[rule].backends[0].target, BackendTarget::Service { .. });
    assert_eq!([0, 1, 2, 3, 4].map(served), [true, false, false, false, false]);
}

#[test]
fn the_younger_of_two_ingresses_with_one_path_is_told() {
    let old = born(ingress("ns/z", None, &["a.com /x web:80"]), 1);
    let young = born(ingress("ns/a", None, &["b.com /x web:80", "a.com /x/ web:80"]), 2);
    let world = world([with_tls(old, &["a.com"], Some("a")), young]);
    assert_eq!(world.findings(), ["MG0402 Ingress ns/a spec.rules[1].http.paths[0]"], "once for both listeners");
}

#[test]
fn an_ingress_class_without_an_address_serves_nothing() {
    let gateways = (0..254).map(|n| gateway(&format!("ns/{n:03}"), vec![listener("http HTTP 80")]));
    let mut world = World::of(gateways.chain([gateway_class("meshgate"), service("ns/web", &["80"])]));
    world.apply(vec![put(ingress_class("meshgate", true)), put(ingress("ns/i", None, &["a.com / web:80"]))]);
    assert_eq!(world.findings(), ["MG0207 IngressClass meshgate "]);
    assert_eq!(world.route(Kind::Ingress, "ns/i"), None);
    assert_eq!(world.condition(I, "ns/i", "", "Programmed"), "False Invalid");
}

#[test]
fn a_default_backend_gives_way_to_rules_of_others() {
    let with_default = |object| with_ingress(object, |ingress| ingress.default_backend = Some(backend("web:80")));
    let old = born(with_default(ingress("ns/old", None, &["a.com /x web:80", "b.com /x web:80"])), 1);
    let young = born(ingress("ns/young", None, &["a.com / web:80"]), 2);
    let hosts = |world: &World| -> Vec<String> {
        let made = world.route(Kind::Ingress, "ns/old").expect("it is served");
        made.rules[2..].iter().map(|rule| rule.host.as_ref().map_or("every".into(), ToString::to_string)).collect()
    };
    let mut world = world([old]);
    assert_eq!(hosts(&world), ["every"]);
    world.apply(vec![put(young.clone())]);
    assert_eq!(hosts(&world), ["b.com", "*"], "a.com has a rule for everything");
    assert_eq!(world.findings(), Vec::<String>::new());

    let other = born(with_default(ingress("ns/other", None, &[])), 3);
    world.apply(vec![gone(&young), put(other)]);
    assert_eq!(world.findings(), ["MG0402 Ingress ns/other spec.defaultBackend"], "of two defaults the oldest wins");
}
