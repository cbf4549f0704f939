//! One attempt: a request to one endpoint, by whatever way leads there.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{request, response};
use meshgate_core::snapshot::{AppProtocol, HeadId};
use meshgate_core::table::Endpoint;

use super::body::Inner;
use super::context::{ConnectionInfo, Local};
use super::metrics::Via;
use super::pool::{RequestBody, SendError, Target};
use super::remote::RemoteError;
use crate::h1::Interim;
use crate::identity::NodeName;
use crate::timer::Deadline;
use crate::tunnel::{Attempt, Refusal, Replay, StreamHeader};

/// What an attempt brought.
pub type Attempted = Result<(response::Parts, Inner), Failed>;

/// Why an attempt brought no answer.
#[derive(Clone, Copy)]
pub enum Failed {
    /// Nothing was taken: another endpoint may be tried.
    Refused(&'static str),
    /// The endpoint's peer takes nothing, for whatever pod of its node; nothing was taken.
    Node(NodeFailure),
    /// The pooled connection was stale, and nothing was sent: the endpoint itself may be fine.
    Stale,
    /// Something was sent. `silent`: no byte of an answer came; `reused`: on a connection that had
    /// served before, so that the endpoint itself may be fine.
    Broken { silent: bool, reused: bool },
    /// Time is over.
    Late,
}

/// Why a peer takes nothing.
#[derive(Clone, Copy)]
pub enum NodeFailure {
    /// It can't be reached, and its node may be gone as well.
    Dead,
    /// It is ending, its node's pods are not.
    Draining,
    /// It has no room. To dial its pods would go around its limit.
    Full,
}

impl NodeFailure {
    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            NodeFailure::Dead => "peer_dead",
            NodeFailure::Draining => "peer_draining",
            NodeFailure::Full => "peer_full",
        }
    }
}

/// Sends requests of one client to the endpoints of one port.
pub struct Sender<'a> {
    /// The thread's share.
    pub local: &'a Local,
    /// The client's connection.
    pub connection: &'a ConnectionInfo,
    /// Where interim responses go, if anywhere.
    pub interim: Option<&'a Interim>,
    /// The table that decided.
    pub head: HeadId,
    /// What the port's pods speak.
    pub app: AppProtocol,
}

impl Sender<'_> {
    /// The way to an endpoint.
    pub fn via(&self, endpoint: &Endpoint) -> Via {
        let context = self.local.context();
        match &endpoint.node {
            Some(node) if **node == *context.node.0 => Via::Local,
            Some(node) if context.expected.load().contains(&**node) => Via::Tunnel,
            _ => Via::Direct,
        }
    }

    /// Sends a request. `dial`: not on an idle connection.
    pub async fn send(
        &self,
        (endpoint, via): (&Endpoint, Via),
        dial: bool,
        parts: &request::Parts,
        body: Attempt,
    ) -> Attempted {
        match (via, &endpoint.node) {
            (Via::Tunnel, Some(node)) => self.remote(NodeName(Arc::clone(node)), endpoint, parts, body).await,
            _ => self.direct(endpoint, dial, parts, body).await,
        }
    }

    async fn direct(&self, endpoint: &Endpoint, dial: bool, parts: &request::Parts, body: Attempt) -> Attempted {
        let target = Target { address: endpoint.address, app: self.app };
        let pool = &self.local.pool;
        let lease = if dial { pool.fresh(target).await } else { pool.checkout(target).await };
        let lease = lease.map_err(|_| Failed::Refused("connect"))?;
        let lease = lease.interim(self.interim);
        match lease.send(parts, RequestBody::from(body)).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Ok((parts, Inner::Pooled(body)))
            }
            Err(SendError { unsent: true, reused: true, .. }) => Err(Failed::Stale),
            Err(SendError { unsent: true, .. }) => Err(Failed::Refused("unsent")),
            Err(SendError { silent, reused, error, .. }) => {
                tracing::debug!(endpoint = %endpoint.address, %error, "a backend broke off");
                Err(Failed::Broken { silent, reused })
            }
        }
    }

    async fn remote(&self, node: NodeName, endpoint: &Endpoint, parts: &request::Parts, body: Attempt) -> Attempted {
        let header = StreamHeader { endpoint: endpoint.address, client: self.connection.client, chosen_by: self.head };
        match self.local.context().remote.send(&node, header, parts, body.interim(self.interim)).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                Ok((parts, Inner::Remote(body)))
            }
            Err(RemoteError::Refused(Refusal::Draining)) => Err(Failed::Node(NodeFailure::Draining)),
            Err(RemoteError::Refused(Refusal::Overloaded)) => Err(Failed::Node(NodeFailure::Full)),
            Err(RemoteError::Refused(_)) => Err(Failed::Refused("refused")),
            Err(RemoteError::Unreachable(_)) => Err(Failed::Node(NodeFailure::Dead)),
            Err(RemoteError::Broken(error)) => {
                tracing::debug!(%node, endpoint = %endpoint.address, %error, "a tunnelled request broke off");
                Err(Failed::Broken { silent: true, reused: false })
            }
        }
    }
}

/// How long an attempt's answer may be waited for.
pub struct Patience<'a> {
    /// Not longer than this.
    pub deadline: Option<Deadline>,
    /// Nor for so long without a sign of life. Fires between one and two times later.
    pub silence: Option<(Duration, Deadline)>,
    /// The request's body: that it is read on is a sign of life.
    pub body: &'a Replay,
}

impl Patience<'_> {
    /// `future`'s output, or `None` once time is over.
    pub async fn wait<F: Future>(self, future: F) -> Option<F::Output> {
        let Patience { mut deadline, mut silence, body } = self;
        let mut future = pin!(future);
        let mut seen = 0;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if deadline.as_mut().is_some_and(|deadline| Pin::new(deadline).poll(cx).is_ready()) {
                return Poll::Ready(None);
            }
            let Some((limit, silent)) = &mut silence else { return Poll::Pending };
            if Pin::new(&mut *silent).poll(cx).is_pending() {
                return Poll::Pending;
            }
            let read = body.read();
            if read == seen {
                return Poll::Ready(None);
            }
            seen = read;
            silent.push(*limit);
            Pin::new(silent).poll(cx).map(|()| None)
        })
        .await
    }
}
