//! The one place where precedence between matches is decided (ARCHITECTURE.md, invariant 5).
//!
//! The order is the Gateway API's: exact path, longest prefix, method, most headers, most query
//! parameters, oldest route, its namespace and name, first rule, first match. Where a regular
//! expression stands is left to the implementation: here it comes after every prefix, because
//! its length says nothing about how much it matches.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::snapshot::{HttpMatch, Key, Kind, PathMatch};

/// Where a match stands among others of the same host: the smaller one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    path: PathRank,
    without_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    created: i64,
    namespace: Arc<str>,
    name: Arc<str>,
    kind: Kind,
    rule: usize,
    index: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Exact,
    /// The specification leaves its place open. Before prefixes, or a catch-all `/` on the same
    /// host would keep every expression from ever matching.
    Regex,
    Prefix(Reverse<usize>),
}

/// Where match number `m_index` of rule number `rule` of `route` stands.
pub fn precedence(m: &HttpMatch, created: Option<i64>, route: &Key, rule: usize, m_index: usize) -> Precedence {
    Precedence {
        path: rank(&m.path),
        without_method: m.method.is_none(),
        headers: Reverse(m.headers.len()),
        query: Reverse(m.query.len()),
        created: created.unwrap_or(0),
        namespace: Arc::clone(&route.namespace),
        name: Arc::clone(&route.name),
        kind: route.kind,
        rule,
        index: m_index,
    }
}

/// `/a` and `/a/` are the same prefix, so a trailing `/` does not count.
fn rank(path: &PathMatch) -> PathRank {
    match path {
        PathMatch::Exact(_) => PathRank::Exact,
        PathMatch::Prefix(prefix) => PathRank::Prefix(Reverse(prefix.trim_end_matches('/').chars().count())),
        PathMatch::RegexPrefix(pattern) => PathRank::Prefix(Reverse(pattern.chars().count())),
        PathMatch::Regex(_) => PathRank::Regex,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{StringMatch, ValueMatch};

    fn matching(path: PathMatch, method: bool, headers: usize, query: usize) -> HttpMatch {
        let values = |count| {
            (0..count)
                .map(|n: usize| ValueMatch { name: format!("n{n}"), value: StringMatch::Exact("v".into()) })
                .collect()
        };
        HttpMatch { path, method: method.then(|| "GET".into()), headers: values(headers), query: values(query) }
    }

    fn of(m: &HttpMatch, created: Option<i64>, key: (&str, &str), rule: usize, index: usize) -> Precedence {
        precedence(m, created, &Key::new(Kind::HttpRoute, key.0, key.1), rule, index)
    }

    #[test]
    fn each_criterion_beats_all_later_ones() {
        let prefix = |p: &str| PathMatch::Prefix(p.into());
        let poor = |p| matching(p, false, 0, 0);
        let rich = |p| matching(p, true, 9, 9);
        let a = ("a", "a");
        let b = ("b", "b");
        let slash = || prefix("/");
        // (winner, loser), where the loser is better in everything that comes later.
        let cases = [
            (of(&poor(PathMatch::Exact("/a".into())), Some(9), b, 9, 9), of(&rich(prefix("/abc")), Some(1), a, 0, 0)),
            (of(&poor(prefix("/ab")), Some(9), b, 9, 9), of(&rich(prefix("/a")), Some(1), a, 0, 0)),
            (
                of(&poor(PathMatch::Regex("/abc.*".into())), Some(9), b, 9, 9),
                of(&rich(prefix("/abcd")), Some(1), a, 0, 0),
            ),
            (
                of(&poor(PathMatch::Exact("/a".into())), Some(9), b, 9, 9),
                of(&rich(PathMatch::Regex("/a".into())), Some(1), a, 0, 0),
            ),
            (
                of(&matching(slash(), true, 0, 0), Some(9), b, 9, 9),
                of(&matching(slash(), false, 9, 9), Some(1), a, 0, 0),
            ),
            (
                of(&matching(slash(), true, 2, 0), Some(9), b, 9, 9),
                of(&matching(slash(), true, 1, 9), Some(1), a, 0, 0),
            ),
            (
                of(&matching(slash(), true, 1, 2), Some(9), b, 9, 9),
                of(&matching(slash(), true, 1, 1), Some(1), a, 0, 0),
            ),
            (of(&poor(slash()), Some(1), b, 9, 9), of(&poor(slash()), Some(2), a, 0, 0)),
            (of(&poor(slash()), Some(1), ("a", "b"), 9, 9), of(&poor(slash()), Some(1), ("b", "a"), 0, 0)),
            (of(&poor(slash()), Some(1), ("a", "a"), 9, 9), of(&poor(slash()), Some(1), ("a", "b"), 0, 0)),
            (of(&poor(slash()), Some(1), a, 0, 9), of(&poor(slash()), Some(1), a, 1, 0)),
            (of(&poor(slash()), Some(1), a, 0, 0), of(&poor(slash()), Some(1), a, 0, 1)),
        ];
        for (number, (winner, loser)) in cases.iter().enumerate() {
            assert!(winner < loser, "case {number}: {winner:?} should win against {loser:?}");
        }
    }

    #[test]
    fn a_trailing_slash_does_not_lengthen_a_prefix() {
        let with = matching(PathMatch::Prefix("/é/".into()), false, 0, 0);
        let without = matching(PathMatch::Prefix("/é".into()), false, 0, 0);
        assert_eq!(of(&with, None, ("a", "a"), 0, 0), of(&without, Some(0), ("a", "a"), 0, 0));
    }
}
