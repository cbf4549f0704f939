//! WebSockets to pods that speak HTTP/2: extended CONNECT (RFC 8441), each on a connection of its
//! own, since only a new one is sure to tell whether the pod allows it.

use std::net::{IpAddr, SocketAddr};

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, Response, StatusCode, request};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;

use super::body::Stream;
use super::lease::{absolute, request};
use super::{PooledBody, RequestBody, SendError, connect};
use crate::proxy::upgrade::{WEBSOCKET, accept};
use crate::relay::Upgraded;

/// The head asks for a WebSocket.
pub(super) fn wanted(head: &request::Parts) -> bool {
    head.headers.get(UPGRADE).is_some_and(|protocol| protocol == WEBSOCKET)
}

/// Opens a WebSocket; the answer is that of an upgrade over HTTP/1.1. A 101 without a stream: the
/// pod does not allow extended CONNECT.
pub(super) async fn send(
    source: Option<IpAddr>,
    address: SocketAddr,
    stream: Stream,
    head: &request::Parts,
) -> Result<Response<PooledBody>, SendError> {
    let unsent = |error: std::io::Error| SendError { unsent: true, silent: true, reused: false, error: error.into() };
    let Some(mut sender) = connect::http2_connect(address, source).await.map_err(unsent)? else {
        let mut refused = Response::new(PooledBody::none());
        *refused.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        return Ok(refused);
    };
    let mut request = absolute(request(head, RequestBody::Empty));
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static(WEBSOCKET));
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY] {
        request.headers_mut().remove(name);
    }
    let broken = |error: hyper::Error| SendError { unsent: false, silent: true, reused: false, error: error.into() };
    let mut response = sender.send_request(request).await.map_err(broken)?;
    if response.status() == StatusCode::OK {
        let opened = hyper::upgrade::on(&mut response).await.map_err(broken)?;
        response.extensions_mut().insert(Upgraded::new(TokioIo::new(opened)));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(accept) = head.headers.get(SEC_WEBSOCKET_KEY).and_then(accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
    }
    Ok(response.map(|incoming| PooledBody::h2(incoming, stream)))
}
