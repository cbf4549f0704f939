//! The seam to the tunnel: what the proxy needs of it.

use futures_util::future::BoxFuture;
use http::{Response, request};

use crate::identity::NodeName;
use crate::tunnel::{Attempt, Body, BodyError, Refusal, StreamHeader, Tunnel, TunnelFailure, TunnelFailureKind};

/// Reaches pods of other nodes through their peers.
pub trait Remote: Send + Sync + 'static {
    /// Sends a request to the peer of `node`. `head` is only read. Of the body, at most as much as can be kept for
    /// another attempt is read before the peer accepts.
    fn send<'a>(
        &'a self,
        node: &'a NodeName,
        header: StreamHeader,
        head: &'a request::Parts,
        body: Attempt,
    ) -> BoxFuture<'a, Result<Response<Body>, RemoteError>>;
}

/// Why the tunnel brought no answer.
#[derive(Debug)]
pub enum RemoteError {
    /// The peer refused: nothing reached the pod.
    Refused(Refusal),
    /// The peer can't be reached, and did not accept: nothing reached the pod.
    Unreachable(BodyError),
    /// It broke off after bytes were sent: the pod may have seen the request.
    Broken(BodyError),
}

impl Remote for Tunnel {
    fn send<'a>(
        &'a self,
        node: &'a NodeName,
        header: StreamHeader,
        head: &'a request::Parts,
        body: Attempt,
    ) -> BoxFuture<'a, Result<Response<Body>, RemoteError>> {
        Box::pin(async move { self.http(node, header, head, body).await.map_err(RemoteError::from) })
    }
}

impl From<TunnelFailure> for RemoteError {
    fn from(failure: TunnelFailure) -> Self {
        let unsent = failure.certainly_unsent();
        match failure.kind {
            TunnelFailureKind::Refused(refusal) if unsent => RemoteError::Refused(refusal),
            TunnelFailureKind::Unreachable(_) if unsent => RemoteError::Unreachable(failure.into()),
            _ => RemoteError::Broken(failure.into()),
        }
    }
}
