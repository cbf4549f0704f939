//! Logs and the metrics registry. Each part registers its own metrics; this encodes them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;

/// Content type of [`Telemetry::openmetrics`].
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of [`Telemetry::text`].
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Sets up logs on stderr: `MESHGATE_LOG` filters (default `info`), `MESHGATE_LOG_FORMAT=json`
/// for machines. Does nothing when a subscriber is already there (tests).
pub fn init_logs() {
    let filter = EnvFilter::try_from_env("MESHGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = std::env::var("MESHGATE_LOG_FORMAT").is_ok_and(|format| format == "json");
    // An error means that somebody else set one up first, which is then as good.
    let _ = if json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
}

/// The process's metrics.
#[derive(Clone, Debug)]
pub struct Telemetry {
    registry: Arc<Mutex<Registry>>,
}

impl Telemetry {
    /// A registry with what every process exports.
    pub fn new(node: &str) -> Self {
        let mut registry = Registry::default();
        let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("node", node.to_owned())]);
        registry.register("meshgate_build", "Version and node of this process", info);
        registry.register_collector(Box::new(Process { started: unix_seconds() }));
        Telemetry { registry: Arc::new(Mutex::new(registry)) }
    }

    /// Lets a part register its metrics.
    pub fn register<T>(&self, with: impl FnOnce(&mut Registry) -> T) -> T {
        // A panic while registering leaves a registry that can still be read.
        with(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything in the OpenMetrics text format. Reads atomics; never holds up the data path.
    ///
    /// # Errors
    /// A metric could not be written, which is a bug of whoever registered it.
    pub fn openmetrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    /// Everything in Prometheus' older text format, for scrapers that do not ask for OpenMetrics.
    ///
    /// # Errors
    /// As [`Telemetry::openmetrics`].
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        Ok(downgrade(&self.openmetrics()?))
    }
}

/// OpenMetrics names a counter's family without `_total` and knows `info`; the older format wants
/// the family named as its samples are.
fn downgrade(openmetrics: &str) -> String {
    let mut families: Vec<(&str, &str, &str)> = Vec::new();
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = ("", "");
    for line in openmetrics.lines() {
        if let Some((name, words)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = (name, words);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let words = if help.0 == name { help.1 } else { "" };
            families.push((name, kind, words));
        } else if line.starts_with("# ") {
            // UNIT and EOF have no counterpart.
        } else {
            for (name, kind, words) in families.drain(..) {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                text.push_str(&format!("# HELP {name}{suffix} {words}\n# TYPE {name}{suffix} {kind}\n"));
            }
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The conventional `process_*` metrics, read from /proc when scraped.
#[derive(Debug)]
struct Process {
    started: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
        };
        gauge("process_start_time", "When the process started, Unix time", Some(&Unit::Seconds), self.started)?;
        if let Some(bytes) = resident_bytes() {
            gauge("process_resident_memory", "Resident memory", Some(&Unit::Bytes), bytes)?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            #[allow(clippy::cast_precision_loss, reason = "a count of descriptors is far below 2^52")]
            gauge("process_open_fds", "Open file descriptors", None, open.count() as f64)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let metric = ConstCounter::new(seconds);
            let help = "User and system CPU time";
            metric.encode(encoder.encode_descriptor(
                "process_cpu",
                help,
                Some(&Unit::Seconds),
                metric.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^52")]
fn resident_bytes() -> Option<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some((pages * rustix::param::page_size() as u64) as f64)
}

#[allow(clippy::cast_precision_loss, reason = "clock ticks are far below 2^52")]
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command name may hold spaces; fields are counted after its closing parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_metrics_are_exported() {
        let text = Telemetry::new("node-a").openmetrics().unwrap();
        for name in
            ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total", "meshgate_build_info"]
        {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }

    #[test]
    fn the_older_format_names_families_as_samples() {
        let open = "# HELP a_b Help of it.\n# TYPE a_b counter\n# UNIT a_b seconds\na_b_total 1\n# HELP c C.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        let text = "# HELP a_b_total Help of it.\n# TYPE a_b_total counter\na_b_total 1\n# HELP c_info C.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        assert_eq!(downgrade(open), text);
    }
}
