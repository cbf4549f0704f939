//! What a rule's timeouts do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Method;
use meshgate_core::snapshot::{AppProtocol, Rule, Timeouts};

use crate::backend::Backend;
use crate::client::{Client, get, until};
use crate::http::one;
use crate::mesh::Mesh;
use crate::resources::prefix;
use crate::shaky::{Act, Shaky};

async fn timed(request: Option<u64>, backend_request: Option<u64>, act: Act) -> (Mesh, SocketAddr, Shaky) {
    let (a, shaky) = (Backend::start("a").await, Shaky::start(&[act]).await);
    let ms = |ms: Option<u64>| ms.map(Duration::from_millis);
    let timeouts = Timeouts { request: ms(request), backend_request: ms(backend_request), ..Timeouts::default() };
    let (mut mesh, address) = one(&[("a", &a)], vec![Rule { timeouts, ..prefix("/", "a") }]).await;
    mesh.resources.service("a", AppProtocol::Http1, &[(shaky.address, None)]);
    mesh.apply().await;
    (mesh, address, shaky)
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_a_504() {
    for (request, backend_request) in [(Some(150), None), (None, Some(150)), (Some(0), Some(150)), (Some(150), Some(0))]
    {
        let (mesh, address, shaky) = timed(request, backend_request, Act::Hang).await;
        let started = Instant::now();
        let answer = get(address, "http://s/x").await;
        assert_eq!(answer.status, 504);
        assert!(answer.text().starts_with("timeout"), "{}", answer.text());
        assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
        assert_eq!(shaky.requests(), 1);
        until("it is counted", || mesh.metrics().contains("reason=\"timeout\"")).await;
        mesh.stop().await;
    }
}

#[tokio::test]
async fn an_answer_that_goes_on_for_too_long_is_cut() {
    for (request, backend_request) in [(Some(300), None), (None, Some(300))] {
        let (mesh, address, _shaky) = timed(request, backend_request, Act::Drip).await;
        for mut client in [Client::h1(address).await, Client::h2(address).await] {
            let started = Instant::now();
            let cut = client.send(Method::GET, "http://s/x", &[], "".into()).await;
            assert!(cut.is_err(), "{cut:?}");
            assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
        }
        mesh.stop().await;
    }
}

#[tokio::test]
async fn zero_is_no_timeout() {
    let a = Backend::start("a").await;
    let timeouts =
        Timeouts { request: Some(Duration::ZERO), backend_request: Some(Duration::ZERO), ..Timeouts::default() };
    let (mesh, address) = one(&[("a", &a)], vec![Rule { timeouts, ..prefix("/", "a") }]).await;
    assert_eq!(get(address, "http://s/slow?300").await.text(), "slow");
    mesh.stop().await;
}
