//! Malformed HTTP/2 requests (RFC 9113 8.1.1, 8.2, 8.3), and what becomes of good ones in HTTP/1.1.

use crate::h2_wire::{Reply, Request, send};
use crate::run::{Bench, Way, compare, has_all, unknown_gaps};

#[derive(Clone, Debug)]
enum Want {
    /// An error of the stream or the connection, or 4xx (501). The backend saw no whole request.
    Refused,
    /// This status; the backend saw nothing.
    Status(u16),
    /// One clean request at the backend, with these properties.
    One(&'static [&'static str]),
}
use Want::{One, Refused, Status};

type Case = (&'static str, Request, Want);

fn pseudo() -> Vec<Case> {
    let of = Request::of;
    let (method, scheme, path, authority) =
        ((":method", "GET"), (":scheme", "http"), (":path", "/ok/h2"), (":authority", "a"));
    vec![
        ("plain", Request::get(&[]), One(&["GET /ok/h2 HTTP/1.1", "host: a"])),
        ("no method", of(&[scheme, path, authority]), Refused),
        ("no scheme", of(&[method, path, authority]), Refused),
        ("no path", of(&[method, scheme, authority]), Refused),
        ("no authority", of(&[method, scheme, path]), Refused),
        ("a host for the authority", of(&[method, scheme, path, ("host", "a")]), One(&["host: a"])),
        ("two methods", of(&[method, method, scheme, path, authority]), Refused),
        ("two schemes", of(&[method, scheme, scheme, path, authority]), Refused),
        ("two paths", of(&[method, scheme, path, (":path", "/admin/x"), authority]), Refused),
        ("two authorities", of(&[method, scheme, path, authority, (":authority", "b")]), Refused),
        ("an unknown pseudo field", of(&[method, scheme, path, authority, (":x", "y")]), Refused),
        ("a pseudo field of answers", of(&[method, scheme, path, authority, (":status", "200")]), Refused),
        ("a pseudo field behind others", of(&[method, scheme, ("x", "y"), path, authority]), Refused),
        ("an empty method", of(&[(":method", ""), scheme, path, authority]), Refused),
        ("a method with a space", of(&[(":method", "GET /admin HTTP/1.1"), scheme, path, authority]), Refused),
        ("a method with CRLF", of(&[(":method", "GET\r\nx: y"), scheme, path, authority]), Refused),
        ("a scheme with a space", of(&[method, (":scheme", "http "), path, authority]), Refused),
        ("a scheme that is a URL", of(&[method, (":scheme", "http://b/?"), path, authority]), Refused),
        ("a scheme with CRLF", of(&[method, (":scheme", "http\r\nx: y"), path, authority]), Refused),
        ("another scheme", of(&[method, (":scheme", "ftp"), path, authority]), Refused),
        ("CONNECT", of(&[(":method", "CONNECT"), (":authority", "a:443")]), Refused),
        ("CONNECT with a path", of(&[(":method", "CONNECT"), scheme, path, authority]), Refused),
        (
            "extended CONNECT for what is no Upgrade",
            of(&[(":method", "CONNECT"), (":protocol", "connect-udp"), scheme, path, authority]),
            Refused,
        ),
        ("a star for OPTIONS", of(&[(":method", "OPTIONS"), scheme, (":path", "*"), authority]), Status(404)),
        ("a star for GET", of(&[method, scheme, (":path", "*"), authority]), Refused),
    ]
}

fn paths() -> Vec<Case> {
    let to = |path| Request::of(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")]);
    vec![
        ("an empty path", to(""), Refused),
        ("a path without a slash", to("ok"), Refused),
        ("an absolute path", to("http://b/ok"), Refused),
        ("a query without a path", to("?x=1"), One(&["GET /?x=1 HTTP/1.1"])),
        ("a path with a space", to("/ok/x HTTP/1.1"), Refused),
        ("a path with CRLF", to("/ok/x\r\nx: y"), Refused),
        ("a path with LF", to("/ok/x\ny"), Refused),
        ("a path with NUL", to("/ok/\0"), Refused),
        ("a path with a tab", to("/ok/\t"), Refused),
        ("a path with a fragment", to("/ok/x#y"), Refused),
        ("a path that is not ASCII", to("/ok/\u{e9}"), Refused),
        ("a path with a backslash", to("/ok/..\\admin"), Refused),
        ("a path above the root", to("/../admin"), Refused),
        ("dot segments", to("/ok/../admin/x"), One(&["GET /admin/x HTTP/1.1", "x-rule: admin"])),
        ("escaped dot segments", to("/ok/%2e%2e/admin/x"), One(&["GET /admin/x HTTP/1.1", "x-rule: admin"])),
    ]
}

fn authorities() -> Vec<Case> {
    let of = |authority, fields: &[(&'static str, &'static str)]| {
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/ok/h2"), (":authority", authority)];
        Request::of(&[&pseudo, fields].concat())
    };
    vec![
        ("an equal host", of("a", &[("host", "A")]), One(&["host: a"])),
        ("another host", of("a", &[("host", "b")]), Refused),
        ("a host with another port", of("a", &[("host", "a:81")]), Refused),
        ("two hosts", of("a", &[("host", "a"), ("host", "a")]), Refused),
        ("an empty host", of("a", &[("host", "")]), Refused),
        ("an empty authority", of("", &[]), Refused),
        ("a user", of("u@a", &[]), Refused),
        ("a bad port", of("a:b", &[]), Refused),
        ("port 65536", of("a:65536", &[]), Refused),
        ("an authority with a path", of("a/b", &[]), Refused),
        ("an authority with a space", of("a b", &[]), Refused),
        ("an authority with CRLF", of("a\r\nx: y", &[]), Refused),
        ("an authority with a comma", of("a,b", &[]), Refused),
        ("an authority in capitals with a dot", of("Shop.Example.", &[]), One(&["host: shop.example"])),
    ]
}

fn fields() -> Vec<Case> {
    let get = || Request::get(&[]);
    let post = |fields: &[(&'static str, &'static str)]| {
        let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/ok/h2"), (":authority", "a")];
        Request::of(&[&pseudo, fields].concat())
    };
    vec![
        ("connection", Request::get(&[("connection", "close")]), Refused),
        ("keep-alive", Request::get(&[("keep-alive", "timeout=5")]), Refused),
        ("proxy-connection", Request::get(&[("proxy-connection", "keep-alive")]), Refused),
        ("transfer-encoding", post(&[("transfer-encoding", "chunked")]).data("0\r\n\r\n"), Refused),
        ("upgrade", Request::get(&[("upgrade", "h2c")]), Refused),
        ("te trailers", Request::get(&[("te", "trailers")]), One(&["te: trailers"])),
        ("te gzip", Request::get(&[("te", "gzip")]), Refused),
        ("te trailers and gzip", Request::get(&[("te", "trailers, gzip")]), Refused),
        ("a name in capitals", Request::get(&[("X-A", "b")]), Refused),
        ("an empty name", Request::get(&[("", "b")]), Refused),
        ("a name with a space", Request::get(&[("x a", "b")]), Refused),
        ("a name with a colon", Request::get(&[("x:a", "b")]), Refused),
        ("a name with CRLF", Request::get(&[("x\r\ny", "b")]), Refused),
        ("a name with NUL", Request::get(&[("x\0", "b")]), Refused),
        ("a name that is not ASCII", get().field(b"\xe9", b"b"), Refused),
        ("a value with CRLF", Request::get(&[("x-a", "b\r\nc: d")]), Refused),
        ("a value with CR", Request::get(&[("x-a", "b\rc")]), Refused),
        ("a value with LF", Request::get(&[("x-a", "b\nc")]), Refused),
        ("a value with NUL", Request::get(&[("x-a", "b\0c")]), Refused),
        ("a value with a control character", get().field(b"x-a", b"b\x01c"), Refused),
        ("a value behind a space", Request::get(&[("x-a", " b")]), Refused),
        ("a value before a space", Request::get(&[("x-a", "b ")]), Refused),
        ("a value before a tab", Request::get(&[("x-a", "b\t")]), Refused),
        ("a name with an underscore", Request::get(&[("x_real_ip", "1")]), One(&["!x_real_ip"])),
        ("cookies in parts", Request::get(&[("cookie", "a=1"), ("cookie", "b=2")]), One(&["cookie: a=1; b=2"])),
        ("forwarded fields", Request::get(&[("x-forwarded-for", "9.9.9.9")]), One(&["x-forwarded-for: 127.0.0.1"])),
        (
            "120 fields",
            (0..120).fold(get(), |get, index| get.field(format!("x-{index}").as_bytes(), b"a")),
            Status(431),
        ),
        ("an unknown expectation", post(&[("expect", "y")]).data("hello"), Status(417)),
    ]
}

fn bodies() -> Vec<Case> {
    let post = |fields: &[(&'static str, &'static str)]| {
        let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/ok/h2"), (":authority", "a")];
        Request::of(&[&pseudo, fields].concat())
    };
    let smuggled = "0\r\n\r\nGET /ok/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    vec![
        ("a length", post(&[("content-length", "5")]).data("hello"), One(&["body=hello", "content-length: 5"])),
        ("no length", post(&[]).data("hello"), One(&["body=hello"])),
        ("a request in a body", post(&[]).data(smuggled), One(&["POST /ok/h2 HTTP/1.1"])),
        ("more than the length", post(&[("content-length", "4")]).data("hello"), Refused),
        ("less than the length", post(&[("content-length", "6")]).data("hello"), Refused),
        ("a length and nothing", post(&[("content-length", "5")]), Refused),
        ("length 0 and a body", post(&[("content-length", "0")]).data("hello"), Refused),
        ("two lengths that differ", post(&[("content-length", "5"), ("content-length", "6")]).data("hello"), Refused),
        ("a length with a sign", post(&[("content-length", "+5")]).data("hello"), Refused),
        ("an empty length", post(&[("content-length", "")]).data("hello"), Refused),
        ("a length beyond 64 bits", post(&[("content-length", "18446744073709551621")]).data("hello"), Refused),
        ("a pseudo field as trailer", post(&[]).data("hello").trailers(&[(":path", "/admin")]), Refused),
        ("a trailer with CRLF", post(&[]).data("hello").trailers(&[("x", "a\r\nb: c")]), Refused),
        ("a connection trailer", post(&[]).data("hello").trailers(&[("connection", "close")]), Refused),
        (
            "a host trailer",
            post(&[]).data("hello").trailers(&[("host", "b")]),
            One(&["body=hello", "host: a", "!trailer-host"]),
        ),
        (
            "a length trailer",
            post(&[]).data("hello").trailers(&[("content-length", "9")]),
            One(&["body=hello", "!trailer-content-length"]),
        ),
    ]
}

async fn try_case(bench: &Bench, request: &Request, want: &Want) -> Result<(), String> {
    let reply = send(bench.address, request).await;
    let seen = bench.recorder.settle().await?;
    if let Some(bad) = seen.iter().find(|seen| seen.wrong.is_some()) {
        return Err(format!("the backend got {:?}: {:?}", bad.wrong, bad.head));
    }
    let whole = seen.iter().find(|seen| seen.whole);
    match (want, reply) {
        (Refused, Reply::Status(400..=499 | 501) | Reply::Reset(_) | Reply::Gone(_) | Reply::Closed) => match whole {
            Some(whole) => Err(format!("{reply:?}, but the backend got all of {:?}", whole.head)),
            None => Ok(()),
        },
        (Status(status), Reply::Status(is)) if *status == is && seen.is_empty() => Ok(()),
        (One(properties), Reply::Status(200)) if seen.len() == 1 => {
            whole.ok_or_else(|| "the backend got no end".to_owned()).and_then(|whole| has_all(whole, properties))
        }
        _ => Err(format!("{reply:?}; the backend got {:?}", seen.iter().map(|seen| &seen.head).collect::<Vec<_>>())),
    }
}

#[tokio::test]
async fn malformed_requests_go_no_further() {
    let cases: Vec<Case> = [pseudo(), paths(), authorities(), fields(), bodies()].into_iter().flatten().collect();
    let mut wrong = Vec::new();
    for way in [Way::Direct, Way::Tunnel] {
        let bench = Bench::start(way == Way::Tunnel).await;
        for (name, request, want) in &cases {
            let result = try_case(&bench, request, want).await;
            wrong.extend(compare("h2", name, way, result));
        }
        bench.mesh.stop().await;
    }
    let names: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
    wrong.extend(unknown_gaps("h2", &names));
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), 2 * cases.len(), wrong.join("\n"));
}
