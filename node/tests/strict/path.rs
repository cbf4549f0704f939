//! What is matched is what is forwarded (RFC 3986 6.2.2).

use crate::run::{Want, case, run};
use Want::{One, Refused};

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

const BAD: Want = Refused(&[400]);
const NONE: Want = Refused(&[404]);
/// It went by the rule of `/admin`, as `/admin/x`.
const ADMIN: Want = One(&["GET /admin/x HTTP/1.1", "x-rule: admin"]);

#[tokio::test]
async fn paths_have_one_reading() {
    let cases = vec![
        case("plain", get("/ok/x"), One(&["GET /ok/x HTTP/1.1", "!x-rule"])),
        case("dot segments", get("/ok/../admin/x"), ADMIN),
        case("escaped dot segments", get("/ok/%2e%2e/admin/x"), ADMIN),
        case("half escaped dot segments", get("/ok/.%2E/admin/x"), ADMIN),
        case("single dots", get("/./admin/./x"), ADMIN),
        case("escaped letters", get("/%61dmin/x"), ADMIN),
        case("escaped letters in capitals", get("/%41dmin/x"), NONE),
        case("other letters", get("/ADMIN/x"), NONE),
        case("above the root", get("/../admin/x"), BAD),
        case("above the root, escaped", get("/%2e%2e/admin/x"), BAD),
        case("far above the root", get("/ok/../../admin/x"), BAD),
        case("parameters behind dots", get("/ok/..;/admin/x"), BAD),
        case("an escaped slash behind dots", get("/ok/..%2fadmin/x"), BAD),
        case("an escaped slash before dots", get("/ok/a%2f../admin/x"), BAD),
        case("an escaped slash", get("/ok%2fx"), NONE),
        case("an escaped slash in a segment", get("/ok/a%2fb"), One(&["GET /ok/a%2Fb HTTP/1.1"])),
        case("twice escaped", get("/ok/%252e%252e/admin"), One(&["GET /ok/%252e%252e/admin HTTP/1.1", "!x-rule"])),
        case("a backslash", get("/ok/..\\admin/x"), BAD),
        case("an escaped backslash", get("/ok/..%5cadmin/x"), BAD),
        case("NUL", get("/ok/%00"), BAD),
        case("escaped CRLF", get("/ok/%0d%0aX:y"), BAD),
        case("a bad escape", get("/ok/%zz"), BAD),
        case("half an escape", get("/ok/%2"), BAD),
        case("a lone percent sign", get("/ok/%"), BAD),
        case("an overlong dot", get("/ok/%c0%ae%c0%ae/admin"), BAD),
        case("an overlong slash", get("/ok/%c0%afadmin"), BAD),
        case("bytes that are not ASCII", get("/ok/\u{e9}"), BAD),
        case("escaped UTF-8", get("/ok/caf%c3%a9"), One(&["GET /ok/caf%C3%A9 HTTP/1.1"])),
        case("two slashes", get("/ok//x"), One(&["GET /ok//x HTTP/1.1"])),
        case("two slashes before the rule", get("//admin/x"), NONE),
        case("a segment that only begins so", get("/okay"), NONE),
        case("dots that only begin so", get("/ok/...x"), One(&["GET /ok/...x HTTP/1.1"])),
        case("parameters", get("/ok;a=b/x"), NONE),
        case("a rewrite", get("/api/x?q=/../admin"), One(&["GET /v1/x?q=/../admin HTTP/1.1"])),
        case("a rewrite and dots", get("/api/../admin/x"), ADMIN),
        case("a rewrite and dots behind", get("/api/x/../y"), One(&["GET /v1/y HTTP/1.1"])),
        case("a rewrite without a slash", get("/api../x"), NONE),
        case("a rewrite and escaped dots", get("/api%2e%2e/x"), NONE),
        case("a rewrite of a longer segment", get("/apix"), NONE),
        case("a query that looks like a path", get("/ok?/../admin"), One(&["GET /ok?/../admin HTTP/1.1", "!x-rule"])),
        case("a query of bytes that are not ASCII", get("/ok?\u{e9}"), BAD),
        case("absolute without a path", "GET http://a?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", One(&["GET /?x=1 HTTP/1.1"])),
        case("absolute without path and query", "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", One(&["GET / HTTP/1.1"])),
        case("a redirect and CRLF", get("/moved/%0d%0aSet-Cookie:x"), BAD),
    ];
    run("path", cases).await;
}
