//! HTTPRoutes: parents, hostnames, backends, expressions.

use meshgate_core::intent::*;
use meshgate_core::snapshot::{
    AppProtocol, BackendTarget, HttpMatch, Kind, PathMatch, Resource, StringMatch, ValueMatch,
};

use crate::fixtures::*;

const R: ObjectKind = ObjectKind::HttpRoute;

fn base() -> Vec<Object> {
    let same = Listener { allowed_namespaces: AllowedNamespaces::Same, ..listener("same HTTP 81") };
    let none = Listener { allowed_namespaces: AllowedNamespaces::None, ..listener("none HTTP 82") };
    let requirements = vec![LabelRequirement::In("team".into(), vec!["red".into()])];
    let selector = AllowedNamespaces::Selector(LabelSelector { requirements });
    let selected = Listener { allowed_namespaces: selector, ..listener("selected HTTP 83") };
    let wild = listener("wild HTTP 80 *.x.com");
    let exact = listener("exact HTTP 80 a.x.com");
    let unserved = tls("unserved HTTPS 443", &["missing"]);
    vec![
        gateway_class("meshgate"),
        namespace("ns", &[]),
        namespace("red", &[("team", "red")]),
        gateway("gw/g", vec![listener("all HTTP 80"), wild, exact, same, none, selected, unserved]),
        service("ns/web", &["http=80", "8080"]),
        service("other/web", &["80"]),
    ]
}

fn world(more: impl IntoIterator<Item = Object>) -> World {
    World::of(base().into_iter().chain(more))
}

/// Namespace, parent, hostnames, condition, attachments.
type ParentCase = (&'static str, &'static str, &'static [&'static str], &'static str, &'static [&'static str]);

#[test]
fn each_parent_answers_for_itself() {
    let cases: &[ParentCase] = &[
        ("ns", "gw/g/all", &[], "True Accepted", &["all: *"]),
        ("ns", "gw/g/all", &["b.com", "*.c.com"], "True Accepted", &["all: b.com *.c.com"]),
        ("ns", "gw/g/wild", &[], "True Accepted", &["wild: *.x.com"]),
        ("ns", "gw/g/wild", &["a.x.com", "x.com", "*.y.x.com"], "True Accepted", &["wild: a.x.com *.y.x.com"]),
        ("ns", "gw/g/wild", &["*.com"], "True Accepted", &["wild: *.x.com"]),
        ("ns", "gw/g/wild", &["x.com", "*.y.com"], "False NoMatchingListenerHostname", &[]),
        ("ns", "gw/g/exact", &["*.x.com"], "True Accepted", &["exact: a.x.com"]),
        ("ns", "gw/g:80", &["a.x.com"], "True Accepted", &["all: a.x.com", "wild: a.x.com", "exact: a.x.com"]),
        ("ns", "gw/g/all:81", &[], "False NoMatchingParent", &[]),
        ("ns", "gw/g/nope", &[], "False NoMatchingParent", &[]),
        ("ns", "gw/g:99", &[], "False NoMatchingParent", &[]),
        ("ns", "gw/g/same", &[], "False NotAllowedByListeners", &[]),
        ("gw", "gw/g/same", &[], "True Accepted", &["same: *"]),
        ("gw", "gw/g/none", &[], "False NotAllowedByListeners", &[]),
        ("ns", "gw/g/selected", &[], "False NotAllowedByListeners", &[]),
        ("unknown", "gw/g/selected", &[], "False NotAllowedByListeners", &[]),
        ("red", "gw/g/selected", &[], "True Accepted", &["selected: *"]),
        // Its certificate is missing: accepted, but nothing is served.
        ("ns", "gw/g/unserved", &[], "True Accepted", &[]),
    ];
    for (namespace, parent, hostnames, condition, attachments) in cases {
        let name = format!("{namespace}/r");
        let world = world([route(&name, parent, hostnames, vec![rule("/", &[])])]);
        let case = format!("{parent} of {namespace} with {hostnames:?}");
        assert_eq!(world.condition(R, &name, parent, "Accepted"), *condition, "{case}");
        assert_eq!(world.attachments(Kind::HttpRoute, &name), *attachments, "{case}");
        assert_eq!(world.route(Kind::HttpRoute, &name).is_some(), !attachments.is_empty(), "{case}");
        // That its rule has no backend is another matter.
        let about_parents = |finding: &&String| finding.contains("HTTPRoute") && !finding.starts_with("MG0308");
        let reported = world.findings().iter().any(|finding| about_parents(&finding));
        assert_eq!(reported, condition.starts_with("False"), "{case}: {:?}", world.findings());
    }
}

#[test]
fn parents_are_found_named_and_merged() {
    let several = with_route(route("ns/r", "gw/g/all", &[], vec![rule("/", &["gone:80"])]), |route| {
        route.parents.push(parent("gw/g"));
        route.parents.push(parent("gw/typo"));
        route.parents.push(ParentRef { kind: "Service".into(), group: String::new(), ..parent("gw/web") });
    });
    let orphan = with_route(route("ns/orphan", "gw/g", &[], vec![]), |route| route.parents.clear());
    let world = world([several, orphan]);
    let attached = world.attachments(Kind::HttpRoute, "ns/r");
    assert_eq!(attached, ["all: *", "wild: *.x.com", "exact: a.x.com"], "once a listener");
    for scope in ["gw/g/all", "gw/g"] {
        assert_eq!(world.condition(R, "ns/r", scope, "Accepted"), "True Accepted", "{scope}");
        assert_eq!(world.condition(R, "ns/r", scope, "ResolvedRefs"), "False BackendNotFound", "{scope}");
    }
    assert_eq!(world.condition(R, "ns/r", "gw/typo", "Accepted"), "", "not ours to say");
    let about_routes: Vec<String> = world.findings().into_iter().filter(|line| line.contains("HTTPRoute")).collect();
    assert_eq!(
        about_routes,
        [
            "MG0101 HTTPRoute ns/r spec.parentRefs[2].name",
            "MG0106 HTTPRoute ns/r spec.rules[0].backendRefs[0].name",
            "MG0307 HTTPRoute ns/orphan spec.parentRefs",
        ]
    );
}

#[test]
fn backends_resolve_or_say_why_not() {
    let reference = |change: fn(&mut BackendRef)| {
        let mut reference = backend("web:80");
        change(&mut reference);
        reference
    };
    let mut external = service("ns/external", &["80"]);
    let mut udp = service("ns/udp", &["53"]);
    for object in [&mut external, &mut udp] {
        if let Spec::Service(service) = &mut object.spec {
            service.ports.iter_mut().filter(|port| port.port == 53).for_each(|port| port.protocol = "UDP".into());
            service.external_name = (service.ports[0].port == 80).then(|| "example.com".into());
        }
    }
    // (reference, reason or empty, code, field)
    let cases = [
        (backend("web:80"), "", "", ""),
        (backend("web:http"), "", "", ""),
        (backend("gone:80"), "BackendNotFound", "MG0106", "name"),
        (backend("web:81"), "BackendNotFound", "MG0107", "port"),
        (backend("udp:53"), "BackendNotFound", "MG0107", "port"),
        (reference(|r| r.port = None), "BackendNotFound", "MG0107", "port"),
        (reference(|r| r.kind = "Bucket".into()), "InvalidKind", "MG0109", "kind"),
        (reference(|r| r.group = "x.io".into()), "InvalidKind", "MG0109", "kind"),
        (backend("external:80"), "InvalidKind", "MG0110", "name"),
        (backend("other/web:80"), "RefNotPermitted", "MG0108", "namespace"),
        (backend("secret/gone:80"), "RefNotPermitted", "MG0108", "namespace"),
    ];
    for (reference, reason, code, field) in cases {
        let good = rule("/good", &["web:8080"]);
        let bad = HttpRule { backends: vec![reference.clone()], ..rule("/", &[]) };
        let world = world([external.clone(), udp.clone(), route("ns/r", "gw/g/all", &[], vec![good, bad])]);
        let rules = &world.route(Kind::HttpRoute, "ns/r").expect("it is attached").rules;
        assert!(matches!(rules[0].backends[0].target, BackendTarget::Service { port: 8080, .. }));
        let target = &rules[1].backends[0].target;
        let resolved = world.condition(R, "ns/r", "gw/g/all", "ResolvedRefs");
        let findings = world.findings();
        if reason.is_empty() {
            assert!(matches!(target, BackendTarget::Service { port: 80, .. }), "{reference:?}: {target:?}");
            assert_eq!(resolved, "True ResolvedRefs", "{reference:?}");
        } else {
            assert_eq!(*target, BackendTarget::Invalid { reason: reason.into() }, "{reference:?}");
            assert_eq!(resolved, format!("False {reason}"), "{reference:?}");
            let expected = format!("{code} HTTPRoute ns/r spec.rules[1].backendRefs[0].{field}");
            assert!(findings.contains(&expected), "{reference:?}: {findings:?}");
        }
    }
}

#[test]
fn a_grant_opens_another_namespace_and_its_end_closes_it() {
    let (from, to) = ("HTTPRoute ns", "Service web");
    let mut world = world([route("ns/r", "gw/g/all", &[], vec![rule("/", &["other/web:80"])])]);
    let resolved = |world: &World| world.condition(R, "ns/r", "gw/g/all", "ResolvedRefs");
    for wrong in [
        grant("ns/g", from, to),
        grant("other/g", "HTTPRoute red", to),
        grant("other/g", "Gateway ns", to),
        grant("other/g", from, "Secret"),
        grant("other/g", from, "Service else"),
    ] {
        world.apply(vec![put(wrong.clone())]);
        assert_eq!(resolved(&world), "False RefNotPermitted", "{wrong:?}");
        world.apply(vec![gone(&wrong)]);
    }
    for right in [grant("other/g", from, to), grant("other/g", from, "Service")] {
        world.apply(vec![put(right.clone())]);
        assert_eq!(resolved(&world), "True ResolvedRefs", "{right:?}");
        world.apply(vec![gone(&right)]);
        assert_eq!(resolved(&world), "False RefNotPermitted");
    }
}

#[test]
fn a_bad_rule_answers_500_and_its_siblings_serve() {
    let regex = |name: &str, pattern: &str| ValueMatch { name: name.into(), value: StringMatch::Regex(pattern.into()) };
    let bad_values = HttpMatch {
        headers: vec![regex("fine", "^a+$"), regex("h", "(")],
        query: vec![regex("q", "[")],
        ..matching(PathMatch::Prefix("/v".into()))
    };
    let rules = vec![
        rule("/", &["web:80"]),
        HttpRule { matches: vec![matching(PathMatch::Regex("/a)|(b".into()))], ..rule("/", &["web:80"]) },
        HttpRule { matches: vec![matching(PathMatch::Prefix("/p".into())), bad_values], ..rule("/", &["web:80"]) },
        HttpRule { unsupported: vec![("filters[0].type".into(), "ExtensionRef".into())], ..rule("/x", &["web:80"]) },
    ];
    let mut world = world([route("ns/r", "gw/g/all", &[], rules.clone())]);
    let made = &world.route(Kind::HttpRoute, "ns/r").expect("it is attached").rules;
    assert_eq!(made.iter().map(|rule| rule.broken).collect::<Vec<_>>(), [false, true, true, true]);
    assert_eq!(made.iter().map(|rule| rule.matches.len()).collect::<Vec<_>>(), [1, 1, 2, 1], "indexes stay");
    let shipped = format!("{made:?}");
    assert!(!shipped.contains("Regex(\"(\")") && !shipped.contains("a)|(b"), "no peer meets a bad one: {shipped}");
    assert_eq!(
        world.findings().into_iter().filter(|line| line.contains("HTTPRoute")).collect::<Vec<_>>(),
        [
            "MG0304 HTTPRoute ns/r spec.rules[1].matches[0].path.value",
            "MG0304 HTTPRoute ns/r spec.rules[2].matches[1].headers[1].value",
            "MG0304 HTTPRoute ns/r spec.rules[2].matches[1].queryParams[0].value",
            "MG0305 HTTPRoute ns/r spec.rules[3].filters[0].type",
        ]
    );
    assert_eq!(world.condition(R, "ns/r", "gw/g/all", "Accepted"), "True Accepted");
    assert_eq!(world.condition(R, "ns/r", "gw/g/all", "PartiallyInvalid"), "True UnsupportedValue");

    world.apply(vec![put(route("ns/r", "gw/g/all", &[], rules[1..].to_vec()))]);
    assert_eq!(world.condition(R, "ns/r", "gw/g/all", "Accepted"), "False UnsupportedValue");
    assert_eq!(world.condition(R, "ns/r", "gw/g/all", "PartiallyInvalid"), "");
    assert!(world.route(Kind::HttpRoute, "ns/r").is_some(), "it answers 500 instead of leaving its place to others");
}

#[test]
fn the_younger_of_two_equal_matches_is_told() {
    let simple = |name: &str, hosts: &[&str], prefix: &str| route(name, "gw/g/all", hosts, vec![rule(prefix, &[])]);
    let shadows = |more: Vec<Object>| -> Vec<String> {
        let world = world(more);
        let mut found = world.findings();
        found.retain(|line| line.starts_with("MG0306"));
        found
    };
    let loser = ["MG0306 HTTPRoute ns/a spec.rules[0].matches[0]"];
    let (older, younger) = (born(simple("ns/z", &["h.com"], "/x/"), 1), born(simple("ns/a", &["h.com"], "/x"), 2));
    assert_eq!(shadows(vec![older.clone(), younger.clone()]), loser);
    assert_eq!(
        shadows(vec![simple("ns/a", &["h.com"], "/x"), simple("ns/b", &["h.com"], "/x")]),
        ["MG0306 HTTPRoute ns/b spec.rules[0].matches[0]"],
        "of equal age the first name wins"
    );
    assert!(shadows(vec![older.clone(), simple("ns/a", &["other.com"], "/x")]).is_empty());
    assert!(shadows(vec![older.clone(), simple("ns/a", &["h.com"], "/y")]).is_empty());
    let with_method = with_route(younger.clone(), |route| route.rules[0].matches[0].method = Some("GET".into()));
    assert!(shadows(vec![older, with_method]).is_empty());
    let regex = |name: &str| {
        with_route(simple(name, &[], "/"), |route| {
            route.rules[0].matches[0].path = PathMatch::Regex("(".to_owned() + name);
        })
    };
    assert!(shadows(vec![regex("ns/a"), regex("ns/b")]).is_empty(), "bad expressions contest nothing");
}

#[test]
fn services_and_slices_become_resources_by_themselves() {
    let mut web = service("ns/app", &["a=1", "b=2", "c=3", "d=4"]);
    if let Spec::Service(service) = &mut web.spec {
        service.ports[1].app_protocol = Some("kubernetes.io/h2c".into());
        service.ports[2].app_protocol = Some("grpc".into());
        service.ports[3].protocol = "UDP".into();
    }
    let world = World::of([web, slice("ns/s", Some("nobody"), 2), slice("ns/lonely", None, 2)]);
    let Some(Resource::Service(made)) = world.get(Kind::Service, "ns/app") else { panic!("no Service") };
    let apps: Vec<AppProtocol> = made.ports.iter().map(|port| port.app).collect();
    assert_eq!(apps, [AppProtocol::Http1, AppProtocol::H2c, AppProtocol::H2c]);
    let Some(Resource::Endpoints(made)) = world.get(Kind::Endpoints, "ns/s") else { panic!("no slice") };
    assert_eq!((made.service.to_string(), made.ports.len()), ("Service ns/nobody".to_owned(), 1));
    assert_eq!(world.get(Kind::Endpoints, "ns/lonely"), None);
}
