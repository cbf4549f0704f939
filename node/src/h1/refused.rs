//! What is wrong with a request that never became one.

use http::StatusCode;

/// A refusal: the connection ends with the answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Status of the answer.
    pub status: StatusCode,
    /// Short snake_case reason for logs and metrics.
    pub reason: &'static str,
    /// What the client should change.
    pub text: &'static str,
}

const fn bad(reason: &'static str, text: &'static str) -> Refused {
    Refused { status: StatusCode::BAD_REQUEST, reason, text }
}

/// A line that ends with LF alone; two readers could disagree about it (RFC 9112 2.2).
pub(super) const BARE_LF: Refused =
    bad("head_bare_lf", "a line of the request's head ends with LF alone; end lines with CRLF");

/// The request line is none.
pub(super) const REQUEST_LINE: Refused =
    bad("request_line_bad", "the request line is not `method target version`; is this connection meant for HTTP?");

/// A field's name, or what stands around it (RFC 9112 5.1).
pub(super) const FIELD_NAME: Refused =
    bad("field_name_bad", "a header field's name is not a token that is followed by a colon at once");

/// A field's value, a folded one included (RFC 9112 5.2).
pub(super) const FIELD_VALUE: Refused =
    bad("field_value_bad", "a header field's value has control characters or is folded over several lines");

/// The target is no URI.
pub(super) const TARGET: Refused = bad("target_bad", "the request's target is not a valid path or URI");

/// Neither HTTP/1.1 nor HTTP/1.0.
pub(super) const VERSION: Refused = Refused {
    status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    reason: "version_unknown",
    text: "this connection speaks HTTP/1.1 and HTTP/1.0; HTTP/2 begins with its preface or by ALPN",
};

/// The target is too long.
pub(super) const TARGET_TOO_LONG: Refused = Refused {
    status: StatusCode::URI_TOO_LONG,
    reason: "target_too_long",
    text: "the request's target has more than 8 KiB",
};

/// The head is too large.
pub(super) const HEAD_TOO_LARGE: Refused = Refused {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    reason: "headers_too_large",
    text: "the request's head has more than 100 fields or 64 KiB",
};

/// The head took too long.
pub(super) const HEAD_LATE: Refused = Refused {
    status: StatusCode::REQUEST_TIMEOUT,
    reason: "head_late",
    text: "the request's head did not arrive in time; nothing was done, a retry is safe",
};
