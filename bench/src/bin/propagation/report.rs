//! The result for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::measure::Outcome;
use crate::options::Options;
use crate::statistics::Samples;
use meshgate_bench::process::machine;

/// What the numbers are of.
pub fn heading(options: &Options, seed: u64) -> String {
    format!(
        "{}\n{} peers on this machine, all files on tmpfs where there is one; seed {seed}",
        machine(),
        options.peers
    )
}

/// The tables.
pub fn text(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    // Writing to a string never fails.
    let _ = write_live(&mut text, outcomes).and_then(|()| write_waits(&mut text, outcomes));
    let _ = write_peers(&mut text, outcomes);
    text
}

fn write_live(text: &mut String, outcomes: &[Outcome]) -> std::fmt::Result {
    writeln!(text, "\nEDIT TO LIVE ON ALL PEERS, as requests see it (ms; requests to a peer are EVERY ms apart)")?;
    writeln!(text, "  ROUTES  EDITS     P50     P90     P99     MAX   EVERY  FAULTS  START")?;
    for one in outcomes {
        let Outcome { routes, live, request_interval_ms: every, .. } = one;
        let (edits, faults, start) = (live.len(), one.fault_count(), one.start_ms / 1e3);
        let all = percentiles(live, &[50.0, 90.0, 99.0, 100.0]);
        writeln!(text, "  {routes:>6} {edits:>6}{all} {every:>7.2} {faults:>7} {start:>4.1} s")?;
    }
    Ok(())
}

fn write_waits(text: &mut String, outcomes: &[Outcome]) -> std::fmt::Result {
    writeln!(text, "\nWAIT (ms): TOOK is from the leader's read to the last acknowledgement, as Wait says;")?;
    writeln!(text, "ANSWER from the edit to its answer, when it is called at once")?;
    writeln!(text, "  ROUTES  WAITS  TOOK P50     P90     P99     MAX  ANSWER P50     P90     P99     MAX")?;
    for one in outcomes {
        let (routes, waits) = (one.routes, one.wait_took.len());
        let all = [50.0, 90.0, 99.0, 100.0];
        let (took, answer) = (percentiles(&one.wait_took, &all), percentiles(&one.wait_answer, &all));
        writeln!(text, "  {routes:>6} {waits:>6}  {took}    {answer}")?;
    }
    Ok(())
}

fn write_peers(text: &mut String, outcomes: &[Outcome]) -> std::fmt::Result {
    writeln!(
        text,
        "\nPEERS: LIVE in ms; CPU in ms an edit, with requests and gossip; IDLE in ms a second without edits"
    )?;
    writeln!(text, "  ROUTES  PEER        ROLE      LIVE P50     P90     P99  RSS MiB     CPU    IDLE")?;
    for one in outcomes {
        for peer in &one.peers {
            let role = if peer.leads { "leader" } else { "follower" };
            let live = percentiles(&peer.live, &[50.0, 90.0, 99.0]);
            let (rss, cpu, idle) = (peer.resident_mib, peer.cpu_ms_per_edit, peer.idle_cpu_ms_per_second);
            let (routes, node) = (one.routes, &peer.node);
            writeln!(text, "  {routes:>6}  {node:<11} {role:<8}  {live} {rss:>8.1} {cpu:>7.2} {idle:>7.1}")?;
        }
    }
    Ok(())
}

fn percentiles(samples: &Samples, percents: &[f64]) -> String {
    let mut text = String::new();
    for percent in percents {
        let _ = write!(text, " {:>7.2}", samples.percentile(*percent));
    }
    text
}

/// Everything, with all samples.
pub fn json(options: &Options, seed: u64, outcomes: &[Outcome]) -> Value {
    let sizes: Vec<Value> = outcomes.iter().map(size).collect();
    json!({
        "machine": machine(), "seed": seed, "peers": options.peers, "poll_us": options.poll_us,
        "routes_per_service": options.routes_per_service, "sizes": sizes,
    })
}

fn size(one: &Outcome) -> Value {
    let peers: Vec<Value> = one
        .peers
        .iter()
        .map(|peer| {
            json!({
                "node": peer.node, "leader": peer.leads, "live_ms": peer.live.json(),
                "resident_mib": peer.resident_mib, "cpu_ms_per_edit": peer.cpu_ms_per_edit,
                "idle_cpu_ms_per_second": peer.idle_cpu_ms_per_second,
            })
        })
        .collect();
    json!({
        "routes": one.routes, "start_ms": one.start_ms, "live_on_all_ms": one.live.json(),
        "edited_at_unix_us": one.edited_at_us,
        "request_interval_ms": one.request_interval_ms, "wait_took_ms": one.wait_took.json(),
        "wait_answer_ms": one.wait_answer.json(), "faults": one.fault_count(), "peers": peers,
    })
}
