//! Requests without a break to some nodes, to count what fails while something else happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::client::Ask;
use super::super::fleet::Node;
use super::LIMIT;
use super::bench::{Bench, shown};
use super::failover::HOST;

/// Sequences for each node: one alone would stand still while a request finds its peer dead.
const SEQUENCES: usize = 4;
/// Pause between two requests of a sequence.
const PACE: Duration = Duration::from_millis(5);
/// Failures that are quoted.
const QUOTED: usize = 3;

/// What happened so far.
#[derive(Debug, Default)]
struct Count {
    requests: u64,
    failed: u64,
    slowest: Duration,
    quoted: Vec<String>,
}

/// Requests that run until they are stopped.
pub struct Probe {
    stop: CancellationToken,
    count: Arc<watch::Sender<Count>>,
    tasks: JoinSet<()>,
    nodes: usize,
}

impl Probe {
    /// Starts sequences of requests for each node, to the service that has a pod on each node.
    ///
    /// # Errors
    /// A listener is not bound.
    pub fn start(bench: &Bench<'_>, nodes: &[Node]) -> anyhow::Result<Self> {
        let asks = nodes.iter().map(|node| bench.team_b(*node, HOST, "/probe")).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self::with(asks))
    }

    fn with(asks: Vec<Ask>) -> Self {
        let stop = CancellationToken::new();
        let count = Arc::new(watch::Sender::new(Count::default()));
        let (mut tasks, nodes) = (JoinSet::new(), asks.len());
        for ask in asks.iter().flat_map(|ask| std::iter::repeat_n(ask, SEQUENCES)) {
            tasks.spawn(sequence(ask.clone(), Arc::clone(&count), stop.clone()));
        }
        Probe { stop, count, tasks, nodes }
    }

    /// Returns once the first requests are through.
    ///
    /// # Errors
    /// None is in time.
    pub async fn running(&self) -> anyhow::Result<()> {
        let mut seen = self.count.subscribe();
        let enough = u64::try_from(self.nodes)?.saturating_mul(20);
        let reached = seen.wait_for(|count| count.requests >= enough);
        tokio::time::timeout(LIMIT, reached).await.context("no probe gets through")?.context("the probes ended")?;
        Ok(())
    }

    /// Stops, after the requests that run.
    ///
    /// # Errors
    /// Some requests failed.
    pub async fn stop(mut self) -> anyhow::Result<String> {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let count = self.count.borrow();
        let text = format!(
            "{} requests to the {} other nodes, {} failed, slowest {}",
            count.requests,
            self.nodes,
            count.failed,
            shown(count.slowest)
        );
        ensure!(count.failed == 0, "{text}: {}", count.quoted.join("; "));
        ensure!(count.requests > 0, "{text}");
        Ok(text)
    }
}

async fn sequence(ask: Ask, count: Arc<watch::Sender<Count>>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let start = Instant::now();
        let outcome = match ask.send().await {
            Ok(answer) => answer.echo().map(|_| ()),
            Err(error) => Err(error),
        };
        let took = start.elapsed();
        count.send_modify(|count| {
            count.requests += 1;
            count.slowest = count.slowest.max(took);
            if let Err(error) = outcome {
                count.failed += 1;
                if count.quoted.len() < QUOTED {
                    count.quoted.push(format!("{}: {error:#}", ask.address));
                }
            }
        });
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failures_are_counted_and_quoted() {
        // Nobody listens there.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let probe = Probe::with(vec![Ask::get(address, "a.example", "/")]);
        probe.running().await.unwrap();
        let message = format!("{:#}", probe.stop().await.unwrap_err());
        assert!(message.contains("failed") && message.contains(&address.to_string()), "{message}");
    }
}
