//! Errors of our own as gRPC clients understand them: a status in the head and nothing behind it
//! ("Trailers-Only" of the gRPC protocol over HTTP/2).

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::body::ResponseBody;

const GRPC: &[u8] = b"application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a request's head is that of a gRPC call.
pub(super) fn asked(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(GRPC))
}

/// Makes an error of the proxy itself a gRPC status. A pod's answers stay as they are.
pub(super) fn shape(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let Some(text) = response.body_mut().take_own() else { return response };
    // The texts are printable ASCII without a percent sign: nothing needs to be encoded.
    let message = HeaderValue::from_bytes(text.trim_ascii()).ok();
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code(status)));
    if let Some(message) = message {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

/// The gRPC status that a client would take the HTTP status for, had a proxy answered with that;
/// but for 504, whose meaning gRPC has a word for.
fn code(status: StatusCode) -> u16 {
    match status {
        StatusCode::BAD_REQUEST => 13,
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND => 12,
        StatusCode::GATEWAY_TIMEOUT => 4,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => 14,
        _ => 2,
    }
}
