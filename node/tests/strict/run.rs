//! Runs the cases of a class against an edge, to a backend of its own node and through a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshgate_core::snapshot::{
    AppProtocol, Filter, HeadId, HeaderModifier, HostPattern, PathRewrite, Redirect, Rewrite,
};
use meshgate_node::edge::EdgeConfig;
use meshgate_node::proxy::PodHost;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::exchange::{FOLLOWING, FOLLOWING_PATH, Outcome, exchange};
use crate::gaps::GAPS;
use crate::mesh::{Direct, Mesh, Options, context, impatient};
use crate::recorder::{Recorder, Seen};
use crate::resources::{Resources, filtered, listener, prefix};

/// What must come of a case.
#[derive(Clone, Debug)]
pub enum Want {
    /// One of these statuses, and the end of the connection. The backend saw nothing.
    Closed(&'static [u16]),
    /// One of these statuses; the connection may go on, in step. The backend saw nothing.
    Refused(&'static [u16]),
    /// Refused while the body came: an error or the end of the connection. The backend saw no
    /// whole request.
    Cut,
    /// One clean request at the backend with these properties, and its answer: a request line,
    /// `name: value` (exactly one such field), `!name` (no such field), `body=...`.
    One(&'static [&'static str]),
    /// `Refused` or `One`: the specification allows both.
    Either(&'static [u16], &'static [&'static str]),
    /// Several requests: exactly these statuses, then the end. No second request at the backend.
    Behind(&'static [u16]),
}

/// A case.
pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub want: Want,
}

pub fn case(name: &'static str, bytes: impl AsRef<[u8]>, want: Want) -> Case {
    Case { name, bytes: bytes.as_ref().to_vec(), want }
}

/// An edge before a recording backend. `/ok` reaches it; `/admin` too, and says so; `/api` is
/// rewritten; `/moved` is redirected; else there is no route.
pub struct Bench {
    pub mesh: Mesh,
    pub address: SocketAddr,
    pub recorder: Recorder,
}

impl Bench {
    pub async fn start(through_tunnel: bool) -> Bench {
        let recorder = Recorder::start().await;
        // Long enough for a head in pieces on a busy machine.
        let config = EdgeConfig { threads: 1, header_timeout: Duration::from_secs(1), ..impatient() };
        let mut options = Options { config, ..Options::default() };
        if through_tunnel {
            options.remote = Arc::new(Direct(host(recorder.address)));
            options.expected = vec!["n2"];
        }
        let mut mesh = Mesh::start(options);
        let address = mesh.reserve();
        mesh.resources.gateway(vec![address.ip()], vec![listener("http", address.port(), None, None)]);
        let set = HeaderModifier { set: vec![("x-rule".into(), "admin".into())], ..HeaderModifier::default() };
        let rewrite = Rewrite { hostname: None, path: Some(PathRewrite::Prefix("/v1".into())) };
        let redirect = Redirect { hostname: Some("b".into()), status: 302, ..Redirect::default() };
        let rules = vec![
            prefix("/ok", "a"),
            filtered("/admin", "a", Filter::RequestHeaders(set)),
            filtered("/api", "a", Filter::Rewrite(rewrite)),
            filtered("/moved", "a", Filter::Redirect(redirect)),
        ];
        mesh.resources.route("strict", &[("http", HostPattern::Any)], rules);
        let node = through_tunnel.then_some("n2");
        mesh.resources.service("a", AppProtocol::Http1, &[(recorder.address, node)]);
        mesh.apply().await;
        Bench { mesh, address, recorder }
    }

    /// What is wrong with the outcome of a case.
    async fn try_case(&self, case: &Case, in_pieces: bool) -> Result<(), String> {
        let head_only = case.bytes.starts_with(b"HEAD ");
        let outcome = exchange(self.address, &case.bytes, head_only, in_pieces).await;
        let seen = self.recorder.settle().await?;
        judge(&case.want, &outcome, seen)
    }
}

/// The hosting peer of the backend.
fn host(backend: SocketAddr) -> PodHost {
    let mut resources = Resources::default();
    resources.service("a", AppProtocol::Http1, &[(backend, Some("n2"))]);
    let context = context("n2", resources.table(9), &Options::default(), &mut Registry::default());
    let (_, applied) = watch::channel(HeadId { epoch: 1, rev: 9 });
    PodHost::new(context, applied)
}

/// How a case is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// At once, to a backend on the edge's node.
    Direct,
    /// At once, to a backend of another node.
    Tunnel,
    /// In small pieces, to a backend on the edge's node.
    Pieces,
}

/// Runs all cases of a class in all ways. Gaps must fail, all others must not.
pub async fn run(class: &str, cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for way in [Way::Direct, Way::Tunnel, Way::Pieces] {
        let bench = Bench::start(way == Way::Tunnel).await;
        for case in &cases {
            let result = bench.try_case(case, way == Way::Pieces).await;
            wrong.extend(compare(class, case.name, way, result));
            if matches!(case.want, Want::Cut | Want::Either(..)) {
                // The head of what was broken off may come late: not at the next case.
                exchange(bench.address, FOLLOWING.as_bytes(), false, false).await;
                let _ = bench.recorder.settle().await;
            }
        }
        bench.mesh.stop().await;
    }
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    wrong.extend(unknown_gaps(class, &names));
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), 3 * cases.len(), wrong.join("\n"));
}

/// What is to be said about a result, given the known gaps.
pub fn compare(class: &str, name: &str, way: Way, result: Result<(), String>) -> Option<String> {
    let gap = GAPS.iter().find(|(of, case, _)| (*of, *case) == (class, name));
    match (result, gap) {
        (Ok(()), None) | (Err(_), Some(_)) => None,
        // How much of a case the edge sees at once decides about some.
        (Ok(()), Some(_)) if way == Way::Pieces => None,
        (Err(wrong), None) => Some(format!("{class}: {name} ({way:?}): {wrong}")),
        (Ok(()), Some((.., reason))) => {
            Some(format!("{class}: {name} ({way:?}): this gap is closed, take it out of GAPS ({reason})"))
        }
    }
}

/// Gaps that name no case.
pub fn unknown_gaps(class: &str, names: &[&str]) -> Vec<String> {
    let mut unknown: Vec<String> = GAPS
        .iter()
        .filter(|(of, case, _)| *of == class && !names.contains(case))
        .map(|(_, case, _)| format!("{class}: GAPS names {case:?}, which is no case"))
        .collect();
    let twice = names.iter().enumerate().filter(|(at, name)| names[..*at].contains(name));
    unknown.extend(twice.map(|(_, name)| format!("{class}: two cases are named {name:?}")));
    unknown
}

fn judge(want: &Want, outcome: &Outcome, mut seen: Vec<Seen>) -> Result<(), String> {
    if let Some(bad) = seen.iter().find(|seen| seen.wrong.is_some()) {
        return Err(format!("the backend got {:?}: {:?}", bad.wrong, bad.head));
    }
    seen.retain(|seen| !seen.line().contains(FOLLOWING_PATH));
    let statuses: Vec<u16> = outcome.answers.iter().map(|answer| answer.status).collect();
    let shown = || format!("answers {statuses:?}, closed {}, rest {:?}", outcome.closed, outcome.rest);
    let nothing_seen = || match seen.first() {
        Some(seen) => Err(format!("the backend got {:?}; {}", seen.head, shown())),
        None => Ok(()),
    };
    match want {
        Want::Closed(allowed) => {
            nothing_seen()?;
            let refused = matches!(statuses.as_slice(), [status] if allowed.contains(status));
            if refused && outcome.closed && outcome.rest.is_empty() { Ok(()) } else { Err(shown()) }
        }
        Want::Refused(allowed) => {
            nothing_seen()?;
            let first = statuses.first().is_some_and(|status| allowed.contains(status));
            let in_step = statuses.len() == 1 || statuses.get(1..) == Some(&[200]);
            if first && in_step && outcome.closed && outcome.rest.is_empty() { Ok(()) } else { Err(shown()) }
        }
        Want::Cut => {
            let refused = matches!(statuses.as_slice(), [] | [400..600]);
            let whole = seen.iter().find(|seen| seen.whole);
            if let Some(whole) = whole {
                return Err(format!("the backend got all of {:?}; {}", whole.head, shown()));
            }
            if refused && outcome.closed { Ok(()) } else { Err(shown()) }
        }
        Want::Either(statuses, properties) => {
            let want = if seen.is_empty() { Want::Refused(statuses) } else { Want::One(properties) };
            judge(&want, outcome, seen)
        }
        Want::Behind(expected) => {
            let behind = seen.iter().find(|seen| seen.line().contains("smuggled"));
            let answered = statuses == *expected && outcome.closed && outcome.rest.is_empty();
            if answered && behind.is_none() { Ok(()) } else { Err(shown()) }
        }
        Want::One(properties) => {
            let [one] = seen.as_slice() else {
                return Err(format!("the backend got {} requests; {}", seen.len(), shown()));
            };
            let in_step = matches!(statuses.as_slice(), [200] | [200, 200]);
            if !in_step || !one.whole || !outcome.rest.is_empty() {
                return Err(shown());
            }
            has_all(one, properties)
        }
    }
}

/// The properties of a request at the backend, as in [`Want::One`].
pub fn has_all(seen: &Seen, properties: &[&str]) -> Result<(), String> {
    for property in properties {
        let held = if let Some(name) = property.strip_prefix('!') {
            seen.values(name).is_empty()
        } else if let Some(body) = property.strip_prefix("body=") {
            seen.body == body.as_bytes()
        } else if property.ends_with(" HTTP/1.1") {
            seen.line() == *property
        } else {
            let (name, value) = property.split_once(": ").unwrap();
            seen.values(name) == [value]
        };
        if !held {
            let body = String::from_utf8_lossy(&seen.body);
            return Err(format!("not {property:?}: the backend got {:?} and the body {body:?}", seen.head));
        }
    }
    Ok(())
}
