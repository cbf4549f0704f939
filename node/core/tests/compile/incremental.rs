//! Whatever the order and the steps, the result is that of a compilation from scratch.

use std::collections::BTreeMap;

use meshgate_core::compile::{Allocations, Change};
use meshgate_core::intent::*;
use meshgate_core::snapshot::{HttpMatch, PathMatch, Resource, StringMatch, ValueMatch};
use proptest::prelude::*;

use crate::fixtures::*;

/// A source of small choices, so that an object is a function of a few numbers that shrink well.
struct Bits(u64);

impl Bits {
    fn below(&mut self, limit: u64) -> usize {
        let choice = self.0 % limit;
        self.0 /= limit;
        usize::try_from(choice).expect("limits are small")
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len() as u64)]
    }
}

const NAMESPACES: [&str; 2] = ["a", "b"];
const HOSTS: [&str; 5] = ["x.com", "*.x.com", "y.x.com", "*", "*.y.x.com"];
const CLASSES: [&str; 2] = ["meshgate", "other"];

fn name(bits: &mut Bits, of: &[&str]) -> String {
    format!("{}/{}", bits.one(&NAMESPACES), bits.one(of))
}

fn some_gateway(bits: &mut Bits) -> Object {
    let name = name(bits, &["g", "h"]);
    let listeners = (0..bits.below(4)).map(|_| {
        let text = format!("{} {} {}", bits.one(&["l", "m"]), bits.one(&["HTTP", "HTTPS", "TCP"]), 80 + bits.below(2));
        let mut listener = tls(&text, &[bits.one(&["cert", "a/cert", "b/cert"])]);
        listener.hostname = [None, Some("*.x.com"), Some("x.com")][bits.below(3)].map(Into::into);
        listener.allowed_namespaces = match bits.below(3) {
            0 => AllowedNamespaces::Same,
            1 => AllowedNamespaces::All,
            _ => AllowedNamespaces::Selector(LabelSelector {
                requirements: vec![LabelRequirement::Exists("team".into())],
            }),
        };
        listener
    });
    let spec = Gateway { listeners: listeners.collect(), class: bits.one(&CLASSES).into() };
    object(ObjectKind::Gateway, &name, Spec::Gateway(spec))
}

fn some_match(bits: &mut Bits) -> HttpMatch {
    let path = match bits.below(4) {
        0 => PathMatch::Exact("/".into()),
        1 => PathMatch::Prefix("/".into()),
        2 => PathMatch::Regex("/[a-z]+".into()),
        _ => PathMatch::Regex("(".into()),
    };
    let headers = [vec![], vec![ValueMatch { name: "h".into(), value: StringMatch::Regex("[".into()) }]];
    HttpMatch { headers: headers[bits.below(2)].clone(), ..matching(path) }
}

fn some_route(bits: &mut Bits) -> Object {
    let name = name(bits, &["r", "s", "t"]);
    let parent = format!("{}/{}{}", bits.one(&NAMESPACES), bits.one(&["g", "h"]), bits.one(&["", "/l", ":80"]));
    let hostnames: Vec<&str> = (0..bits.below(3)).map(|_| bits.one(&HOSTS)).collect();
    let rules = (0..1 + bits.below(2)).map(|_| {
        let to = bits.one(&["web:80", "web:81", "a/web:80", "b/web:80"]);
        HttpRule { matches: vec![some_match(bits)], ..rule("/", &[to]) }
    });
    let rules = rules.collect();
    born(route(&name, &parent, &hostnames, rules), bits.below(2) as i64)
}

fn some_ingress(bits: &mut Bits) -> Object {
    let name = name(bits, &["i", "j"]);
    let class = [None, Some("meshgate"), Some("other")][bits.below(3)];
    let paths: Vec<String> = (0..bits.below(3))
        .map(|_| format!("{} {} {}", bits.one(&["-", "x.com", "*.x.com"]), bits.one(&["/", "/p"]), "web:80"))
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    with_ingress(ingress(&name, class, &paths), |ingress| {
        ingress.default_backend = (bits.below(2) == 0).then(|| backend("web:80"));
        let hosts = vec![bits.one(&HOSTS).to_owned()];
        let entry = IngressTls { hosts, secret: Some("cert".into()) };
        ingress.tls = vec![entry; bits.below(2)];
    })
}

fn some_object(kind: u8, bits: u64) -> Object {
    let bits = &mut Bits(bits);
    match kind {
        0 => some_gateway(bits),
        1 | 2 => some_route(bits),
        3 => some_ingress(bits),
        4 => {
            let ports = [&["80", "81"][..], &["80"], &["http=80", "82"]][bits.below(3)];
            let mut object = service(&name(bits, &["web", "api"]), ports);
            if let Spec::Service(service) = &mut object.spec {
                service.external_name = (bits.below(3) == 0).then(|| "example.com".into());
            }
            object
        }
        5 => slice(&name(bits, &["e", "f"]), [None, Some("web")][bits.below(2)], bits.below(3)),
        6 => secret(&name(bits, &["cert"])),
        7 => {
            let kinds = bits.one(&["Gateway", "HTTPRoute"]);
            let from = format!("{kinds} {}", bits.one(&NAMESPACES));
            grant(&name(bits, &["g"]), &from, bits.one(&["Secret", "Service web"]))
        }
        8 => namespace(bits.one(&NAMESPACES), [&[("team", "red")][..], &[]][bits.below(2)]),
        9 => ingress_class(bits.one(&CLASSES), bits.below(2) == 0),
        _ => gateway_class(bits.one(&CLASSES)),
    }
}

fn change() -> impl Strategy<Value = Change> {
    (0..11u8, any::<u64>(), prop::bool::weighted(0.2)).prop_map(|(kind, bits, remove)| {
        let object = some_object(kind, bits);
        if remove { gone(&object) } else { put(object) }
    })
}

/// What always matters, so that most cases reach the depths.
fn base() -> Vec<Change> {
    let listeners = || vec![listener("l HTTP 80"), tls("m HTTPS 443 *.x.com", &["cert"])];
    let objects = vec![
        gateway_class("meshgate"),
        ingress_class("meshgate", true),
        gateway("a/g", listeners()),
        gateway("b/g", listeners()),
        service("a/web", &["80"]),
        secret("a/cert"),
    ];
    objects.into_iter().map(put).collect()
}

proptest! {
    #[test]
    fn order_does_not_matter(
        (plain, shuffled) in prop::collection::vec(change(), 0..40).prop_flat_map(|changes| {
            // One change an object, else the order does matter.
            let last: BTreeMap<ObjectRef, Change> =
                base().into_iter().chain(changes).map(|change| (change.0.clone(), change)).collect();
            let changes: Vec<Change> = last.into_values().collect();
            (Just(changes.clone()), Just(changes).prop_shuffle())
        })
    ) {
        let (mut one, mut other) = (World::of([]), World::of([]));
        one.apply(plain);
        other.apply(shuffled);
        prop_assert_eq!(one.compiler.resources(), other.compiler.resources());
        prop_assert_eq!(one.last, other.last);
    }

    #[test]
    fn steps_lead_where_a_start_from_scratch_leads(
        steps in prop::collection::vec(prop::collection::vec(change(), 1..4), 0..25)
    ) {
        let mut world = World::of([]);
        let mut objects = BTreeMap::new();
        let mut replayed: BTreeMap<_, Resource> = BTreeMap::new();
        for step in std::iter::once(base()).chain(steps) {
            objects.extend(step.iter().cloned());
            world.apply(step);
            for (key, resource) in world.last.resources.clone() {
                let before = match resource.clone() {
                    Some(resource) => replayed.insert(key.clone(), resource),
                    None => replayed.remove(&key),
                };
                prop_assert_ne!(before, resource, "{} is no change", key);
            }
            prop_assert_eq!(&replayed, world.compiler.resources());

            let allocations: Allocations = world.compiler.allocations().clone();
            let scratch = World::with(allocations, objects.clone().into_iter().collect());
            prop_assert_eq!(scratch.compiler.resources(), world.compiler.resources());
            prop_assert_eq!(scratch.compiler.allocations(), world.compiler.allocations());
            prop_assert_eq!(&scratch.findings, &world.findings);
            prop_assert_eq!(&scratch.statuses, &world.statuses);
        }
    }
}

/// Routes that share a Gateway, some of them a host and a path.
fn many(routes: usize) -> World {
    let objects = (0..routes).map(|n| {
        let rules = vec![rule("/", &["web:80"]), rule(&format!("/{n}"), &["web:80"])];
        let hosts = [format!("h{}.x.com", n / 2), "all.x.com".to_owned()];
        let with_rule = |hosts: &[&str]| born(route(&format!("a/r{n}"), "a/g", hosts, rules.clone()), n as i64);
        with_rule(&hosts.each_ref().map(String::as_str)[..1 + usize::from(n % 3 == 0)])
    });
    let mut world = World::of([]);
    world.apply(base().into_iter().chain(objects.map(put)).collect());
    world
}

#[test]
fn what_a_change_of_one_route_costs_does_not_grow_with_the_others() {
    let costs = [50, 500].map(|routes| {
        let mut world = many(routes);
        let mut cost = |object: Object, remove: bool| {
            let before = world.compiler.effort();
            world.apply(vec![if remove { gone(&object) } else { put(object) }]);
            (world.compiler.effort() - before, world.last.resources.len(), world.last.findings.len())
        };
        let edited = |host: &str| route("a/r7", "a/g", &[host], vec![rule("/new", &["web:80"])]);
        [
            cost(edited("h3.x.com"), false),
            cost(edited("all.x.com"), false),
            cost(route("b/new", "a/g", &["h9.x.com"], vec![rule("/", &["web:80"])]), false),
            cost(edited(""), true),
            cost(slice("a/s", Some("web"), 2), false),
        ]
    });
    assert_eq!(costs[0], costs[1], "50 routes and 500");
    assert!(costs[0].iter().all(|(effort, resources, _)| *effort < 20 && *resources == 1), "{costs:?}");
}

#[test]
fn a_change_compiles_only_what_it_must() {
    let mut world = World::of([]);
    world.apply(base());
    world.apply(vec![put(route("a/r", "a/g", &[], vec![rule("/", &["web:80"])])), put(slice("a/s", Some("web"), 1))]);
    let changed = |world: &World| -> Vec<String> {
        world.last.resources.iter().map(|(key, resource)| format!("{key} {}", resource.is_some())).collect()
    };
    let mut external = service("a/web", &["80"]);
    if let Spec::Service(service) = &mut external.spec {
        service.external_name = Some("example.com".into());
    }
    let same = route("a/r", "a/g", &[], vec![rule("/", &["web:80"])]);
    for (change, expected) in [
        (put(same.clone()), &[][..]),
        (put(slice("a/s", Some("web"), 2)), &["EndpointSlice a/s true"]),
        (put(route("a/q", "a/g", &[], vec![rule("/q", &["web:80"])])), &["HTTPRoute a/q true"]),
        (gone(&route("a/q", "a/g", &[], vec![])), &["HTTPRoute a/q false"]),
        (put(service("a/web", &["80", "81"])), &["Service a/web true"]),
        (put(service("a/web", &["81"])), &["HTTPRoute a/r true", "Service a/web true"]),
        (put(external), &["HTTPRoute a/r true", "Service a/web true"]),
        (gone(&secret("a/cert")), &["Gateway a/g true", "HTTPRoute a/r true", "Secret a/cert false"]),
        (gone(&slice("a/s", None, 0)), &["EndpointSlice a/s false"]),
    ] {
        world.apply(vec![change.clone()]);
        assert_eq!(changed(&world), expected, "{change:?}");
    }
}

#[test]
fn an_object_of_a_wrong_kind_is_no_panic() {
    let mut world = World::of([]);
    for kind in 0..11 {
        for other in 0..11 {
            let (name, mut object) = (some_object(kind, 0).meta.object, some_object(other, 0));
            object.meta.object = name.clone();
            world.apply(vec![(name, Some(object))]);
        }
    }
}
