//! The connection to a pod, against a pod made of bytes.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::h1::{BodyError, Connection, Interim, SendFailure};

/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(10);

type NoBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError>;

fn no_body() -> NoBody {
    http_body_util::Empty::new().map_err(|never: std::convert::Infallible| match never {}).boxed_unsync()
}

fn head(method: Method) -> request::Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    (parts.method, parts.uri) = (method, "/x".parse().unwrap());
    parts
}

/// A pod that reads a request's head, says something, and closes or not.
fn pod(says: &'static [u8], closes: bool) -> (Connection<DuplexStream>, tokio::task::JoinHandle<Vec<u8>>) {
    let (near, mut far) = duplex(1 << 20);
    let task = tokio::spawn(async move {
        let mut read = vec![0; 4096];
        let length = far.read(&mut read).await.unwrap();
        far.write_all(says).await.unwrap();
        read.truncate(length);
        if !closes {
            let _ = far.read_to_end(&mut read).await;
        }
        read
    });
    (Connection::new(near), task)
}

/// The answer's status and body, and whether the connection may be used again.
async fn asked(
    method: Method,
    says: &'static [u8],
    closes: bool,
) -> Result<(u16, Result<String, String>, bool), SendFailure> {
    let (connection, task) = pod(says, closes);
    let answer = tokio::time::timeout(PATIENCE, connection.send(&head(method), no_body(), None)).await.unwrap();
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => return Err(failure),
    };
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let mut text = Ok(String::new());
    while let Some(frame) = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap() {
        match (frame, &mut text) {
            (Ok(frame), Ok(text)) => text.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default())),
            (Err(error), _) => {
                text = Err(error.to_string());
                break;
            }
            (Ok(_), Err(_)) => {}
        }
    }
    let idle = body.into_idle().is_some();
    drop(body);
    task.await.unwrap();
    Ok((status, text, idle))
}

#[tokio::test]
async fn answers_are_read_and_connections_kept_where_that_is_safe() {
    type Case = (Method, &'static [u8], bool, (u16, &'static str, bool));
    let cases: [Case; 13] = [
        (Method::GET, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, (200, "ok", true)),
        (Method::GET, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, (200, "", true)),
        (
            Method::GET,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            false,
            (200, "ok", true),
        ),
        (
            Method::GET,
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            false,
            (200, "ok", false),
        ),
        (Method::GET, b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, (200, "ok", false)),
        (
            Method::GET,
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            false,
            (200, "ok", true),
        ),
        (Method::GET, b"HTTP/1.1 200 OK\r\n\r\nok", true, (200, "ok", false)),
        // More than was asked for: never used again.
        (
            Method::GET,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
            false,
            (200, "ok", false),
        ),
        (Method::HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, (200, "", false)),
        (Method::HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false, (200, "", true)),
        (Method::GET, b"HTTP/1.1 204 No Content\r\n\r\nbody", false, (204, "", false)),
        (Method::GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, (304, "", true)),
        (
            Method::GET,
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            false,
            (200, "ok", true),
        ),
    ];
    for (method, says, closes, (status, body, idle)) in cases {
        let said = String::from_utf8_lossy(says);
        assert_eq!(asked(method, says, closes).await.unwrap(), (status, Ok(body.to_owned()), idle), "{said}");
    }
}

#[tokio::test]
async fn framing_that_two_could_read_differently_is_not_read_at_all() {
    for says in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(asked(Method::GET, says, false).await.unwrap(), (200, Ok(String::new()), false));
    }
}

#[tokio::test]
async fn answers_that_break_off_are_errors() {
    for says in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    ] {
        let (status, body, idle) = asked(Method::GET, says, true).await.unwrap();
        assert!(status == 200 && body.is_err() && !idle, "{body:?}");
    }
}

#[tokio::test]
async fn failures_say_what_was_sent_and_heard() {
    let failure = asked(Method::GET, b"", true).await.unwrap_err();
    assert!(failure.written && !failure.heard);
    for says in [b"HTTP/1.1 200 OK\r\nA: b\n\r\n".as_slice(), b"HTTP/1.1 2", b"what?\r\n\r\n"] {
        let failure = asked(Method::GET, says, true).await.unwrap_err();
        assert!(failure.written && failure.heard);
    }
    let (near, far) = duplex(64);
    drop(far);
    let failure = Connection::new(near).send(&head(Method::GET), no_body(), None).await.map(|_| ()).unwrap_err();
    assert!(!failure.written && !failure.heard);
}

#[tokio::test]
async fn interim_answers_are_passed_on_up_to_a_limit() {
    let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let says: &'static [u8] =
        [early.repeat(20).as_slice(), b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n"].concat().leak();
    let (connection, _task) = pod(says, false);
    let interim = Interim::default();
    interim.begin();
    let answer = connection.send(&head(Method::GET), no_body(), Some(&interim)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let passed: Vec<_> = std::iter::from_fn(|| interim.take()).collect();
    assert_eq!(passed.len(), crate::relay::MAX_INTERIM);
    assert!(passed.iter().all(|(status, fields)| status.as_u16() == 103 && fields["link"] == "</a>"));
}

#[tokio::test]
async fn an_answer_that_comes_early_does_not_stop_the_upload() {
    let (near, mut far) = duplex(1024);
    let (feed, body) = tokio::sync::mpsc::channel::<Bytes>(4);
    let stream = futures_util::stream::unfold(body, |mut body| async move {
        let data = body.recv().await?;
        Some((Ok::<_, BodyError>(Frame::data(data)), body))
    });
    let pod = tokio::spawn(async move {
        let mut read = vec![0; 1024];
        let length = far.read(&mut read).await.unwrap();
        assert!(length > 0);
        far.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await.unwrap();
        let mut all = String::new();
        while !all.ends_with("0\r\n\r\n") {
            let length = far.read(&mut read).await.unwrap();
            all.push_str(&String::from_utf8_lossy(&read[..length]));
        }
        far.write_all(b"0\r\n\r\n").await.unwrap();
        (all, far)
    });
    let head = head(Method::POST);
    let send = Connection::new(near).send(&head, Box::pin(StreamBody::new(stream)), None);
    let answer = tokio::time::timeout(PATIENCE, send).await.unwrap().unwrap();
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
    feed.send(Bytes::from_static(b"late")).await.unwrap();
    drop(feed);
    assert!(tokio::time::timeout(PATIENCE, body.frame()).await.unwrap().is_none());
    assert!(body.into_idle().is_some(), "all was sent and all was read");
    assert!(pod.await.unwrap().0.contains("4\r\nlate\r\n"));
}
