//! Copies of requests for other Services.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use meshgate_core::snapshot::{AppProtocol, BackendTarget, Filter, HeaderModifier, Mirror, PathRewrite, Rewrite, Rule};

use crate::backend::Backend;
use crate::client::{Client, until};
use crate::http::{one, one_with};
use crate::mesh::{Direct, Options};
use crate::resources::{prefix, service_key};
use crate::shaky::{Act, Shaky};
use crate::tunnel::host;

fn to(service: &str, numerator: u32, denominator: u32) -> Filter {
    let target = BackendTarget::Service { service: service_key(service), port: 80 };
    Filter::Mirror(Mirror { target, numerator, denominator })
}

fn mirrored(filters: Vec<Filter>) -> Vec<Rule> {
    vec![Rule { filters, ..prefix("/", "a") }]
}

#[tokio::test]
async fn every_mirror_gets_the_request_with_its_body() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let shaky = Shaky::start(&[Act::Status(500)]).await;
    let rules = mirrored(vec![to("b", 1, 1), to("c", 1, 1)]);
    let (mut mesh, address) = one(&[("a", &a), ("b", &b)], rules).await;
    mesh.resources.service("c", AppProtocol::Http1, &[(shaky.address, None)]);
    mesh.apply().await;
    for (round, mut client) in [Client::h1(address).await, Client::h2(address).await].into_iter().enumerate() {
        let sent = Bytes::from(vec![b'm'; 20_000]);
        let answer = client.send(Method::POST, "http://s/echo", &[], sent).await.unwrap();
        assert_eq!((answer.header("x-backend"), answer.body.len()), ("a", 20_000));
        assert_eq!(client.get("http://s/x").await.header("x-backend"), "a");
        until("both mirrors were asked", || b.requests() == 2 * round + 2 && shaky.bodies().len() == 2 * round + 2)
            .await;
    }
    // Over HTTP/2 the length may be unknown to those who only look at the head.
    assert!(shaky.bodies().contains(&20_000), "{:?}", shaky.bodies());
    until("all are counted", || mesh.metrics().contains("meshgate_http_mirrors_total{outcome=\"sent\"} 8")).await;
    mesh.stop().await;
}

#[tokio::test]
async fn a_fraction_of_the_requests_is_copied() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let (mesh, address) = one(&[("a", &a), ("b", &b)], mirrored(vec![to("b", 35, 100), to("b", 0, 100)])).await;
    let mut client = Client::h1(address).await;
    for _ in 0..400 {
        assert_eq!(client.get("http://s/x").await.header("x-backend"), "a");
    }
    // 140 expected; six standard deviations are 57.
    until("the copies came", || (83..=197).contains(&b.requests())).await;
    assert_eq!(a.requests(), 400);
    mesh.stop().await;
}

#[tokio::test]
async fn a_mirror_that_is_slow_broken_or_gone_costs_the_client_nothing() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let hanging = Shaky::start(&[Act::Hang]).await;
    let closing = Shaky::start(&[Act::Close]).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let invalid = BackendTarget::Invalid { reason: "BackendNotFound".into() };
    let invalid = Filter::Mirror(Mirror { target: invalid, numerator: 1, denominator: 1 });
    let rules = mirrored(vec![to("hanging", 1, 1), to("closing", 1, 1), to("gone", 1, 1), to("none", 1, 1), invalid]);
    let (mut mesh, address) = one(&[("a", &a), ("b", &b)], rules).await;
    mesh.resources.service("hanging", AppProtocol::Http1, &[(hanging.address, None)]);
    mesh.resources.service("closing", AppProtocol::Http1, &[(closing.address, None)]);
    mesh.resources.service("gone", AppProtocol::Http1, &[(gone, None)]);
    mesh.apply().await;
    let started = Instant::now();
    let mut client = Client::h1(address).await;
    for _ in 0..20 {
        let body = Bytes::from(vec![b'm'; 1_000]);
        let answer = client.send(Method::POST, "http://s/echo", &[], body).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 1_000));
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    for outcome in ["failed", "refused", "invalid"] {
        until(outcome, || mesh.metrics().contains(&format!("meshgate_http_mirrors_total{{outcome=\"{outcome}\"}}")))
            .await;
    }
    mesh.stop().await;
}

#[tokio::test]
async fn a_mirror_that_reads_too_slowly_loses_its_copy() {
    let a = Backend::start("a").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            kept.push(listener.accept().await.unwrap());
        }
    });
    let (mut mesh, address) = one(&[("a", &a)], mirrored(vec![to("deaf", 1, 1)])).await;
    mesh.resources.service("deaf", AppProtocol::Http1, &[(deaf, None)]);
    mesh.apply().await;
    // More than what the sockets' buffers take.
    let size = 24 * 1024 * 1024;
    let mut client = Client::h1(address).await;
    let answer = client.send(Method::POST, "http://s/echo", &[], Bytes::from(vec![b'm'; size])).await.unwrap();
    assert_eq!(answer.body.len(), size);
    accepting.abort();
    until("it is counted", || mesh.metrics().contains("meshgate_http_mirrors_total{outcome=\"lagged\"} 1")).await;
    mesh.stop().await;
}

#[tokio::test]
async fn too_many_copies_are_skipped() {
    let a = Backend::start("a").await;
    let hanging = Shaky::start(&[Act::Hang]).await;
    let options =
        Options { config: meshgate_node::edge::EdgeConfig { threads: 1, ..Default::default() }, ..Options::default() };
    let (mut mesh, address) = one_with(options, &[("a", &a)], mirrored(vec![to("hanging", 1, 1)])).await;
    mesh.resources.service("hanging", AppProtocol::Http1, &[(hanging.address, None)]);
    mesh.apply().await;
    let mut client = Client::h1(address).await;
    for _ in 0..260 {
        assert_eq!(client.get("http://s/x").await.status, 200);
    }
    assert!(mesh.metrics().contains("meshgate_http_mirrors_total{outcome=\"skipped\"} 4"), "{}", mesh.metrics());
    mesh.stop().await;
}

#[tokio::test]
async fn a_copy_goes_through_the_tunnel_too() {
    let (near, far) = (Backend::start("near").await, Backend::start("far").await);
    let options = Options { remote: Arc::new(Direct(host(&far))), expected: vec!["n2"], ..Options::default() };
    let (mut mesh, address) = one_with(options, &[("a", &near)], mirrored(vec![to("far", 1, 1)])).await;
    mesh.resources.service("far", AppProtocol::Http1, &[(far.address, Some("n2"))]);
    mesh.apply().await;
    let mut client = Client::h1(address).await;
    for _ in 0..5 {
        let answer = client.send(Method::POST, "http://s/echo", &[], Bytes::from(vec![b'm'; 100_000])).await.unwrap();
        assert_eq!((answer.header("x-backend"), answer.body.len()), ("near", 100_000));
    }
    until("the copies are sent", || mesh.metrics().contains("meshgate_http_mirrors_total{outcome=\"sent\"} 5")).await;
    assert_eq!(far.requests(), 5);
    mesh.stop().await;
}

#[tokio::test]
async fn a_backend_has_filters_of_its_own_after_those_of_its_rule() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let set = |value: &str| HeaderModifier { set: vec![("x-by".into(), value.into())], ..HeaderModifier::default() };
    let rewrite = Rewrite { hostname: None, path: Some(PathRewrite::Prefix("/inner".into())) };
    let mut rule = Rule { filters: vec![Filter::RequestHeaders(set("rule"))], ..prefix("/outer", "a") };
    let own = &mut rule.backends[0].filters;
    own.push(Filter::RequestHeaders(set("backend")));
    own.push(Filter::ResponseHeaders(set("answer")));
    own.push(Filter::Rewrite(rewrite));
    own.push(to("b", 1, 1));
    let (mesh, address) = one(&[("a", &a), ("b", &b)], vec![rule]).await;
    let answer = Client::h1(address).await.get("http://shop.example/outer/x?q").await;
    let text = answer.text();
    assert!(text.starts_with("a GET /inner/x?q\n") && text.contains("x-by: backend"), "{text}");
    assert_eq!(answer.header("x-by"), "answer");
    until("the copy came", || b.requests() == 1).await;
    mesh.stop().await;
}
