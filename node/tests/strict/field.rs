//! Field lines (RFC 9112 5, RFC 9110 5).

use crate::run::{Case, Want, case, run};
use Want::{Closed, One};

const BAD: Want = Closed(&[400]);

fn get(fields: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /ok/f HTTP/1.1\r\nHost: a\r\n".as_slice(), fields.as_ref(), b"\r\n"].concat()
}

fn syntax() -> Vec<Case> {
    vec![
        case("no colon", get("abc\r\n"), BAD),
        case("no name", get(": b\r\n"), BAD),
        case("a space before the colon", get("a : b\r\n"), BAD),
        case("a tab before the colon", get("a\t: b\r\n"), BAD),
        case("a space in the name", get("a b: c\r\n"), BAD),
        case("a space before the first name", "GET /ok/f HTTP/1.1\r\n Host: a\r\n\r\n", BAD),
        case("folded by a space", get("a: b\r\n c\r\n"), BAD),
        case("folded by a tab", get("a: b\r\n\tc\r\n"), BAD),
        case("a bare LF", get("a: b\nc: d\r\n"), BAD),
        case("a head of bare LFs", "GET /ok/f HTTP/1.1\nHost: a\n\n", BAD),
        case("an end of a bare LF", "GET /ok/f HTTP/1.1\r\nHost: a\r\n\n", BAD),
        case("a bare CR in a value", get("a: b\rc\r\n"), BAD),
        case("a bare CR in a name", get("a\rb: c\r\n"), BAD),
        case("CR CR LF", get("a: b\r\r\n"), BAD),
        case("NUL in a value", get("a: b\0c\r\n"), BAD),
        case("NUL in a name", get("a\0b: c\r\n"), BAD),
        case("a control character in a value", get("a: b\x01c\r\n"), BAD),
        case("DEL in a value", get("a: b\x7fc\r\n"), BAD),
        case("a colon in brackets", get("(a): b\r\n"), BAD),
        case("a name that is not ASCII", get(b"\xe9: b\r\n"), BAD),
        case("a quoted name", get("\"a\": b\r\n"), BAD),
        case("a slash in a name", get("a/b: c\r\n"), BAD),
        case("an empty value", get("x-a:\r\n"), One(&["GET /ok/f HTTP/1.1", "x-a: "])),
        case("blanks around a value", get("x-a: \t b \t\r\n"), One(&["x-a: b"])),
        case("no blank before a value", get("x-a:b\r\n"), One(&["x-a: b"])),
        case("a token of odd characters", get("x-!#$%&'*+.^`|~9: b\r\n"), One(&["x-!#$%&'*+.^`|~9: b"])),
        case("an underscore", get("x_real_ip: 1.2.3.4\r\n"), One(&["!x_real_ip"])),
        case("two fields of a name", get("x-a: b\r\nx-c: d\r\nx-a: e\r\n"), One(&["x-c: d"])),
    ]
}

fn limits() -> Vec<Case> {
    let many = |count: usize| get((0..count).map(|index| format!("x-{index}: a\r\n")).collect::<String>());
    let long = |length: usize| get(format!("x-a: {}\r\n", "b".repeat(length)));
    let too_large = Closed(&[431]);
    vec![
        case("60 fields", many(60), One(&["x-59: a"])),
        case("200 fields", many(200), too_large.clone()),
        case("5000 fields", many(5000), too_large.clone()),
        case("a field of 16 KiB", long(16 * 1024), One(&["GET /ok/f HTTP/1.1"])),
        case("a field of 128 KiB", long(128 * 1024), too_large.clone()),
        case("a name of 128 KiB", get(format!("{}: b\r\n", "a".repeat(128 * 1024))), too_large),
    ]
}

#[tokio::test]
async fn fields_have_one_reading() {
    run("field", [syntax(), limits()].into_iter().flatten().collect()).await;
}
