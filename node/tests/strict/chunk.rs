//! Chunked bodies and trailers (RFC 9112 7.1).

use crate::run::{Case, Want, case, run};
use Want::{Cut, One};

/// A POST in chunks.
fn chunks(body: &str) -> String {
    format!("POST /ok/c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

fn sizes() -> Vec<Case> {
    let sized = |size: &str| chunks(&format!("{size}\r\nhello\r\n0\r\n\r\n"));
    let hello = One(&["POST /ok/c HTTP/1.1", "body=hello"]);
    vec![
        case("plain", sized("5"), hello.clone()),
        case("leading zeros", sized("0005"), hello.clone()),
        case("capitals", chunks("A\r\n0123456789\r\n0\r\n\r\n"), One(&["body=0123456789"])),
        case("two chunks", chunks("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), hello.clone()),
        case("nothing", chunks("0\r\n\r\n"), One(&["body="])),
        case("00 as the last", chunks("5\r\nhello\r\n00\r\n\r\n"), hello),
        case("0x5", sized("0x5"), Cut),
        case("+5", sized("+5"), Cut),
        case("-5", sized("-5"), Cut),
        case("5_", sized("5_"), Cut),
        case("empty", sized(""), Cut),
        case("a space before", sized(" 5"), Cut),
        case("a space behind", sized("5 "), Cut),
        case("a tab behind", sized("5\t"), Cut),
        case("g", sized("g"), Cut),
        case("beyond 64 bits", sized("10000000000000005"), Cut),
        case("40 zeros", sized(&format!("{}5", "0".repeat(40))), Cut),
        case("17 times f", sized("fffffffffffffffff"), Cut),
    ]
}

fn ends() -> Vec<Case> {
    vec![
        case("a size behind a bare LF", chunks("5\nhello\r\n0\r\n\r\n"), Cut),
        case("a size behind a bare CR", chunks("5\rhello\r\n0\r\n\r\n"), Cut),
        case("data before a bare LF", chunks("5\r\nhello\n0\r\n\r\n"), Cut),
        case("data before nothing", chunks("5\r\nhello0\r\n\r\n"), Cut),
        case("data of more than its size", chunks("4\r\nhello\r\n0\r\n\r\n"), Cut),
        case("a last chunk behind a bare LF", chunks("5\r\nhello\r\n0\n\r\n"), Cut),
        case("an end of a bare LF", chunks("5\r\nhello\r\n0\r\n\nGET /ok/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"), Cut),
    ]
}

fn extensions() -> Vec<Case> {
    let extended = |extension: &str| chunks(&format!("5{extension}\r\nhello\r\n0\r\n\r\n"));
    let many = (0..4000).map(|_| "1;ab=cd\r\nx\r\n").collect::<String>();
    vec![
        case("an extension", extended(";a=b"), One(&["body=hello"])),
        case("an extension with a bare LF", extended(";a\nb"), Cut),
        case("an extension with a bare CR", extended(";a\rb"), Cut),
        case("an extension with NUL", extended(";a\0b"), Cut),
        case("an extension of 64 KiB", extended(&format!(";{}", "a".repeat(64 * 1024))), Cut),
        case("4000 extensions", chunks(&format!("{many}0\r\n\r\n")), Cut),
    ]
}

fn trailers() -> Vec<Case> {
    let trailed = |fields: &str| chunks(&format!("5\r\nhello\r\n0\r\n{fields}\r\n"));
    vec![
        case(
            "a framing trailer",
            trailed("Content-Length: 7\r\n"),
            Want::Either(&[400], &["body=hello", "!content-length", "!trailer-content-length"]),
        ),
        case(
            "a coding trailer",
            trailed("Transfer-Encoding: chunked\r\n"),
            Want::Either(&[400], &["body=hello", "!trailer-transfer-encoding"]),
        ),
        case(
            "a host trailer",
            trailed("Host: b\r\n"),
            Want::Either(&[400], &["body=hello", "host: a", "!trailer-host"]),
        ),
        case(
            "a credential trailer",
            trailed("Authorization: b\r\n"),
            Want::Either(&[400], &["body=hello", "!trailer-authorization"]),
        ),
        case(
            "a forwarded trailer",
            trailed("X-Forwarded-For: 1.2.3.4\r\n"),
            Want::Either(&[400], &["body=hello", "!trailer-x-forwarded-for"]),
        ),
        case("a trailer without a name", trailed(": b\r\n"), Cut),
        case("a trailer with a space", trailed("a : b\r\n"), Cut),
        case("a trailer without a colon", trailed("ab\r\n"), Cut),
        case("a trailer with a bare LF", trailed("a: b\nc: d\r\n"), Cut),
        case("a trailer with NUL", trailed("a: b\0\r\n"), Cut),
        case("trailers of 100 KiB", trailed(&format!("a: {}\r\n", "b".repeat(100 * 1024))), Cut),
        case("a folded trailer", trailed("a: b\r\n c\r\n"), Cut),
    ]
}

#[tokio::test]
async fn chunks_have_one_reading() {
    run("chunk", [sizes(), ends(), extensions(), trailers()].into_iter().flatten().collect()).await;
}
