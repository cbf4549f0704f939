//! `meshctl wait`: what it asks, how it ends, what it survives.

mod fake;

use std::sync::{Arc, Mutex};

use meshgate_proto::admin::WaitResponse;

use fake::{Fake, mesh};

fn answering(waits: Vec<WaitResponse>) -> Fake {
    Fake { waits: Arc::new(Mutex::new(waits)), ..mesh::fake() }
}

#[test]
fn live() {
    let fake = mesh::fake();
    let asked = fake.asked.clone();
    let peer = fake.serve();
    let expected = "httproute/shop/cart gen 7 → rev 2/18233: live on 3/3 nodes in 21ms (slowest node-c 19ms)\n";
    for args in ["wait httproute/shop/cart", "wait HR/cart -n shop --for=live", "wait httproutes/cart -n shop"] {
        let run = peer.run(args);
        assert_eq!((run.code, run.stdout.as_str()), (0, expected), "{args}");
        let question = asked.lock().unwrap().last().unwrap().clone();
        assert!(question.contains(r#"kind: "HTTPRoute", namespace: "shop", name: "cart""#), "{question}");
    }
}

#[test]
fn everything() {
    let fake = answering(vec![WaitResponse { generation: 0, ..mesh::live() }]);
    let run = fake.serve().run("wait");
    let expected = "everything → rev 2/18233: live on 3/3 nodes in 21ms (slowest node-c 19ms)\n";
    assert_eq!((run.code, run.stdout.as_str()), (0, expected));
}

#[test]
fn deleted() {
    let fake = mesh::fake();
    let asked = fake.asked.clone();
    let run = fake.serve().run("wait gtw/edge --for=deleted");
    assert!(run.stdout.starts_with("gateway/default/edge gen 7 → rev 2/18233: gone from 3/3 nodes"), "{}", run.stdout);
    assert_eq!(run.code, 0);
    assert!(asked.lock().unwrap()[0].contains("deleted: true"));

    let absent = answering(vec![WaitResponse { result: "not_found".into(), ..WaitResponse::default() }]);
    assert_eq!(absent.serve().run("wait gtw/edge --for=delete").code, 0);
}

#[test]
fn timeout_names_the_missing() {
    let missing = vec!["node-b".to_owned(), "node-c".to_owned()];
    let late = WaitResponse { result: "timeout".into(), live: 1, missing, ..mesh::live() };
    let run = answering(vec![late]).serve().run("wait hr/shop/cart --timeout 300ms");
    let expected = "httproute/shop/cart gen 7 → rev 2/18233: live on 1/3 nodes after 300ms; missing: node-b, node-c\n";
    assert_eq!((run.code, run.stdout.as_str()), (4, expected));
}

#[test]
fn rejected_and_not_found() {
    let reasons = vec!["MG0201 parentRef infra/edge: no such Gateway".to_owned()];
    let rejected = WaitResponse { result: "rejected".into(), reasons, ..mesh::live() };
    let run = answering(vec![rejected]).serve().run("wait hr/shop/cart");
    let expected = "httproute/shop/cart gen 7: rejected\n  MG0201 parentRef infra/edge: no such Gateway\n";
    assert_eq!((run.code, run.stdout.as_str()), (1, expected));

    let absent = answering(vec![WaitResponse { result: "not_found".into(), ..WaitResponse::default() }]);
    let run = absent.serve().run("wait hr/shop/cart");
    assert!(run.stdout.starts_with("httproute/shop/cart: not found"), "{}", run.stdout);
    assert_eq!(run.code, 1);
}

#[test]
fn a_change_of_leader_is_waited_out() {
    let nobody = WaitResponse { result: "no_leader".into(), ..WaitResponse::default() };
    let run = answering(vec![nobody.clone(), nobody.clone(), mesh::live()]).serve().run("wait");
    assert_eq!(run.code, 0, "{}", run.stderr);

    let run = answering(vec![nobody]).serve().run("wait --timeout 300ms");
    assert_eq!(run.code, 3);
    assert!(run.stderr.starts_with("error: nobody leads"), "{}", run.stderr);
}

#[test]
fn wrong_objects_are_usage_errors() {
    for args in
        ["wait cart", "wait pod/cart", "wait hr/shop/cart -n other", "wait --for=deleted", "wait hr/a --for=ready"]
    {
        assert_eq!(fake::run(args).code, 2, "{args}");
    }
}
