//! The table in words, for `meshctl routes`.

use std::fmt::Write as _;
use std::time::Duration;

use super::gateway::ListenerEntry;
use super::path::Candidate;
use super::route::{CompiledMatch, CompiledRule, Value};
use super::{RouteLine, Table};
use crate::snapshot::{Backend, BackendTarget, Filter, HostPattern, Key, Mirror, PathMatch};

impl Table {
    /// One line for each (listener, host, match), in order of precedence within a host. Sorted by
    /// Gateway; listeners as declared; the most specific host first.
    pub fn lines(&self) -> Vec<RouteLine> {
        let mut gateways: Vec<_> = self.gateways.iter().collect();
        gateways.sort_unstable_by_key(|(key, _)| *key);
        let mut lines = Vec::new();
        for (key, gateway) in gateways {
            for entry in &gateway.listeners {
                for (host, paths) in entry.hosts.sorted() {
                    lines.extend(paths.sorted().into_iter().map(|candidate| line(key, entry, &host, candidate)));
                }
            }
        }
        lines
    }
}

fn line(gateway: &Key, entry: &ListenerEntry, host: &HostPattern, candidate: &Candidate) -> RouteLine {
    let rule = &candidate.route.rules[candidate.rule];
    RouteLine {
        gateway: gateway.clone(),
        listener: entry.listener.name.clone(),
        port: entry.listener.port,
        protocol: entry.listener.protocol,
        host: host.clone(),
        path: path(&candidate.compiled().path),
        matches: matches(candidate.compiled()),
        route: candidate.route.key.clone(),
        rule: candidate.rule,
        rule_name: rule.name.clone(),
        backends: backends(&rule.action.backends),
        policies: policies(rule),
        generation: candidate.route.generation,
    }
}

fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => path.clone(),
        PathMatch::Prefix(prefix) => format!("{}/*", prefix.trim_end_matches('/')),
        PathMatch::Regex(expression) => format!("~ {expression}"),
        PathMatch::RegexPrefix(expression) => format!("~* {expression}"),
    }
}

fn matches(m: &CompiledMatch) -> String {
    let mut parts: Vec<String> = m.method.iter().map(ToString::to_string).collect();
    parts.extend(m.headers.iter().map(|(name, value)| format!("{name}{}", condition(value, ':'))));
    parts.extend(m.query.iter().map(|(name, value)| format!("?{name}{}", condition(value, '='))));
    parts.join(" ")
}

fn condition(value: &Value, equal: char) -> String {
    match value {
        Value::Exact(text) => format!("{equal}{text}"),
        Value::Regex(regex) => format!("~{}", regex.as_str()),
    }
}

fn backends(backends: &[Backend]) -> String {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let one = |backend: &Backend| {
        let mut text = target(&backend.target);
        if backends.len() > 1 {
            // Rounded to the nearest percent; writing to a String can't fail.
            let percent = (u64::from(backend.weight) * 200 + total) / (2 * total.max(1));
            let _ = write!(text, " {percent}%");
        }
        text
    };
    backends.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn target(target: &BackendTarget) -> String {
    match target {
        BackendTarget::Service { service, port } => format!("{}:{port}", service.name),
        BackendTarget::Invalid { reason } => format!("({reason})"),
    }
}

/// How much is copied, unless it is all.
fn share(mirror: &Mirror) -> String {
    match (mirror.numerator, mirror.denominator) {
        (numerator, denominator) if numerator == denominator => String::new(),
        (numerator, 100) => format!(" {numerator}%"),
        (numerator, denominator) => format!(" {numerator}/{denominator}"),
    }
}

fn policies(rule: &CompiledRule) -> String {
    let action = &rule.action;
    let mut parts: Vec<String> = action.filters.iter().map(filter).collect();
    if action.backends.iter().any(|backend| !backend.filters.is_empty()) {
        parts.push("filters by backend".to_owned());
    }
    let timeouts = [
        ("timeout", action.timeouts.request),
        ("try", action.timeouts.backend_request),
        ("idle", action.timeouts.idle),
    ];
    for (name, timeout) in timeouts {
        parts.extend(timeout.map(|timeout| match timeout {
            Duration::ZERO => format!("{name} none"),
            timeout => format!("{name} {timeout:?}"),
        }));
    }
    parts.extend(action.retry.as_ref().map(|retry| {
        let codes: Vec<String> = retry.codes.iter().map(|code| format!(" {code}")).collect();
        match retry.attempts {
            0 => "retry none".to_owned(),
            attempts => format!("retry {attempts}x{}", codes.concat()),
        }
    }));
    if action.broken {
        parts.push("broken".to_owned());
    }
    parts.join(", ")
}

fn filter(filter: &Filter) -> String {
    match filter {
        Filter::RequestHeaders(_) => "request headers".to_owned(),
        Filter::ResponseHeaders(_) => "response headers".to_owned(),
        Filter::Redirect(redirect) if redirect.unless_tls => format!("redirect {} unless TLS", redirect.status),
        Filter::Redirect(redirect) => format!("redirect {}", redirect.status),
        Filter::Rewrite(_) => "rewrite".to_owned(),
        Filter::Mirror(mirror) => format!("mirror {}{}", target(&mirror.target), share(mirror)),
        Filter::Cors(_) => "CORS".to_owned(),
    }
}
