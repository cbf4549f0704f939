//! What each verb prints, and its exit code for what it found.

mod fake;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use meshgate_proto::admin::*;

use fake::{Fake, mesh, meshctl};

/// Joins lines so that expected tables stay readable in the source.
fn lines(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn routes() {
    let fake = mesh::fake();
    let asked = fake.asked.clone();
    let peer = fake.serve();
    let run = peer.run("routes");
    let expected = lines(&[
        "HOST           PATH      MATCH   RULE                 BACKENDS                         POLICIES   REV       LIVE",
        "shop.example   /cart/*   GET     shop/cart#2          cart:8080 90% cart-v2:8080 10%   retry      2/18233   3/3",
        "*              /*        -       ingress/shop/all#0   shop:80                          -          2/18233   3/3",
    ]);
    assert_eq!((run.code, run.stdout), (0, expected));

    let wide = peer.run("routes -o wide --no-headers");
    let first = wide.stdout.lines().next().unwrap();
    assert!(first.ends_with("3/3   infra/edge   https   443   HTTPS   127.1.0.2:10443                   7"), "{first}");
    assert_eq!(peer.run("routes -o name -A").stdout, "httproute/shop/cart\ningress/shop/all\n");

    assert_eq!(peer.run("routes --host a.example -n shop --gateway infra/edge").code, 0);
    let question = asked.lock().unwrap().last().unwrap().clone();
    assert!(question.contains(r#"host: "a.example", namespace: "shop", gateway: "infra/edge""#), "{question}");
}

#[test]
fn no_routes() {
    let run = Fake::default().serve().run("routes -n shop");
    assert_eq!(run.code, 0);
    assert!(run.stdout.starts_with("HOST   PATH"), "{}", run.stdout);
    assert!(run.stderr.starts_with("No routes match"), "{}", run.stderr);
}

#[test]
fn five_thousand_routes_arrive_whole() {
    let fake = mesh::fake();
    {
        let mut answer = fake.routes.lock().unwrap();
        let route = answer.routes[0].clone();
        answer.routes = (0..5000)
            .map(|n| Route { host: format!("h{n}.example"), backends: "b".repeat(1200), ..route.clone() })
            .collect();
    }
    let run = fake.serve().run("routes --no-headers");
    assert_eq!((run.code, run.stdout.lines().count()), (0, 5000));
    // Above the usual limit of 4 MiB a message, and nothing is truncated.
    assert!(run.stdout.len() > 6 << 20);
}

#[test]
fn watched_routes() {
    let fake = mesh::fake();
    let routes = fake.routes.clone();
    let peer = fake.serve();
    let command = format!("--server {} routes --watch --no-headers", peer.address);
    let mut child = meshctl(&command).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(out.next().unwrap().contains("cart-v2:8080 10%"));
    assert!(out.next().unwrap().contains("ingress/shop/all#0"));
    {
        let mut answer = routes.lock().unwrap();
        answer.head = Some(HeadId { epoch: 2, rev: 18234 });
        answer.routes[0].backends = "cart:8080".into();
        answer.routes.truncate(1);
    }
    let changed = out.next().unwrap();
    let gone = out.next().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(changed.contains("cart:8080   ") && changed.contains("2/18234"), "{changed}");
    assert!(gone.contains("ingress/shop/all#0") && gone.ends_with("gone"), "{gone}");
}

#[test]
fn peers() {
    let peer = mesh::fake().serve();
    let run = peer.run("peers");
    let rows: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split("   ").map(str::trim).collect()).collect();
    let header = "NODE READY STATE VERSION HEAD ROOT LAG TUNNEL LOSS RTT MTU GSO CERT";
    assert_eq!(run.stdout.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" "), header);
    let cells = |row: usize| rows[row].iter().filter(|cell| !cell.is_empty()).copied().collect::<Vec<_>>();
    assert_eq!(
        cells(1)[..12],
        ["node-a", "yes", "serving", "0.1.0", "2/18233", "9f3a…c1", "0", "-", "-", "-", "-", "-"]
    );
    assert_eq!(cells(2)[7..12], ["1 quic", "0.0%", "0.4ms", "8952", "on"]);
    assert_eq!(cells(3)[1..3], ["no", "draining"]);
    assert_eq!(cells(3)[6..], ["3", "2 tcp!", "1.5%", "0.4ms", "-", "off", "expired"]);
    assert_eq!(cells(4)[7..], ["none!", "-", "-", "-", "-", "-"]);
    assert_eq!(run.code, 0);
    assert_eq!(peer.run("peers -o name").stdout, "peer/node-a\npeer/node-b\npeer/node-c\npeer/node-d\n");
}

#[test]
fn verify() {
    let run = mesh::fake().serve().run("verify");
    let expected = "3/3 nodes at epoch 2 rev 18233 root 9f3a…c1; signature ok (leader node-c); 0 divergent\n";
    assert_eq!((run.code, run.stdout.as_str()), (0, expected));

    // A peer that lists itself isn't counted twice.
    let mut fake = mesh::fake();
    fake.verify.peers.insert(0, mesh::digest("node-a", "same"));
    assert_eq!(fake.serve().run("verify").stdout, expected);
}

#[test]
fn verify_finds() {
    let mut fake = mesh::fake();
    fake.verify.peers[0].verdict = "divergent".into();
    fake.verify.peers[1].held = vec!["HTTPRoute/shop/cart".into()];
    let run = fake.serve().run("verify");
    assert_eq!(run.code, 1);
    let root = mesh::ROOT;
    let expected = lines(&[
        "2/3 nodes at epoch 2 rev 18233 root 9f3a…c1; signature ok (leader node-c); 1 divergent",
        "node-c: holds back HTTPRoute/shop/cart: it serves the previous version of it",
        &format!("NODE     HEAD      ROOT{:63}VERDICT     HELD", ""),
        &format!("node-b   2/18233   {root}   divergent   0"),
        &format!("node-c   2/18233   {root}   same        1"),
    ]);
    assert_eq!(run.stdout, expected);

    let mut fake = mesh::fake();
    fake.verify.signature_ok = false;
    fake.verify.problem = "no certificate for epoch 2".into();
    let run = fake.serve().run("verify");
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("2/3 nodes") && run.stdout.contains("signature WRONG"), "{}", run.stdout);
    assert!(run.stdout.contains("node-a: no certificate for epoch 2"), "{}", run.stdout);
}

#[test]
fn leader() {
    let run = mesh::fake().serve().run("leader");
    let words: Vec<&str> = run.stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words[..3], ["2", "node-c", "2025-10-09T08:53:20Z"]);
    assert_eq!((run.code, words[4]), (0, "18233"));

    let run = Fake::default().serve().run("leader");
    assert!(run.stdout.contains("nobody") && run.stderr.contains("Nobody leads"));
    assert_eq!(run.code, 1);
}

#[test]
fn analyze() {
    let mut fake = mesh::fake();
    fake.findings = mesh::findings();
    let run = fake.serve().run("analyze");
    let expected = lines(&[
        "Error MG0201 GatewayClass meshgate: no such controller",
        "Warning MG0102 HTTPRoute shop/all spec.rules[0]: shadowed by shop/cart rule 2 (routes.yaml:31)",
    ]);
    assert_eq!((run.code, run.stdout), (1, expected));
    assert_eq!(run.stderr, "1 error, 1 warning.\n");

    let run = mesh::fake().serve().run("analyze");
    assert_eq!((run.code, run.stdout.as_str()), (0, "No findings.\n"));
}

#[test]
fn status() {
    let run = mesh::fake().serve().run("status");
    let expected = lines(&[
        "node       node-a, version 0.1.0, up 3m",
        "ready      yes",
        "head       2/18233 root 9f3a…c1",
        "leader     node-c",
        "peers      3 alive",
        "routes     2",
        "findings   1",
        "requests   1000 (600 local, 398 by tunnel, 2 failed)",
        "",
        "GATEWAY      PORT   PROTOCOL   ADDRESS           BOUND",
        "infra/edge   443    HTTPS      127.1.0.2:10443   yes",
        "infra/edge   80     HTTP       127.1.0.2:10443   no: address in use",
    ]);
    assert_eq!((run.code, run.stdout), (0, expected));

    let mut fake = mesh::fake();
    fake.status.ready = false;
    fake.status.not_ready_reason = "no snapshot yet".into();
    let run = fake.serve().run("status");
    assert!(run.stdout.contains("ready      no: no snapshot yet"), "{}", run.stdout);
    assert_eq!(run.code, 1);
}

#[test]
fn version() {
    let own = env!("CARGO_PKG_VERSION");
    let run = mesh::fake().serve().run("version");
    assert_eq!(run.code, 0);
    assert!(run.stdout.starts_with(&format!("meshctl   {own}\nnode-a    0.1.0\n")), "{}", run.stdout);
    assert_eq!(fake::run("version --client").stdout, format!("meshctl   {own}\n"));
    let run = fake::run(&format!("version --server {}", fake::nobody()));
    assert_eq!((run.code, run.stdout), (3, format!("meshctl   {own}\n")));
}
