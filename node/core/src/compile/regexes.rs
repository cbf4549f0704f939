//! Regular expressions: the bounds that every peer and the compiler share, so that what compiles
//! here compiles there.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};

/// A compiled expression is at most this large; `(a{1000}){1000}` is refused, not executed.
pub const REGEX_SIZE_LIMIT: usize = 256 * 1024;

/// Groups nest at most this deep.
pub const REGEX_NEST_LIMIT: u32 = 64;

/// Verdicts that are kept between two full compilations.
const KEPT: usize = 10_000;

/// An expression that matches a whole path.
pub fn path_regex(pattern: &str) -> Result<Regex, regex::Error> {
    // By itself first: `a)|(b` would be valid only between the anchors.
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

/// An expression that matches at the start of a path, in any case (what nginx calls `~* ^`).
pub fn path_prefix_regex(pattern: &str) -> Result<Regex, regex::Error> {
    build(pattern)?;
    build(&format!("^(?i:{pattern})"))
}

/// An expression that matches anywhere in a value.
pub fn value_regex(pattern: &str) -> Result<Regex, regex::Error> {
    build(pattern)
}

fn build(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(REGEX_SIZE_LIMIT).nest_limit(REGEX_NEST_LIMIT).build()
}

/// Where an expression stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// It matches a whole path.
    Path,
    /// It matches the start of a path.
    PathPrefix,
    /// It matches anywhere in a value.
    Value,
}

/// Remembers which expressions compile, because compiling one costs more than compiling a route.
#[derive(Debug, Default)]
pub(crate) struct Regexes {
    known: HashMap<(String, Place), Option<String>>,
    old: HashMap<(String, Place), Option<String>>,
}

impl Regexes {
    /// Begins a full compilation: what it does not ask for is forgotten.
    pub(crate) fn renew(&mut self) {
        self.old = std::mem::take(&mut self.known);
    }

    /// What is wrong with an expression; `None` if it is good.
    pub(crate) fn problem(&mut self, pattern: &str, place: Place) -> Option<String> {
        if self.known.len() >= KEPT {
            self.renew();
        }
        let (known, old) = (&mut self.known, &mut self.old);
        let key = (pattern.to_owned(), place);
        let verdict = match known.get(&key) {
            Some(verdict) => return verdict.clone(),
            None => old.remove(&key).unwrap_or_else(|| {
                let result = match place {
                    Place::Path => path_regex(pattern),
                    Place::PathPrefix => path_prefix_regex(pattern),
                    Place::Value => value_regex(pattern),
                };
                result.err().map(|error| one_line(&error))
            }),
        };
        known.insert(key, verdict.clone());
        verdict
    }
}

/// What is wrong with an expression, in one line; the others draw where.
pub(crate) fn one_line(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("it would take more than {limit} bytes"),
        other => {
            let text = other.to_string();
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it does not parse");
            last.trim().trim_start_matches("error: ").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_expressions() {
        let mut regexes = Regexes::default();
        let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        let cases = [
            ("/a/[0-9]+", None),
            ("(", Some("unclosed group")),
            ("/a)|(/b", Some("unopened group")),
            ("(?:a{1000}){1000}", Some("more than 262144 bytes")),
            (deep.as_str(), Some("nest")),
            ("(?=a)", Some("look-around")),
        ];
        for (pattern, expected) in cases {
            for _ in 0..2 {
                let problem = regexes.problem(pattern, Place::Path);
                match expected {
                    None => assert_eq!(problem, None, "{pattern}"),
                    Some(part) => {
                        assert!(problem.as_deref().is_some_and(|p| p.contains(part)), "{pattern}: {problem:?}")
                    }
                }
            }
        }
    }

    #[test]
    fn a_path_is_matched_whole_and_a_value_anywhere() {
        let path = path_regex("/a|/b").expect("it parses");
        assert!(path.is_match("/b") && !path.is_match("/b/c") && !path.is_match("/x/a"));
        assert!(value_regex("b").expect("it parses").is_match("abc"));
    }
}
