//! What all promises need: the peers, where to ask them, and waiting on a condition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustls::ClientConfig;

use super::super::admin::Admin;
use super::super::client::{Ask, trusting};
use super::super::echo::Echoes;
use super::super::examples::TLS_HOST;
use super::super::fleet::{Fleet, NODES, Node};
use super::super::layout::Layout;
use super::super::stage::{Access, POLL, Stage};

/// The demo as the promises see it.
pub struct Bench<'a> {
    /// Files.
    pub layout: &'a Layout,
    /// Processes.
    pub fleet: &'a Fleet,
    /// Backends.
    pub echoes: &'a Echoes,
    /// Admin APIs and addresses.
    pub access: &'a Access,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl<'a> Bench<'a> {
    /// From the parts.
    ///
    /// # Errors
    /// Something that `--check` needs does not run.
    pub fn new(layout: &'a Layout, stage: &'a Stage, access: &'a Access) -> anyhow::Result<Self> {
        let fresh = access.fresh.as_ref().context("no fresh certificate")?;
        Ok(Bench {
            layout,
            fleet: stage.fleet.as_ref().context("no peers run")?,
            echoes: stage.echoes.as_ref().context("no echo backends run")?,
            access,
            http1: trusting(&fresh.der, &[b"http/1.1"])?,
            http2: trusting(&fresh.der, &[b"h2"])?,
        })
    }

    /// A plain request to the shop.
    ///
    /// # Errors
    /// The listener is not bound.
    pub fn shop(&self, node: Node, path: &str) -> anyhow::Result<Ask> {
        Ok(Ask::get(self.access.places.entry(node, "edge/web", 8080)?, "shop.example", path))
    }

    /// A request to the shop over TLS.
    ///
    /// # Errors
    /// The listener is not bound.
    pub fn shop_tls(&self, node: Node, path: &str, http2: bool) -> anyhow::Result<Ask> {
        let config = if http2 { &self.http2 } else { &self.http1 };
        let address = self.access.places.entry(node, "edge/web", 8443)?;
        Ok(Ask::get(address, TLS_HOST, path).tls(Arc::clone(config)))
    }

    /// A request to team B's Gateway, whose service has a pod on each node.
    ///
    /// # Errors
    /// The listener is not bound.
    pub fn team_b(&self, node: Node, host: &str, path: &str) -> anyhow::Result<Ask> {
        Ok(Ask::get(self.access.places.entry(node, "team-b/api", 8080)?, host, path))
    }

    /// A request to what Ingresses share.
    ///
    /// # Errors
    /// The listener is not bound.
    pub fn ingress(&self, node: Node, host: &str, path: &str) -> anyhow::Result<Ask> {
        Ok(Ask::get(self.access.places.entry_of_port(node, 80)?, host, path))
    }

    /// A node's admin API.
    ///
    /// # Errors
    /// No such node.
    pub fn admin(&self, node: Node) -> anyhow::Result<&Admin> {
        self.access.admins.iter().find(|admin| admin.node() == node).with_context(|| format!("no node {}", node.name))
    }

    /// The node of this name.
    ///
    /// # Errors
    /// No such node.
    pub fn node(name: &str) -> anyhow::Result<Node> {
        NODES.into_iter().find(|node| node.name == name).with_context(|| format!("no node {name:?}"))
    }
}

/// Looks until it succeeds; returns what was seen and how long that took.
///
/// # Errors
/// What the last look said, once the limit is over.
pub async fn until<T, F>(limit: Duration, mut look: impl FnMut() -> F) -> anyhow::Result<(T, Duration)>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let start = Instant::now();
    loop {
        match look().await {
            Ok(seen) => return Ok((seen, start.elapsed())),
            Err(error) if start.elapsed() > limit => {
                return Err(error.context(format!("not within {:.1} s", limit.as_secs_f64())));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// `1.2 ms` or `1.23 s`.
pub fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[tokio::test]
    async fn until_waits_for_the_condition_and_no_longer() {
        let mut looks = 0;
        let (seen, took) = until(Duration::from_secs(5), || {
            looks += 1;
            let now = looks;
            async move { if now < 3 { bail!("not yet") } else { Ok(now) } }
        })
        .await
        .unwrap();
        assert_eq!(seen, 3);
        assert!(took >= POLL * 2);
    }

    #[tokio::test]
    async fn until_gives_up_with_what_it_saw_last() {
        let outcome: anyhow::Result<((), Duration)> =
            until(Duration::from_millis(30), || async { bail!("still on rev 7") }).await;
        let message = format!("{:#}", outcome.unwrap_err());
        assert!(message.contains("still on rev 7") && message.contains("not within"), "{message}");
    }

    #[test]
    fn times() {
        assert_eq!(shown(Duration::from_micros(1234)), "1.2 ms");
        assert_eq!(shown(Duration::from_millis(1234)), "1.23 s");
    }
}
