//! Routes, ready to be matched: names parsed, expressions compiled, precedence decided.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use regex::Regex;

use super::{Action, FEATURES, RequestHead, query};
use crate::compile::precedence::{Precedence, precedence};
use crate::compile::{one_line, path_prefix_regex, path_regex, value_regex};
use crate::filter::MatchedPath;
use crate::sanitize::path;
use crate::snapshot::{
    Attachment, HostPattern, HttpMatch, Key, PathMatch, Route, RouteHost, Rule, Specificity, StringMatch, ValueMatch,
};

/// A route, ready to be matched. Shared by all tables in which it is the same.
#[derive(Debug)]
pub(super) struct CompiledRoute {
    pub(super) key: Key,
    pub(super) generation: u64,
    pub(super) attachments: Vec<Attachment>,
    pub(super) rules: Vec<CompiledRule>,
}

/// A rule of it.
#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) name: Option<String>,
    pub(super) host: Option<HostPattern>,
    pub(super) matches: Vec<CompiledMatch>,
    pub(super) action: Action,
}

/// A match of a rule. The path is in the form of [`path::pattern`].
#[derive(Debug)]
pub(super) struct CompiledMatch {
    pub(super) path: PathMatch,
    pub(super) precedence: Precedence,
    pub(super) method: Option<Method>,
    pub(super) headers: Vec<(HeaderName, Value)>,
    pub(super) query: Vec<(String, Value)>,
    regex: Option<Regex>,
}

/// What a value must be.
#[derive(Debug)]
pub(super) enum Value {
    /// Equal.
    Exact(String),
    /// Matched anywhere.
    Regex(Regex),
}

impl Value {
    fn compile(value: &StringMatch) -> Result<Self, String> {
        Ok(match value {
            StringMatch::Exact(text) => Value::Exact(text.clone()),
            StringMatch::Regex(expression) => Value::Regex(compiled(expression, value_regex)?),
        })
    }

    fn holds_for_bytes(&self, bytes: &[u8]) -> bool {
        match self {
            Value::Exact(text) => text.as_bytes() == bytes,
            Value::Regex(regex) => regex.is_match(&String::from_utf8_lossy(bytes)),
        }
    }

    fn holds_for_query(&self, raw: &str) -> bool {
        match self {
            Value::Exact(text) => query::equals(raw, text),
            Value::Regex(regex) => regex.is_match(&query::decoded(raw)),
        }
    }
}

impl CompiledMatch {
    fn compile(m: &HttpMatch, created: Option<i64>, route: &Key, rule: usize, index: usize) -> Result<Self, String> {
        let canonical = HttpMatch {
            path: match &m.path {
                PathMatch::Exact(text) => PathMatch::Exact(path::pattern(text)),
                PathMatch::Prefix(text) => PathMatch::Prefix(path::pattern(text)),
                PathMatch::Regex(_) | PathMatch::RegexPrefix(_) => m.path.clone(),
            },
            ..m.clone()
        };
        let method = m.method.as_ref().map(|name| Method::from_bytes(name.as_bytes()));
        Ok(CompiledMatch {
            precedence: precedence(&canonical, created, route, rule, index),
            method: method.transpose().map_err(|_| format!("method {:?} is not a token", m.method))?,
            headers: m.headers.iter().map(header).collect::<Result<_, _>>()?,
            query: m.query.iter().map(parameter).collect::<Result<_, _>>()?,
            regex: match &m.path {
                PathMatch::Regex(expression) => Some(compiled(expression, path_regex)?),
                PathMatch::RegexPrefix(expression) => Some(compiled(expression, path_prefix_regex)?),
                PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
            },
            path: canonical.path,
        })
    }

    /// Whether everything but the path holds.
    pub(super) fn rest_holds(&self, head: &RequestHead<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == head.method)
            && self.headers.iter().all(|(name, value)| header_holds(head.headers, name, value))
            && self.query.iter().all(|(name, value)| {
                head.query.and_then(|query| query::first(query, name)).is_some_and(|raw| value.holds_for_query(raw))
            })
    }

    /// How the path is matched, for rewrites.
    pub(super) fn matched(&self) -> MatchedPath<'_> {
        match (&self.path, &self.regex) {
            (PathMatch::Prefix(prefix), _) => MatchedPath::Prefix(prefix),
            (_, Some(regex)) => MatchedPath::Regex(regex),
            (_, None) => MatchedPath::Exact,
        }
    }

    /// Whether the path's regular expression holds; false for other kinds.
    pub(super) fn regex_holds(&self, path: &str) -> bool {
        self.regex.as_ref().is_some_and(|regex| regex.is_match(path))
    }
}

/// A header that stands on several lines holds when one of them does, or all of them joined by
/// commas (RFC 9110 5.3).
fn header_holds(headers: &HeaderMap, name: &HeaderName, value: &Value) -> bool {
    let mut lines = headers.get_all(name).iter();
    let Some(first) = lines.next() else { return false };
    if value.holds_for_bytes(first.as_bytes()) {
        return true;
    }
    let mut joined: Vec<u8> = Vec::new();
    for line in lines {
        if value.holds_for_bytes(line.as_bytes()) {
            return true;
        }
        if joined.is_empty() {
            joined.extend_from_slice(first.as_bytes());
        }
        joined.push(b',');
        joined.extend_from_slice(line.as_bytes());
    }
    !joined.is_empty() && value.holds_for_bytes(&joined)
}

fn header(m: &ValueMatch) -> Result<(HeaderName, Value), String> {
    let name = HeaderName::from_bytes(m.name.as_bytes()).map_err(|_| format!("header name {:?} is invalid", m.name))?;
    Ok((name, Value::compile(&m.value)?))
}

fn parameter(m: &ValueMatch) -> Result<(String, Value), String> {
    Ok((m.name.clone(), Value::compile(&m.value)?))
}

/// By the compiler's own rules and limits, so that what compiled there compiles here.
fn compiled(expression: &str, compile: fn(&str) -> Result<Regex, regex::Error>) -> Result<Regex, String> {
    compile(expression).map_err(|error| format!("regular expression {expression:?}: {}", one_line(&error)))
}

impl CompiledRule {
    fn compile(rule: &Rule, route: &Route, key: &Key, number: usize, supported: bool) -> Result<Self, String> {
        let matches = rule.matches.iter().enumerate();
        Ok(CompiledRule {
            name: rule.name.clone(),
            host: rule.host.clone(),
            matches: matches
                .map(|(index, m)| CompiledMatch::compile(m, route.created, key, number, index))
                .collect::<Result<_, _>>()?,
            action: Action {
                filters: rule.filters.clone(),
                backends: rule.backends.clone(),
                timeouts: rule.timeouts,
                retry: rule.retry.clone(),
                broken: rule.broken || !supported,
            },
        })
    }
}

impl CompiledRoute {
    /// Compiles a route.
    ///
    /// # Errors
    /// Why it can't be served here: a regular expression, a method or a header name.
    pub(super) fn compile(key: &Key, route: &Route) -> Result<Arc<Self>, String> {
        let supported = route.needs.iter().all(|feature| FEATURES.contains(feature));
        let rules = route.rules.iter().enumerate();
        Ok(Arc::new(CompiledRoute {
            key: key.clone(),
            generation: route.generation,
            attachments: route.attachments.clone(),
            rules: rules
                .map(|(number, rule)| CompiledRule::compile(rule, route, key, number, supported))
                .collect::<Result<_, _>>()?,
        }))
    }

    /// Calls `place` with every host of a listener, the specificity of the hostname that brought
    /// the route there, and every rule that this route serves there; the same may come twice.
    pub(super) fn placements<'r>(
        &'r self,
        gateway: &Key,
        listener: &str,
        mut place: impl FnMut(&'r HostPattern, Specificity, usize),
    ) {
        let here = |attachment: &&Attachment| attachment.listener == listener && attachment.gateway == *gateway;
        for attachment in self.attachments.iter().filter(here) {
            for (number, rule) in self.rules.iter().enumerate() {
                match &rule.host {
                    Some(only) if attachment.hosts.iter().any(|host| host.served.covers(only)) => {
                        place(only, only.specificity(), number);
                    }
                    only => {
                        let within = |host: &RouteHost| only.as_ref().is_none_or(|only| only.covers(&host.served));
                        for host in attachment.hosts.iter().filter(|host| within(host)) {
                            place(&host.served, host.declared.specificity(), number);
                        }
                    }
                }
            }
        }
    }
}
