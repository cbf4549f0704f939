//! The hosting side of the tunnel: other peers' requests for pods of this node.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use meshgate_core::snapshot::{AppProtocol, HeadId};
use meshgate_core::table::Hosted as Known;
use tokio::sync::watch;

use super::context::ProxyContext;
use super::pool::{Lease, Pool, RequestBody, SendError, Target};
use crate::h1::Interim;
use crate::identity::NodeName;
use crate::tunnel::{Body, BodyError, Host, Hosted, Refusal, Replay, StreamHeader, Unsent};

/// How long a request waits for the head that its sender decided by.
const WAIT_FOR_HEAD: Duration = Duration::from_secs(2);

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(5);

/// Serves other peers' requests. Cheap to clone.
#[derive(Clone)]
pub struct PodHost {
    context: Arc<ProxyContext>,
    applied: watch::Receiver<HeadId>,
    pool: Pool,
}

impl PodHost {
    /// A host; `applied` says which head the context's table shows.
    pub fn new(context: Arc<ProxyContext>, applied: watch::Receiver<HeadId>) -> Self {
        let pool = Pool::new(context.source);
        PodHost { context, applied, pool }
    }

    /// Closes idle connections, until dropped. For the tunnel's runtime.
    pub fn maintain(&self) -> impl Future<Output = ()> + Send + 'static {
        let pool = self.pool.clone();
        async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                pool.sweep();
            }
        }
    }

    async fn reach(self, header: StreamHeader) -> Result<Box<dyn Hosted>, Refusal> {
        let app = self.known(&header).await?;
        let target = Target { address: header.endpoint, app };
        let lease = self.pool.checkout(target).await.map_err(|error| {
            tracing::debug!(endpoint = %header.endpoint, %error, "a pod of this node can't be reached");
            Refusal::NotHere
        })?;
        let hosted = Connected { host: self, target, lease };
        Ok(Box::new(hosted))
    }

    /// Looks the endpoint up, in a table at least as new as the sender's, if it comes in time.
    async fn known(&self, header: &StreamHeader) -> Result<AppProtocol, Refusal> {
        let known = self.look_up(header.endpoint);
        let known = match known {
            Known::Here(app) => return Ok(app),
            _ if self.context.table.load().head() >= header.chosen_by => known,
            _ => {
                let mut applied = self.applied.clone();
                let newer = applied.wait_for(|head| *head >= header.chosen_by);
                // Too late, or no more heads: the answer is what is known then.
                let _ = tokio::time::timeout(WAIT_FOR_HEAD, newer).await;
                self.look_up(header.endpoint)
            }
        };
        match known {
            Known::Here(app) => Ok(app),
            Known::Terminating => Err(Refusal::Terminating),
            Known::NotHere => Err(Refusal::NotHere),
        }
    }

    fn look_up(&self, address: SocketAddr) -> Known {
        self.context.table.load().hosted(&self.context.node.0, address)
    }
}

impl Host for PodHost {
    fn connect(&self, _: &NodeName, header: StreamHeader) -> BoxFuture<'static, Result<Box<dyn Hosted>, Refusal>> {
        self.clone().reach(header).boxed()
    }
}

/// A pod's connection.
struct Connected {
    host: PodHost,
    target: Target,
    lease: Lease<'static>,
}

impl Hosted for Connected {
    fn send(self: Box<Self>, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, BodyError>> {
        self.exchange(request).boxed()
    }
}

impl Connected {
    /// Sends the request; once more on a new connection where the pooled one was stale and
    /// nothing was sent.
    async fn exchange(self: Box<Self>, request: Request<Body>) -> Result<Response<Body>, BodyError> {
        let Connected { host, target, lease } = *self;
        host.context.metrics.hosted();
        let (parts, body) = request.into_parts();
        let interim = parts.extensions.get::<Interim>();
        let lease = lease.interim(interim);
        if !lease.reused() {
            return lease
                .send(&parts, RequestBody::Other(body))
                .await
                .map(boxed)
                .map_err(|failed| told(failed.error, failed.unsent));
        }
        let replay = Replay::new(body, &host.context.retained);
        let first = replay.attempt().ok_or("the request's body can't be read")?;
        let failed = match lease.send(&parts, RequestBody::from(first)).await {
            Ok(response) => {
                replay.forget();
                return Ok(boxed(response));
            }
            Err(failed) => failed,
        };
        let safe = parts.method.is_safe() && replay.is_empty();
        match (may_repeat(&failed, safe), replay.attempt()) {
            (true, Some(again)) => {
                let lease = host.pool.fresh(target).await.map_err(|error| told(error.into(), failed.unsent))?;
                let sent = lease.interim(interim).send(&parts, RequestBody::from(again)).await;
                sent.map(boxed).map_err(|second| told(second.error, failed.unsent && second.unsent))
            }
            _ => Err(told(failed.error, failed.unsent)),
        }
    }
}

/// Says so where nothing was sent.
fn told(error: BodyError, unsent: bool) -> BodyError {
    if unsent { Unsent(error).into() } else { error }
}

/// A stale connection took nothing, or took what does no harm twice.
fn may_repeat(failed: &SendError, safe: bool) -> bool {
    failed.unsent || failed.silent && safe
}

fn boxed(response: Response<super::pool::PooledBody>) -> Response<Body> {
    response.map(|body| body.boxed_unsync())
}
