//! The seam to the tunnel: what the proxy needs of it.

use futures_util::future::BoxFuture;
use http::{Request, Response};

use super::pool::RequestBody;
use crate::identity::NodeName;
use crate::tunnel::{Body, BodyError, Refusal, StreamHeader};

/// Reaches pods of other nodes through their peers.
pub trait Remote: Send + Sync + 'static {
    /// Sends a request to the peer of `node`. Of the body, at most as much as can be kept for
    /// another attempt is read before the peer accepts.
    fn send(
        &self,
        node: &NodeName,
        header: StreamHeader,
        request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<Body>, RemoteError>>;
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
