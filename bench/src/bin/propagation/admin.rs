//! The peers' admin API, every call bounded.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use meshgate_proto::admin::admin_client::AdminClient;
use meshgate_proto::admin::{GetStatusRequest, GetStatusResponse, WaitRequest, WaitResponse};
use tonic::transport::{Channel, Endpoint};

use crate::fleet::{Fleet, Node};
use crate::manifests::{NAMESPACE, PORT, PROBE};

/// A call that takes longer is a peer that does not answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long one `Wait` may wait.
const WAIT: Duration = Duration::from_secs(5);
/// How long the peers may take to read everything and to agree.
const START: Duration = Duration::from_secs(180);
/// Between two looks while they start.
const LOOK: Duration = Duration::from_millis(50);

/// The admin API of one peer.
#[derive(Clone, Debug)]
pub struct Admin {
    node: Node,
    client: AdminClient<Channel>,
}

impl Admin {
    /// Connects at the first call.
    ///
    /// # Errors
    /// None that depends on the peer.
    pub fn new(node: Node) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{}", node.admin()))?.connect_timeout(TIMEOUT);
        Ok(Admin { node, client: AdminClient::new(endpoint.connect_lazy()) })
    }

    /// The peer in short.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn status(&self) -> anyhow::Result<GetStatusResponse> {
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(TIMEOUT, client.get_status(GetStatusRequest {})).await;
        let answer = answer.with_context(|| format!("{} does not answer", self.node.name()))?;
        Ok(answer.with_context(|| format!("status of {}", self.node.name()))?.into_inner())
    }

    /// Waits until the edited route, as it is now, is live everywhere.
    ///
    /// # Errors
    /// No answer, or a refusal; a timeout is a result.
    pub async fn wait(&self) -> anyhow::Result<WaitResponse> {
        let request = WaitRequest {
            kind: "HTTPRoute".to_owned(),
            namespace: NAMESPACE.to_owned(),
            name: PROBE.to_owned(),
            timeout_ms: u64::try_from(WAIT.as_millis())?,
            deleted: false,
        };
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(WAIT + TIMEOUT, client.wait(request)).await;
        let answer = answer.with_context(|| format!("{} does not answer a Wait", self.node.name()))?;
        Ok(answer.with_context(|| format!("Wait at {}", self.node.name()))?.into_inner())
    }
}

/// Returns when every peer is ready and all serve the same: the statuses, in the nodes' order.
///
/// # Errors
/// A peer ended, or it took too long.
pub async fn all_live(admins: &[Admin], fleet: &mut Fleet) -> anyhow::Result<Vec<GetStatusResponse>> {
    let deadline = Instant::now() + START;
    loop {
        fleet.all_alive()?;
        let why = match agreed(admins).await {
            Ok(statuses) => return Ok(statuses),
            Err(error) => error,
        };
        ensure!(Instant::now() < deadline, "not ready within {START:?}: {why:#}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn agreed(admins: &[Admin]) -> anyhow::Result<Vec<GetStatusResponse>> {
    let mut statuses = Vec::new();
    for admin in admins {
        let status = admin.status().await?;
        ensure!(status.ready, "{}: {}", admin.node.name(), status.not_ready_reason);
        statuses.push(status);
    }
    let first = admins.first().context("no peers")?;
    let answer = first.wait().await?;
    ensure!(answer.result == "live", "Wait says {} {:?}", answer.result, answer.reasons);
    ensure!(answer.live as usize == admins.len(), "live on {} of {} peers", answer.live, admins.len());
    ensure!(statuses.iter().all(|status| status.head == statuses[0].head), "not all peers have the same head");
    ensure!(statuses.iter().filter(|status| status.is_leader).count() == 1, "there is not one leader");
    Ok(statuses)
}

/// Where a peer listens for the Gateway.
///
/// # Errors
/// It does not, with its reason.
pub fn listener(status: &GetStatusResponse) -> anyhow::Result<SocketAddr> {
    let bound = status.bound.iter().find(|bound| bound.port == u32::from(PORT));
    let bound = bound.with_context(|| format!("{} does not listen on port {PORT}", status.node))?;
    ensure!(bound.error.is_empty(), "{}: port {PORT}: {}", status.node, bound.error);
    bound.address.parse().with_context(|| format!("{:?} is no address", bound.address))
}
