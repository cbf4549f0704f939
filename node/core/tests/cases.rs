//! Cases in `testdata`: resources, questions, and the answers that are expected.
//!
//! A file is a list of sections. `== resources` applies resources (see `cases/parse.rs`) to the
//! table; `== ask` asks it, one question a line, with the answer after `=>`:
//!
//! ```text
//! NS/GATEWAY:PORT METHOD HOST/PATH?QUERY [sni=NAME] [header:NAME=VALUE]   what is decided
//! service NS/NAME:PORT                                                    endpoints that may be picked
//! hosted NODE ADDRESS                                                     what the node says of it
//! certificate NS/GATEWAY:PORT [NAME]                                      which one is shown
//! binds | lines | held                                                    as a block, `| ` before each line
//! ```
//!
//! `UPDATE=1 cargo test -p meshgate-core --test cases` writes the answers that it gets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may end at once")]

#[path = "cases/parse.rs"]
mod parse;

use std::fmt::Write as _;
use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use meshgate_core::filter::{RedirectContext, apply_request, redirect, redirect_location};
use meshgate_core::snapshot::{BackendTarget, HeadId, Kind};
use meshgate_core::table::{Decision, Held, Matched, RequestHead, RouteLine, Table};

use parse::key;

/// A table as the sections so far have made it.
#[derive(Default)]
struct State {
    table: Table,
    held: Vec<Held>,
    rev: u64,
}

#[test]
fn every_case_holds() {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("testdata");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(!files.is_empty(), "no cases in {}", folder.display());
    let update = std::env::var_os("UPDATE").is_some();
    let mut failed = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let actual = check(&text);
        if actual == text {
            continue;
        }
        if update {
            std::fs::write(&file, &actual).unwrap();
        } else {
            let lines = text.lines().zip(actual.lines()).filter(|(expected, actual)| expected != actual);
            let lines = lines.map(|(expected, actual)| format!("- {expected}\n+ {actual}\n"));
            failed.push(format!("{}\n{}", file.display(), lines.collect::<String>()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Runs a case and returns it with the answers that were given.
fn check(text: &str) -> String {
    let mut state = State::default();
    let mut out = String::new();
    let mut sections = text.split_inclusive('\n').peekable();
    let mut section = String::new();
    let mut asking = false;
    while let Some(line) = sections.next() {
        if let Some(title) = line.strip_prefix("== ") {
            asking = title.trim() == "ask";
            out.push_str(line);
            continue;
        }
        if !asking {
            section.push_str(line);
            out.push_str(line);
            if sections.peek().is_none_or(|next| next.starts_with("== ")) {
                state.apply(&std::mem::take(&mut section));
            }
        } else if !line.starts_with("| ") {
            match line.trim() {
                "" => out.push_str(line),
                comment if comment.starts_with('#') => out.push_str(line),
                question => state.answer(question, &mut out),
            }
        }
    }
    out
}

impl State {
    fn apply(&mut self, text: &str) {
        self.rev += 1;
        let changes = parse::resources(text);
        (self.table, self.held) = self.table.update(HeadId { epoch: 1, rev: self.rev }, &changes);
    }

    fn answer(&self, line: &str, out: &mut String) {
        let question = line.split("=>").next().unwrap_or_default().trim();
        let words: Vec<&str> = question.split_whitespace().collect();
        let block: Vec<String> = match words[..] {
            ["binds"] => self
                .table
                .binds()
                .iter()
                .map(|bind| format!("{} {} {:?}", bind.gateway, bind.port, bind.protocol))
                .collect(),
            ["lines"] => self.table.lines().iter().map(shown).collect(),
            ["held"] => self.held.iter().map(|held| format!("{}: {}", held.key, held.reason)).collect(),
            _ => {
                let _ = writeln!(out, "{question} => {}", self.one(&words));
                return;
            }
        };
        let _ = writeln!(out, "{question}");
        out.extend(block.iter().map(|line| format!("| {line}\n")));
    }

    fn one(&self, words: &[&str]) -> String {
        match *words {
            ["service", name] => {
                let (name, port) = name.split_once(':').unwrap();
                match self.table.service(&key(Kind::Service, name), port.parse().unwrap()) {
                    None => "no such port".into(),
                    Some(port) => {
                        let endpoints = port.endpoints.iter().map(|endpoint| endpoint.address.to_string());
                        format!("{:?} [{}]", port.app, endpoints.collect::<Vec<_>>().join(", "))
                    }
                }
            }
            ["hosted", node, address] => format!("{:?}", self.table.hosted(node, address.parse().unwrap())),
            ["certificate", gateway, ref name @ ..] => {
                let (gateway, port) = gateway.split_once(':').unwrap();
                let gateway = key(Kind::Gateway, gateway);
                let shown = self.table.certificate(&gateway, port.parse().unwrap(), name.first().copied());
                shown.map_or("none".into(), |certificate| certificate.dns_names.join(" "))
            }
            [gateway, method, target, ref rest @ ..] => self.decide(gateway, method, target, rest),
            _ => panic!("unknown question {words:?}"),
        }
    }

    fn decide(&self, gateway: &str, method: &str, target: &str, rest: &[&str]) -> String {
        let (gateway, port) = gateway.split_once(':').unwrap();
        let port = port.parse().unwrap();
        let (host, path) = target.split_at(target.find('/').unwrap());
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut headers = HeaderMap::new();
        for (name, value) in rest.iter().filter_map(|word| word.strip_prefix("header:")?.split_once('=')) {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let sni = rest.iter().find_map(|word| word.strip_prefix("sni="));
        let head = RequestHead { host, path, query, method: &method, headers: &headers, sni, verified: None };
        match self.table.decide(&key(Kind::Gateway, gateway), port, &head) {
            Decision::Reject(status, reason) => format!("{} {reason}", status.as_u16()),
            Decision::Rule(matched) => matched_shown(&matched, &head, port),
        }
    }
}

fn matched_shown(matched: &Matched<'_>, head: &RequestHead<'_>, port: u16) -> String {
    let mut shown = format!("{} rule {} by {}", matched.route, matched.rule, matched.listener);
    if matched.action.broken {
        shown.push_str(", broken");
    }
    if let Some(redirect) = redirect(&matched.action.filters, head.sni.is_some()) {
        let scheme = if head.sni.is_some() { "https" } else { "http" };
        let context = RedirectContext {
            scheme,
            host: head.host,
            listener_port: port,
            path: head.path,
            query: head.query,
            matched: matched.path,
        };
        let _ = write!(shown, ", {} {}", redirect.status, redirect_location(redirect, &context));
    }
    let rewritten = apply_request(&matched.action.filters, head.path, matched.path, &mut HeaderMap::new());
    if rewritten.host.is_some() || rewritten.path.is_some() {
        let host = rewritten.host.as_deref().unwrap_or(head.host);
        let _ = write!(shown, ", as {host}{}", rewritten.path.as_deref().unwrap_or(head.path));
    }
    let targets = matched.action.backends.iter().map(|backend| match &backend.target {
        BackendTarget::Service { service, port } => format!("{}:{port}", service.name),
        BackendTarget::Invalid { reason } => format!("({reason})"),
    });
    let targets: Vec<String> = targets.collect();
    if !targets.is_empty() {
        let _ = write!(shown, ", to {}", targets.join(" "));
    }
    shown
}

fn shown(line: &RouteLine) -> String {
    let parts = [
        format!("{}:{} {} {}{}", line.listener, line.port, line.host, line.path, spaced(&line.matches)),
        format!("{}/{}[{}]", line.route.namespace, line.route.name, line.rule),
        line.backends.clone(),
        line.policies.clone(),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" | ")
}

fn spaced(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" {text}") }
}
