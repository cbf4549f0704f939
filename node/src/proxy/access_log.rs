//! The access log: one line of JSON a request, written by a thread of its own. A slow disk drops
//! lines, which are counted; it never makes a request wait.

use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::identity::ClientCertificate;

/// Lines that wait for the writer.
const QUEUE: usize = 8_192;

/// Bytes of a text that a client sent; with [`QUEUE`] this bounds what lines that wait can hold.
const MAX_TEXT: usize = 1_024;

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere; then requests do no work for it.
    #[default]
    Off,
    /// The standard error stream.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// The requests' end of the log. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AccessLog {
    queue: Option<SyncSender<Box<Record>>>,
    dropped: Arc<AtomicU64>,
}

/// The other end; its owner gives it a thread.
pub struct AccessLogWriter {
    queue: Receiver<Box<Record>>,
    output: Box<dyn Write + Send>,
}

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Seconds since the epoch, with microseconds, of the request's head.
    pub ts: f64,
    /// `http`.
    pub kind: &'static str,
    /// The node that answered.
    pub node: Arc<str>,
    /// Gateway.
    pub gateway: String,
    /// Listener's name.
    pub listener: String,
    /// Route.
    pub route: String,
    /// Index of the rule.
    pub rule: Option<usize>,
    /// The Service's port that the rule's backend names.
    pub backend: Option<String>,
    /// Method.
    pub method: String,
    /// Host.
    pub host: String,
    /// Path, without query, which may hold secrets.
    pub path: String,
    /// Status; 0 where the client left before there was one.
    pub status: u16,
    /// From the request's head to the end of the answer.
    pub dur_us: u64,
    /// Of that until the answer's head, without the time waited for backends.
    pub proxy_us: u64,
    /// From the request's sending to the answer's head.
    pub upstream_us: u64,
    /// From the request's head to the answer's head.
    pub ttfb_us: u64,
    /// Bytes of the request's body that were read.
    pub req_bytes: BodyBytes,
    /// Bytes of the answer's body.
    pub resp_bytes: u64,
    /// Further attempts.
    pub retries: u32,
    /// The client, as trusted hops tell it.
    pub src_ip: IpAddr,
    /// The client's certificate, where its listener verified one.
    pub client_cert: Option<Arc<ClientCertificate>>,
    /// The endpoint.
    pub dst: Option<SocketAddr>,
    /// Its pod.
    pub dst_pod: Option<Arc<str>>,
    /// Its node.
    pub dst_node: Option<Arc<str>>,
    /// `local`, `tunnel`, `direct`, `fallback`.
    pub via: Option<&'static str>,
    /// What the client spoke: `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: &'static str,
    /// Version of TLS, if any.
    pub tls_version: Option<&'static str>,
    /// Server name of the TLS handshake.
    pub sni: Option<String>,
    /// `ok` or what went wrong.
    pub reason: &'static str,
    /// Epoch of the table that decided.
    pub epoch: u64,
    /// Rev of the table that decided.
    pub rev: u64,
    /// Trace of the request's `traceparent` (W3C Trace Context).
    pub trace_id: Option<String>,
    /// User agent.
    pub user_agent: Option<String>,
}

/// Bytes of a body, counted as they are read.
#[derive(Clone, Debug, Default)]
pub struct BodyBytes(pub Arc<AtomicU64>);

impl Serialize for BodyBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.load(Ordering::Relaxed))
    }
}

/// What a client sent, as it is logged: at most [`MAX_TEXT`] bytes of it, made valid UTF-8. Control
/// characters are escaped by the encoding.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..MAX_TEXT).unwrap_or(bytes)).into_owned()
}

/// The trace id of a `traceparent` field (W3C Trace Context 3.2.2), if that is valid.
pub fn trace_id(parent: &[u8]) -> Option<String> {
    let mut parts = parent.split(|byte| *byte == b'-');
    let (version, id, span) = (parts.next()?, parts.next()?, parts.next()?);
    let hexadecimal =
        |part: &[u8], length| part.len() == length && part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_set = |part: &[u8]| part.iter().any(|byte| *byte != b'0');
    let valid = hexadecimal(version, 2) && version != b"ff" && hexadecimal(id, 32) && hexadecimal(span, 16);
    (valid && is_set(id) && is_set(span)).then(|| text(id))
}

impl AccessLog {
    /// Opens the log. The writer is `None` for [`AccessLogTarget::Off`].
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn open(target: &AccessLogTarget) -> io::Result<(AccessLog, Option<AccessLogWriter>)> {
        let output: Box<dyn Write + Send> = match target {
            AccessLogTarget::Off => return Ok((AccessLog::default(), None)),
            AccessLogTarget::Stderr => Box::new(io::stderr()),
            AccessLogTarget::File(path) => Box::new(std::fs::OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (sender, queue) = sync_channel(QUEUE);
        let log = AccessLog { queue: Some(sender), dropped: Arc::default() };
        Ok((log, Some(AccessLogWriter { queue, output })))
    }

    /// Someone reads it.
    pub fn on(&self) -> bool {
        self.queue.is_some()
    }

    /// Writes a line, or drops it where the writer is behind.
    pub fn write(&self, record: Box<Record>) {
        if let Some(queue) = &self.queue
            && queue.try_send(record).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Exports how many lines were dropped.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Dropped(Arc::clone(&self.dropped))));
    }

    /// Lines dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Lines dropped as a metric, read when scraped.
#[derive(Debug)]
struct Dropped(Arc<AtomicU64>);

impl Collector for Dropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let dropped = ConstCounter::new(self.0.load(Ordering::Relaxed));
        let help = "Lines of the access log that were dropped because the disk is behind";
        let descriptor = encoder.encode_descriptor("meshgate_access_log_dropped", help, None, dropped.metric_type())?;
        dropped.encode(descriptor)
    }
}

impl AccessLogWriter {
    /// Writes until every [`AccessLog`] is gone. Blocks: call it on a thread of its own.
    pub fn run(self) {
        let mut output = BufWriter::new(self.output);
        while let Ok(first) = self.queue.recv() {
            write_line(&mut output, &first);
            while let Ok(record) = self.queue.try_recv() {
                write_line(&mut output, &record);
            }
            // A full disk costs lines, nothing else.
            let _ = output.flush();
        }
    }
}

fn write_line(output: &mut impl Write, record: &Record) {
    if let Ok(mut line) = serde_json::to_vec(record) {
        line.push(b'\n');
        let _ = output.write_all(&line);
    }
}

/// Seconds since the epoch.
pub fn timestamp(time: SystemTime) -> f64 {
    let micros = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Box<Record> {
        Box::new(Record {
            ts: timestamp(UNIX_EPOCH + std::time::Duration::from_micros(1_500_000)),
            kind: "http",
            node: "n1".into(),
            gateway: "default/web".into(),
            listener: "http".into(),
            route: "default/shop".into(),
            rule: Some(0),
            backend: Some("default/shop:80".into()),
            method: "GET".into(),
            host: "shop.example".into(),
            path: "/a\"b\n{}".into(),
            status: 200,
            dur_us: 10,
            proxy_us: 3,
            upstream_us: 5,
            ttfb_us: 8,
            req_bytes: BodyBytes::default(),
            resp_bytes: 7,
            retries: 0,
            src_ip: IpAddr::from([127, 0, 0, 1]),
            client_cert: None,
            dst: None,
            dst_pod: None,
            dst_node: None,
            via: Some("local"),
            protocol: "HTTP/1.1",
            tls_version: None,
            sni: None,
            reason: "ok",
            epoch: 1,
            rev: 2,
            trace_id: None,
            user_agent: None,
        })
    }

    #[test]
    fn lines_are_json_and_one_line_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (log, writer) = AccessLog::open(&AccessLogTarget::File(path.clone())).unwrap();
        log.write(record());
        log.write(record());
        drop(log);
        writer.unwrap().run();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 2);
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(line["path"], "/a\"b\n{}");
        assert_eq!(line["ts"], 1.5);
    }

    #[test]
    fn what_clients_send_is_cut_and_made_text() {
        assert_eq!(text(&[b'a'; 5_000]).len(), MAX_TEXT);
        assert_eq!(text(b"a\xffb"), "a\u{fffd}b");
        let encoded = serde_json::to_string(&text(b"a\r\n\x1b[31m")).unwrap();
        assert_eq!(encoded, r#""a\r\n\u001b[31m""#);
    }

    #[test]
    fn a_trace_is_known_by_a_valid_parent_only() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let parent = |version: &str, id: &str, span: &str| trace_id(format!("{version}-{id}-{span}-01").as_bytes());
        assert_eq!(parent("00", id, "b7ad6b7169203331").as_deref(), Some(id));
        let zeros = "0".repeat(32);
        for (version, id, span) in [
            ("ff", id, "b7ad6b7169203331"),
            ("00", zeros.as_str(), "b7ad6b7169203331"),
            ("00", id, "0000000000000000"),
            ("00", "0AF7651916CD43DD8448EB211C80319C", "b7ad6b7169203331"),
            ("00", "0af7", "b7ad6b7169203331"),
        ] {
            assert_eq!(parent(version, id, span), None, "{version} {id} {span}");
        }
        assert_eq!(trace_id(b""), None);
    }

    #[test]
    fn a_writer_that_is_behind_costs_lines_and_counts_them() {
        let (log, _writer) = AccessLog::open(&AccessLogTarget::Stderr).unwrap();
        for _ in 0..QUEUE + 3 {
            log.write(record());
        }
        assert_eq!(log.dropped(), 3);
    }
}
