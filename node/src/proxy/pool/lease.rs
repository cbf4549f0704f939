//! A connection for one request.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use http::uri::{Authority, Parts as UriParts, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version, header, request};
use hyper::client::conn::http2;

use super::body::Stream;
use super::{H1, Pool, PooledBody, RequestBody, websocket};
use crate::h1::{Interim, SendFailure};
use crate::tunnel::BodyError;

/// A live connection, checked out for one request. Dropped unused, an HTTP/1 connection is closed.
pub struct Lease<'a> {
    way: Way,
    reused: bool,
    interim: Option<&'a Interim>,
}

enum Way {
    H1(Pool, SocketAddr, H1),
    H2(Pool, SocketAddr, http2::SendRequest<RequestBody>, Stream),
}

/// A request that got no answer.
#[derive(Debug)]
pub struct SendError {
    /// Provably no byte of the request was sent (HTTP/1), or the pod says that it did not look
    /// at it (HTTP/2): it may be sent again, whatever it is.
    pub unsent: bool,
    /// No byte of an answer came: a request that changes nothing may be sent again.
    pub silent: bool,
    /// The connection had served requests before.
    pub reused: bool,
    /// What happened.
    pub error: BodyError,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

impl<'a> Lease<'a> {
    pub(super) fn h1(pool: Pool, address: SocketAddr, connection: H1, reused: bool) -> Self {
        Lease { way: Way::H1(pool, address, connection), reused, interim: None }
    }

    pub(super) fn h2(
        pool: Pool,
        address: SocketAddr,
        sender: http2::SendRequest<RequestBody>,
        streams: Arc<AtomicUsize>,
        reused: bool,
    ) -> Self {
        Lease { way: Way::H2(pool, address, sender, Stream::open(streams)), reused, interim: None }
    }

    /// The connection had served requests before, and may be closed at its other end by now.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// Where interim responses go; without a place they are dropped.
    #[must_use]
    pub fn interim(mut self, interim: Option<&'a Interim>) -> Self {
        self.interim = interim;
        self
    }

    /// Sends a request in origin form with a `Host` field; returns the answer's head and body.
    /// The head stays with the caller, who may need it again.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn send(self, head: &request::Parts, body: RequestBody) -> Result<Response<PooledBody>, SendError> {
        let reused = self.reused;
        match self.way {
            Way::H1(pool, address, connection) => match connection.send(head, body, self.interim).await {
                Ok(response) => Ok(response.map(|incoming| PooledBody::h1(incoming, pool, address))),
                Err(SendFailure { written, heard, error }) => {
                    Err(SendError { unsent: !written, silent: !heard, reused, error })
                }
            },
            Way::H2(pool, address, _, stream) if websocket::wanted(head) => {
                websocket::send(pool.0.source, address, stream, head).await
            }
            Way::H2(_, _, sender, stream) => send_h2(sender, stream, reused, request(head, body)).await,
        }
    }
}

pub(super) fn request(head: &request::Parts, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.headers_mut() = head.headers.clone();
    request
}

async fn send_h2(
    mut sender: http2::SendRequest<RequestBody>,
    stream: Stream,
    reused: bool,
    request: Request<RequestBody>,
) -> Result<Response<PooledBody>, SendError> {
    match sender.try_send_request(absolute(request)).await {
        Ok(response) => Ok(response.map(|incoming| PooledBody::h2(incoming, stream))),
        Err(mut refused) => {
            let returned = refused.take_message().is_some();
            let error = refused.into_error();
            let unsent = returned || not_looked_at(&error);
            Err(SendError { unsent, silent: true, reused, error: error.into() })
        }
    }
}

/// The pod refused the stream, or went away before it looked at it (RFC 9113 6.8 and 8.7).
fn not_looked_at(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<h2::Error>() {
            return error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
                || error.is_remote() && error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        }
        cause = inner.source();
    }
    false
}

/// From origin form and `Host` to what HTTP/2 wants.
pub(super) fn absolute(mut request: Request<RequestBody>) -> Request<RequestBody> {
    let host = request.headers_mut().remove(header::HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = UriParts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.unwrap_or_else(|| Authority::from_static("localhost")));
    parts.path_and_query =
        Some(request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
    request
}
