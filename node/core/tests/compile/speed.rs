//! How long it takes. `cargo test --release -p meshgate-core --test compile -- --ignored --nocapture`

use std::time::{Duration, Instant};

use meshgate_core::intent::Object;

use crate::fixtures::*;

fn large() -> Vec<Object> {
    let mut objects = vec![gateway_class("meshgate"), namespace("ns", &[])];
    objects.extend((0..4).map(|n| gateway(&format!("ns/g{n}"), vec![listener("a HTTP 80"), listener("b HTTP 81")])));
    objects.extend((0..2000).map(|n| service(&format!("ns/s{n}"), &["80", "81"])));
    objects.extend((0..2000).map(|n| slice(&format!("ns/s{n}"), Some(&format!("s{n}")), 10)));
    objects.extend((0..5000).map(|n| {
        let rules = vec![
            rule(&format!("/{n}"), &[&format!("s{}:80", n % 2000)]),
            rule(&format!("/api/{n}"), &[&format!("s{}:81", (n + 1) % 2000)]),
        ];
        route(&format!("ns/r{n}"), &format!("ns/g{}", n % 4), &[&format!("h{}.example.com", n / 2)], rules)
    }));
    objects
}

fn best(mut run: impl FnMut() -> Duration) -> Duration {
    (0..5).map(|_| run()).min().unwrap_or_default()
}

#[test]
#[ignore = "measures time: run alone and in release"]
fn a_large_cluster_compiles_in_50_ms_and_a_change_in_10() {
    let objects = large();
    let scratch = best(|| {
        let changes = objects.iter().cloned().map(put).collect();
        let mut world = World::of([]);
        let start = Instant::now();
        world.apply(changes);
        start.elapsed()
    });
    let mut world = World::of(objects);
    let mut turn = 0;
    let mut change = |make: fn(usize) -> Object| {
        best(|| {
            turn += 1;
            let changes = vec![put(make(turn))];
            let start = Instant::now();
            world.apply(changes);
            start.elapsed()
        })
    };
    let endpoints = change(|turn| slice("ns/s7", Some("s7"), 3 + turn % 5));
    let route = change(|turn| route("ns/r7", "ns/g0", &["h.com"], vec![rule(&format!("/{turn}"), &["s1:80"])]));
    let shape = change(|turn| service("ns/s7", &["80", &format!("{}", 1000 + turn)]));
    println!("from scratch {scratch:?}, endpoints {endpoints:?}, a route {route:?}, a Service's ports {shape:?}");
    assert!(scratch < Duration::from_millis(50), "from scratch: {scratch:?}");
    assert!(endpoints.max(route) < Duration::from_millis(10), "endpoints {endpoints:?}, route {route:?}");
    assert!(shape < Duration::from_millis(50), "a Service's ports: {shape:?}");
}
