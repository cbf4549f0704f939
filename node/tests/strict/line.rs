//! Request lines (RFC 9112 3).

use crate::run::{Want, case, run};
use Want::{Closed, One, Refused};

const BAD: Want = Closed(&[400]);

fn line(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

#[tokio::test]
async fn request_lines_have_one_reading() {
    let cases = vec![
        case("plain", line("GET /ok/l?q=1 HTTP/1.1"), One(&["GET /ok/l?q=1 HTTP/1.1"])),
        case("HTTP/1.0", line("GET /ok/l HTTP/1.0"), One(&["GET /ok/l HTTP/1.1"])),
        case("a method of our own", line("BREW /ok/l HTTP/1.1"), One(&["BREW /ok/l HTTP/1.1"])),
        case("HEAD", line("HEAD /ok/l HTTP/1.1"), One(&["HEAD /ok/l HTTP/1.1"])),
        case(
            "an empty line before",
            format!("\r\n{}", line("GET /ok/l HTTP/1.1")),
            Want::Either(&[400], &["GET /ok/l HTTP/1.1"]),
        ),
        case("two spaces before the target", line("GET  /ok/l HTTP/1.1"), BAD),
        case("two spaces behind the target", line("GET /ok/l  HTTP/1.1"), BAD),
        case("a tab", line("GET\t/ok/l HTTP/1.1"), BAD),
        case("a space behind", line("GET /ok/l HTTP/1.1 "), BAD),
        case("a space before", line(" GET /ok/l HTTP/1.1"), BAD),
        case("a space in the target", line("GET /ok/l l HTTP/1.1"), BAD),
        case("a bare CR", line("GET /ok/l\r HTTP/1.1"), BAD),
        case("a bare LF behind", "GET /ok/l HTTP/1.1\nHost: a\r\n\r\n", BAD),
        case("NUL in the target", line("GET /ok/l\0 HTTP/1.1"), BAD),
        case("a control character in the target", line("GET /ok/l\x01 HTTP/1.1"), BAD),
        case("no version", line("GET /ok/l"), BAD),
        case("HTTP/0.9", "GET /ok/l\r\n\r\n", BAD),
        case("HTTP/1.2", line("GET /ok/l HTTP/1.2"), Closed(&[400, 505])),
        case("HTTP/2.0", line("GET /ok/l HTTP/2.0"), Closed(&[400, 505])),
        case("HTTP/9.9", line("GET /ok/l HTTP/9.9"), Closed(&[400, 505])),
        case("HTTP/1.10", line("GET /ok/l HTTP/1.10"), BAD),
        case("HTTP/01.1", line("GET /ok/l HTTP/01.1"), BAD),
        case("http/1.1", line("GET /ok/l http/1.1"), BAD),
        case("HTTP/1,1", line("GET /ok/l HTTP/1,1"), BAD),
        case("another protocol", line("GET /ok/l RTSP/1.1"), BAD),
        case("an odd method", line("G@T /ok/l HTTP/1.1"), BAD),
        case("a method with NUL", line("G\0T /ok/l HTTP/1.1"), BAD),
        case("no method", line(" /ok/l HTTP/1.1"), BAD),
        case("a target without a slash", line("GET ok HTTP/1.1"), Refused(&[400])),
        case("a target of a query alone", line("GET ?q HTTP/1.1"), Refused(&[400])),
        case("a star", line("GET * HTTP/1.1"), Refused(&[400, 404])),
        case("a star for OPTIONS", line("OPTIONS * HTTP/1.1"), Refused(&[404])),
        case("a fragment", line("GET /ok/l#f HTTP/1.1"), BAD),
        case("a target of 128 KiB", line(&format!("GET /ok/{} HTTP/1.1", "l".repeat(128 * 1024))), Closed(&[414])),
        case("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Closed(&[405])),
        case("CONNECT of a path", line("CONNECT /ok/l HTTP/1.1"), Closed(&[400, 405])),
        case("TLS on a plain port", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n\r\n", BAD),
    ];
    run("line", cases).await;
}
