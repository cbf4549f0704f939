//! The screen: what runs where and what to try, printed once; below it the live part, drawn again
//! in place on a terminal, and as one line a change anywhere else.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use meshgate_proto::admin::Route;

use super::echo::Backend;
use super::fleet::NODES;
use super::layout::Layout;
use super::places::Places;
use super::tries::Try;
use super::view::View;

/// The widest line.
pub const WIDTH: usize = 100;
/// Routes of a user's directory that are listed; `meshctl routes` has them all.
const MAX_ROUTES: usize = 20;

/// What does not change while the demo runs.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Where the manifests are.
    pub source: PathBuf,
    /// Are they the demo's own copy?
    pub own_source: bool,
    /// Where the logs are.
    pub logs: PathBuf,
    /// Gateways' addresses.
    pub places: Places,
    /// Echo backends.
    pub backends: Vec<Backend>,
    /// Requests to try.
    pub tries: Vec<Try>,
    /// Routes, where there is nothing to try.
    pub routes: Vec<Route>,
}

impl Scene {
    /// From the parts.
    pub fn new(layout: &Layout, places: Places, backends: Vec<Backend>, tries: Vec<Try>, routes: Vec<Route>) -> Self {
        Scene {
            source: layout.source().to_owned(),
            own_source: layout.own_source(),
            logs: layout.root().join("logs"),
            places,
            backends,
            tries,
            routes,
        }
    }

    /// The part that is printed once.
    pub fn lines(&self) -> Vec<String> {
        let mut lines =
            vec!["meshgate demo: three peers on this machine, each gateway and reconciler. Ctrl-C ends it.".to_owned()];
        lines.extend([String::new(), "WHAT RUNS WHERE".to_owned()]);
        self.where_lines(&mut lines);
        lines.extend([String::new(), "GATEWAYS (n is 1, 2 or 3 for node-a, node-b or node-c)".to_owned()]);
        let summaries = self.places.summaries();
        if summaries.is_empty() {
            lines.push("  none (yet)".to_owned());
        }
        let width = summaries.iter().map(|summary| summary.gateway.len()).max().unwrap_or_default();
        for summary in summaries {
            let indent = 2 + width + 2;
            let first = format!("  {:<width$}  ", summary.gateway);
            wrap(&mut lines, first, indent, &summary.listeners);
        }
        lines.extend(self.places.problems().iter().map(|problem| format!("  ! {problem}")));
        lines.extend([String::new(), "TRY".to_owned()]);
        if self.tries.is_empty() {
            self.route_lines(&mut lines)
        } else {
            self.try_lines(&mut lines)
        }
        lines.extend([String::new(), "LOOK AND CHANGE".to_owned()]);
        lines.push("  cargo run --release -p meshctl -- routes     (or: peers, verify, leader, analyze)".to_owned());
        let copied = if self.own_source { " (a copy; edit it and watch rev)" } else { "" };
        lines.push(format!("  manifests  {}{copied}", self.source.display()));
        lines.push(format!("  logs       {}", self.logs.display()));
        lines.push("  kill -9 PID of the leader and see the next one; a peer that dies is started again".to_owned());
        lines.push(String::new());
        lines
    }

    fn where_lines(&self, lines: &mut Vec<String>) {
        for node in NODES {
            let first = format!("  {}  admin {}:15000  metrics :15020  ", node.name, node.base());
            let indent = first.len();
            let pods: Vec<String> = self
                .backends
                .iter()
                .filter(|backend| backend.number == node.number)
                .map(|backend| backend.pod.clone())
                .collect();
            if pods.is_empty() {
                lines.push(first.trim_end().to_owned());
            } else {
                wrap(lines, format!("{first}pods "), indent + "pods ".len(), &pods);
            }
        }
        if self.backends.is_empty() {
            lines.push("  No echo backends: your EndpointSlices say where the pods are.".to_owned());
        } else {
            lines
                .push("  The pods accept connections from their own node's peer only: all else is refused.".to_owned());
        }
    }

    fn try_lines(&self, lines: &mut Vec<String>) {
        for one in &self.tries {
            lines.push(format!("  # {}", one.what));
            lines.extend(one.command.lines().map(|line| format!("  {line}")));
        }
    }

    fn route_lines(&self, lines: &mut Vec<String>) {
        if self.routes.is_empty() {
            lines.push("  no routes (yet): `meshctl analyze` says what is wrong with which object".to_owned());
        }
        for route in self.routes.iter().take(MAX_ROUTES) {
            let host = if route.host.is_empty() { "*" } else { &route.host };
            let address = route.addresses.first().map_or("not bound", String::as_str);
            // A regular expression is shown as `~ /...`.
            let gap = if route.path.starts_with('/') { "" } else { " " };
            let to = if route.backends.is_empty() { String::new() } else { format!(" -> {}", route.backends) };
            let line = format!(
                "  {address:<18} {host}{gap}{}  {} {}/{}#{}{to}",
                route.path, route.kind, route.namespace, route.name, route.rule
            );
            lines.push(line.chars().take(WIDTH).collect());
        }
        if self.routes.len() > MAX_ROUTES {
            lines.push(format!("  and {} more", self.routes.len() - MAX_ROUTES));
        }
    }
}

/// Appends words separated by two blanks, on as many lines as they need.
fn wrap(lines: &mut Vec<String>, first: String, indent: usize, words: &[String]) {
    let mut line = first;
    let mut fresh = true;
    for word in words {
        if !fresh && line.len() + 2 + word.len() > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            fresh = true;
        }
        if !fresh {
            line.push_str("  ");
        }
        line.push_str(word);
        fresh = false;
    }
    lines.push(line);
}

/// Standard output.
pub struct Screen<W: Write> {
    out: W,
    terminal: bool,
    /// Lines of the live part that stand above the cursor.
    drawn: usize,
    /// What was last said, without a terminal.
    last: String,
}

impl Screen<io::Stdout> {
    /// The process's standard output.
    pub fn stdout() -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Screen::new(out, terminal)
    }
}

impl<W: Write> Screen<W> {
    fn new(out: W, terminal: bool) -> Self {
        Screen { out, terminal, drawn: 0, last: String::new() }
    }

    /// Prints lines that stay.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn print(&mut self, lines: &[String]) -> io::Result<()> {
        self.erase()?;
        for line in lines {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    /// Shows the live part anew.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn draw(&mut self, view: &View) -> io::Result<()> {
        if !self.terminal {
            let brief = view.brief();
            if brief != self.last {
                writeln!(self.out, "{brief}")?;
                self.last = brief;
            }
            return self.out.flush();
        }
        self.erase()?;
        let lines = view.lines();
        // A wrapped line would make more lines of it than are counted.
        let width = width();
        for line in &lines {
            writeln!(self.out, "{}", cut(line, width))?;
        }
        self.drawn = lines.len();
        self.out.flush()
    }

    /// Takes the live part away, so that what follows stands in its place.
    fn erase(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            write!(self.out, "\x1b[{}A\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        Ok(())
    }
}

/// Columns of the terminal; many where it does not say.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.map_or(usize::MAX, |size| if size.ws_col == 0 { usize::MAX } else { size.ws_col.into() })
}

/// At most `width` visible characters of a line; escape sequences take no room.
fn cut(line: &str, width: usize) -> String {
    let mut kept = String::with_capacity(line.len());
    let (mut room, mut escape) = (width, false);
    for c in line.chars() {
        if escape || c == '\x1b' {
            escape = !c.is_ascii_alphabetic();
            kept.push(c);
        } else if room > 0 {
            room -= 1;
            kept.push(c);
        }
    }
    kept
}

#[cfg(test)]
#[path = "screen_tests.rs"]
pub mod tests;
