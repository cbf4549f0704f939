//! One authority a request (RFC 9110 7.2, RFC 9112 3.2).

use crate::run::{Want, case, run};
use Want::{One, Refused};

const BAD: Want = Refused(&[400]);

fn host(value: &str) -> String {
    format!("GET /ok/h HTTP/1.1\r\nHost:{value}\r\n\r\n")
}

fn absolute(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{host}\r\n")
}

#[tokio::test]
async fn a_request_has_one_authority() {
    let cases = vec![
        case("plain", host(" a"), One(&["host: a"])),
        case(
            "capitals and a dot",
            host(" Shop.Example."),
            One(&["host: shop.example", "x-forwarded-host: shop.example"]),
        ),
        case("a port", host(" a:8080"), One(&["host: a:8080"])),
        case("IPv6", host(" [2001:DB8::1]:80"), One(&["host: [2001:db8::1]:80"])),
        case("none", "GET /ok/h HTTP/1.1\r\n\r\n", BAD),
        case("none in HTTP/1.0", "GET /ok/h HTTP/1.0\r\n\r\n", BAD),
        case("two that differ", host(" a\r\nHost: b"), BAD),
        case("two equal", host(" a\r\nHost: a"), BAD),
        case("two in other letters", host(" a\r\nhOST: b"), BAD),
        case("empty", host(""), BAD),
        case("a comma", host(" a, b"), BAD),
        case("a space", host(" a b"), BAD),
        case("a user", host(" u@a"), BAD),
        case("a path", host(" a/b"), BAD),
        case("a query", host(" a?b"), BAD),
        case("a fragment", host(" a#b"), BAD),
        case("a backslash", host(" a\\b"), BAD),
        case("an escape", host(" a%2eb"), BAD),
        case("a scheme", host(" http://a"), BAD),
        case("a port of letters", host(" a:b"), BAD),
        case("no port behind a colon", host(" a:"), BAD),
        case("port 0", host(" a:0"), BAD),
        case("port 65536", host(" a:65536"), BAD),
        case("two ports", host(" a:1:2"), BAD),
        case("two dots", host(" a..b"), BAD),
        case("a star", host(" *.a"), BAD),
        case("an open bracket", host(" [::1"), BAD),
        case("a zone", host(" [fe80::1%25eth0]"), BAD),
        case("not ASCII", host(" \u{e9}"), BAD),
        case(
            "an underscore in the field's name",
            "GET /ok/h HTTP/1.1\r\nHost: a\r\nX_Host: b\r\n\r\n",
            One(&["host: a", "!x_host"]),
        ),
        case("absolute", absolute("http://a/ok/h", "Host: a\r\n"), One(&["GET /ok/h HTTP/1.1", "host: a"])),
        case("absolute with a port", absolute("http://A:80/ok/h", "Host: a\r\n"), One(&["GET /ok/h HTTP/1.1"])),
        case("absolute, another host", absolute("http://b/ok/h", "Host: a\r\n"), BAD),
        case("absolute, another port", absolute("http://a:81/ok/h", "Host: a\r\n"), BAD),
        case("absolute without a host", absolute("http://a/ok/h", ""), BAD),
        case("absolute with a user", absolute("http://u@a/ok/h", "Host: a\r\n"), BAD),
        case("absolute with an empty authority", absolute("http:///ok/h", "Host: a\r\n"), BAD),
        case("absolute of another scheme", absolute("ftp://a/ok/h", "Host: a\r\n"), BAD),
        case("an authority as target", absolute("a:80", "Host: a\r\n"), BAD),
        case("a target of two slashes", absolute("//b/ok/h", "Host: a\r\n"), Refused(&[400, 404])),
        case(
            "X-Forwarded-Host",
            "GET /ok/h HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: b\r\nForwarded: host=b\r\nX-Forwarded-For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\r\n",
            One(&[
                "x-forwarded-host: a",
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-proto: http",
                "!forwarded",
                "!x-real-ip",
            ]),
        ),
        case(
            "identities",
            "GET /ok/h HTTP/1.1\r\nHost: a\r\nX-Meshgate-Peer: b\r\nX-Envoy-Peer-Metadata: b\r\n\r\n",
            One(&["!x-meshgate-peer", "!x-envoy-peer-metadata"]),
        ),
    ];
    run("host", cases).await;
}
