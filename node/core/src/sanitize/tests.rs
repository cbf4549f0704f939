//! Whole requests and responses, as a codec hands them over.

use http::HeaderValue;
use http::{HeaderMap, Request, Response, Version};
use proptest::prelude::*;

use super::*;

const CLIENT: Connection =
    Connection { client: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), tls: false, port: 80, trusted: false };

/// Sends `METHOD target` with headers, one `name: value` a line.
fn send_as(
    connection: &Connection,
    version: Version,
    line: &str,
    headers: &str,
) -> Result<(Canonical, HeaderMap), Refused> {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target).version(version);
    for header in headers.lines().map(str::trim_start).filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    request_parts(&mut parts, connection).map(|canonical| (canonical, parts.headers))
}

fn request_parts(parts: &mut request::Parts, connection: &Connection) -> Result<Canonical, Refused> {
    super::request(parts, connection)
}

fn send(line: &str, headers: &str) -> Result<(Canonical, HeaderMap), Refused> {
    send_as(&CLIENT, Version::HTTP_11, line, headers)
}

fn send2(line: &str, headers: &str) -> Result<(Canonical, HeaderMap), Refused> {
    send_as(&CLIENT, Version::HTTP_2, line, headers)
}

fn refusal(result: Result<(Canonical, HeaderMap), Refused>) -> (u16, &'static str, bool) {
    let refused = result.map(|(canonical, _)| canonical).expect_err("it should be refused");
    (refused.status.as_u16(), refused.reason, refused.close)
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_plain_request_becomes_canonical() {
    let (canonical, headers) = send("GET /%61/../b?x=%20", "Host: Shop.Example.:8080\nAccept: */*").unwrap();
    assert_eq!(canonical.host, "shop.example");
    assert_eq!(canonical.port, Some(8080));
    assert_eq!(canonical.path, "/b");
    assert_eq!(canonical.query.as_deref(), Some("x=%20"));
    assert_eq!(canonical.upgrade, None);
    assert_eq!(all(&headers, "host"), ["shop.example:8080"]);
    assert_eq!(all(&headers, "x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["http"]);
    assert_eq!(all(&headers, "x-forwarded-host"), ["shop.example:8080"]);
    assert_eq!(all(&headers, "x-forwarded-port"), ["80"]);
    assert_eq!(headers.len(), 6);
}

#[test]
fn there_is_exactly_one_authority() {
    let h1 = [
        ("GET /", "", "host_missing"),
        ("GET /", "Host: a\nHost: a", "host_repeated"),
        ("GET /", "Host: a, b", "authority_bad_host"),
        ("GET /", "Host: u@a", "authority_userinfo"),
        ("GET http://b/", "Host: a", "host_disagrees"),
        ("GET http://a:81/", "Host: a", "host_disagrees"),
        ("GET http://a/", "", "host_missing"),
        ("GET ftp://a/", "Host: a", "target_bad_scheme"),
        ("GET foo", "Host: foo", "target_bad_form"),
    ];
    for (line, headers, reason) in h1 {
        assert_eq!(refusal(send(line, headers)), (400, reason, false), "{line} {headers}");
    }
    assert_eq!(send("GET http://A:80/x", "Host: a").unwrap().0.host, "a");
    assert_eq!(refusal(send_as(&CLIENT, Version::HTTP_10, "GET /", "")), (400, "host_missing", false));

    assert_eq!(refusal(send2("GET http://a/", "Host: b")), (400, "host_disagrees", false));
    assert_eq!(refusal(send2("GET http://u@a/", "")), (400, "authority_userinfo", false));
    assert_eq!(refusal(send2("GET /", "")), (400, "host_missing", false));
    assert_eq!(refusal(send2("GET ftp://a/", "")), (400, "target_bad_scheme", false));
    assert_eq!(send2("GET http://a/x", "").unwrap().0.host, "a");
    assert_eq!(send2("GET /", "Host: a").unwrap().0.host, "a");
    assert_eq!(all(&send2("GET http://a/x", "Host: A").unwrap().1, "host"), ["a"]);
}

#[test]
fn the_request_target_is_a_path() {
    assert_eq!(refusal(send("CONNECT a:443", "Host: a:443")), (405, "connect", true));
    assert_eq!(refusal(send("GET *", "Host: a")), (400, "path_not_absolute", false));
    assert_eq!(send("OPTIONS *", "Host: a").unwrap().0.path, "*");
    assert_eq!(refusal(send("GET /../x", "Host: a")), (400, "path_above_root", false));
    assert_eq!(refusal(send("GET /a%00", "Host: a")), (400, "path_control", false));
}

#[test]
fn framing_is_strict() {
    let cases = [
        ("Transfer-Encoding: gzip", 400, "transfer_encoding_unknown"),
        ("Transfer-Encoding: xchunked", 400, "transfer_encoding_unknown"),
        ("Transfer-Encoding: chunked, identity", 400, "transfer_encoding_unknown"),
        ("Transfer-Encoding: chunked;q=1", 400, "transfer_encoding_unknown"),
        ("Transfer-Encoding: gzip, chunked", 501, "transfer_encoding_unknown"),
        ("Transfer-Encoding: gzip\nTransfer-Encoding: chunked", 501, "transfer_encoding_unknown"),
        ("Transfer-Encoding: chunked\nContent-Length: 3", 400, "transfer_encoding_and_length"),
        ("Content-Length: 3\nContent-Length: 4", 400, "content_length_differs"),
        ("Content-Length: 3, 3", 400, "content_length_bad"),
        ("Content-Length: +3", 400, "content_length_bad"),
        ("Content-Length: 99999999999999999999", 400, "content_length_bad"),
    ];
    for (headers, status, reason) in cases {
        assert_eq!(refusal(send("POST /", &format!("Host: a\n{headers}"))), (status, reason, true), "{headers}");
    }
    let old = send_as(&CLIENT, Version::HTTP_10, "POST /", "Host: a\nTransfer-Encoding: chunked");
    assert_eq!(refusal(old), (400, "transfer_encoding_in_this_version", true));
    assert_eq!(
        refusal(send2("POST http://a/", "Transfer-Encoding: chunked")),
        (400, "transfer_encoding_in_this_version", true)
    );
    let (_, headers) = send("POST /", "Host: a\nContent-Length: 3\nContent-Length: 3").unwrap();
    assert_eq!(all(&headers, "content-length"), ["3"]);
    let (_, headers) = send("POST /", "Host: a\nTransfer-Encoding: Chunked").unwrap();
    assert_eq!(all(&headers, "transfer-encoding"), Vec::<String>::new());
}

#[test]
fn what_belongs_to_a_hop_stays_there() {
    let (canonical, headers) = send(
        "GET /",
        "Host: a
         Connection: keep-alive, X-Private
         X-Private: 1
         Keep-Alive: timeout=5
         Proxy: http://evil.example
         Proxy-Authorization: x
         Proxy-Connection: close
         TE: gzip, trailers
         Trailer: x-sum
         Upgrade: websocket
         X-Kept: 1",
    )
    .unwrap();
    assert_eq!(canonical.upgrade, None, "Connection does not name it");
    let kept: Vec<&str> = headers.keys().map(|name| name.as_str()).filter(|name| !name.contains("forwarded")).collect();
    let mut kept: Vec<&str> = kept.into_iter().collect();
    kept.sort_unstable();
    assert_eq!(kept, ["host", "te", "trailer", "x-kept"]);
    assert_eq!(all(&headers, "te"), ["trailers"]);
}

#[test]
fn connection_may_not_name_what_backends_rely_on() {
    for name in ["host", "X-Forwarded-For", "forwarded", "Authorization", "content-length", "x-meshgate-user"] {
        let result = send("GET /", &format!("Host: a\nConnection: close, {name}"));
        assert_eq!(refusal(result), (400, "connection_names_end_to_end", false), "{name}");
    }
    assert_eq!(refusal(send("GET /", "Host: a\nConnection: a b")), (400, "connection_bad", false));
    assert_eq!(refusal(send2("GET http://a/", "Connection: close")), (400, "connection_in_this_version", false));
}

#[test]
fn only_harmless_upgrades_are_passed_on() {
    let upgrade = |protocol: &str| {
        let headers = format!("Host: a\nConnection: Upgrade\nUpgrade: {protocol}\nHTTP2-Settings: x");
        let (canonical, headers) = send("GET /", &headers).unwrap();
        assert!(!headers.contains_key("upgrade") && !headers.contains_key("http2-settings"));
        canonical.upgrade
    };
    assert_eq!(upgrade("WebSocket").as_deref(), Some("websocket"));
    assert_eq!(upgrade("SPDY/3.1").as_deref(), Some("spdy/3.1"));
    for refused in ["h2c", "h2c, websocket", "websocket, h2c", "TLS/1.0", "HTTP/2.0", ""] {
        assert_eq!(upgrade(refused), None, "{refused}");
    }
}

#[test]
fn expectations_and_limits() {
    assert!(!send("POST /", "Host: a\nExpect: 100-Continue").unwrap().1.contains_key("expect"));
    assert_eq!(refusal(send("POST /", "Host: a\nExpect: 100-continue, x")), (417, "expect_unknown", true));
    let many: String = (0..HEADER_COUNT).map(|n| format!("x-{n}: 1\n")).collect();
    assert_eq!(refusal(send("GET /", &format!("Host: a\n{many}"))), (431, "headers_too_large", true));
    let large = format!("Host: a\nx-large: {}", "x".repeat(HEADER_BYTES));
    assert_eq!(refusal(send("GET /", &large)), (431, "headers_too_large", true));
    assert_eq!(refusal(send2("GET http://a/", "x-a: b ")), (400, "header_padded", false));
}

#[test]
fn untrusted_forwarded_fields_are_removed_and_trusted_ones_continued() {
    let sent = "Host: a
        Forwarded: for=1.1.1.1
        X-Forwarded-For: 1.1.1.1
        X-Forwarded-Proto: https
        X-Forwarded-User: root
        X-Real-IP: 1.1.1.1
        X-Envoy-Original-Path: /x
        X-Meshgate-Identity: root";
    let (_, headers) = send("GET /", sent).unwrap();
    assert_eq!(all(&headers, "x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["http"]);
    assert_eq!(headers.len(), 5, "{headers:?}");

    let trusted = Connection { trusted: true, tls: true, port: 443, ..CLIENT };
    let (_, headers) = send_as(&trusted, Version::HTTP_11, "GET /", sent).unwrap();
    assert_eq!(all(&headers, "x-forwarded-for"), ["1.1.1.1, 192.0.2.7"]);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(all(&headers, "x-forwarded-port"), ["443"]);
    assert!(headers.contains_key("forwarded") && !headers.contains_key("x-meshgate-identity"));
}

#[test]
fn names_with_underscores_are_dropped_but_for_grpc() {
    let (_, headers) = send("GET /", "Host: a\nx_user: 1\nX_Forwarded_For: 1").unwrap();
    assert!(headers.keys().all(|name| !name.as_str().contains('_')));
    let grpc = "Content-Type: application/grpc+proto\nx_user: 1\nX_Forwarded_For: 1\ncontent_length: 3";
    let (_, headers) = send2("POST http://a/", grpc).unwrap();
    assert!(headers.contains_key("x_user"));
    assert!(!headers.contains_key("x_forwarded_for") && !headers.contains_key("content_length"));
}

#[test]
fn cookies_are_one_line() {
    let (_, headers) = send2("GET http://a/", "Cookie: a=1\nCookie: b=2\nCookie: c=3").unwrap();
    assert_eq!(all(&headers, "cookie"), ["a=1; b=2; c=3"]);
}

fn receive(status: u16, headers: &str) -> Result<HeaderMap, Refused> {
    let mut response = Response::builder().status(status);
    for header in headers.lines().map(str::trim_start).filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(": ").unwrap();
        response = response.header(name, value);
    }
    let (mut parts, ()) = response.body(()).unwrap().into_parts();
    super::response(&mut parts).map(|()| parts.headers)
}

#[test]
fn responses_lose_hop_by_hop_fields() {
    let sent = "Connection: close, X-Private, Content-Length
        X-Private: 1
        Content-Length: 3
        Keep-Alive: timeout=5
        Proxy-Authenticate: Basic
        Upgrade: h2c
        Set-Cookie: a=1
        Set-Cookie: b=2";
    let headers = receive(200, sent).unwrap();
    assert_eq!(all(&headers, "set-cookie"), ["a=1", "b=2"]);
    assert_eq!(all(&headers, "content-length"), ["3"]);
    assert_eq!(headers.len(), 3);
    let headers = receive(101, "Connection: Upgrade, X-A\nUpgrade: websocket\nX-A: 1").unwrap();
    assert_eq!(all(&headers, "upgrade"), ["websocket"]);
    assert_eq!(all(&headers, "connection"), ["upgrade"]);
    assert_eq!(headers.len(), 2);
}

#[test]
fn responses_that_would_confuse_clients_are_refused() {
    let many: String = (0..=HEADER_COUNT).map(|n| format!("x-{n}: 1\n")).collect();
    let cases = [
        ("Transfer-Encoding: chunked\nContent-Length: 3", "upstream_transfer_encoding_and_length"),
        ("Transfer-Encoding: gzip, chunked", "upstream_transfer_encoding_unknown"),
        ("Content-Length: 3\nContent-Length: 3", "upstream_content_length_repeated"),
        ("Content-Length: -3", "upstream_content_length_bad"),
        (many.as_str(), "upstream_headers_too_large"),
    ];
    for (headers, reason) in cases {
        let refused = receive(200, headers).expect_err(reason);
        assert_eq!((refused.status.as_u16(), refused.reason), (502, reason));
    }
}

#[test]
fn trailers_say_nothing_about_the_head() {
    let mut fields = HeaderMap::new();
    for name in ["grpc-status", "x-sum", "host", "content-length", "transfer-encoding", "authorization", "set-cookie"] {
        fields.insert(name, HeaderValue::from_static("1"));
    }
    trailers(&mut fields);
    let mut kept: Vec<&str> = fields.keys().map(|name| name.as_str()).collect();
    kept.sort_unstable();
    assert_eq!(kept, ["grpc-status", "x-sum"]);
}

proptest! {
    /// What was made canonical once is canonical: a second peer changes nothing but the chain.
    #[test]
    fn sanitizing_is_idempotent(
        path in "/[a-c./%2eF]{0,8}",
        host in "[aA]{1,3}(\\.[b-d]{1,2}){0,2}\\.?(:[1-9][0-9]{0,3})?",
        headers in proptest::collection::vec(("(x-[a-d]|x_e|te|keep-alive|proxy-x|cookie|x-forwarded-for)", "[a-z,=]{1,6}"), 0..6),
    ) {
        let mut builder = Request::builder().uri(path.as_str()).header("host", host);
        for (name, value) in &headers {
            builder = builder.header(name, value);
        }
        let Ok(request) = builder.body(()) else { return Ok(()) };
        let (mut parts, ()) = request.into_parts();
        let trusted = Connection { trusted: true, ..CLIENT };
        if let Ok(once) = super::request(&mut parts, &trusted) {
            let before = parts.headers.clone();
            parts.uri = once.path.parse().unwrap();
            let twice = super::request(&mut parts, &trusted).unwrap();
            prop_assert_eq!(once, twice);
            parts.headers.remove("x-forwarded-for");
            let mut before = before;
            before.remove("x-forwarded-for");
            prop_assert_eq!(before, parts.headers);
        }
    }
}

#[test]
fn interim_responses_keep_what_is_for_the_client() {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        ("link", "</a.css>; rel=preload"),
        ("connection", "x-hop, close"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "h2c"),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("trailer", "x"),
        ("x-meshgate-via", "tunnel"),
    ] {
        fields.append(name, HeaderValue::from_static(value));
    }
    interim(&mut fields);
    assert_eq!(fields.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["link"]);
}
