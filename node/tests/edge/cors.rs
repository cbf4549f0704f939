//! CORS: preflights are answered here, other responses say what the rule allows.

use bytes::Bytes;
use http::Method;
use meshgate_core::snapshot::{Cors, Filter, HeaderModifier};

use crate::backend::Backend;
use crate::client::Client;
use crate::http::one;
use crate::resources::{filtered, prefix};

fn cors() -> Filter {
    Filter::Cors(Cors {
        allow_origins: vec!["https://www.shop.example".into()],
        allow_credentials: true,
        allow_methods: vec!["GET".into(), "PUT".into()],
        allow_headers: vec!["x-cart".into()],
        expose_headers: vec!["x-backend".into()],
        max_age: 60,
    })
}

#[tokio::test]
async fn a_preflight_reaches_no_backend() {
    let a = Backend::start("a").await;
    let (mesh, address) = one(&[("a", &a)], vec![filtered("/", "a", cors())]).await;
    for mut client in [Client::h1(address).await, Client::h2(address).await] {
        let origin = ("origin", "https://www.shop.example");
        let asked = [origin, ("access-control-request-method", "PUT"), ("access-control-request-headers", "x-cart")];
        let answer = client.send(Method::OPTIONS, "http://s/x", &asked, Bytes::new()).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
        assert_eq!(answer.header("access-control-allow-origin"), "https://www.shop.example");
        assert_eq!(answer.header("access-control-allow-methods"), "GET, PUT");
        assert_eq!(answer.header("access-control-allow-headers"), "x-cart");
        assert_eq!(answer.header("access-control-max-age"), "60");
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        let other = [("origin", "https://evil.example"), ("access-control-request-method", "PUT")];
        let answer = client.send(Method::OPTIONS, "http://s/x", &other, Bytes::new()).await.unwrap();
        assert_eq!(answer.header("access-control-allow-origin"), "");
        assert_eq!(a.requests(), 0);
    }
    let mut client = Client::h1(address).await;
    let plain = client.send(Method::OPTIONS, "http://s/x", &[], Bytes::new()).await.unwrap();
    assert_eq!(plain.header("x-backend"), "a", "an OPTIONS that is no preflight is the backend's");
    mesh.stop().await;
}

#[tokio::test]
async fn the_rule_speaks_for_the_backend_and_for_our_own_answers() {
    let a = Backend::start("a").await;
    // As if the backend had said so itself.
    let own = HeaderModifier { set: vec![("access-control-allow-origin".into(), "*".into())], ..Default::default() };
    let mut rule = filtered("/a", "a", cors());
    rule.filters.insert(0, Filter::ResponseHeaders(own));
    let mut nowhere = filtered("/none", "gone", cors());
    nowhere.filters.truncate(1);
    let (mesh, address) = one(&[("a", &a)], vec![rule, nowhere, prefix("/", "a")]).await;
    let mut client = Client::h1(address).await;
    let origin = [("origin", "https://www.shop.example")];
    let answer = client.send(Method::GET, "http://s/a", &origin, Bytes::new()).await.unwrap();
    assert_eq!(answer.header("access-control-allow-origin"), "https://www.shop.example");
    assert_eq!(answer.header("access-control-expose-headers"), "x-backend");
    assert_eq!(answer.header("vary").to_lowercase(), "origin");
    let evil = [("origin", "https://evil.example")];
    let answer = client.send(Method::GET, "http://s/a", &evil, Bytes::new()).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (200, ""));
    let answer = client.send(Method::GET, "http://s/none", &origin, Bytes::new()).await.unwrap();
    assert_eq!(answer.status, 500, "its Service does not exist");
    assert_eq!(answer.header("access-control-allow-origin"), "https://www.shop.example");
    let answer = client.send(Method::GET, "http://s/x", &origin, Bytes::new()).await.unwrap();
    assert_eq!(answer.header("access-control-allow-origin"), "");
    mesh.stop().await;
}
