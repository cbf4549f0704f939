//! Promises about deaths: the leader is killed with SIGKILL, another peer ends in order; requests
//! to the others go on without a failure.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::{join_all, try_join_all};
use meshgate_proto::admin::GetLeaderResponse;

use super::super::fleet::{NODES, Node, Order};
use super::LIMIT;
use super::bench::{Bench, shown, until};
use super::probe::Probe;
use super::report::{Detail, Report};

/// The next leader must be there after this.
const TAKEOVER: Duration = Duration::from_secs(2);
/// A peer must be ready again after this.
const RESTART: Duration = Duration::from_secs(2);
/// A process must be gone after this.
const END: Duration = Duration::from_secs(10);
/// The host that has a pod on each node.
pub const HOST: &str = "v1.api.example";
/// How long the request takes that runs while its peer ends.
const SLOW: Duration = Duration::from_millis(1500);
/// With nothing left to do, a peer must be gone this long after that request.
const IDLE_END: Duration = Duration::from_secs(1);
/// The file that is edited while a peer is away.
const FILE: &str = "93-after-takeover.yaml";

/// All promises of this group.
///
/// # Errors
/// Nobody reads any more.
pub async fn check<W: Write>(bench: &Bench<'_>, report: &mut Report<'_, W>) -> anyhow::Result<()> {
    report.group("FAILOVER  kill -9 of the leader, then an orderly end of another peer")?;
    match leader(bench, &NODES).await {
        Ok(first) => {
            let killed = Bench::node(&first.node)?;
            kill(bench, report, killed, first.epoch).await?;
        }
        Err(error) => {
            report.record("leader", Err(error))?;
        }
    }
    orderly(bench, report).await
}

/// The leader that all these nodes agree on.
async fn leader(bench: &Bench<'_>, nodes: &[Node]) -> anyhow::Result<GetLeaderResponse> {
    let (found, _) = until(LIMIT, || agreed(bench, nodes)).await?;
    Ok(found)
}

async fn agreed(bench: &Bench<'_>, nodes: &[Node]) -> anyhow::Result<GetLeaderResponse> {
    let all = try_join_all(nodes.iter().map(|node| async { bench.admin(*node)?.leader().await })).await?;
    let first = all.first().context("no node was asked")?.clone();
    ensure!(!first.node.is_empty(), "nobody leads");
    ensure!(all.iter().all(|one| (&one.node, one.epoch) == (&first.node, first.epoch)), "the peers disagree who leads");
    Ok(first)
}

async fn kill<W: Write>(bench: &Bench<'_>, report: &mut Report<'_, W>, killed: Node, epoch: u64) -> anyhow::Result<()> {
    let others: Vec<Node> = NODES.into_iter().filter(|node| *node != killed).collect();
    let probe = Probe::start(bench, &others)?;
    probe.running().await?;
    let start = Instant::now();
    let died = bench.fleet.order(killed, Order::Kill, END).await;
    let was = format!("kill -9 {} (it led at epoch {epoch})", killed.name);
    report.record("kill the leader", died.map(|_| Detail::Text(was)))?;
    report.record("next leader", takeover(bench, &others, killed, epoch, start).await)?;
    report.record("edit after takeover", edited(bench, &others).await)?;
    report.record("killed peer is back", back(bench, killed).await)?;
    report.record("serves the edit", serves_edit(bench, killed).await)?;
    let counted = probe.stop().await;
    report.record("others, meanwhile", counted.map(Detail::Text))?;
    report.record(
        "all agree again",
        leader(bench, &NODES)
            .await
            .map(|one| Detail::Text(format!("{} leads at epoch {}, rev {}", one.node, one.epoch, one.rev))),
    )?;
    Ok(())
}

async fn takeover(
    bench: &Bench<'_>,
    others: &[Node],
    killed: Node,
    epoch: u64,
    start: Instant,
) -> anyhow::Result<Detail> {
    let (next, _) = until(LIMIT, || async {
        let next = agreed(bench, others).await?;
        ensure!(next.node != killed.name, "{} is still taken for the leader", killed.name);
        Ok(next)
    })
    .await?;
    let took = start.elapsed();
    ensure!(next.epoch > epoch, "{} leads, but at epoch {} after {epoch}", next.node, next.epoch);
    ensure!(took <= TAKEOVER, "{} leads only after {}, the bar is {}", next.node, shown(took), shown(TAKEOVER));
    Ok(format!(
        "{} leads {} after the kill (bar {}); epoch {epoch} -> {}",
        next.node,
        shown(took),
        shown(TAKEOVER),
        next.epoch
    )
    .into())
}

/// An edit goes live on the nodes that are left. The cart and the checkout may be on the dead
/// node, so the proof is the route that decided, not the pod that answered.
async fn edited(bench: &Bench<'_>, others: &[Node]) -> anyhow::Result<Detail> {
    let start = Instant::now();
    bench.layout.put(FILE, &echo_route())?;
    let times = others.iter().map(|node| async move {
        serves(bench, *node).await?;
        anyhow::Ok(start.elapsed())
    });
    let slowest = try_join_all(times).await?.into_iter().max().unwrap_or_default();
    Ok(format!("a new route is live on {} nodes {} after the write", others.len(), shown(slowest)).into())
}

/// A second rule for team B's Gateway, to the service that has a pod on each node.
fn echo_route() -> String {
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: after-takeover, namespace: team-b}\n\
     spec:\n  parentRefs: [{name: api}]\n  rules:\n  - matches: [{path: {type: PathPrefix, value: /after-takeover}}]\n    \
     backendRefs: [{name: echo, port: 80}]\n"
        .to_owned()
}

async fn serves(bench: &Bench<'_>, node: Node) -> anyhow::Result<Duration> {
    let ask = bench.team_b(node, HOST, "/after-takeover")?;
    let (_, took) = until(LIMIT, || async {
        let answer = ask.send().await?;
        answer.echo()?;
        let route = answer.via().map(|via| via.route).unwrap_or_default();
        ensure!(route.starts_with("team-b/after-takeover"), "{}: route {route:?} decides", node.name);
        Ok(())
    })
    .await?;
    Ok(took)
}

/// Starts the killed peer again.
async fn back(bench: &Bench<'_>, killed: Node) -> anyhow::Result<Detail> {
    let start = Instant::now();
    let process = bench.fleet.order(killed, Order::Start, END).await?;
    ready(bench, killed).await?;
    let took = start.elapsed();
    ensure!(took <= RESTART, "{} is ready only after {}, the bar is {}", killed.name, shown(took), shown(RESTART));
    let pid = process.pid.unwrap_or_default();
    Ok(format!("{} started again (pid {pid}), ready after {} (bar {})", killed.name, shown(took), shown(RESTART))
        .into())
}

async fn ready(bench: &Bench<'_>, node: Node) -> anyhow::Result<Duration> {
    let admin = bench.admin(node)?;
    let (_, took) = until(LIMIT, || async {
        ensure!(admin.ready().await, "{} is not ready", node.name);
        Ok(())
    })
    .await?;
    Ok(took)
}

/// Ready means as new as the others: the first answer already knows the edit it missed.
async fn serves_edit(bench: &Bench<'_>, killed: Node) -> anyhow::Result<Detail> {
    let took = serves(bench, killed).await?;
    Ok(format!("{} serves the route that was added while it was dead, {} after it was ready", killed.name, shown(took))
        .into())
}

/// SIGTERM to a peer that does not lead, with a request running.
async fn orderly<W: Write>(bench: &Bench<'_>, report: &mut Report<'_, W>) -> anyhow::Result<()> {
    let leads = leader(bench, &NODES).await.map(|leader| leader.node).unwrap_or_default();
    let Some(ended) = NODES.into_iter().find(|node| node.name != leads) else { return Ok(()) };
    let others: Vec<Node> = NODES.into_iter().filter(|node| *node != ended).collect();
    let probe = Probe::start(bench, &others)?;
    probe.running().await?;
    report.record("SIGTERM drains", drained(bench, ended, &others).await)?;
    report.record("drained peer is back", back(bench, ended).await)?;
    let counted = probe.stop().await;
    report.record("others, meanwhile", counted.map(Detail::Text))?;
    // Edits of this group are no part of the examples; the folder goes away in any case.
    let _ = bench.layout.remove(FILE);
    let _ = join_all(NODES.iter().map(|node| ready(bench, *node))).await;
    Ok(())
}

/// Slow requests to each other node's edge: some of them go to the pod of the node that ends.
const SLOW_EACH: usize = 8;

async fn drained(bench: &Bench<'_>, ended: Node, others: &[Node]) -> anyhow::Result<Detail> {
    let path = format!("/slow?delay-ms={}", SLOW.as_millis());
    let edges = std::iter::once(ended).chain(others.iter().flat_map(|node| [*node; SLOW_EACH]));
    let slow = edges.map(|node| bench.team_b(node, HOST, &path)).collect::<anyhow::Result<Vec<_>>>()?;
    let running = slow.len() as u64;
    let before = bench.echoes.counters().slow.load(Ordering::Relaxed);
    let order = async {
        // Told to end only once the requests have reached their pods.
        until(LIMIT, || async {
            ensure!(
                bench.echoes.counters().slow.load(Ordering::Relaxed) >= before + running,
                "a slow request reached no pod"
            );
            Ok(())
        })
        .await?;
        let start = Instant::now();
        let process = bench.fleet.order(ended, Order::Terminate, END).await?;
        anyhow::Ok((process, start.elapsed()))
    };
    let (answers, order) = tokio::join!(join_all(slow.iter().map(|ask| ask.send())), order);
    let (process, took) = order?;
    let mut hosted = 0;
    for answer in answers {
        let echo = answer.context("a running request was cut")?.echo().context("a running request failed")?;
        hosted += usize::from(echo.node == ended.name);
    }
    ensure!(hosted > 0, "no request ran on a pod of {}: the drain proves too little", ended.name);
    let how = process.ended.unwrap_or_default();
    ensure!(how == "exit code 0", "{} ended with {how}", ended.name);
    let bar = SLOW + IDLE_END;
    ensure!(took <= bar, "{} drained, but took {} to end; the bar is {}", ended.name, shown(took), shown(bar));
    Ok(format!(
        "{} let {running} requests of {} finish ({hosted} of them in its pods) and ended with {how} after {}",
        ended.name,
        shown(SLOW),
        shown(took)
    )
    .into())
}

#[cfg(test)]
mod tests {
    use super::super::super::manifest;
    use super::*;

    #[test]
    fn the_added_route_is_yaml() {
        assert_eq!(manifest::documents(&echo_route()).unwrap().len(), 1);
    }
}
