//! Gateways: listeners, certificates, addresses.

use meshgate_core::compile::Allocations;
use meshgate_core::intent::*;
use meshgate_core::snapshot::{GatewayAddress, Key, Kind};

use crate::fixtures::*;

const G: ObjectKind = ObjectKind::Gateway;

fn names(world: &World, gateway: &str) -> Vec<String> {
    world.gateway(gateway).listeners.iter().map(|listener| listener.name.clone()).collect()
}

#[test]
fn of_two_listeners_in_conflict_the_later_one_loses() {
    let passthrough = Listener { tls_terminate: false, ..listener("raw HTTPS 9443") };
    let listeners = vec![
        listener("a HTTP 80"),
        listener("b HTTP 80 x.com"),
        listener("c HTTP 80"),
        listener("c2 HTTP 80 x.com"),
        tls("d HTTPS 80 y.com", &["cert"]),
        listener("e TCP 90"),
        listener("f HTTP 90"),
        listener("a HTTP 91"),
        passthrough,
    ];
    let world = World::of([gateway_class("meshgate"), secret("ns/cert"), gateway("ns/g", listeners)]);

    assert_eq!(names(&world, "ns/g"), ["a", "b", "f"]);
    let cases = [
        ("a", "True Accepted", "False NoConflicts"),
        ("b", "True Accepted", "False NoConflicts"),
        ("c", "False HostnameConflict", "True HostnameConflict"),
        ("c2", "False HostnameConflict", "True HostnameConflict"),
        ("d", "False ProtocolConflict", "True ProtocolConflict"),
        ("e", "False UnsupportedProtocol", "False NoConflicts"),
        ("f", "True Accepted", "False NoConflicts"),
        ("raw", "False UnsupportedProtocol", "False NoConflicts"),
        ("", "True ListenersNotValid", ""),
    ];
    for (scope, accepted, conflicted) in cases {
        assert_eq!(world.condition(G, "ns/g", scope, "Accepted"), accepted, "{scope}");
        assert_eq!(world.condition(G, "ns/g", scope, "Conflicted"), conflicted, "{scope}");
    }
    assert_eq!(
        world.findings(),
        [
            "MG0201 Gateway ns/g spec.listeners[5].protocol",
            "MG0201 Gateway ns/g spec.listeners[8].tls.mode",
            "MG0202 Gateway ns/g spec.listeners[7].name",
            "MG0203 Gateway ns/g spec.listeners[2].hostname",
            "MG0203 Gateway ns/g spec.listeners[3].hostname",
            "MG0204 Gateway ns/g spec.listeners[4].port",
        ]
    );
}

#[test]
fn a_gateway_without_a_valid_listener_is_not_accepted() {
    let world = World::of([gateway_class("meshgate"), gateway("ns/g", vec![listener("e TCP 90")])]);
    assert_eq!(world.condition(G, "ns/g", "", "Accepted"), "False ListenersNotValid");
}

#[test]
fn an_https_listener_needs_a_certificate_that_resolves() {
    let odd = Listener {
        certificates: vec![ObjectReference {
            group: "x".into(),
            kind: "Vault".into(),
            namespace: None,
            name: "cert".into(),
        }],
        ..listener("odd HTTPS 443 odd.com")
    };
    let listeners = vec![
        tls("good HTTPS 443 a.com", &["cert", "missing"]),
        tls("missing HTTPS 443 b.com", &["missing"]),
        tls("none HTTPS 443 c.com", &[]),
        tls("foreign HTTPS 443 d.com", &["other/cert"]),
        tls("granted HTTPS 443 e.com", &["shared/cert"]),
        tls("not-that-one HTTPS 443 f.com", &["shared/secret"]),
        odd,
    ];
    let world = World::of([
        gateway_class("meshgate"),
        secret("ns/cert"),
        secret("ns/unused"),
        secret("other/cert"),
        secret("shared/cert"),
        secret("shared/secret"),
        grant("shared/g", "Gateway ns", "Secret cert"),
        grant("other/g", "Gateway elsewhere", "Secret"),
        gateway("ns/g", listeners),
    ]);

    assert_eq!(names(&world, "ns/g"), ["good", "granted"]);
    let cases = [
        ("good", "False InvalidCertificateRef", ""),
        ("missing", "False InvalidCertificateRef", "False Invalid"),
        ("none", "False InvalidCertificateRef", "False Invalid"),
        ("foreign", "False RefNotPermitted", "False Invalid"),
        ("granted", "True ResolvedRefs", ""),
        ("not-that-one", "False RefNotPermitted", "False Invalid"),
        ("odd", "False InvalidCertificateRef", "False Invalid"),
    ];
    for (scope, resolved, programmed) in cases {
        assert_eq!(world.condition(G, "ns/g", scope, "Accepted"), "True Accepted", "{scope}");
        assert_eq!(world.condition(G, "ns/g", scope, "ResolvedRefs"), resolved, "{scope}");
        assert_eq!(world.condition(G, "ns/g", scope, "Programmed"), programmed, "{scope}");
    }
    let shipped: Vec<String> =
        world.compiler.resources().keys().filter(|key| key.kind == Kind::Certificate).map(Key::to_string).collect();
    assert_eq!(shipped, ["Secret ns/cert", "Secret shared/cert"], "only certificates of served listeners");
    assert_eq!(
        world.findings(),
        [
            "MG0103 Gateway ns/g spec.listeners[0].tls.certificateRefs[1].name",
            "MG0103 Gateway ns/g spec.listeners[1].tls.certificateRefs[0].name",
            "MG0104 Gateway ns/g spec.listeners[6].tls.certificateRefs[0].kind",
            "MG0105 Gateway ns/g spec.listeners[3].tls.certificateRefs[0].namespace",
            "MG0105 Gateway ns/g spec.listeners[5].tls.certificateRefs[0].namespace",
            "MG0205 Gateway ns/g spec.listeners[2].tls.certificateRefs",
        ]
    );
}

#[test]
fn route_kinds_that_are_not_served_are_reported() {
    let kinds = |kinds: &[&str]| -> Vec<(String, String)> {
        kinds.iter().map(|kind| ("gateway.networking.k8s.io".to_owned(), kind.to_string())).collect()
    };
    let mixed = Listener { allowed_kinds: kinds(&["HTTPRoute", "TCPRoute"]), ..listener("mixed HTTP 80 a.com") };
    let tcp = Listener { allowed_kinds: kinds(&["TCPRoute"]), ..listener("tcp HTTP 80 b.com") };
    let route = |name, section: &str| route(name, &format!("ns/g/{section}"), &[], vec![rule("/", &[])]);
    let world = World::of([
        gateway_class("meshgate"),
        gateway("ns/g", vec![mixed, tcp]),
        route("ns/r1", "mixed"),
        route("ns/r2", "tcp"),
    ]);
    assert_eq!(world.condition(G, "ns/g", "mixed", "ResolvedRefs"), "False InvalidRouteKinds");
    let accepted = |name, scope| world.condition(ObjectKind::HttpRoute, name, scope, "Accepted");
    assert_eq!(accepted("ns/r1", "ns/g/mixed"), "True Accepted");
    assert_eq!(accepted("ns/r2", "ns/g/tcp"), "False NotAllowedByListeners");
}

#[test]
fn gateways_of_others_are_left_alone_and_a_missing_class_is_reported() {
    let mut class = gateway_class("theirs");
    class.spec = Spec::GatewayClass(GatewayClass { controller_name: "example.com/other".into() });
    let mut theirs = gateway("ns/theirs", vec![listener("a TCP 80")]);
    if let Spec::Gateway(gateway) = &mut theirs.spec {
        gateway.class = "theirs".into();
    }
    let lost = gateway("ns/lost", vec![listener("a HTTP 80")]);
    let mut world = World::of([class, theirs, lost, route("ns/r", "ns/theirs", &[], vec![rule("/", &["nothing:80"])])]);
    assert_eq!(world.findings(), ["MG0102 Gateway ns/lost spec.gatewayClassName"]);
    assert!(world.statuses.is_empty() && world.compiler.resources().is_empty(), "{:?}", world.last);

    world.apply(vec![put(gateway_class("meshgate"))]);
    assert_eq!((names(&world, "ns/lost"), world.findings()), (vec!["a".to_owned()], vec![]));
}

#[test]
fn addresses_are_kept_freed_and_run_out() {
    let simple = |name: &str| gateway(name, vec![listener("http HTTP 80")]);
    let mut world = World::of([gateway_class("meshgate"), simple("ns/b"), simple("ns/c")]);
    let number = |world: &World, name| match world.gateway(name).address {
        GatewayAddress::Loopback(number) => number,
        _ => 0,
    };
    world.apply(vec![put(simple("ns/a"))]);
    let numbers = |world: &World| ["ns/a", "ns/b", "ns/c"].map(|name| number(world, name));
    assert_eq!(numbers(&world), [3, 1, 2], "later Gateways take none from earlier ones");

    world.apply(vec![gone(&simple("ns/b")), put(simple("ns/d"))]);
    assert_eq!(number(&world, "ns/d"), 1, "a freed number is given again");
    assert_eq!(world.compiler.allocations().len(), 3);

    let many: Vec<Object> = (0..255).map(|n| simple(&format!("ns/{n:03}"))).collect();
    let looking = route("ns/r", "ns/254", &[], vec![rule("/", &[])]);
    let mut world = World::of(many.iter().cloned().chain([gateway_class("meshgate"), looking]));
    let without_backend = "MG0308 HTTPRoute ns/r spec.rules[0].backendRefs";
    assert_eq!(world.findings(), ["MG0207 Gateway ns/254 ", without_backend]);
    assert_eq!(world.condition(G, "ns/254", "", "Programmed"), "False AddressNotAssigned");
    assert_eq!(world.attachments(Kind::HttpRoute, "ns/r"), Vec::<String>::new());
    world.apply(vec![gone(&many[7])]);
    assert_eq!(number(&world, "ns/254"), 8);
    assert_eq!(world.attachments(Kind::HttpRoute, "ns/r"), ["http: *"]);
}

#[test]
fn allocations_survive_the_compiler() {
    let mut compiler = meshgate_core::compile::Compiler::new(
        settings(),
        Allocations::from([(Key::new(Kind::Gateway, "ns", "g"), 42), (Key::new(Kind::Gateway, "ns", "old"), 1)]),
    );
    compiler.apply(vec![put(gateway_class("meshgate")), put(gateway("ns/g", vec![])), put(gateway("ns/h", vec![]))]);
    let expected =
        Allocations::from([(Key::new(Kind::Gateway, "ns", "g"), 42), (Key::new(Kind::Gateway, "ns", "h"), 1)]);
    assert_eq!(*compiler.allocations(), expected);
}
