//! Keeps the rules of ARCHITECTURE.md that a compiler does not: who imports whom, where foreign
//! types may appear, how long files and functions get.

#![allow(clippy::panic, reason = "an integration test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules of `node/src` by row; a module imports only from a lower row.
const ROWS: &[(usize, &[&str])] = &[
    (7, &["main"]),
    (6, &["demo"]),
    (5, &["app"]),
    (4, &["edge", "admin"]),
    (3, &["proxy", "replicate"]),
    (2, &["reconcile", "cluster", "tunnel", "h1"]),
    (1, &["identity", "telemetry", "relay"]),
    (0, &["config", "drain", "timer"]),
];

/// Foreign crates and the only modules of `node/src` that may name them.
const HOMES: &[(&str, &[&str])] = &[
    ("chitchat", &["cluster"]),
    ("quinn", &["tunnel"]),
    ("kube", &["reconcile"]),
    ("k8s_openapi", &["reconcile"]),
    ("prost", &["tunnel", "replicate", "admin", "cluster"]),
    ("tonic", &["replicate", "admin", "demo"]),
    ("rcgen", &["identity", "demo"]),
];

/// What may never be in `meshgate-core`'s dependencies.
const IMPURE: &[&str] = &["tokio", "kube", "quinn", "hyper", "rustls", "prost", "chitchat", "rand", "mio", "socket2"];

/// Where something is spawned outside `app`, and who ends it.
const SPAWNS: &[(&str, &str)] = &[
    ("node/src/edge/connect.rs", "copies for one WebSocket over HTTP/2: ends with its stream"),
    ("node/src/edge/listen.rs", "a listener's acceptor: ended and awaited by the acceptor thread"),
    ("node/src/edge/mod.rs", "the acceptor thread: joined by the edge's future"),
    ("node/src/edge/streams.rs", "a stream of an HTTP/2 connection: ends with it"),
    ("node/src/edge/worker.rs", "a worker thread: joined by the edge's future"),
    ("node/src/proxy/mirror.rs", "sends one copy of a request: bounded in number and time"),
    ("node/src/proxy/pool/connect.rs", "drives one upstream connection: ends with it"),
    ("node/src/replicate/store/mod.rs", "the disk's thread: joined by the replica's future"),
    ("node/src/tunnel/client.rs", "uploads one request's body: aborted with its response"),
];

const MAX_FILE: usize = 500;
const MAX_FUNCTION: usize = 70;

/// Files and functions that may be longer, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[];

struct Source {
    path: PathBuf,
    shown: String,
    text: String,
}

impl Source {
    /// The code without its unit tests, which always stand last.
    fn code(&self) -> &str {
        self.text.find("\n#[cfg(test)]\nmod ").map_or(self.text.as_str(), |at| &self.text[..at])
    }
}

fn root() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
        .parent()
        .expect("node/ is inside the workspace")
        .to_owned()
}

fn sources(folders: &[&str]) -> Vec<Source> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let root = root();
    let mut paths = Vec::new();
    for folder in folders {
        walk(&root.join(folder), &mut paths);
    }
    paths.sort();
    assert!(!paths.is_empty(), "no sources found: the test would prove nothing");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a readable source");
        let shown = path.strip_prefix(&root).expect("below the root").display().to_string();
        Source { path, shown, text }
    };
    paths.into_iter().map(read).collect()
}

fn everything() -> Vec<Source> {
    sources(&["node/src", "node/core/src", "node/api/src", "node/wire/src", "ctl/src", "proto/src", "bench/src"])
}

/// The module of `node/src` that a file belongs to.
fn module(source: &Source) -> String {
    let inside = source.path.strip_prefix(root().join("node/src")).expect("below node/src");
    let first = inside.components().next().expect("a file name");
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().find(|(_, modules)| modules.contains(&module)).map(|(row, _)| *row)
}

/// Modules named after `crate::` or `meshgate_node::`, also inside braces: `use crate::{a, b::c}`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for prefix in ["crate::", "meshgate_node::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let group = &group[..group.find(';').unwrap_or(group.len())];
                let mut depth = 0usize;
                let mut name = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth = depth.saturating_sub(1),
                        ',' | ':' if depth == 0 => {
                            found.push(name.trim().to_owned());
                            name.clear();
                            if c == ':' {
                                depth += 0;
                            }
                        }
                        c if depth == 0 => name.push(c),
                        _ => {}
                    }
                }
                found.push(name.trim().to_owned());
            } else {
                found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            }
        }
    }
    found.retain(|name| row(name).is_some());
    found
}

#[test]
fn a_module_imports_only_from_a_lower_row() {
    let mut wrong = Vec::new();
    for source in sources(&["node/src"]) {
        let own = module(&source);
        if own == "lib" {
            continue;
        }
        let Some(own_row) = row(&own) else {
            wrong.push(format!("{}: module `{own}` has no row: name it in ROWS and in ARCHITECTURE.md", source.shown));
            continue;
        };
        for other in imports(source.code()) {
            if other != own && row(&other).is_some_and(|other_row| other_row >= own_row) {
                wrong.push(format!("{}: `{own}` (row {own_row}) imports `{other}`", source.shown));
            }
        }
    }
    assert!(wrong.is_empty(), "imports upwards:\n{}", wrong.join("\n"));
}

#[test]
fn the_import_scanner_sees_what_it_should() {
    let code =
        "use crate::edge::X;\nuse crate::{app, config::{Config, Role}, tunnel::Body};\nlet a = crate::admin::go();";
    let mut seen = imports(code);
    seen.sort();
    assert_eq!(seen, ["admin", "app", "config", "edge", "tunnel"]);
}

#[test]
fn foreign_types_stay_home() {
    let mut wrong = Vec::new();
    for source in sources(&["node/src"]) {
        let own = module(&source);
        for (krate, homes) in HOMES {
            let named = source.code().lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
                line.match_indices(&format!("{krate}::"))
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
            });
            if named && !homes.contains(&own.as_str()) {
                wrong.push(format!("{}: `{krate}` is at home in {homes:?} only", source.shown));
            }
        }
    }
    assert!(wrong.is_empty(), "foreign types away from home:\n{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_stay_short() {
    let mut wrong = Vec::new();
    for source in everything() {
        if EXCEPTIONS.iter().any(|(path, _)| *path == source.shown) {
            continue;
        }
        let lines = source.code().lines().count();
        if lines > MAX_FILE {
            wrong.push(format!("{}: {lines} lines, at most {MAX_FILE}", source.shown));
        }
        for (name, length) in functions(source.code()) {
            if length > MAX_FUNCTION {
                wrong.push(format!("{}: fn {name} has {length} lines, at most {MAX_FUNCTION}", source.shown));
            }
        }
    }
    assert!(wrong.is_empty(), "too long:\n{}", wrong.join("\n"));
}

/// Functions and their lengths. Relies on rustfmt: a body ends at the brace that is indented as
/// its `fn` line is.
fn functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(position) = words.iter().position(|word| *word == "fn") else { continue };
        let is_definition = words[..position]
            .iter()
            .all(|word| ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "extern"].contains(word));
        // A trait's function without a body.
        if !is_definition || line.ends_with(';') {
            continue;
        }
        let name = words.get(position + 1).map_or("", |word| word.split(['(', '<']).next().unwrap_or(""));
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines[at..].iter().position(|line| *line == close || line.ends_with(';') && !line.starts_with(' '));
        if let Some(end) = end {
            found.push((name.to_owned(), end + 1));
        }
    }
    found
}

#[test]
fn the_function_scanner_sees_what_it_should() {
    let code = "pub async fn one() {\n    two();\n}\n\nimpl X {\n    fn three(&self) -> u8 {\n        3\n    }\n}\n";
    assert_eq!(functions(code), [("one".to_owned(), 3), ("three".to_owned(), 3)]);
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = everything()
        .iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.shown.clone())
        .collect();
    assert!(silent.is_empty(), "without a `//!` line:\n{}", silent.join("\n"));
}

#[test]
fn no_unbounded_channel() {
    let mut wrong = Vec::new();
    for source in everything() {
        for (number, line) in source.code().lines().enumerate() {
            if line.contains("unbounded_channel") || line.contains("mpsc::channel()") {
                wrong.push(format!("{}:{}: {}", source.shown, number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "every queue has a named bound:\n{}", wrong.join("\n"));
}

#[test]
fn only_app_spawns_what_lasts() {
    let mut wrong = Vec::new();
    let mut used = Vec::new();
    for source in sources(&["node/src"]) {
        let spawns = ["tokio::spawn(", "spawn_local(", "thread::spawn(", "thread::Builder::new("];
        let in_tests = source.shown.ends_with("tests.rs") || source.shown.contains("/tests/");
        if in_tests || module(&source) == "app" || !spawns.iter().any(|spawn| source.code().contains(spawn)) {
            continue;
        }
        match SPAWNS.iter().find(|(path, _)| *path == source.shown) {
            Some((path, _)) => used.push(*path),
            None => wrong.push(source.shown.clone()),
        }
    }
    assert!(wrong.is_empty(), "return a future to `app`, or name the owner in SPAWNS:\n{}", wrong.join("\n"));
    let unused: Vec<_> = SPAWNS.iter().filter(|(path, _)| !used.contains(path)).collect();
    assert!(unused.is_empty(), "named in SPAWNS without need: {unused:?}");
}

#[test]
fn core_is_pure() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "-p", "meshgate-core", "-e", "normal", "--prefix", "none", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(tree.contains("meshgate-core"), "{tree}");
    for line in tree.lines() {
        let name = line.split_whitespace().next().unwrap_or("");
        assert!(!IMPURE.contains(&name), "meshgate-core depends on {name}");
    }
    for source in sources(&["node/core/src"]) {
        for forbidden in
            ["async fn", ".await", "Instant::now", "SystemTime::now", "std::fs", "std::net::Tcp", "std::thread"]
        {
            assert!(!source.code().contains(forbidden), "{}: {forbidden}", source.shown);
        }
    }
}

#[test]
fn nothing_names_a_machine() {
    let mut wrong = Vec::new();
    for source in everything() {
        for needle in ["/work/", "/root/"] {
            if source.text.contains(needle) {
                wrong.push(format!("{}: {needle}", source.shown));
            }
        }
    }
    assert!(wrong.is_empty(), "paths of one machine:\n{}", wrong.join("\n"));
}
