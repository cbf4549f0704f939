//! What belongs to one connection only (RFC 9110 7.6).

use crate::run::{Want, case, run};
use Want::{Closed, One, Refused};

fn get(fields: &str) -> String {
    format!("GET /ok/p HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

const BAD: Want = Refused(&[400]);

#[tokio::test]
async fn what_belongs_to_a_connection_stays_there() {
    let cases = vec![
        case(
            "Connection keep-alive",
            get("Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"),
            One(&["!connection", "!keep-alive"]),
        ),
        case("Connection close", get("Connection: close\r\n"), One(&["!connection"])),
        case(
            "Connection names a field",
            get("Connection: x-secret\r\nX-Secret: 1\r\n"),
            One(&["!x-secret", "!connection"]),
        ),
        case(
            "Connection names a field in capitals",
            get("Connection: X-SECRET, close\r\nx-secret: 1\r\n"),
            One(&["!x-secret"]),
        ),
        case(
            "Connection twice",
            get("Connection: x-b\r\nConnection: x-c\r\nX-B: 1\r\nX-C: 1\r\n"),
            One(&["!x-b", "!x-c"]),
        ),
        case("Connection names the host", get("Connection: host\r\n"), BAD),
        case(
            "Connection names a length",
            "POST /ok/p HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
            BAD,
        ),
        case(
            "Connection names a coding",
            "POST /ok/p HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            BAD,
        ),
        case("Connection names credentials", get("Connection: authorization\r\nAuthorization: x\r\n"), BAD),
        case("Connection names a cookie", get("Connection: cookie\r\nCookie: x\r\n"), BAD),
        case("Connection names X-Forwarded-For", get("Connection: close, X-Forwarded-For\r\n"), BAD),
        case("Connection names an identity", get("Connection: x-meshgate-peer\r\n"), BAD),
        case("Connection is no list of names", get("Connection: a b\r\n"), BAD),
        case("TE gzip", get("TE: gzip\r\nConnection: TE\r\n"), One(&["!te"])),
        case("TE trailers", get("TE: trailers, gzip\r\nConnection: TE\r\n"), One(&["te: trailers"])),
        case("Proxy-Connection", get("Proxy-Connection: keep-alive\r\n"), One(&["!proxy-connection"])),
        case("Proxy-Authorization", get("Proxy-Authorization: Basic eA==\r\n"), One(&["!proxy-authorization"])),
        case("Proxy", get("Proxy: http://evil\r\n"), One(&["!proxy"])),
        case("Trailer", get("Trailer: x-sum\r\n"), One(&["GET /ok/p HTTP/1.1"])),
        case(
            "Upgrade h2c",
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
            One(&["!upgrade", "!http2-settings"]),
        ),
        case(
            "Upgrade websocket",
            get("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n"),
            One(&["!upgrade", "!connection"]),
        ),
        case("Upgrade without Connection", get("Upgrade: websocket\r\n"), One(&["!upgrade"])),
        case("Upgrade TLS", get("Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"), One(&["!upgrade"])),
        case("Keep-Alive alone", get("Keep-Alive: timeout=999\r\n"), One(&["!keep-alive"])),
        case("h2 preface later", format!("{}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", get("")), Want::Behind(&[200, 505])),
        case(
            "TRACE with credentials",
            "TRACE /ok/p HTTP/1.1\r\nHost: a\r\nCookie: secret\r\n\r\n",
            Want::Either(&[405, 501], &["TRACE /ok/p HTTP/1.1"]),
        ),
        case("Max-Forwards", get("Max-Forwards: 0\r\n"), One(&["GET /ok/p HTTP/1.1"])),
        case("an interrupted head", "GET /ok/p HTTP/1.1\r\nHost: a\r\nX", Closed(&[408])),
        case(
            "an interrupted body",
            "POST /ok/p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx",
            Want::Cut,
        ),
    ];
    run("hop", cases).await;
}
