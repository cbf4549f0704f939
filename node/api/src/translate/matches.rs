//! Matches of an HTTPRoute's rule.

use std::collections::HashSet;

use meshgate_core::snapshot::{HttpMatch, PathMatch, StringMatch, ValueMatch};

use super::check::{Checker, quote};
use super::{code, pattern};
use crate::types::{HttpPathMatch, HttpRouteMatch, MatchType, PathMatchType, ValueMatcher};

pub(super) const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Matches of a rule; none is the prefix `/`.
pub(super) fn matches(at: &str, matches: Vec<HttpRouteMatch>, check: &mut Checker) -> Vec<HttpMatch> {
    check.count(&format!("{at}.matches"), matches.len(), 0, 64);
    if matches.is_empty() {
        return vec![one(at, HttpRouteMatch::default(), check)];
    }
    matches.into_iter().enumerate().map(|(i, item)| one(&format!("{at}.matches[{i}]"), item, check)).collect()
}

fn one(at: &str, item: HttpRouteMatch, check: &mut Checker) -> HttpMatch {
    if let Some(method) = item.method.as_deref().filter(|method| !METHODS.contains(method)) {
        check.unknown_value(&format!("{at}.method"), method, &METHODS);
    }
    HttpMatch {
        path: path(&format!("{at}.path"), item.path, check),
        method: item.method,
        headers: values(&format!("{at}.headers"), item.headers, true, check),
        query: values(&format!("{at}.queryParams"), item.query_params, false, check),
    }
}

fn path(at: &str, path: HttpPathMatch, check: &mut Checker) -> PathMatch {
    let value = path.value.unwrap_or_else(|| "/".to_owned());
    let field = format!("{at}.value");
    if value.chars().count() > 1024 {
        check.refuse(code::VALUE, &field, "is too long: at most 1024 characters are allowed");
    }
    if matches!(path.kind, PathMatchType::Exact | PathMatchType::PathPrefix) {
        if let Some(problem) = pattern::path_problem(&value) {
            check.refuse(code::VALUE, &field, format!("{} {problem}", quote(&value)));
        } else if !pattern::path_characters(&value) {
            let allowed = "letters, digits, -/._~!$&'()*+,;=:@ and %xx escapes are allowed";
            check.refuse(code::VALUE, &field, format!("{} is not allowed: {allowed}", quote(&value)));
        }
    }
    match path.kind {
        PathMatchType::Exact => PathMatch::Exact(value),
        PathMatchType::PathPrefix => PathMatch::Prefix(value),
        PathMatchType::RegularExpression => PathMatch::Regex(value),
        PathMatchType::Unsupported(other) => {
            check.unknown_value(&format!("{at}.type"), &other, PathMatchType::KNOWN);
            PathMatch::Exact(value)
        }
    }
}

/// Headers or query parameters. Of equal names only the first counts; a list with the very same
/// name twice is refused, because the lists are maps by name.
fn values(at: &str, items: Vec<ValueMatcher>, headers: bool, check: &mut Checker) -> Vec<ValueMatch> {
    check.count(at, items.len(), 0, 16);
    let (mut exact, mut seen) = (HashSet::new(), HashSet::new());
    let mut out = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        check.text(&format!("{at}.name"), &item.name, &pattern::HEADER_NAME);
        let rule = if headers { &pattern::HEADER_VALUE } else { &pattern::QUERY_VALUE };
        check.text(&format!("{at}.value"), &item.value, rule);
        if !exact.insert(item.name.clone()) {
            let message = format!("{} occurs twice: names must be unique", quote(&item.name));
            check.refuse(code::CONFLICT, &format!("{at}.name"), message);
        }
        let name = if headers { item.name.to_ascii_lowercase() } else { item.name };
        let value = match item.kind {
            MatchType::Exact => StringMatch::Exact(item.value),
            MatchType::RegularExpression => StringMatch::Regex(item.value),
            MatchType::Unsupported(other) => {
                check.unknown_value(&format!("{at}.type"), &other, MatchType::KNOWN);
                continue;
            }
        };
        if seen.insert(name.clone()) {
            out.push(ValueMatch { name, value });
        }
    }
    out
}
