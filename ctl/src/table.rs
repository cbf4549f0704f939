//! Plain aligned columns, as kubectl prints them. Never truncated: what is copied is whole.

/// How a text is meant, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tint {
    /// No colour.
    Plain,
    /// As it should be: green.
    Good,
    /// Worth a look: yellow.
    Warn,
    /// Wrong: red.
    Bad,
}

/// A text with its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tint: Tint,
}

impl Cell {
    /// A tinted text; control characters from afar are escaped, an empty one becomes `-`.
    pub fn new(text: impl AsRef<str>, tint: Tint) -> Self {
        let text = text.as_ref();
        Self { text: if text.is_empty() { "-".to_owned() } else { clean(text) }, tint }
    }

    /// The text, with an escape sequence for its colour if `color`.
    pub fn paint(&self, color: bool) -> String {
        let code = match self.tint {
            Tint::Good if color => 32,
            Tint::Warn if color => 33,
            Tint::Bad if color => 31,
            _ => return self.text.clone(),
        };
        format!("\x1b[{code}m{}\x1b[0m", self.text)
    }
}

/// A text without colour.
pub fn plain(text: impl AsRef<str>) -> Cell {
    Cell::new(text, Tint::Plain)
}

/// Escapes control characters, so that a name or message can't steer the terminal.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Rows below headers.
#[derive(Default)]
pub struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows; without headers too if `headers` is empty.
    pub fn new(headers: &[&'static str]) -> Self {
        Self { headers: headers.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// Every column as wide as its widest text and three spaces more; the last one isn't padded.
    pub fn render(&self, headers: bool, color: bool) -> String {
        let header: Vec<Cell> = if headers { self.headers.iter().map(plain).collect() } else { Vec::new() };
        let lines = || std::iter::once(&header).chain(&self.rows).filter(|line| !line.is_empty());
        let mut widths: Vec<usize> = Vec::new();
        for line in lines() {
            widths.resize(widths.len().max(line.len()), 0);
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let mut out = String::new();
        for line in lines() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                out.push_str(&cell.paint(color));
                if column + 1 < line.len() {
                    let gap = width + 3 - cell.text.chars().count();
                    out.extend(std::iter::repeat_n(' ', gap));
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NODE", "ROOT", "LAG"]);
        table.push(vec![plain("node-a"), plain("9f3a…c1"), Cell::new("0", Tint::Good)]);
        table.push(vec![plain("b"), plain(""), plain("12")]);
        table
    }

    #[test]
    fn columns_align_by_characters() {
        let expected = "NODE     ROOT      LAG\nnode-a   9f3a…c1   0\nb        -         12\n";
        assert_eq!(table().render(true, false), expected);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let expected = "node-a   9f3a…c1   \x1b[32m0\x1b[0m\nb        -         12\n";
        assert_eq!(table().render(false, true), expected);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(plain("a\x1b[2J\nb").paint(true), "a\\u{1b}[2J\\nb");
    }
}
