//! The admin API's gRPC service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meshgate_core::snapshot::{HeadId, Key, Resource};
use meshgate_proto::admin as pb;
use meshgate_proto::admin::admin_server::{Admin, AdminServer};
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::leader::{FINDINGS, LeaderSide, MAX_WAIT, WAIT, object_ref};
use super::{AdminContext, head_to_proto, peers, routes};
use crate::drain::{Drain, Phase};
use crate::reconcile::book::resource_key;
use crate::replicate::ForwardError;

/// The largest answer: `ListRoutes` of a mesh with tens of thousands of routes.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Calls under way at once.
const MAX_CALLS: usize = 64;

/// How long the leader may take for what is not a wait.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the admin API until the process is cut.
///
/// # Errors
/// The listener broke.
pub async fn serve(context: Arc<AdminContext>, listener: TcpListener, drain: Drain) -> anyhow::Result<()> {
    let service = AdminServer::new(Service(context)).max_encoding_message_size(MAX_MESSAGE);
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(MAX_CALLS)
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
            drain.reached(Phase::Cut).await;
        })
        .await?;
    Ok(())
}

struct Service(Arc<AdminContext>);

impl Service {
    fn leader_side(&self) -> Option<LeaderSide> {
        let leader = self.0.leader.clone()?;
        leader.term()?;
        Some(LeaderSide { leader, followers: self.0.followers.clone(), members: self.0.members.clone() })
    }

    /// Has the leader answer.
    async fn forward(&self, method: &str, body: Vec<u8>, timeout: Duration) -> Result<bytes::Bytes, Status> {
        let nobody = || Status::unavailable("nobody leads as far as this peer knows; retry in a moment");
        let claim = self.0.leader_claim().ok_or_else(nobody)?;
        let address = {
            let members = self.0.members.borrow();
            members.nodes().find(|member| member.facts.node == claim.node).map(|member| member.facts.sync)
        };
        let address = address.ok_or_else(nobody)?;
        let answer = self.0.caller.forward(&claim.node, address, method, body.into(), timeout).await;
        answer.map_err(|error| match error {
            ForwardError::Invalid(reason) => Status::invalid_argument(reason),
            ForwardError::UnknownMethod(_) => Status::unimplemented(error.to_string()),
            ForwardError::Timeout => Status::deadline_exceeded(format!("the leader {} did not answer", claim.node)),
            ForwardError::Unavailable(reason) => {
                Status::unavailable(format!("the leader {} can't answer: {reason}; retry in a moment", claim.node))
            }
        })
    }

    /// The generation of a resource as it is applied here; 0 where it is not, or has none.
    fn generation(&self, key: &Key) -> u64 {
        let applied = self.0.applied.borrow().clone();
        let resource = applied.and_then(|applied| {
            let leaf = applied.snapshot.get(key)?;
            meshgate_wire::decode(key.kind, &leaf.value).ok()
        });
        match resource {
            Some(Resource::Route(route)) => route.generation,
            Some(Resource::Gateway(gateway)) => gateway.generation,
            _ => 0,
        }
    }

    fn bound(&self) -> BTreeMap<(String, u32), Vec<String>> {
        let mut addresses: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for bound in self.0.surroundings.bound().into_iter().filter(|bound| bound.error.is_empty()) {
            addresses.entry((bound.gateway, bound.port)).or_default().push(bound.address);
        }
        addresses
    }

    /// Live peers that serve `head` or newer, and live peers in all, by gossip.
    fn live(&self, head: HeadId) -> (u32, u32) {
        let members = self.0.members.borrow();
        let alive = members.nodes().filter(|member| member.alive);
        alive.fold((0, 0), |(live, all), member| {
            let own = member.facts.node == self.0.node;
            (live + u32::from(own || member.facts.head >= head), all + 1)
        })
    }
}

#[tonic::async_trait]
impl Admin for Service {
    async fn list_routes(
        &self,
        request: Request<pb::ListRoutesRequest>,
    ) -> Result<Response<pb::ListRoutesResponse>, Status> {
        let request = request.into_inner();
        let Some(applied) = self.0.applied.borrow().clone() else {
            return Ok(Response::new(pb::ListRoutesResponse::default()));
        };
        let addresses = self.bound();
        let lines = applied.table.lines().into_iter().filter(|line| routes::wanted(line, &request));
        let routes = lines.map(|line| routes::to_proto(line, &addresses)).collect();
        let (live, expected) = self.live(applied.id());
        let head = Some(head_to_proto(applied.id()));
        Ok(Response::new(pb::ListRoutesResponse { head, routes, live, expected }))
    }

    async fn list_peers(&self, _: Request<pb::ListPeersRequest>) -> Result<Response<pb::ListPeersResponse>, Status> {
        Ok(Response::new(pb::ListPeersResponse { peers: peers::list(&self.0) }))
    }

    async fn verify(&self, _: Request<pb::VerifyRequest>) -> Result<Response<pb::VerifyResponse>, Status> {
        Ok(Response::new(peers::verify(&self.0)))
    }

    async fn get_leader(&self, _: Request<pb::GetLeaderRequest>) -> Result<Response<pb::GetLeaderResponse>, Status> {
        let rev = self.0.applied.borrow().as_ref().map_or(0, |applied| applied.id().rev);
        let response = self.0.leader_claim().map_or_else(pb::GetLeaderResponse::default, |claim| {
            let since_ms = i64::try_from(claim.since_ms).unwrap_or(i64::MAX);
            pb::GetLeaderResponse { node: claim.node.to_string(), epoch: claim.epoch, since_ms, rev }
        });
        Ok(Response::new(response))
    }

    async fn wait(&self, request: Request<pb::WaitRequest>) -> Result<Response<pb::WaitResponse>, Status> {
        let request = request.into_inner();
        let key = object_ref(&request).as_ref().and_then(resource_key);
        let numbered = |mut response: pb::WaitResponse| {
            response.generation = key.as_ref().map_or(0, |key| self.generation(key));
            Response::new(response)
        };
        if let Some(side) = self.leader_side() {
            return Ok(numbered(side.wait(request).await));
        }
        let timeout = Duration::from_millis(request.timeout_ms).min(MAX_WAIT) + LEADER_TIMEOUT;
        let answer = self.forward(WAIT, request.encode_to_vec(), timeout).await?;
        decode(answer).map(numbered)
    }

    async fn list_findings(
        &self,
        request: Request<pb::ListFindingsRequest>,
    ) -> Result<Response<pb::ListFindingsResponse>, Status> {
        let request = request.into_inner();
        if let Some(side) = self.leader_side() {
            return Ok(Response::new(side.findings(&request)));
        }
        let answer = self.forward(FINDINGS, request.encode_to_vec(), LEADER_TIMEOUT).await?;
        decode(answer).map(Response::new)
    }

    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Result<Response<pb::GetStatusResponse>, Status> {
        let context = &self.0;
        let applied = context.applied.borrow().clone();
        let totals = context.surroundings.totals();
        let claim = context.leader_claim();
        let not_ready = context.readiness.not_ready();
        let alive = context.members.borrow().nodes().filter(|member| member.alive).count();
        let findings = self.leader_side().map_or(0, |side| side.leader.book().findings_count());
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Response::new(pb::GetStatusResponse {
            node: context.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: not_ready.is_none(),
            not_ready_reason: not_ready.unwrap_or_default(),
            head: applied.as_ref().map(|applied| head_to_proto(applied.id())),
            root: applied.as_ref().map(|applied| peers::short_root(applied.head.roots())).unwrap_or_default(),
            is_leader: claim.as_ref().is_some_and(|claim| claim.node == context.node),
            leader: claim.map(|claim| claim.node.to_string()).unwrap_or_default(),
            requests_total: totals.requests,
            requests_local: totals.local,
            requests_tunnel: totals.tunnel,
            requests_failed: totals.failed,
            routes: applied.as_ref().map_or(0, |applied| count(applied.table.lines().len())),
            peers_alive: count(alive),
            findings: count(findings),
            bound: context.surroundings.bound(),
            uptime_ms: u64::try_from(context.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }))
    }
}

fn decode<T: Message + Default>(bytes: bytes::Bytes) -> Result<T, Status> {
    T::decode(bytes).map_err(|error| Status::internal(format!("the leader's answer is malformed: {error}")))
}
