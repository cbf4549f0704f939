//! What well-behaved clients and backends see.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use meshgate_core::snapshot::{
    AppProtocol, Filter, HeaderModifier, HostPattern, PathMatch, PathRewrite, Redirect, Rewrite, Rule, Timeouts,
};

use meshgate_node::proxy::{AccessLog, AccessLogTarget};

use crate::backend::{Backend, Speaks};
use crate::client::{Client, get, until};
use crate::mesh::{Mesh, Options};
use crate::resources::{filtered, listener, prefix, rule};

/// One listener, one route with rules, Services with one backend each.
pub async fn one(services: &[(&str, &Backend)], rules: Vec<Rule>) -> (Mesh, SocketAddr) {
    one_with(Options::default(), services, rules).await
}

pub async fn one_with(options: Options, services: &[(&str, &Backend)], rules: Vec<Rule>) -> (Mesh, SocketAddr) {
    let mut mesh = Mesh::start(options);
    let address = mesh.reserve();
    mesh.resources.gateway(vec![address.ip()], vec![listener("http", address.port(), None, None)]);
    mesh.resources.route("shop", &[("http", HostPattern::Any)], rules);
    for (name, backend) in services {
        mesh.resources.service(name, AppProtocol::Http1, &[(backend.address, None)]);
    }
    mesh.apply().await;
    (mesh, address)
}

#[tokio::test]
async fn h1_and_h2c_reach_the_backend_by_prefix_and_exact_path() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let exact = rule(PathMatch::Exact("/b/exact".into()), &[("b", 1)]);
    let (mesh, address) = one(&[("a", &a), ("b", &b)], vec![prefix("/a", "a"), exact]).await;
    for mut client in [Client::h1(address).await, Client::h2(address).await] {
        let answer = client.get("http://shop.example/a/x?q=1").await;
        assert_eq!(answer.status, 200);
        let text = answer.text();
        assert!(text.starts_with("a GET /a/x?q=1\n"), "{text}");
        assert!(text.contains("host: shop.example"), "{text}");
        assert!(text.contains("x-forwarded-for: 127.0.0.1"), "{text}");
        assert!(client.get("http://shop.example/b/exact").await.text().starts_with("b "));
        let missing = client.get("http://shop.example/b/exact/more").await;
        assert_eq!(missing.status, 404);
        assert!(missing.text().starts_with("no_route"), "{}", missing.text());
        assert_eq!(client.get("http://shop.example/ax").await.status, 404);
    }
    until("all are counted", || mesh.context.metrics.totals().requests == 8).await;
    mesh.stop().await;
}

#[tokio::test]
async fn an_h2c_backend_is_spoken_to_in_h2() {
    let backend = Backend::speaking("h2", Speaks::H2c).await;
    let (mut mesh, address) = one(&[("a", &backend)], vec![prefix("/", "a")]).await;
    mesh.resources.service("a", AppProtocol::H2c, &[(backend.address, None)]);
    mesh.apply().await;
    for mut client in [Client::h1(address).await, Client::h2(address).await] {
        let text = client.get("http://shop.example/x").await.text();
        assert!(text.starts_with("h2 GET http://shop.example/x"), "{text}");
        let answer = client.get("http://shop.example/trailers").await;
        assert_eq!(answer.text(), "body");
        let echoed = client.send(Method::POST, "http://s/echo", &[], Bytes::from(vec![b'y'; 300_000])).await.unwrap();
        assert_eq!(echoed.body.len(), 300_000);
    }
    mesh.stop().await;
    assert!(backend.connections() <= 2, "one a worker, not {}", backend.connections());
}

#[tokio::test]
async fn weights_are_shares() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let split = rule(PathMatch::Prefix("/".into()), &[("a", 3), ("b", 1), ("c", 0)]);
    let (mesh, address) = one(&[("a", &a), ("b", &b)], vec![split]).await;
    let mut client = Client::h1(address).await;
    for _ in 0..400 {
        assert_eq!(client.get("http://shop.example/").await.status, 200);
    }
    // 300 expected; five standard deviations are 43.
    assert!((257..=343).contains(&a.requests()), "{}", a.requests());
    assert_eq!(a.requests() + b.requests(), 400);
    mesh.stop().await;
}

#[tokio::test]
async fn filters_rewrite_requests_and_answers() {
    let a = Backend::start("a").await;
    let rewrite = Rewrite { hostname: Some("inner.example".into()), path: Some(PathRewrite::Prefix("/new".into())) };
    let set = |name: &str| HeaderModifier { set: vec![(name.into(), "1".into())], ..HeaderModifier::default() };
    let redirect = Redirect { scheme: Some("https".into()), status: 301, ..Redirect::default() };
    let mut changed = filtered("/old", "a", Filter::Rewrite(rewrite));
    changed.filters.push(Filter::RequestHeaders(set("x-in")));
    changed.filters.push(Filter::ResponseHeaders(set("x-out")));
    let (mesh, address) = one(&[("a", &a)], vec![changed, filtered("/moved", "a", Filter::Redirect(redirect))]).await;
    let mut client = Client::h1(address).await;
    let answer = client.get("http://shop.example/old/x?q").await;
    let text = answer.text();
    assert!(text.starts_with("a GET /new/x?q\n") && text.contains("host: inner.example"), "{text}");
    assert!(text.contains("x-in: 1"), "{text}");
    assert_eq!(answer.header("x-out"), "1");
    let moved = client.get("http://shop.example/moved/x?q=1").await;
    assert_eq!(moved.status, 301);
    assert_eq!(moved.header("location"), "https://shop.example/moved/x?q=1");
    mesh.stop().await;
}

#[tokio::test]
async fn bodies_stream_both_ways_and_head_and_empty_answers_have_none() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let megabytes = 5 * 1024 * 1024;
    for mut client in [Client::h1(address).await, Client::h2(address).await] {
        let sent = Bytes::from(vec![b'z'; megabytes]);
        let echoed = client.send(Method::POST, "http://s/echo", &[], sent).await.unwrap();
        assert_eq!(echoed.body.len(), megabytes);
        assert_eq!(client.get(&format!("http://s/big?{megabytes}")).await.body.len(), megabytes);
        let head = client.send(Method::HEAD, "http://s/x", &[], Bytes::new()).await.unwrap();
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        assert_ne!(head.header("content-length"), "");
        for status in [204, 304] {
            let answer = client.get(&format!("http://s/status?{status}")).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0));
        }
        assert_eq!(client.get("http://s/x").await.status, 200);
    }
    let mut h2 = Client::h2(address).await;
    let answer = h2.send(Method::GET, "http://s/trailers", &[("te", "trailers")], Bytes::new()).await.unwrap();
    let trailers = answer.trailers.unwrap();
    assert_eq!(trailers["x-sum"], "7");
    assert!(!trailers.contains_key("x-real-ip"), "it may only stand in a head");
    mesh.stop().await;
}

#[tokio::test]
async fn upstream_connections_are_used_again() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![prefix("/", "a")]).await;
    let mut client = Client::h1(address).await;
    for _ in 0..50 {
        assert_eq!(client.get("http://s/x").await.status, 200);
    }
    assert_eq!(a.connections(), 1);
    mesh.stop().await;
}

#[tokio::test]
async fn a_late_backend_is_a_504_and_a_lost_client_ends_its_request() {
    let a = Backend::start("a").await;
    let timeouts = Timeouts { request: Some(Duration::from_millis(150)), ..Timeouts::default() };
    let hasty = Rule { timeouts, ..prefix("/hasty", "a") };
    let (mesh, address) = one(&[("a", &a)], vec![hasty, prefix("/", "a")]).await;
    let answer = get(address, "http://s/hasty/hang").await;
    assert_eq!(answer.status, 504);
    assert!(answer.text().starts_with("timeout"), "{}", answer.text());
    let mut client = Client::h1(address).await;
    let hanging = tokio::spawn(async move { client.get("http://s/hang").await });
    until("the backend is asked", || a.requests() == 2).await;
    assert_eq!(mesh.context.metrics.totals().requests, 1);
    hanging.abort();
    until("the lost client is counted", || mesh.context.metrics.totals().requests == 2).await;
    until("its reason is counted", || mesh.metrics().contains("reason=\"client_gone\"")).await;
    mesh.stop().await;
}

#[tokio::test]
async fn metrics_and_the_access_log_tell_what_was_served() {
    let a = Backend::start("a").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (access_log, writer) = AccessLog::open(&AccessLogTarget::File(path.clone())).unwrap();
    let writer = std::thread::spawn(move || writer.unwrap().run());
    let options = Options { access_log, ..Options::default() };
    let (mesh, address) = one_with(options, &[("a", &a)], vec![prefix("/", "a")]).await;
    let mut client = Client::h1(address).await;
    let answer = client.send(Method::GET, "http://s/x?secret", &[("user-agent", "t\"1")], Bytes::new()).await.unwrap();
    assert_eq!(answer.header("x-meshgate-via"), "direct node=n1 route=default/shop#0 rev=1/2");
    drop(client);
    let wanted = "meshgate_http_requests_total{reporter=\"edge\",gateway=\"default/web\",route=\"default/shop\",\
                  rule=\"0\",backend=\"default/a:80\",code_class=\"2xx\",protocol=\"h1\",reason=\"ok\"} 1";
    until("the request is counted", || mesh.metrics().contains(wanted)).await;
    let metrics = mesh.metrics();
    assert!(metrics.contains("meshgate_picks_total{via=\"direct\"} 1"), "{metrics}");
    assert!(metrics.contains("meshgate_http_request_duration_seconds_bucket{le=\"+Inf\""), "{metrics}");
    mesh.stop().await;
    writer.join().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    for (field, value) in [("route", "default/shop"), ("path", "/x"), ("host", "s"), ("user_agent", "t\"1")] {
        assert_eq!(line[field], value, "{line}");
    }
    assert_eq!((line["status"].as_u64(), line["rev"].as_u64()), (Some(200), Some(2)));
    assert_eq!(line["dst_pod"], "a-0");
}
