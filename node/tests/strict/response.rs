//! What a backend must not be able to do to clients: framing of responses, and connections that
//! are used again (RFC 9112 6.3 and 9.2, RFC 9110 15.2).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshgate_core::snapshot::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::exchange::{Outcome, exchange};
use crate::run::{Bench, Way, compare, unknown_gaps};

/// What the backend's second answer on a connection says, which no client asked for.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// What must come of an answer.
#[derive(Clone, Debug)]
enum Want {
    /// 502, and the backend's connection is not used again.
    Bad,
    /// The connection to the client ends within the answer: its body does not end.
    Broken,
    /// 502, or as [`Want::Broken`]: what was wrong came late.
    BadOrBroken,
    /// This status and body; the backend's connection is used again.
    Good(u16, &'static str),
    /// The same, and the backend's connection is not used again.
    GoodThenGone(u16, &'static str),
}

struct Case {
    name: &'static str,
    method: &'static str,
    answer: Vec<u8>,
    /// The backend closes behind its answer.
    closes: bool,
    want: Want,
}

fn keeps(name: &'static str, answer: impl AsRef<[u8]>, want: Want) -> Case {
    Case { name, method: "GET", answer: answer.as_ref().to_vec(), closes: false, want }
}

fn closes(name: &'static str, answer: impl AsRef<[u8]>, want: Want) -> Case {
    Case { closes: true, ..keeps(name, answer, want) }
}

/// Answers the first request on its first connection with the case, all else with `clean`.
struct Hostile {
    address: SocketAddr,
    /// Requests on the connection that got the case.
    used: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Hostile {
    async fn start(case: &Case) -> Hostile {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let used = Arc::new(AtomicUsize::new(0));
        let (counted, answer, closes) = (Arc::clone(&used), case.answer.clone(), case.closes);
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            for index in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let first = (index == 0).then(|| (answer.clone(), closes, Arc::clone(&counted)));
                open.spawn(serve(stream, first));
            }
        });
        Hostile { address, used, task }
    }
}

type First = Option<(Vec<u8>, bool, Arc<AtomicUsize>)>;

async fn serve(mut stream: TcpStream, first: First) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let mut served = 0;
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.clear();
        served += 1;
        if let Some((answer, closes, used)) = &first {
            used.fetch_add(1, Ordering::SeqCst);
            if served == 1 {
                stream.write_all(answer).await?;
                if *closes {
                    return Ok(());
                }
                continue;
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nclean").await?;
    }
}

fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")
}

fn framing() -> Vec<Case> {
    use Want::{Bad, BadOrBroken, Broken, Good, GoodThenGone};
    vec![
        keeps("a length", ok("Content-Length: 2\r\n", "ok"), Good(200, "ok")),
        keeps("chunks", ok("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"), Good(200, "ok")),
        closes("up to the end", ok("", "ok"), GoodThenGone(200, "ok")),
        closes("HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nok", GoodThenGone(200, "ok")),
        keeps("Connection close", ok("Content-Length: 2\r\nConnection: close\r\n", "ok"), GoodThenGone(200, "ok")),
        keeps("CL and TE", ok("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"), Bad),
        keeps("TE and CL", ok("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "2\r\nok\r\n0\r\n\r\n"), Bad),
        keeps("two CLs that differ", ok("Content-Length: 2\r\nContent-Length: 3\r\n", "ok!"), Bad),
        keeps("a bad CL", ok("Content-Length: +2\r\n", "ok"), Bad),
        keeps("an empty CL", ok("Content-Length:\r\n", "ok"), Bad),
        keeps("a CL beyond 64 bits", ok("Content-Length: 18446744073709551618\r\n", "ok"), Bad),
        keeps("TE gzip", ok("Transfer-Encoding: gzip\r\n", "ok"), Bad),
        keeps("TE gzip, chunked", ok("Transfer-Encoding: gzip, chunked\r\n", "2\r\nok\r\n0\r\n\r\n"), Bad),
        keeps(
            "TE chunked twice",
            ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
            Bad,
        ),
        keeps("TE in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Bad),
        closes("an early end of a length", ok("Content-Length: 20\r\n", "ok"), Broken),
        closes("an early end of chunks", ok("Transfer-Encoding: chunked\r\n", "5\r\nok"), BadOrBroken),
        keeps(
            "a chunk beyond 64 bits",
            ok("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\nok\r\n0\r\n\r\n"),
            BadOrBroken,
        ),
        keeps("a bad chunk", ok("Transfer-Encoding: chunked\r\n", "2\r\nok\r\nzz\r\n"), BadOrBroken),
        closes("an early end of the head", "HTTP/1.1 200 OK\r\nContent-Le", Bad),
        closes("nothing", "", Bad),
    ]
}

fn syntax() -> Vec<Case> {
    use Want::{Bad, Good};
    let storm = "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000);
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    vec![
        keeps("bare LFs", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Bad),
        keeps("a bare LF between fields", ok("X: y\nContent-Length: 2\r\n", "ok"), Bad),
        keeps("a bare CR in a value", ok("X: y\rz\r\nContent-Length: 2\r\n", "ok"), Bad),
        keeps("NUL in a value", ok("X: y\0z\r\nContent-Length: 2\r\n", "ok"), Bad),
        keeps("a space before a colon", ok("Content-Length : 2\r\n", "ok"), Bad),
        keeps("a folded line", ok("X: y\r\n z\r\nContent-Length: 2\r\n", "ok"), Bad),
        keeps("no colon", ok("X\r\nContent-Length: 2\r\n", "ok"), Bad),
        keeps("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", Bad),
        keeps("status 99", "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok", Bad),
        keeps("another protocol", "SSH-2.0-OpenSSH_9.6\r\n\r\n", Bad),
        keeps("HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Bad),
        keeps("a field of 1 MiB", ok(&format!("X: {}\r\nContent-Length: 2\r\n", "y".repeat(1 << 20)), "ok"), Bad),
        keeps("1000 fields", ok(&format!("{}Content-Length: 2\r\n", "X: y\r\n".repeat(1000)), "ok"), Bad),
        keeps("a 100", format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok("Content-Length: 2\r\n", "ok")), Good(200, "ok")),
        keeps("a 103", format!("{hints}{}", ok("Content-Length: 2\r\n", "ok")), Good(200, "ok")),
        keeps("10000 times 100", format!("{storm}{}", ok("Content-Length: 2\r\n", "ok")), Bad),
        keeps(
            "a 101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw",
            Bad,
        ),
    ]
}

fn surplus() -> Vec<Case> {
    use Want::GoodThenGone;
    let head = |answer: String| Case { method: "HEAD", ..keeps("a body for HEAD", answer, GoodThenGone(200, "")) };
    vec![
        keeps("two answers", format!("{}{POISON}", ok("Content-Length: 2\r\n", "ok")), GoodThenGone(200, "ok")),
        keeps(
            "two answers, the first in chunks",
            format!("{}{POISON}", ok("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n")),
            GoodThenGone(200, "ok"),
        ),
        keeps("a body of more than its length", ok("Content-Length: 2\r\n", "okay"), GoodThenGone(200, "ok")),
        keeps("an empty line behind", ok("Content-Length: 2\r\n", "ok\r\n"), GoodThenGone(200, "ok")),
        keeps("a body of a 204", format!("HTTP/1.1 204 No Content\r\n\r\n{POISON}"), GoodThenGone(204, "")),
        keeps(
            "a body of a 304",
            format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 57\r\n\r\n{POISON}"),
            GoodThenGone(304, ""),
        ),
        head(ok("Content-Length: 57\r\n", POISON)),
    ]
}

async fn try_case(case: &Case) -> Result<(), String> {
    let hostile = Hostile::start(case).await;
    let mut bench = Bench::start(false).await;
    bench.mesh.resources.service("a", AppProtocol::Http1, &[(hostile.address, None)]);
    bench.mesh.apply().await;
    // Not a GET that the edge may repeat on another connection.
    let request = format!("{} /ok/first HTTP/1.1\r\nHost: a\r\n\r\n", case.method);
    let outcome = exchange(bench.address, request.as_bytes(), case.method == "HEAD", false).await;
    let second =
        exchange(bench.address, b"GET /ok/second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false, false).await;
    let used = hostile.used.load(Ordering::SeqCst);
    hostile.task.abort();
    bench.mesh.stop().await;
    judge(&case.want, &outcome, &second, used)
}

fn judge(want: &Want, outcome: &Outcome, second: &Outcome, used: usize) -> Result<(), String> {
    let bodies = |outcome: &Outcome| -> Vec<(u16, String)> {
        let body = |body: &[u8]| String::from_utf8_lossy(body).chars().take(40).collect();
        outcome.answers.iter().map(|answer| (answer.status, body(&answer.body))).collect()
    };
    let (first, later) = (bodies(outcome), bodies(second));
    let shown = || {
        let rest: String = outcome.rest.chars().take(200).collect();
        format!("answers {first:?}, then {later:?}, rest {rest:?}, closed {}, used {used} times", outcome.closed)
    };
    // Whatever happened, the next clients get what is theirs.
    let follow = |answers: &[(u16, String)]| answers.iter().all(|(status, body)| *status == 200 && body == "clean");
    if later.len() != 1 || !follow(&later) || !follow(first.get(1..).unwrap_or_default()) {
        return Err(shown());
    }
    let bad = first.first().is_some_and(|(status, _)| *status == 502);
    let broken = first.is_empty() && outcome.closed;
    let is = |status: u16, body: &str| first.first().is_some_and(|first| first.0 == status && first.1 == body);
    let held = match want {
        Want::Bad => bad && used == 1,
        Want::Broken => broken && used == 1,
        Want::BadOrBroken => (bad || broken) && used == 1,
        Want::Good(status, body) => is(*status, body) && used > 1,
        Want::GoodThenGone(status, body) => is(*status, body) && used == 1,
    };
    if held { Ok(()) } else { Err(shown()) }
}

#[tokio::test]
async fn what_a_backend_says_reaches_only_who_asked() {
    let cases: Vec<Case> = [framing(), syntax(), surplus()].into_iter().flatten().collect();
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(compare("response", case.name, Way::Direct, try_case(case).await));
    }
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    wrong.extend(unknown_gaps("response", &names));
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
