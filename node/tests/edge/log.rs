//! The access log.

use bytes::Bytes;
use http::Method;
use meshgate_node::proxy::{AccessLog, AccessLogTarget};

use crate::backend::Backend;
use crate::client::Client;
use crate::http::one_with;
use crate::mesh::Options;
use crate::resources::prefix;

#[tokio::test]
async fn a_line_says_what_was_asked_what_it_took_and_who_answered() {
    let a = Backend::start("a").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (access_log, writer) = AccessLog::open(&AccessLogTarget::File(path.clone())).unwrap();
    let writer = std::thread::spawn(move || writer.unwrap().run());
    let options = Options { access_log, ..Options::default() };
    let (mesh, address) = one_with(options, &[("a", &a)], vec![prefix("/", "a")]).await;
    let mut client = Client::h1(address).await;
    let headers = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("user-agent", "t\"1"),
        ("authorization", "Bearer hidden"),
        ("cookie", "id=hidden"),
    ];
    let body = Bytes::from(vec![b'l'; 30_000]);
    let answer = client.send(Method::POST, "http://shop.example/echo?hidden", &headers, body).await.unwrap();
    assert_eq!(answer.body.len(), 30_000);
    assert_eq!(client.get("http://shop.example/status?404").await.status, 404);
    drop(client);
    mesh.stop().await;
    writer.join().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert!(!text.contains("hidden"), "{text}");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let line = &lines[0];
    for (field, value) in [
        ("gateway", "default/web"),
        ("listener", "http"),
        ("route", "default/shop"),
        ("backend", "default/a:80"),
        ("method", "POST"),
        ("host", "shop.example"),
        ("path", "/echo"),
        ("dst_pod", "a-0"),
        ("via", "direct"),
        ("protocol", "HTTP/1.1"),
        ("reason", "ok"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ("user_agent", "t\"1"),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    for (field, value) in [("status", 200), ("rule", 0), ("req_bytes", 30_000), ("resp_bytes", 30_000), ("rev", 2)] {
        assert_eq!(line[field].as_u64(), Some(value), "{field} in {line}");
    }
    let micros = |field: &str| line[field].as_u64().unwrap();
    assert!(micros("dur_us") >= micros("ttfb_us") && micros("ttfb_us") >= micros("upstream_us"), "{line}");
    assert!(micros("upstream_us") > 0 && micros("proxy_us") > 0, "{line}");
    assert!(line["tls_version"].is_null() && line["sni"].is_null(), "{line}");
    assert_eq!(lines[1]["status"], 404);
    assert!(lines[1]["trace_id"].is_null());
}
