//! Request framing: who reads it another way sees another request (RFC 9112 6, RFC 9110 10.1.1).

use crate::run::{Case, Want, case, run};
use Want::{Closed, One, Refused};

const BAD: Want = Closed(&[400]);

/// The request that must never be seen.
const INNER: &str = "GET /ok/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A POST with these fields, and what follows the head.
fn post(fields: &str, rest: &str) -> String {
    format!("POST /ok HTTP/1.1\r\nHost: a\r\n{fields}\r\n{rest}")
}

/// With both a coding and a length, in many writings.
fn both() -> Vec<Case> {
    let rest = format!("0\r\n\r\n{INNER}");
    let length = rest.len();
    let both = |fields: &str| post(fields, &rest);
    vec![
        case("CL.TE", both(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n")), BAD),
        case("TE.CL", both("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"), BAD),
        case("TE and CL 0", both("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), BAD),
        case(
            "TE between two equal CLs",
            both("Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
            BAD,
        ),
        case("TE and a bad CL", both("Transfer-Encoding: chunked\r\nContent-Length: x\r\n"), BAD),
        case("TE and an empty CL", both("Transfer-Encoding: chunked\r\nContent-Length:\r\n"), BAD),
        case("TE identity and CL", both(&format!("Transfer-Encoding: identity\r\nContent-Length: {length}\r\n")), BAD),
        case(
            "CL.TE behind another request",
            format!(
                "GET /moved HTTP/1.1\r\nHost: a\r\n\r\n{}",
                both("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")
            ),
            Want::Behind(&[302, 400]),
        ),
    ]
}

/// Codings that are not exactly `chunked`.
fn codings() -> Vec<Case> {
    let rest = format!("0\r\n\r\n{INNER}");
    let coded = |coding: &str| post(&format!("Transfer-Encoding:{coding}\r\n"), &rest);
    let either = Closed(&[400, 501]);
    vec![
        case("TE xchunked", coded(" xchunked"), either.clone()),
        case("TE chunked, identity", coded(" chunked, identity"), either.clone()),
        case("TE identity, chunked", coded(" identity, chunked"), either.clone()),
        case("TE gzip, chunked", coded(" gzip, chunked"), either.clone()),
        case("TE chunked, gzip", coded(" chunked, gzip"), either.clone()),
        case("TE gzip alone", coded(" gzip"), either.clone()),
        case("TE chunked, chunked", coded(" chunked, chunked"), either.clone()),
        case("TE chunked twice", coded(" chunked\r\nTransfer-Encoding: chunked"), either.clone()),
        case("TE gzip, then chunked", coded(" gzip\r\nTransfer-Encoding: chunked"), either.clone()),
        case("TE with a parameter", coded(" chunked;q=1"), either.clone()),
        case("TE quoted", coded(" \"chunked\""), either.clone()),
        case("TE empty", coded(""), either.clone()),
        case("TE a comma before", coded(" ,chunked"), either.clone()),
        case("TE a comma behind", coded(" chunked,"), either.clone()),
        case("TE behind VT", coded(" \u{b}chunked"), BAD),
        case("TE before VT", coded(" chunked\u{b}"), BAD),
        case("TE before NUL", coded(" chunked\0"), BAD),
        case("TE behind a non-breaking space", coded(" \u{a0}chunked"), either),
        case(
            "TE in HTTP/1.0",
            format!("POST /ok HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{rest}"),
            BAD,
        ),
        case("TE name before a space", post("Transfer-Encoding : chunked\r\n", &rest), BAD),
        case("TE name before a tab", post("Transfer-Encoding\t: chunked\r\n", &rest), BAD),
        case("TE folded", post("Transfer-Encoding:\r\n chunked\r\n", &rest), BAD),
        case("TE in a folded line", post("X: y\r\n Transfer-Encoding: chunked\r\n", &rest), BAD),
        case("TE behind a bare CR", post("X: y\rTransfer-Encoding: chunked\r\n", &rest), BAD),
        case("TE behind a bare LF", post("X: y\nTransfer-Encoding: chunked\r\n", &rest), BAD),
        case(
            "TE with an underscore",
            post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "hello"),
            One(&["body=hello", "!transfer-encoding", "!transfer_encoding"]),
        ),
        case("TE in capitals", post("TRANSFER-ENCODING: CHUNKED\r\n", "5\r\nhello\r\n0\r\n\r\n"), One(&["body=hello"])),
        case(
            "TE between tabs",
            post("Transfer-Encoding:\t chunked \t\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            One(&["body=hello"]),
        ),
    ]
}

/// Lengths.
fn lengths() -> Vec<Case> {
    let long = |value: &str| post(&format!("Content-Length:{value}\r\n"), &format!("hello{INNER}"));
    let ok = |value: &str| post(&format!("Content-Length:{value}\r\n"), "hello");
    vec![
        case("CLs that differ", long(" 5\r\nContent-Length: 6"), BAD),
        case("CL a list that differs", long(" 5, 6"), BAD),
        case("CL a list of equals", ok(" 5, 5"), Want::Either(&[400], &["body=hello", "content-length: 5"])),
        case(
            "CL twice the same",
            ok(" 5\r\nContent-Length: 5"),
            Want::Either(&[400], &["body=hello", "content-length: 5"]),
        ),
        case("CLs 5 and 05", long(" 5\r\nContent-Length: 05"), BAD),
        case("CL +5", long(" +5"), BAD),
        case("CL -5", long(" -5"), BAD),
        case("CL 0x5", long(" 0x5"), BAD),
        case("CL 5.0", long(" 5.0"), BAD),
        case("CL 5e0", long(" 5e0"), BAD),
        case("CL 5_0", long(" 5_0"), BAD),
        case("CL 5 6", long(" 5 6"), BAD),
        case("CL empty", long(""), BAD),
        case("CL a comma behind", long(" 5,"), BAD),
        case("CL beyond 64 bits", long(" 18446744073709551621"), BAD),
        case("CL of 40 digits", long(" 1000000000000000000000000000000000000005"), BAD),
        case("CL quoted", long(" \"5\""), BAD),
        case("CL before VT", long(" 5\u{b}"), BAD),
        case("CL name before a space", post("Content-Length : 5\r\n", &format!("hello{INNER}")), BAD),
        case("CL folded", post("Content-Length:\r\n 5\r\n", &format!("hello{INNER}")), BAD),
        case(
            "CL with an underscore",
            format!("GET /ok/x HTTP/1.1\r\nHost: a\r\nContent_Length: {}\r\n\r\n", INNER.len()),
            One(&["GET /ok/x HTTP/1.1", "!content_length", "!content-length"]),
        ),
        case(
            "CL of a GET",
            "GET /ok/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            One(&["GET /ok/x HTTP/1.1", "body=hello"]),
        ),
        case("CL between tabs", ok("\t 5 \t"), One(&["body=hello", "content-length: 5"])),
        case(
            "CL 0",
            "POST /ok/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            One(&["POST /ok/x HTTP/1.1", "body="]),
        ),
    ]
}

/// Answers before the body was read, whose bytes must never be read as a request.
fn early() -> Vec<Case> {
    let length = INNER.len();
    let none = |fields: &str, rest: &str| format!("POST /none HTTP/1.1\r\nHost: a\r\n{fields}\r\n{rest}");
    let chunk = format!("{length:x}\r\n{INNER}\r\n0\r\n\r\n");
    vec![
        case("404 with a body of a length", none(&format!("Content-Length: {length}\r\n"), INNER), Refused(&[404])),
        case("404 with a body in chunks", none("Transfer-Encoding: chunked\r\n", &chunk), Refused(&[404])),
        case(
            "302 with a body",
            format!("POST /moved HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{INNER}"),
            Refused(&[302]),
        ),
        case(
            "400 of the path with a body",
            format!("POST /ok/%00 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{INNER}"),
            Refused(&[400]),
        ),
        case(
            "400 of the host with a body",
            format!("POST /ok HTTP/1.1\r\nHost: a b\r\nContent-Length: {length}\r\n\r\n{INNER}"),
            Refused(&[400]),
        ),
        case(
            "404 and a bad chunk",
            none("Transfer-Encoding: chunked\r\n", &format!("zz\r\n{INNER}")),
            Closed(&[400, 404]),
        ),
        case(
            "Expect 100-continue",
            post("Content-Length: 5\r\nExpect: 100-continue\r\n", "hello"),
            One(&["body=hello", "!expect"]),
        ),
        case(
            "Expect in other letters",
            post("Content-Length: 5\r\nExpect: 100-Continue\r\n", "hello"),
            One(&["body=hello", "!expect"]),
        ),
        case("Expect something", post(&format!("Content-Length: {length}\r\nExpect: y\r\n"), INNER), Closed(&[417])),
        case(
            "Expect 100-continue and more",
            post(&format!("Content-Length: {length}\r\nExpect: 100-continue, y\r\n"), INNER),
            Closed(&[417]),
        ),
        case(
            "Expect with a bare CR",
            post(&format!("Content-Length: {length}\r\nExpect: y\r100-continue\r\n"), INNER),
            BAD,
        ),
        case(
            "Expect and 404",
            none(&format!("Expect: 100-continue\r\nContent-Length: {length}\r\n"), INNER),
            Refused(&[404]),
        ),
    ]
}

#[tokio::test]
async fn a_request_ends_where_everyone_says() {
    run("smuggle", [both(), codings(), lengths(), early()].into_iter().flatten().collect()).await;
}
