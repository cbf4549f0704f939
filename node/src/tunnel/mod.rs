//! The tunnel between two nodes: QUIC, mutually authenticated, one stream a request.
//!
//! A stream opens with a header; the hosting peer answers `accepted` before it writes a byte to
//! the pod, or refuses, and then the sender picks again.

mod replay;
mod types;

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use meshgate_core::snapshot::HeadId;

use crate::identity::NodeName;

pub use replay::{MAX_RETAINED, MAX_RETAINED_TOTAL, ReplayBody, empty};
pub use types::{PeerDirectory, TunnelConfig, TunnelError, TunnelFailure, TunnelFailureKind, TunnelStats};

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body of any origin.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// What opens an HTTP stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// The endpoint wanted, on the receiving node.
    pub endpoint: SocketAddr,
    /// The client's address, for logs.
    pub client: SocketAddr,
    /// The head whose table chose; a host that has not applied it yet waits at most 2 s for it.
    pub chosen_by: HeadId,
}

/// The hosting peer's refusal: nothing reached the pod, another endpoint may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No such endpoint on this node, or it does not accept connections.
    NotHere,
    /// The endpoint is going away.
    Terminating,
    /// Policy forbids it.
    Denied,
    /// This peer has no room now.
    Overloaded,
}

/// Implemented by the proxy: reaches pods of this node for streams that come in.
pub trait Host: Send + Sync + 'static {
    /// Gets a live connection to the endpoint, or refuses. Nothing is written to the pod yet.
    fn connect(&self, peer: &NodeName, header: StreamHeader) -> BoxFuture<'static, Result<Box<dyn Hosted>, Refusal>>;
}

/// A live upstream connection, checked out for one request.
pub trait Hosted: Send {
    /// Sends the request and returns the response head and body.
    fn send(self: Box<Self>, request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, BodyError>>;
}
