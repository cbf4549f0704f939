//! Proxies in front of the edge: whom it believes about clients.

use bytes::Bytes;
use http::Method;
use meshgate_node::edge::EdgeConfig;
use meshgate_node::proxy::{AccessLog, AccessLogTarget};

use crate::backend::Backend;
use crate::client::Client;
use crate::http::one_with;
use crate::mesh::Options;
use crate::resources::prefix;

/// What the backend got and what was logged, with these ranges trusted.
async fn asked(trusted: &[&str]) -> (String, serde_json::Value) {
    let backend = Backend::start("a").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (access_log, writer) = AccessLog::open(&AccessLogTarget::File(path.clone())).unwrap();
    let writer = std::thread::spawn(move || writer.unwrap().run());
    let trusted_proxies = trusted.iter().map(|range| range.parse().unwrap()).collect();
    let config = EdgeConfig { threads: 1, trusted_proxies, ..EdgeConfig::default() };
    let options = Options { config, access_log, ..Options::default() };
    let (mesh, address) = one_with(options, &[("a", &backend)], vec![prefix("/", "a")]).await;
    let mut client = Client::h1(address).await;
    let headers =
        [("x-forwarded-for", "6.6.6.6, 203.0.113.7"), ("client-cert", ":AAAA:"), ("ssl-client-verify", "SUCCESS")];
    let answer = client.send(Method::GET, "http://s/x", &headers, Bytes::new()).await.unwrap();
    drop(client);
    mesh.stop().await;
    writer.join().unwrap();
    let line = std::fs::read_to_string(path).unwrap();
    (answer.text(), serde_json::from_str(line.trim()).unwrap())
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_nobody_else() {
    let (got, line) = asked(&["10.0.0.0/8", "127.0.0.0/8"]).await;
    assert!(got.contains("x-forwarded-for: 6.6.6.6, 203.0.113.7, 127.0.0.1"), "{got}");
    assert!(got.contains("client-cert: "), "{got}");
    assert_eq!(line["src_ip"], "203.0.113.7");
    let (got, line) = asked(&["10.0.0.0/8"]).await;
    assert!(got.contains("x-forwarded-for: 127.0.0.1"), "{got}");
    assert!(!got.contains("client-cert") && !got.contains("ssl-client"), "{got}");
    assert_eq!(line["src_ip"], "127.0.0.1");
}
