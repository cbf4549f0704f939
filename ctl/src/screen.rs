//! What reaches stdout: tables, lines and documents, coloured or not.

use std::cell::Cell as Flag;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::cli::{Color, Format, Global};
use crate::failure::Failure;
use crate::table::{Cell, Table};

/// Stdout and how to write on it.
pub struct Screen {
    /// The format asked for.
    pub format: Format,
    headers: bool,
    color: bool,
    closed: Flag<bool>,
}

impl Screen {
    /// The screen that the flags ask for.
    pub fn new(global: &Global) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = is_coloured(global.color, io::stdout().is_terminal(), set("NO_COLOR") || dumb);
        Self { format: global.format, headers: !global.no_headers, color, closed: Flag::new(false) }
    }

    /// The same screen without headers, for what follows a first table.
    pub fn without_headers(&self) -> Self {
        Self { format: self.format, headers: false, color: self.color, closed: self.closed.clone() }
    }

    /// Refuses `-o name` for a verb that lists no objects.
    pub fn refuse_names(&self, verb: &str) -> Result<(), Failure> {
        if self.format == Format::Name {
            return Err(Failure::Usage(format!("-o name is not for `{verb}`: it lists no objects")));
        }
        Ok(())
    }

    /// Whether more columns are asked for.
    pub fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Prints a table.
    pub fn table(&self, table: &Table) -> Result<(), Failure> {
        self.write(&table.render(self.headers, self.color))
    }

    /// Prints lines of words.
    pub fn lines(&self, lines: &[Vec<Cell>]) -> Result<(), Failure> {
        let mut text = String::new();
        for line in lines {
            let words: Vec<String> = line.iter().map(|cell| cell.paint(self.color)).collect();
            text.push_str(&words.join(" "));
            text.push('\n');
        }
        self.write(&text)
    }

    /// Prints names, each once, in order.
    pub fn names(&self, names: impl IntoIterator<Item = String>) -> Result<(), Failure> {
        let mut seen = std::collections::HashSet::new();
        let mut text = String::new();
        for name in names {
            if seen.insert(name.clone()) {
                text.push_str(&crate::table::clean(&name));
                text.push('\n');
            }
        }
        self.write(&text)
    }

    /// Prints a document as YAML if that is asked for, else as JSON.
    pub fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = if self.format == Format::Yaml {
            serde_saphyr::to_string(value).map_err(io::Error::other)
        } else {
            serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(io::Error::other)
        };
        self.write(&text.map_err(Failure::Local)?)
    }

    /// Separates documents that follow one another.
    pub fn separate(&self) -> Result<(), Failure> {
        if self.format == Format::Yaml { self.write("---\n") } else { Ok(()) }
    }

    /// Writes at once. A reader that went away, as `head` does, is no error.
    fn write(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed.set(true);
                Ok(())
            }
            result => result.map_err(Failure::Local),
        }
    }
}

/// Whether to colour; `unwanted` is what the environment says about it, which a flag overrides.
fn is_coloured(choice: Color, terminal: bool, unwanted: bool) -> bool {
    match choice {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !unwanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_needs_a_terminal_and_no_objection_or_a_flag() {
        assert!(is_coloured(Color::Auto, true, false));
        assert!(!is_coloured(Color::Auto, true, true));
        assert!(!is_coloured(Color::Auto, false, false));
        assert!(is_coloured(Color::Always, false, true));
        assert!(!is_coloured(Color::Never, true, false));
    }
}
