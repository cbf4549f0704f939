//! What a rule's `retry` does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use meshgate_core::snapshot::{AppProtocol, Retry, Rule, Timeouts};

use crate::backend::Backend;
use crate::client::{Answer, Client, until};
use crate::http::{one, one_with};
use crate::mesh::{Direct, Mesh, Options};
use crate::resources::prefix;
use crate::shaky::{Act, Shaky};
use crate::tunnel::host_of;

fn retry(attempts: u32, codes: &[u16]) -> Retry {
    Retry { attempts, codes: codes.to_vec(), backoff: Some(Duration::from_millis(5)) }
}

/// A mesh whose Service `a` has these endpoints.
async fn with(rule: Rule, endpoints: &[SocketAddr]) -> (Mesh, SocketAddr) {
    let a = Backend::start("a").await;
    let (mut mesh, address) = one(&[("a", &a)], vec![rule]).await;
    let endpoints: Vec<_> = endpoints.iter().map(|address| (*address, None)).collect();
    mesh.resources.service("a", AppProtocol::Http1, &endpoints);
    mesh.apply().await;
    (mesh, address)
}

async fn ask(address: SocketAddr, method: Method, body: usize) -> Answer {
    let body = Bytes::from(vec![b'r'; body]);
    Client::h1(address).await.send(method, "http://s/x", &[], body).await.unwrap()
}

#[tokio::test]
async fn a_status_is_retried_as_often_as_the_rule_says_with_the_whole_body() {
    let shaky = Shaky::start(&[Act::Status(500), Act::Status(503), Act::Status(200)]).await;
    let rule = Rule { retry: Some(retry(2, &[500, 503])), ..prefix("/", "a") };
    let (mesh, address) = with(rule, &[shaky.address]).await;
    let answer = ask(address, Method::POST, 10_000).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-meshgate-attempts")), (200, "3"));
    assert_eq!(shaky.bodies(), [10_000; 3]);
    shaky.act(&[Act::Status(503)]);
    let answer = ask(address, Method::GET, 0).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, "shaky"), "the last answer is passed on");
    assert_eq!(shaky.requests(), 6);
    shaky.act(&[Act::Status(502)]);
    assert_eq!(ask(address, Method::GET, 0).await.status, 502, "no code of the rule");
    assert_eq!(shaky.requests(), 7);
    assert!(mesh.metrics().contains("meshgate_http_retries_total{reason=\"status\",outcome=\"again\"} 4"));
    mesh.stop().await;
}

#[tokio::test]
async fn a_body_that_is_not_kept_is_not_sent_twice() {
    let shaky = Shaky::start(&[Act::Status(503)]).await;
    let rule = Rule { retry: Some(retry(3, &[503])), ..prefix("/", "a") };
    let (mesh, address) = with(rule, &[shaky.address]).await;
    assert_eq!(ask(address, Method::POST, 300_000).await.status, 503);
    assert_eq!(shaky.requests(), 1);
    mesh.stop().await;
}

#[tokio::test]
async fn lost_connections_are_retried_where_that_does_no_harm() {
    let shaky = Shaky::start(&[Act::Close, Act::Close, Act::Status(200)]).await;
    let rule = Rule { retry: Some(retry(3, &[])), ..prefix("/", "a") };
    let (mesh, address) = with(rule, &[shaky.address]).await;
    assert_eq!(ask(address, Method::PUT, 1_000).await.status, 200);
    assert_eq!(shaky.bodies(), [1_000; 3]);
    shaky.act(&[Act::Close]);
    let answer = ask(address, Method::GET, 0).await;
    assert_eq!((answer.status.as_u16(), shaky.requests()), (502, 7), "{}", answer.text());
    let answer = ask(address, Method::POST, 10).await;
    assert_eq!((answer.status.as_u16(), shaky.requests()), (502, 8), "a POST may have been processed");
    mesh.stop().await;
}

#[tokio::test]
async fn zero_attempts_are_no_retries() {
    let (shaky, other) = (Shaky::start(&[Act::Close]).await, Backend::start("b").await);
    let rule = Rule { retry: Some(retry(0, &[503])), ..prefix("/", "a") };
    let (mesh, address) = with(rule, &[shaky.address]).await;
    assert_eq!(ask(address, Method::GET, 0).await.status, 502);
    shaky.act(&[Act::Status(503)]);
    assert_eq!(ask(address, Method::GET, 0).await.status, 503);
    assert_eq!((shaky.requests(), other.requests()), (2, 0));
    mesh.stop().await;
}

#[tokio::test]
async fn another_endpoint_is_asked_if_there_is_one() {
    let (shaky, good) = (Shaky::start(&[Act::Status(500)]).await, Backend::start("good").await);
    let rule = Rule { retry: Some(retry(1, &[500])), ..prefix("/", "a") };
    let (mesh, address) = with(rule, &[shaky.address, good.address]).await;
    for _ in 0..40 {
        assert_eq!(ask(address, Method::GET, 0).await.header("x-backend"), "good");
    }
    assert!(shaky.requests() > 0);
    mesh.stop().await;
}

#[tokio::test]
async fn each_attempt_has_its_time_and_all_have_the_requests() {
    let shaky = Shaky::start(&[Act::Hang, Act::Status(200)]).await;
    let ms = |ms| Some(Duration::from_millis(ms));
    let timeouts = Timeouts { request: ms(2_000), backend_request: ms(150), ..Timeouts::default() };
    let rule = Rule { timeouts, retry: Some(retry(50, &[])), ..prefix("/", "a") };
    let (mesh, address) = with(rule, &[shaky.address]).await;
    assert_eq!(ask(address, Method::GET, 0).await.status, 200);
    assert_eq!(shaky.requests(), 2);
    shaky.act(&[Act::Hang]);
    let started = Instant::now();
    let answer = ask(address, Method::GET, 0).await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    // Where no pause fits any more, the answer comes at once.
    assert!((700..5_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert!(shaky.requests() > 4, "{}", shaky.requests());
    mesh.stop().await;
}

#[tokio::test]
async fn a_storm_of_failures_is_repeated_within_the_budget_only() {
    let shaky = Shaky::start(&[Act::Status(503)]).await;
    let rule = Rule { retry: Some(Retry { backoff: None, ..retry(1, &[503]) }), ..prefix("/", "a") };
    let (mesh, address) = with(rule, &[shaky.address]).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..10 {
        clients.spawn(async move {
            for _ in 0..40 {
                assert_eq!(ask(address, Method::GET, 0).await.status, 503);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    // 100 may always be repeated in ten seconds; a slow machine may take more than ten.
    let repeated = shaky.requests() - 400;
    assert!((100..=250).contains(&repeated), "{repeated} repeated");
    assert!(mesh.metrics().contains("outcome=\"over_budget\""), "{}", mesh.metrics());
    mesh.stop().await;
}

#[tokio::test]
async fn without_a_rule_only_what_no_pod_has_seen_is_repeated() {
    let shaky = Shaky::start(&[Act::Close]).await;
    let (mesh, address) = with(prefix("/", "a"), &[shaky.address]).await;
    assert_eq!(ask(address, Method::PUT, 10).await.status, 502);
    assert_eq!(shaky.requests(), 1);
    until("it is counted", || mesh.context.metrics.totals().failed == 1).await;
    mesh.stop().await;
}

#[tokio::test]
async fn a_request_through_the_tunnel_is_retried_with_its_body() {
    let (near, shaky) = (Backend::start("near").await, Shaky::start(&[Act::Status(503), Act::Status(200)]).await);
    let remote = Arc::new(Direct(host_of(shaky.address, AppProtocol::Http1)));
    let options = Options { remote, expected: vec!["n2"], ..Options::default() };
    let rule = Rule { retry: Some(retry(1, &[503])), ..prefix("/", "a") };
    let (mut mesh, address) = one_with(options, &[("a", &near)], vec![rule]).await;
    mesh.resources.service("a", AppProtocol::Http1, &[(shaky.address, Some("n2"))]);
    mesh.apply().await;
    let answer = ask(address, Method::POST, 20_000).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-meshgate-attempts")), (200, "2"));
    assert!(answer.header("x-meshgate-via").starts_with("tunnel"));
    assert_eq!(shaky.bodies(), [20_000; 2]);
    mesh.stop().await;
}
