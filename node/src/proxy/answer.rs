//! Answers of the proxy itself: redirects and errors. An error says whose fault it is, whether
//! the request may be repeated, and what to check.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::h1;

/// An answer that no backend gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// For logs and metrics.
    pub reason: &'static str,
    /// Where a redirect leads.
    pub location: Option<HeaderValue>,
    /// The connection's framing can't be trusted: close it.
    pub close: bool,
    /// Headers that only this answer has.
    pub more: Option<Box<HeaderMap>>,
    text: &'static str,
}

impl Answer {
    /// An error.
    pub const fn error(status: StatusCode, reason: &'static str, text: &'static str) -> Self {
        Answer { status, reason, location: None, close: false, more: None, text }
    }

    /// A refusal of the table.
    pub fn rejected(status: StatusCode, reason: &'static str) -> Self {
        let text = match status {
            StatusCode::NOT_FOUND => {
                "no route matches this host and path; check the address, or the routes of this Gateway"
            }
            StatusCode::MISDIRECTED_REQUEST => "this host is served on another connection; open a new one for it",
            _ => "this request can't be routed as configured; check the route's status",
        };
        Answer::error(status, reason, text)
    }

    /// A redirect.
    pub fn redirect(status: u16, location: &str) -> Self {
        let location = HeaderValue::from_str(location).ok();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
        match location {
            Some(location) => Answer { location: Some(location), ..Answer::error(status, "redirect", "") },
            None => RULE_BROKEN,
        }
    }

    /// The answer to a CORS preflight.
    pub fn preflight(headers: HeaderMap) -> Self {
        Answer { more: Some(Box::new(headers)), ..Answer::error(StatusCode::NO_CONTENT, "preflight", "") }
    }

    /// It is a fault of the mesh or of a backend, not of the client.
    pub fn failed(&self) -> bool {
        let clients = [StatusCode::NOT_IMPLEMENTED, StatusCode::HTTP_VERSION_NOT_SUPPORTED];
        self.status.is_server_error() && !clients.contains(&self.status)
    }

    /// The response. The body is empty for redirects.
    pub fn response(&self) -> (Response<()>, Bytes) {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let body = if self.text.is_empty() {
            Bytes::new()
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            Bytes::from(format!("{}: {}\n", self.reason, self.text))
        };
        // RFC 9110 8.6: not with a 204.
        if self.status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE && self.reason == OVERLOADED.reason {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if let Some(more) = &self.more {
            for (name, value) in more.iter() {
                headers.append(name.clone(), value.clone());
            }
        }
        if let Some(location) = &self.location {
            headers.insert(header::LOCATION, location.clone());
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        (response, body)
    }
}

/// `sanitize` refused the request.
pub fn refused(refused: meshgate_core::sanitize::Refused) -> Answer {
    let text = "this request is not valid HTTP as the mesh understands it; repeat it only after a change";
    Answer { close: refused.close, ..Answer::error(refused.status, refused.reason, text) }
}

/// The codec refused what is no request.
pub fn malformed(refused: h1::Refused) -> Answer {
    Answer { close: true, ..Answer::error(refused.status, refused.reason, refused.text) }
}

/// A rule can't be served as declared.
pub const RULE_BROKEN: Answer = Answer::error(
    StatusCode::INTERNAL_SERVER_ERROR,
    "rule_broken",
    "the route's rule can't be served as declared; check the route's status",
);

/// This share of the requests goes to a backend that does not resolve.
pub const BACKEND_INVALID: Answer = Answer::error(
    StatusCode::INTERNAL_SERVER_ERROR,
    "backend_invalid",
    "the route names a backend that does not resolve; check ResolvedRefs in the route's status",
);

/// No backend has a weight.
pub const NO_BACKEND: Answer = Answer::error(
    StatusCode::INTERNAL_SERVER_ERROR,
    "no_backend",
    "the route's rule has no backend with a weight above zero; check the route",
);

/// The Service has no endpoint that may be picked.
pub const NO_ENDPOINTS: Answer = Answer::error(
    StatusCode::SERVICE_UNAVAILABLE,
    "no_endpoints",
    "the backend Service has no ready endpoint; nothing was sent, a retry is safe",
);

/// Every endpoint has as many requests as it may have.
pub const OVERLOADED: Answer = Answer::error(
    StatusCode::SERVICE_UNAVAILABLE,
    "overloaded",
    "every endpoint of the backend Service has as many requests as maxRequestsPerEndpoint allows; nothing was sent, \
     a retry after a moment is safe",
);

/// When to come back after [`OVERLOADED`], in seconds (RFC 9110 10.2.3).
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Every endpoint that was tried refused before it took a byte.
pub const ALL_REFUSED: Answer = Answer::error(
    StatusCode::SERVICE_UNAVAILABLE,
    "endpoints_refused",
    "no endpoint of the backend Service accepted the request; nothing was sent, a retry is safe",
);

/// The client broke off. No fault of a backend.
pub const CLIENT_BROKEN: Answer = Answer {
    status: StatusCode::BAD_REQUEST,
    reason: "client_broken",
    location: None,
    close: true,
    more: None,
    text: "the request's body broke off or is not valid HTTP; the backend may have seen its start",
};

/// The request's time was over before all of its body had come. No fault of a backend.
pub const CLIENT_SLOW: Answer = Answer {
    status: StatusCode::REQUEST_TIMEOUT,
    reason: "client_slow",
    location: None,
    close: true,
    more: None,
    text: "the request's body did not come in time; the backend may have seen its start",
};

/// The backend broke off.
pub const UPSTREAM_BROKEN: Answer = Answer::error(
    StatusCode::BAD_GATEWAY,
    "upstream_broken",
    "the backend broke off before it answered; it may have seen the request, repeat it only if that does no harm",
);

/// The backend's answer must not be passed on.
pub const RESPONSE_REFUSED: Answer = Answer::error(
    StatusCode::BAD_GATEWAY,
    "response_refused",
    "the backend's answer is not valid HTTP; it has seen the request",
);

/// The backend did not switch protocols as it was asked to.
pub const UPGRADE_REFUSED: Answer = Answer::error(
    StatusCode::BAD_GATEWAY,
    "upgrade_refused",
    "the backend did not switch to the protocol asked for; over h2c it must allow extended CONNECT (RFC 8441)",
);

/// Time is over.
pub const TIMEOUT: Answer = Answer::error(
    StatusCode::GATEWAY_TIMEOUT,
    "timeout",
    "the backend did not answer in time; it may have seen the request, repeat it only if that does no harm",
);
