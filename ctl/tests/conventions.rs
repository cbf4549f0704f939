//! What holds for all verbs: servers, exit codes, colours, and the schema of documents.

mod fake;

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use tonic::Status;

use fake::{Fake, mesh, meshctl, nobody};

#[test]
fn unreachable() {
    let (one, two) = (nobody(), nobody());
    let run = fake::run(&format!("routes --server {one},{two}"));
    assert_eq!((run.code, run.stdout.as_str()), (3, ""));
    assert!(run.stderr.contains(&format!("{one}: Connection refused")), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("{two}: Connection refused")), "{}", run.stderr);
    for part in ["fault: ", "retry: safe", "check: is the peer running? demo: "] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    assert_eq!(fake::run("wait --server unix:/nonexistent/admin.sock").code, 3);
}

#[test]
fn what_is_no_peer_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Serves until the test process ends: whoever connects is hung up on.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).read(&mut [0; 16]);
        }
    });
    let run = fake::run(&format!("status --server {address}"));
    assert_eq!(run.code, 3, "{}", run.stderr);
}

#[test]
fn peers_are_tried_in_turn() {
    let peer = mesh::fake().serve();
    let away = Fake { error: Some(Status::unavailable("draining")), ..mesh::fake() }.serve();
    let servers = format!("--server {} --server {},{}", nobody(), away.address, peer.address);
    assert_eq!(fake::run(&format!("verify {servers}")).code, 0);
}

#[test]
fn a_silent_peer_costs_a_timeout() {
    let silent = Fake { silent: true, ..mesh::fake() }.serve();
    let run = silent.run("leader");
    assert_eq!(run.code, 4);
    assert!(run.stderr.contains("connected, but no answer within 5s"), "{}", run.stderr);
}

#[test]
fn errors_of_a_peer() {
    let refusing = |status| Fake { error: Some(status), ..mesh::fake() }.serve().run("routes");
    let run = refusing(Status::unimplemented("what?"));
    assert!(run.stderr.contains("can't answer: what? (Unimplemented)"), "{}", run.stderr);
    assert_eq!(run.code, 3);
    assert_eq!(refusing(Status::deadline_exceeded("leader is slow")).code, 4);
    let run = refusing(Status::invalid_argument("gateway: two slashes"));
    assert!(run.stderr.starts_with("error: gateway: two slashes\n"), "{}", run.stderr);
    assert_eq!(run.code, 2);
}

#[test]
fn usage() {
    for args in ["", "frobnicate", "routes -o xml", "routes -A -n shop", "routes --timeout soon", "verify -o name"] {
        assert_eq!(fake::run(args).code, 2, "{args}");
    }
    let run = fake::run("routes --server nowhere");
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("neither host:port nor unix:PATH"), "{}", run.stderr);
    assert_eq!(fake::run("--help").code, 0);
}

#[test]
fn a_unix_socket_and_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let peer = mesh::fake().serve_unix(&dir.path().join("admin.sock"));
    assert_eq!(peer.run("routes").code, 0);
    let output = meshctl("routes").env("MESHCTL_SERVER", &peer.address).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn colours() {
    let peer = mesh::fake().serve();
    assert!(!peer.run("verify").stdout.contains('\x1b'), "stdout is no terminal here");
    assert!(peer.run("verify --color always").stdout.contains("\x1b[32m3/3\x1b[0m"));
    assert!(!peer.run("verify --color never").stdout.contains('\x1b'));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let peer = mesh::fake().serve();
    let mut child = meshctl(&format!("routes --server {}", peer.address))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

/// The documents are a promise: a change here needs to be an addition. Set UPDATE_GOLDEN to write anew.
#[test]
fn the_schema_of_documents() {
    let mut fake = mesh::fake();
    fake.findings = mesh::findings();
    fake.verify.peers[0].held = vec!["HTTPRoute/shop/cart".into()];
    let peer = fake.serve();
    let verbs = ["routes", "peers", "verify", "leader", "wait hr/shop/cart", "analyze", "status", "version"];
    for verb in verbs {
        let json = peer.run(&format!("{verb} -o json"));
        let file = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
            .join("tests/golden")
            .join(verb.split(' ').next().unwrap())
            .with_extension("json");
        // The release's own number is no part of the schema.
        let own = format!("\"client\": \"{}\"", env!("CARGO_PKG_VERSION"));
        let text = json.stdout.replace(&own, "\"client\": \"VERSION\"");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&file).unwrap(), "{verb}");

        let yaml = peer.run(&format!("{verb} -o yaml"));
        let same: serde_json::Value = serde_saphyr::from_str(&yaml.stdout).unwrap();
        assert_eq!(same, serde_json::from_str::<serde_json::Value>(&json.stdout).unwrap(), "{verb}");
        assert_eq!(json.code, yaml.code, "{verb}");
    }
}
