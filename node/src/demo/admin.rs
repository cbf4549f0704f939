//! The peers' admin API as the demo asks it: every call bounded, a dead peer is an answer too.

use std::time::Duration;

use anyhow::Context;
use meshgate_proto::admin::admin_client::AdminClient;
use meshgate_proto::admin::{
    Finding, GetLeaderRequest, GetLeaderResponse, GetStatusRequest, GetStatusResponse, ListFindingsRequest,
    ListRoutesRequest, Route, WaitRequest, WaitResponse,
};
use tonic::transport::{Channel, Endpoint};

use super::client::Ask;
use super::fleet::Node;
use crate::config::Ports;

/// A call that takes longer is a peer that does not answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What a peer may add to the time that a `Wait` asks for.
const WAIT_SLACK: Duration = Duration::from_secs(2);

/// The admin API of one node.
#[derive(Clone, Debug)]
pub struct Admin {
    node: Node,
    ports: Ports,
    client: AdminClient<Channel>,
}

impl Admin {
    /// Connects at the first call, and again after a failure.
    ///
    /// # Errors
    /// None that depends on the peer.
    pub fn new(node: Node, ports: Ports) -> anyhow::Result<Self> {
        let address = node.at(ports.admin);
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("{address} is no address"))?
            .connect_timeout(TIMEOUT)
            .connect_lazy();
        Ok(Admin { node, ports, client: AdminClient::new(channel) })
    }

    /// The node.
    pub fn node(&self) -> Node {
        self.node
    }

    /// Does the peer call itself ready?
    pub async fn ready(&self) -> bool {
        let ask = Ask::get(self.node.at(self.ports.metrics), self.node.name, "/readyz");
        matches!(tokio::time::timeout(TIMEOUT, ask.send()).await, Ok(Ok(answer)) if answer.status.is_success())
    }

    async fn bounded<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> anyhow::Result<T> {
        let answer = tokio::time::timeout(limit, call)
            .await
            .with_context(|| format!("{} does not answer within {limit:?}", self.node.name))?;
        match answer {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => anyhow::bail!("{}: {} ({})", self.node.name, status.message(), status.code()),
        }
    }

    /// The peer in short.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn status(&self) -> anyhow::Result<GetStatusResponse> {
        let mut client = self.client.clone();
        self.bounded(TIMEOUT, client.get_status(GetStatusRequest {})).await
    }

    /// Who leads, as the peer knows it.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn leader(&self) -> anyhow::Result<GetLeaderResponse> {
        let mut client = self.client.clone();
        self.bounded(TIMEOUT, client.get_leader(GetLeaderRequest {})).await
    }

    /// The routes it serves.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn routes(&self) -> anyhow::Result<Vec<Route>> {
        let mut client = self.client.clone();
        Ok(self.bounded(TIMEOUT, client.list_routes(ListRoutesRequest::default())).await?.routes)
    }

    /// What is wrong with which object.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn findings(&self) -> anyhow::Result<Vec<Finding>> {
        let mut client = self.client.clone();
        Ok(self.bounded(TIMEOUT, client.list_findings(ListFindingsRequest::default())).await?.findings)
    }

    /// Waits until what the source holds now is live everywhere.
    ///
    /// # Errors
    /// No answer, or a refusal; a timeout is a result.
    pub async fn wait(&self, request: WaitRequest) -> anyhow::Result<WaitResponse> {
        let limit = Duration::from_millis(request.timeout_ms) + WAIT_SLACK;
        let mut client = self.client.clone();
        self.bounded(limit, client.wait(request)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_peer_is_an_error_that_names_it() {
        let admin = Admin::new(Node { name: "node-z", number: 250 }, Ports::default()).unwrap();
        assert!(!admin.ready().await);
        let message = format!("{:#}", admin.status().await.unwrap_err());
        assert!(message.contains("node-z"), "{message}");
    }
}
