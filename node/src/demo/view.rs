//! What the demo knows at one moment, and its live lines.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use meshgate_proto::admin::{GetLeaderResponse, GetStatusResponse};

use super::admin::Admin;
use super::echo::Echoes;
use super::fleet::{Fleet, NODES, Node, Process};

/// One node at one moment.
#[derive(Clone, Debug)]
pub struct Row {
    /// The node.
    pub node: Node,
    /// Its process.
    pub process: Option<Process>,
    /// What it says of itself; `None` when it does not answer.
    pub status: Option<GetStatusResponse>,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// One a node.
    pub rows: Vec<Row>,
    /// Who leads, by the highest epoch that any peer knows.
    pub leader: Option<GetLeaderResponse>,
    /// How long it leads, if it says so.
    pub leads_for: Option<Duration>,
    /// Requests that the echo backends answered, and connections that they refused.
    pub echoed: Option<(u64, u64)>,
}

/// Asks every peer, all at once.
pub async fn look(admins: &[Admin], fleet: &Fleet, echoes: Option<&Echoes>) -> View {
    let asked = join_all(admins.iter().map(|admin| async {
        let (status, leader) = tokio::join!(admin.status(), admin.leader());
        (Row { node: admin.node(), process: fleet.process(admin.node()), status: status.ok() }, leader.ok())
    }))
    .await;
    let (rows, leaders): (Vec<Row>, Vec<_>) = asked.into_iter().unzip();
    let leader =
        leaders.into_iter().flatten().filter(|leader| !leader.node.is_empty()).max_by_key(|leader| leader.epoch);
    let leads_for = leader.as_ref().and_then(|leader| {
        let since = UNIX_EPOCH + Duration::from_millis(u64::try_from(leader.since_ms).ok().filter(|ms| *ms > 0)?);
        SystemTime::now().duration_since(since).ok()
    });
    let echoed = echoes.map(|echoes| {
        let counters = echoes.counters();
        (counters.requests.load(Ordering::Relaxed), counters.refused.load(Ordering::Relaxed))
    });
    View { rows, leader, leads_for, echoed }
}

impl Row {
    /// `ready`, `not ready: no snapshot`, `dead (signal 9)`.
    pub fn state(&self) -> String {
        match (&self.status, &self.process) {
            (_, Some(Process { pid: None, ended, .. })) => {
                format!("dead ({}), comes back", ended.as_deref().unwrap_or("not started"))
            }
            (Some(status), _) if status.ready => "ready".to_owned(),
            (Some(status), _) => format!("not ready: {}", status.not_ready_reason),
            (None, _) => "starting, no answer yet".to_owned(),
        }
    }

    fn ready(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.ready)
            && self.process.as_ref().is_some_and(|p| p.pid.is_some())
    }

    fn line(&self) -> String {
        let pid = self.process.as_ref().and_then(|process| process.pid);
        let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let name = self.node.name;
        let Some(status) = self.status.as_ref().filter(|_| self.ready()) else {
            return format!("  {name:<8}{pid:>8}  {}", self.state());
        };
        let head = status.head.unwrap_or_default();
        format!(
            "  {name:<8}{pid:>8}  {:<6}{:>10}{:>7}{:>8}{:>11}{:>9}{:>9}{:>9}",
            "ready",
            format!("{}/{}", head.epoch, head.rev),
            format!("{}/{}", status.peers_alive, NODES.len()),
            status.routes,
            status.requests_total,
            status.requests_local,
            status.requests_tunnel,
            status.requests_failed,
        )
    }
}

impl View {
    /// The live part of the screen.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.headline()];
        lines.push(format!(
            "  {:<8}{:>8}  {:<6}{:>10}{:>7}{:>8}{:>11}{:>9}{:>9}{:>9}",
            "NODE", "PID", "STATE", "EPOCH/REV", "PEERS", "ROUTES", "REQUESTS", "LOCAL", "TUNNEL", "FAILED"
        ));
        lines.extend(self.rows.iter().map(Row::line));
        if let Some((requests, refused)) = self.echoed {
            lines.push(format!(
                "  echo backends answered {requests} requests; connections refused from other nodes: {refused}"
            ));
        }
        lines
    }

    fn headline(&self) -> String {
        let Some(leader) = &self.leader else {
            return "LIVE  nobody leads; what is configured goes on being served".to_owned();
        };
        let since = self.leads_for.map_or_else(String::new, |time| format!(" for {}", human(time)));
        let findings = self.rows.iter().filter_map(|row| row.status.as_ref()).map(|status| status.findings).max();
        let findings = findings.unwrap_or_default();
        format!(
            "LIVE  leader {}{since}   epoch {}   rev {}   findings {findings}{}",
            leader.node,
            leader.epoch,
            leader.rev,
            if findings > 0 { " (see `meshctl analyze`)" } else { "" }
        )
    }

    /// What changes rarely enough for one line a change: no counters.
    pub fn brief(&self) -> String {
        let leader = self.leader.as_ref().map_or_else(
            || "leader none".to_owned(),
            |leader| format!("leader {} epoch {} rev {}", leader.node, leader.epoch, leader.rev),
        );
        let rows: Vec<String> = self.rows.iter().map(|row| format!("{} {}", row.node.name, row.state())).collect();
        format!("{leader}; {}", rows.join(", "))
    }
}

/// `42 s`, `3 min`, `2 h`.
fn human(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use meshgate_proto::admin::HeadId;

    use super::*;

    /// Two ready peers, and one that was killed.
    pub fn view() -> View {
        let row = |index: usize, pid: Option<u32>| Row {
            node: NODES[index],
            process: Some(Process {
                pid,
                started: Instant::now(),
                starts: 1,
                ended: pid.is_none().then(|| "signal 9".to_owned()),
            }),
            status: pid.map(|_| GetStatusResponse {
                ready: true,
                head: Some(HeadId { epoch: 3, rev: 17 }),
                requests_total: 1_234_567,
                requests_local: 1_000_000,
                requests_tunnel: 234_560,
                requests_failed: 7,
                routes: 12,
                peers_alive: 2,
                findings: 1,
                ..GetStatusResponse::default()
            }),
        };
        View {
            rows: vec![row(0, Some(4_194_303)), row(1, None), row(2, Some(77))],
            leader: Some(GetLeaderResponse { node: "node-a".into(), epoch: 3, since_ms: 1, rev: 17 }),
            leads_for: Some(Duration::from_secs(42)),
            echoed: Some((1_234_560, 0)),
        }
    }

    #[test]
    fn the_live_part_is_as_drawn() {
        let expected = "\
LIVE  leader node-a for 42 s   epoch 3   rev 17   findings 1 (see `meshctl analyze`)
  NODE         PID  STATE  EPOCH/REV  PEERS  ROUTES   REQUESTS    LOCAL   TUNNEL   FAILED
  node-a   4194303  ready       3/17    2/3      12    1234567  1000000   234560        7
  node-b         -  dead (signal 9), comes back
  node-c        77  ready       3/17    2/3      12    1234567  1000000   234560        7
  echo backends answered 1234560 requests; connections refused from other nodes: 0";
        assert_eq!(view().lines().join("\n"), expected);
    }

    #[test]
    fn brief_has_no_counters() {
        let text = view().brief();
        assert_eq!(
            text,
            "leader node-a epoch 3 rev 17; node-a ready, node-b dead (signal 9), comes back, node-c ready"
        );
        assert!(View::default().brief().starts_with("leader none"));
        assert!(View::default().lines()[0].contains("nobody leads"));
    }
}
