//! The access log.

use bytes::Bytes;
use http::Method;
use meshgate_node::proxy::{AccessLog, AccessLogTarget, ProxyMetrics};
use meshgate_node::telemetry::Telemetry;

use crate::backend::Backend;
use crate::client::Client;
use crate::http::one_with;
use crate::mesh::Options;
use crate::resources::prefix;

/// A log in a file.
pub struct Log {
    folder: tempfile::TempDir,
    writer: std::thread::JoinHandle<()>,
}

impl Log {
    /// The log and its end for requests.
    pub fn start() -> (Log, AccessLog) {
        let folder = tempfile::tempdir().unwrap();
        let target = AccessLogTarget::File(folder.path().join("access.log"));
        let (access_log, writer) = AccessLog::open(&target).unwrap();
        let writer = std::thread::spawn(move || writer.unwrap().run());
        (Log { folder, writer }, access_log)
    }

    /// All of it, once nobody can write any more.
    pub fn text(self) -> String {
        self.writer.join().unwrap();
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap()
    }
}

/// The lines of a log.
pub fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_line_says_what_was_asked_what_it_took_and_who_answered() {
    let a = Backend::start("a").await;
    let (log, access_log) = Log::start();
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
    let text = log.text();
    assert!(!text.contains("hidden"), "{text}");
    let lines = lines(&text);
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

#[tokio::test]
async fn what_operators_are_told_to_look_at_is_exported() {
    let a = Backend::start("a").await;
    let (mesh, address) = one_with(Options::default(), &[("a", &a)], vec![prefix("/", "a")]).await;
    let telemetry = Telemetry::new("n1");
    let metrics = telemetry.register(|registry| {
        mesh.stats.register(registry);
        mesh.context.access_log.register(registry);
        ProxyMetrics::new(registry)
    });
    assert_eq!(Client::h1(address).await.get("http://s/x").await.status, 200);
    metrics.mirrored("sent");
    metrics.mirrored("lagged");
    metrics.retried("status", "again");
    metrics.ejected("default/a:80");
    let text = telemetry.text().unwrap();
    println!("{text}");
    for line in [
        "meshgate_connections_accepted_total 1",
        "meshgate_connections_refused_total{reason=\"over_limit\"} 0",
        "meshgate_tls_handshakes_failed_total 0",
        "meshgate_access_log_dropped_total 0",
        "meshgate_http_mirrors_total{outcome=\"lagged\"} 1",
        "meshgate_http_retries_total{reason=\"status\",outcome=\"again\"} 1",
        "meshgate_endpoint_ejections_total{backend=\"default/a:80\"} 1",
    ] {
        assert!(text.lines().any(|exported| exported == line), "{line} in {text}");
    }
    mesh.stop().await;
}
