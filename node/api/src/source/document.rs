//! One document of a file: parsed and translated once, reused while its text stays the same.

use std::io;
use std::sync::Arc;

use meshgate_core::intent::{Finding, Object, ObjectRef};
use serde_json::Value;

use super::MAX_OBJECT;
use crate::translate::{PrivateKey, Translated, code, refuse, translate};

/// An object as one document declares it.
pub(super) struct Entry {
    /// Its name.
    pub(super) name: ObjectRef,
    /// The object; `None` when it is refused.
    pub(super) object: Option<Object>,
    /// Its private key, of a Secret.
    pub(super) key: Option<PrivateKey>,
    /// What is wrong with it; the origin is left to whoever knows the file.
    pub(super) findings: Vec<Finding>,
}

/// Why a document's objects are unknown.
pub(super) struct Broken {
    /// Lines from the document's start.
    pub(super) line: usize,
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// A document.
pub(super) struct Document {
    pub(super) hash: blake3::Hash,
    /// Kept to tell a document that was cut off from one that was edited.
    pub(super) text: Box<str>,
    pub(super) entries: Vec<Arc<Entry>>,
    /// Findings about what can't be named.
    pub(super) notes: Vec<Finding>,
    pub(super) broken: Option<Broken>,
}

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
}

impl Document {
    /// Parses and translates.
    pub(super) fn parse(text: &str, hash: blake3::Hash, format: Format) -> Self {
        let mut document = Document { hash, text: text.into(), entries: Vec::new(), notes: Vec::new(), broken: None };
        match value(text, format) {
            Ok(value) => document.unpack(value),
            Err(broken) => document.broken = Some(broken),
        }
        document
    }

    /// A document that ends in the middle of what it was before.
    pub(super) fn cut_off(text: &str, hash: blake3::Hash) -> Self {
        let message = "ends within what was a longer document, without a line end: it seems to be cut off. \
                       If it is meant so, end the file with a line end"
            .to_owned();
        let line = text.lines().count().saturating_sub(1);
        let broken = Some(Broken { line, code: code::CUT_OFF, message });
        Document { hash, text: text.into(), entries: Vec::new(), notes: Vec::new(), broken }
    }

    /// Objects of a document: one, or those of a list.
    fn unpack(&mut self, mut value: Value) {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        let Some(item_kind) = kind.strip_suffix("List").map(str::to_owned) else { return self.add(value) };
        let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) else { return self.add(value) };
        let api_version = value.get("apiVersion").cloned().unwrap_or_default();
        for mut item in items {
            // Items of a typed list need not say what they are.
            if let Some(fields) = item.as_object_mut().filter(|_| !item_kind.is_empty()) {
                fields.entry("kind").or_insert_with(|| item_kind.clone().into());
                fields.entry("apiVersion").or_insert_with(|| api_version.clone());
            }
            self.add(item);
        }
    }

    fn add(&mut self, value: Value) {
        let size = size(&value);
        let Translated { name, object, key, findings } = if size > MAX_OBJECT {
            let message = format!("has {size} bytes; an object of at most {MAX_OBJECT} bytes is allowed");
            refuse(&value, code::LIMIT, message)
        } else {
            translate(value, "")
        };
        let Some(name) = name else { return self.notes.extend(findings) };
        let object = object.map(|mut object| {
            // A file has no counter of its own; the snapshot counts by the spec's hash.
            object.meta.generation = 0;
            object
        });
        self.entries.push(Arc::new(Entry { name, object, key, findings }));
    }
}

/// The length of a value as compact JSON.
fn size(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}

fn value(text: &str, format: Format) -> Result<Value, Broken> {
    match format {
        Format::Json => serde_json::from_str(text).map_err(|error| Broken {
            line: error.line().saturating_sub(1),
            code: code::SYNTAX,
            message: without_place(&error.to_string()),
        }),
        Format::Yaml => serde_saphyr::from_str_with_options(text, options()).map_err(|error| Broken {
            line: error.location().map_or(0, |at| usize::try_from(at.line()).unwrap_or(0).saturating_sub(1)),
            code: code::SYNTAX,
            message: without_place(&error.to_string()),
        }),
    }
}

/// The library's budgets are for small documents; ours is bounded by the file's size.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 20_000_000,
            max_nodes: 10_000_000,
            max_documents: 1,
            max_total_scalar_bytes: 64 << 20,
            max_depth: 100,
            max_aliases: 10_000,
            max_anchors: 10_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        // YAML 1.2: a host or header value `no` is a text.
        strict_booleans: true,
        with_snippet: false,
    }
}

/// A parser's message without its place, which is counted from the document's start.
fn without_place(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    first.rfind(" at line ").map_or(first, |end| &first[..end]).trim_start_matches("error: ").to_owned()
}

/// Splits a file into documents: (line from 0, text). Those without content are left out.
pub(super) fn split(text: &str, format: Format) -> Vec<(usize, &str)> {
    if format == Format::Json {
        return if text.trim().is_empty() { Vec::new() } else { vec![(0, text)] };
    }
    let mut out = Vec::new();
    let (mut start, mut first) = (0, 0);
    let mut at = 0;
    let mut push = |line: usize, text: &'_ str, from: usize, to: usize| {
        let chunk = text.get(from..to).unwrap_or_default();
        if has_content(chunk) {
            out.push((line, from, to));
        }
    };
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let content = line.trim_end();
        let separator = content == "---" || content.starts_with("--- ") || content.starts_with("---\t");
        if separator || content == "..." {
            push(first, text, start, at);
            // What follows the marker on its line belongs to the document.
            start = at + 3;
            first = number;
        }
        at += line.len();
    }
    push(first, text, start, text.len());
    out.into_iter().filter_map(|(line, from, to)| Some((line, text.get(from..to)?))).collect()
}

fn has_content(chunk: &str) -> bool {
    chunk.lines().any(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with(['#', '%'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_at_markers_only() {
        let text = "# only a comment\n---\na: 1\ntext: |\n  ---\n  x\n---\n\n---  # named\nb: 2\n...\nc: ---\n";
        let lines: Vec<_> = split(text, Format::Yaml).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 8, 10]);
        let parsed: Vec<_> = split(text, Format::Yaml)
            .into_iter()
            .map(|(_, chunk)| value(chunk, Format::Yaml).map_err(|broken| broken.message).unwrap())
            .collect();
        assert_eq!(parsed[0]["text"], "---\nx\n");
        assert_eq!(parsed[1]["b"], 2);
        assert_eq!(parsed[2]["c"], "---");
    }

    #[test]
    fn crlf_files_split_alike() {
        assert_eq!(split("a: 1\r\n---\r\nb: 2\r\n", Format::Yaml).len(), 2);
    }

    #[test]
    fn errors_say_the_line() {
        let broken = value("\na: 1\nb: [1, 2\n", Format::Yaml).err().unwrap();
        assert!(broken.line >= 2, "{}", broken.line);
        assert!(!broken.message.contains("at line"), "{}", broken.message);
        let broken = value("{\n\"a\": }", Format::Json).err().unwrap();
        assert_eq!(broken.line, 1);
    }

    #[test]
    fn duplicate_keys_are_refused() {
        assert!(value("a: 1\na: 2\n", Format::Yaml).is_err());
    }

    #[test]
    fn only_true_and_false_are_booleans() {
        let parsed = value("a: y\nb: no\nc: true\n", Format::Yaml).map_err(|broken| broken.message).unwrap();
        assert_eq!(parsed, serde_json::json!({"a": "y", "b": "no", "c": true}));
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..9 {
            let alias = format!("*a{}, ", i - 1).repeat(10);
            text += &format!("a{i}: &a{i} [{}]\n", alias.trim_end_matches(", "));
        }
        assert!(value(&text, Format::Yaml).is_err());
    }
}
