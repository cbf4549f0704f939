//! Extended CONNECT of HTTP/2 clients (RFC 8441): a WebSocket is a stream of the connection. Inside
//! it is an upgrade like any other, see [`crate::proxy`].

use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::streams::{Busy, Sent};
use crate::proxy::{ResponseBody, WEBSOCKET};
use crate::relay::{self, Upgraded};

/// Makes a CONNECT that opens a WebSocket a GET; its `Protocol` stays in the extensions. Any other
/// request is left as it is, and the proxy refuses what is no request for a path.
pub fn arrives<B>(request: &mut Request<B>) -> Option<OnUpgrade> {
    let opens = |protocol: &Protocol| protocol.as_str().eq_ignore_ascii_case(WEBSOCKET);
    if *request.method() != Method::CONNECT || !request.extensions().get::<Protocol>().is_some_and(opens) {
        return None;
    }
    *request.method_mut() = Method::GET;
    Some(hyper::upgrade::on(request))
}

/// Makes a 101 the 200 that opens the stream, and copies between it and the pod until both ways have
/// ended; the stream is in use as long. Other answers are left as they are.
pub fn leaves(response: Response<ResponseBody>, client: OnUpgrade, busy: Busy) -> Response<Sent> {
    let (mut parts, body) = response.into_parts();
    let Some(upgraded) = parts.extensions.remove::<Upgraded>() else {
        return Response::from_parts(parts, Sent::new(body, Some(busy)));
    };
    parts.status = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    tokio::spawn(async move {
        if let Ok(client) = client.await
            && let Err(error) =
                relay::copy(TokioIo::new(client), &upgraded, &busy.worker.local.timer, relay::IDLE).await
        {
            tracing::debug!(%error, "a WebSocket over HTTP/2 broke off");
        }
        drop((body, busy));
    });
    Response::from_parts(parts, Sent::new(ResponseBody::none(), None))
}
