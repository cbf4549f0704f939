//! HTTP/2: `h2load` of nghttp2 asks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use meshgate_bench::child::Running;

use crate::certificate::HOST;

/// Whether it is installed.
pub fn is_there() -> bool {
    let run = Command::new("h2load").arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// Asks for some time, over 8 connections with 32 streams each, after a warm-up.
///
/// # Errors
/// It can't be started.
pub fn start(address: SocketAddr, warm_up: Duration, duration: Duration, log: PathBuf) -> anyhow::Result<Running> {
    let mut command = Command::new("h2load");
    command.args(["-c8", "-m32", "-t1", "--groups=X25519", "-D"]).arg(format!("{}ms", duration.as_millis()));
    command.arg(format!("--warm-up-time={}ms", warm_up.as_millis())).arg(format!("--connect-to={address}"));
    command.arg(format!("https://{HOST}/"));
    Running::start("h2load", &mut command, log)
}

/// Requests a second, and requests that failed, from what it says at its end.
///
/// # Errors
/// It says something else.
pub fn parse(output: &str) -> anyhow::Result<(f64, u64)> {
    let line = |start: &str| {
        let found = output.lines().find_map(|line| line.trim().strip_prefix(start));
        found.with_context(|| format!("h2load does not say {start:?}:\n{output}"))
    };
    let rate = line("finished in ")?.split(", ").find_map(|part| part.strip_suffix(" req/s"));
    let rate: f64 = rate.and_then(|rate| rate.parse().ok()).context("h2load says no rate")?;
    let count = |text: &str, what: &str| -> u64 {
        let part = text.split(", ").find_map(|part| part.strip_suffix(what));
        part.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
    };
    let requests = line("requests: ")?;
    let codes = line("status codes: ")?;
    let failed = count(requests, " failed") + count(requests, " errored") + count(requests, " timeout");
    let other = [" 3xx", " 4xx", " 5xx"].iter().map(|class| count(codes, class)).sum::<u64>();
    ensure!(count(codes, " 2xx") > 0, "h2load got no answer:\n{output}");
    Ok((rate, failed + other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_understood() {
        let said = "finished in 2.00s, 70123.50 req/s, 11.2MB/s\n\
                    requests: 140247 total, 140503 started, 140247 done, 140240 succeeded, 7 failed, 0 errored, 0 timeout\n\
                    status codes: 140240 2xx, 0 3xx, 0 4xx, 7 5xx\n";
        let (rate, failed) = parse(said).unwrap();
        assert_eq!((rate.to_string().as_str(), failed), ("70123.5", 14));
        assert!(parse("nothing").is_err());
    }
}
