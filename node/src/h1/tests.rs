//! Unit tests of the codec: tables of what is accepted and what is not, and that it does not
//! matter how bytes are split into reads.

mod client;
mod upgrade;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_body::Frame;
use proptest::prelude::*;

use super::decode::{BadBody, Decoded, Decoder};
use super::encode::{self, Wire};
use super::framing::{self, Framing};
use super::head::{self, Scan};
use super::out::Out;
use super::{MAX_EXTENSIONS, MAX_FIELDS, MAX_HEAD, MAX_TARGET, MAX_TRAILERS};

/// The status that a head is refused with, or what it says.
fn parsed(bytes: &[u8]) -> Result<Option<String>, (u16, &'static str)> {
    match head::take_request(&mut Scan::default(), &mut BytesMut::from(bytes)) {
        Ok(parts) => Ok(parts.map(|parts| format!("{} {} {:?}", parts.method, parts.uri, parts.version))),
        Err(refused) => Err((refused.status.as_u16(), refused.reason)),
    }
}

#[test]
fn heads_are_parsed() {
    for (bytes, said) in [
        ("GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1"),
        ("\r\n\r\nGET /a?b=c HTTP/1.0\r\nA:b\r\n\r\n", "GET /a?b=c HTTP/1.0"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1"),
        ("GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\nrest", "GET http://a/b HTTP/1.1"),
        ("M-SEARCH / HTTP/1.1\r\nX: \t obs\x7e \t \r\nEmpty:\r\n\r\n", "M-SEARCH / HTTP/1.1"),
    ] {
        assert_eq!(parsed(bytes.as_bytes()), Ok(Some(said.to_owned())), "{bytes:?}");
    }
    for partial in ["", "\r", "\r\n", "GET", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nA: b\r\n\r"] {
        assert_eq!(parsed(partial.as_bytes()), Ok(None), "{partial:?}");
    }
}

#[test]
fn what_is_no_head_is_refused() {
    let with = |field: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
    for (bytes, status, reason) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned(), 400, "head_bare_lf"),
        ("\nGET / HTTP/1.1\r\n\r\n".to_owned(), 400, "head_bare_lf"),
        (with("A: b\nC: d"), 400, "head_bare_lf"),
        (with("A: b\rC: d"), 400, "field_value_bad"),
        (with("A: b\0c"), 400, "field_value_bad"),
        (with("A: b\x01c"), 400, "field_value_bad"),
        (with("A : b"), 400, "field_name_bad"),
        (with("A\t: b"), 400, "field_name_bad"),
        (with(": b"), 400, "field_name_bad"),
        (with("Ä: b"), 400, "field_name_bad"),
        (with("no colon"), 400, "field_name_bad"),
        (with("A: b\r\n folded"), 400, "field_name_bad"),
        (with("A: b\r\n\tfolded"), 400, "field_name_bad"),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(), 400, "field_name_bad"),
        ("GET /\r\n\r\n".to_owned(), 400, "request_line_bad"),
        ("GET /a#b HTTP/1.1\r\n\r\n".to_owned(), 400, "target_bad"),
        ("GET /a\r HTTP/1.1\r\n\r\n".to_owned(), 400, "request_line_bad"),
        ("GET / HTTP/0.9\r\n\r\n".to_owned(), 505, "version_unknown"),
        ("GET / HTTP/1.2\r\n\r\n".to_owned(), 505, "version_unknown"),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505, "version_unknown"),
        ("GET / HTTP/11\r\n\r\n".to_owned(), 400, "request_line_bad"),
        ("GET / http/1.1\r\n\r\n".to_owned(), 400, "request_line_bad"),
        ("GET  / HTTP/1.1\r\n\r\n".to_owned(), 400, "request_line_bad"),
        ("GET / HTTP/1.1 \r\n\r\n".to_owned(), 400, "request_line_bad"),
        ("GET\t/ HTTP/1.1\r\n\r\n".to_owned(), 400, "request_line_bad"),
        ("G(T / HTTP/1.1\r\n\r\n".to_owned(), 400, "request_line_bad"),
        (" GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "request_line_bad"),
        ("\x16\x03\x01\x02".to_owned(), 400, "request_line_bad"),
        ("GET a\\b HTTP/1.1\r\n\r\n".to_owned(), 400, "target_bad"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_TARGET)), 414, "target_too_long"),
        (format!("GET /{}", "a".repeat(MAX_TARGET + 64)), 414, "target_too_long"),
        (with(&"A: b\r\n".repeat(MAX_FIELDS)), 431, "headers_too_large"),
        (with(&format!("A: {}", "b".repeat(MAX_HEAD))), 431, "headers_too_large"),
        (format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(MAX_HEAD)), 431, "headers_too_large"),
    ] {
        let shown = bytes.get(..bytes.len().min(60));
        assert_eq!(parsed(bytes.as_bytes()), Err((status, reason)), "{shown:?}");
    }
    assert!(parsed(with(&"A: b\r\n".repeat(MAX_FIELDS - 2)).trim_end().as_bytes()).is_ok(), "99 fields");
}

#[test]
fn response_heads_are_as_strict() {
    let head = |text: &'static str| head::response(Bytes::from_static(text.as_bytes()));
    let parts = head("HTTP/1.0 404 Not here\r\nA: b\r\n\r\n").unwrap();
    assert_eq!((parts.status, parts.version), (StatusCode::NOT_FOUND, Version::HTTP_10));
    assert_eq!(head("HTTP/1.1 200\r\n\r\n").unwrap().status, StatusCode::OK);
    for bad in [
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
    ] {
        assert!(head(bad).is_none(), "{bad:?}");
    }
}

fn fields(list: &[(&'static str, &'static str)]) -> HeaderMap {
    list.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

fn appended(list: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn framing_is_never_guessed() {
    let (te, cl) = ("transfer-encoding", "content-length");
    let of = |list: &[_]| framing::of_request(Version::HTTP_11, &appended(list));
    assert_eq!(of(&[]), Framing::None);
    assert_eq!(of(&[(cl, "0")]), Framing::None);
    assert_eq!(of(&[(cl, "7")]), Framing::Length(7));
    assert_eq!(of(&[(cl, "7"), (cl, "7")]), Framing::Length(7));
    assert_eq!(of(&[(te, "Chunked")]), Framing::Chunked);
    for unknown in [
        [(cl, "7"), (cl, "8")].as_slice(),
        &[(cl, "+7")],
        &[(cl, "0x7")],
        &[(cl, "")],
        &[(cl, "1, 1")],
        &[(cl, "18446744073709551616")],
        &[(te, "chunked"), (cl, "7")],
        &[(te, "gzip, chunked")],
        &[(te, "chunked"), (te, "chunked")],
        &[(te, "xchunked")],
    ] {
        assert_eq!(of(unknown), Framing::Unknown, "{unknown:?}");
        let answer = framing::of_response(&Method::GET, StatusCode::OK, Version::HTTP_11, &appended(unknown));
        assert_eq!(answer, Framing::Unknown, "{unknown:?}");
        let head = framing::of_response(&Method::HEAD, StatusCode::OK, Version::HTTP_11, &appended(unknown));
        assert_eq!(head, Framing::None);
    }
    assert_eq!(framing::of_request(Version::HTTP_10, &fields(&[(te, "chunked")])), Framing::Unknown);
    let answer = |status| framing::of_response(&Method::GET, status, Version::HTTP_11, &fields(&[]));
    assert_eq!(answer(StatusCode::OK), Framing::UntilClose);
    assert_eq!(answer(StatusCode::NO_CONTENT), Framing::None);
    assert_eq!(answer(StatusCode::NOT_MODIFIED), Framing::None);
}

#[test]
fn connections_live_as_long_as_the_head_says() {
    let keeps = |version, list: &[_]| framing::keeps_alive(version, &fields(list));
    assert!(keeps(Version::HTTP_11, &[]) && !keeps(Version::HTTP_10, &[]));
    assert!(!keeps(Version::HTTP_11, &[("connection", "x, Close")]));
    assert!(keeps(Version::HTTP_10, &[("connection", "Keep-Alive")]));
    assert!(!keeps(Version::HTTP_10, &[("connection", "keep-alive, close")]));
}

/// The data, the trailers, what is left.
type Body = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

/// Decodes what comes in pieces.
fn decoded(framing: Framing, pieces: &[&[u8]]) -> Result<Body, BadBody> {
    let mut decoder = Decoder::new(framing);
    let (mut input, mut data, mut trailers) = (BytesMut::new(), Vec::new(), None);
    let mut pieces = pieces.iter();
    loop {
        match decoder.decode(&mut input)? {
            Decoded::End => {
                return Ok((data, trailers, [&input[..], &pieces.copied().collect::<Vec<_>>().concat()].concat()));
            }
            Decoded::Frame(frame) => match frame.into_data() {
                Ok(bytes) => data.extend_from_slice(&bytes),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            Decoded::More => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => decoder.end_of_input()?,
            },
        }
    }
}

#[test]
fn bodies_are_decoded() {
    let (data, trailers, rest) =
        decoded(Framing::Chunked, &[b"5;ext=\"a b\"\r\nhello\r\n00a\r\n0123456789\r\n0\r\nX-Sum: 7\r\n\r\nGET"])
            .unwrap();
    assert_eq!((data.as_slice(), rest.as_slice()), (b"hello0123456789".as_slice(), b"GET".as_slice()));
    assert_eq!(trailers.unwrap()["x-sum"], "7");
    assert_eq!(decoded(Framing::Chunked, &[b"0\r\n\r\nrest"]).unwrap().2, b"rest");
    assert_eq!(decoded(Framing::Length(3), &[b"abcdef"]).unwrap(), (b"abc".to_vec(), None, b"def".to_vec()));
    assert_eq!(decoded(Framing::UntilClose, &[b"abc", b"def"]).unwrap().0, b"abcdef");
}

#[test]
fn bodies_that_could_be_read_two_ways_are_refused() {
    let long = |text: &str, times: usize| text.repeat(times).into_bytes();
    for (body, error) in [
        (b"0x5\r\nhello\r\n".to_vec(), BadBody::Size),
        (b"+5\r\nhello\r\n".to_vec(), BadBody::Size),
        (b"-5\r\nhello\r\n".to_vec(), BadBody::Size),
        (b"5_\r\nhello\r\n".to_vec(), BadBody::Size),
        (b" 5\r\nhello\r\n".to_vec(), BadBody::Size),
        (b"5 \r\nhello\r\n".to_vec(), BadBody::Size),
        (b"\r\nhello\r\n".to_vec(), BadBody::Size),
        (b"ZZ\r\n".to_vec(), BadBody::Size),
        (b"5\nhello\r\n".to_vec(), BadBody::Size),
        (b"5;a\nhello\r\n".to_vec(), BadBody::Size),
        (b"5;a\rb\r\nhello\r\n".to_vec(), BadBody::Extension),
        (b"5;a\0\r\nhello\r\n".to_vec(), BadBody::Extension),
        (b"5\r\nhelloX".to_vec(), BadBody::ChunkEnd),
        (b"5\r\nhello\n".to_vec(), BadBody::ChunkEnd),
        (b"5\r\nhello\rX".to_vec(), BadBody::ChunkEnd),
        (b"10000000000000000\r\n".to_vec(), BadBody::Size),
        (long("0", 40), BadBody::Size),
        (["5;".as_bytes(), &long("a", MAX_EXTENSIONS)].concat(), BadBody::Extension),
        (long("1;aaaaaaaaaaaaaa\r\nx\r\n", MAX_EXTENSIONS / 15 + 1), BadBody::Extension),
        (b"0\r\nA: b\n\r\n".to_vec(), BadBody::Trailers),
        (b"0\r\nA : b\r\n\r\n".to_vec(), BadBody::Trailers),
        (["0\r\nA: ".as_bytes(), &long("b", MAX_TRAILERS)].concat(), BadBody::Trailers),
        (b"5\r\nhell".to_vec(), BadBody::Short),
        (b"5\r\nhello\r\n".to_vec(), BadBody::Short),
        (b"0\r\n".to_vec(), BadBody::Short),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(decoded(Framing::Chunked, &[&body]).map(|_| ()), Err(error), "{shown:?}");
    }
    assert_eq!(decoded(Framing::Length(5), &[b"hell"]).map(|_| ()), Err(BadBody::Short));
}

/// All that waits, as one string.
fn written(out: &mut Out) -> String {
    use futures_util::FutureExt;
    let mut bytes = Vec::new();
    std::future::poll_fn(|cx| out.poll_write(&mut bytes, cx)).now_or_never().unwrap().unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn answers_are_framed_by_what_is_known() {
    let answer = |status: u16, list: &[_], exact, version, method: Method| {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(status).unwrap();
        parts.headers = fields(list);
        parts.headers.insert(header::DATE, HeaderValue::from_static("now"));
        let (mut out, mut wire) = (Out::default(), Wire { method, version, keep: true });
        let mut encoder = encode::response(&parts, false, exact, &mut wire, &mut out);
        if !encoder.is_full() {
            encoder.frame(Frame::data(Bytes::from_static(b"abc")), &mut out).unwrap();
            encoder.end(&mut out).unwrap();
        }
        (written(&mut out).replace("date: now\r\n", ""), wire.keep)
    };
    let (v0, v1) = (Version::HTTP_10, Version::HTTP_11);
    for (status, list, exact, version, method, said, keep) in [
        (
            200,
            [("content-length", "3")].as_slice(),
            None,
            v1,
            Method::GET,
            "200 OK\r\ncontent-length: 3\r\n\r\nabc",
            true,
        ),
        (200, &[], Some(3), v1, Method::GET, "200 OK\r\ncontent-length: 3\r\n\r\nabc", true),
        (200, &[], None, v1, Method::GET, "200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", true),
        (200, &[], None, v0, Method::GET, "200 OK\r\nconnection: close\r\n\r\nabc", false),
        (200, &[], Some(3), v0, Method::GET, "200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\nabc", true),
        (200, &[("content-length", "9")], None, v1, Method::HEAD, "200 OK\r\ncontent-length: 9\r\n\r\n", true),
        (204, &[], None, v1, Method::GET, "204 No Content\r\n\r\n", true),
        (204, &[("content-length", "0")], None, v1, Method::GET, "204 No Content\r\n\r\n", true),
        (304, &[("content-length", "9")], None, v1, Method::GET, "304 Not Modified\r\ncontent-length: 9\r\n\r\n", true),
        (
            200,
            &[("connection", "x"), ("transfer-encoding", "x")],
            Some(3),
            v1,
            Method::GET,
            "200 OK\r\ncontent-length: 3\r\n\r\nabc",
            true,
        ),
        (
            101,
            &[("upgrade", "x")],
            None,
            v1,
            Method::GET,
            "101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            true,
        ),
    ] {
        assert_eq!(answer(status, list, exact, version, method), (format!("HTTP/1.1 {said}"), keep));
    }
}

#[test]
fn bodies_keep_to_their_length() {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("3"));
    let mut out = Out::default();
    let mut encoder = encode::request(&parts, false, None, &mut out);
    assert!(encoder.end(&mut out).is_err(), "too short");
    assert!(encoder.frame(Frame::data(Bytes::from_static(b"abcd")), &mut out).is_err(), "too long");
}

#[test]
fn requests_say_what_frames_them() {
    let request = |method: Method, empty, exact| {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        (parts.method, parts.uri) = (method, "/a?b".parse().unwrap());
        let mut out = Out::default();
        encode::request(&parts, empty, exact, &mut out);
        written(&mut out)
    };
    assert_eq!(request(Method::GET, true, Some(0)), "GET /a?b HTTP/1.1\r\n\r\n");
    assert_eq!(request(Method::POST, true, Some(0)), "POST /a?b HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(request(Method::POST, false, Some(12)), "POST /a?b HTTP/1.1\r\ncontent-length: 12\r\n\r\n");
    assert_eq!(request(Method::GET, false, None), "GET /a?b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
}

/// Splits bytes at places.
fn split<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn head_in_pieces(pieces: &[&[u8]]) -> Result<Option<(String, HeaderMap, Vec<u8>)>, u16> {
    let (mut scan, mut input) = (Scan::default(), BytesMut::new());
    for (index, piece) in pieces.iter().enumerate() {
        input.extend_from_slice(piece);
        match head::take_request(&mut scan, &mut input) {
            Ok(None) => {}
            Ok(Some(parts)) => {
                let rest = [&input[..], &pieces[index + 1..].concat()].concat();
                return Ok(Some((format!("{} {} {:?}", parts.method, parts.uri, parts.version), parts.headers, rest)));
            }
            Err(refused) => return Err(refused.status.as_u16()),
        }
    }
    Ok(None)
}

/// Pieces of heads and of bodies, so that what is put together is nearly valid.
fn text() -> impl Strategy<Value = Vec<u8>> {
    const TOKENS: &[&str] = &[
        "GET ",
        "/a",
        " HTTP/1.1",
        "\r\n",
        "\r\n",
        "\r\n\r\n",
        "Host: a",
        "A",
        ": ",
        "b",
        "\n",
        "\r",
        " ",
        ":",
        "0",
        "5",
        ";x",
        "hello",
        "\0",
        "\u{ff}",
    ];
    proptest::collection::vec(proptest::sample::select(TOKENS), 0..24).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #[test]
    fn a_head_is_the_same_however_it_is_read(
        text in text(), valid in any::<bool>(), places in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        let bytes = if valid { [b"GET /a HTTP/1.1\r\nHost: a\r\n", text.as_slice()].concat() } else { text };
        prop_assert_eq!(head_in_pieces(&split(&bytes, &places)), head_in_pieces(&[&bytes]));
    }

    #[test]
    fn a_body_is_the_same_however_it_is_read(
        text in text(), chunks in proptest::collection::vec(1_usize..40, 0..4), end in any::<bool>(),
        places in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        for size in chunks {
            bytes.extend_from_slice(format!("{size:x}\r\n{}\r\n", "x".repeat(size)).as_bytes());
        }
        if end {
            bytes.extend_from_slice(b"0\r\nA: b\r\n\r\n");
        }
        bytes.extend_from_slice(&text);
        let (whole, pieces) = (decoded(Framing::Chunked, &[&bytes]), decoded(Framing::Chunked, &split(&bytes, &places)));
        // What is wrong is noticed as soon as it is there, so that two flaws may change places.
        prop_assert_eq!(whole.clone().ok(), pieces.clone().ok(), "{:?} {:?}", whole, pieces);
    }
}
