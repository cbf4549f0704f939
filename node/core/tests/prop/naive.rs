//! The specification's order, spelled out: look at everything, keep what matches, take the best.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use meshgate_core::sanitize::path::pattern;
use meshgate_core::snapshot::*;
use meshgate_core::table::RequestHead;
use regex::Regex;

use super::generate::HOSTS;

/// What is decided: a status, or (listener, route, rule, matched prefix).
#[derive(Debug, PartialEq)]
pub enum Answer {
    Status(u16),
    Rule(String, Key, usize, Option<String>),
}

pub fn decide(resources: &BTreeMap<Key, Arc<Resource>>, gateway: &Key, port: u16, head: &RequestHead<'_>) -> Answer {
    let listeners = match resources.get(gateway).map(|resource| &**resource) {
        Some(Resource::Gateway(gateway)) => gateway.listeners.as_slice(),
        _ => &[],
    };
    let best = |host: &str| {
        let listeners = listeners.iter().enumerate().filter(|(_, listener)| listener.port == port);
        let ranked = listeners.filter_map(|(number, listener)| Some((rank(&listener.hostname, host)?, number)));
        ranked.min().map(|(_, number)| number)
    };
    let Some(chosen) = best(head.host) else { return Answer::Status(404) };
    let secure = listeners[chosen].protocol == Protocol::Https;
    if secure != head.sni.is_some() || head.sni.is_some_and(|sni| best(sni) != Some(chosen)) {
        return Answer::Status(421);
    }
    let listener = &listeners[chosen].name;
    let mut found = Vec::new();
    for (key, resource) in resources {
        let Resource::Route(route) = &**resource else { continue };
        for attachment in &route.attachments {
            if attachment.gateway != *gateway || attachment.listener != *listener {
                continue;
            }
            for (number, rule) in route.rules.iter().enumerate() {
                for (host, declared) in hosts(rule, attachment) {
                    let Some(host) = rank(host, head.host) else { continue };
                    // What brought the route here covers the host, so it has a rank.
                    let Some(declared) = rank(declared, head.host) else { panic!("{declared} is not wider") };
                    for (index, m) in rule.matches.iter().enumerate().filter(|(_, m)| holds(m, head)) {
                        let counts = (m.method.is_none(), Reverse(m.headers.len()), Reverse(m.query.len()));
                        let age = route.created.unwrap_or(0);
                        let name = (key.namespace.clone(), key.name.clone(), key.kind);
                        found.push(((host, declared, path_rank(&m.path), counts, age, name, number, index), key, m));
                    }
                }
            }
        }
    }
    match found.into_iter().min_by(|(a, ..), (b, ..)| a.cmp(b)) {
        None => Answer::Status(404),
        Some(((.., rule, _), key, m)) => {
            let prefix = match &m.path {
                PathMatch::Prefix(prefix) => Some(pattern(prefix)),
                _ => None,
            };
            Answer::Rule(listener.clone(), key.clone(), rule, prefix)
        }
    }
}

/// Hosts of an attachment that a rule serves, each with the hostname that brought the route there:
/// its own when the attachment includes it, else those that its own includes.
fn hosts<'r>(rule: &'r Rule, attachment: &'r Attachment) -> Vec<(&'r HostPattern, &'r HostPattern)> {
    let all = attachment.hosts.iter().map(|host| (&host.served, &host.declared));
    let Some(only) = &rule.host else { return all.collect() };
    if all.clone().any(|(host, _)| includes(host, only)) {
        return vec![(only, only)];
    }
    all.filter(|(host, _)| includes(only, host)).collect()
}

/// Tried on every host of the world.
fn includes(wide: &HostPattern, narrow: &HostPattern) -> bool {
    let more = ["z", "z.test", "z.z.test", "z.a.test", "z.z.a.test", "z.b.a.test", "z.z.b.a.test"];
    HOSTS.iter().chain(&more).all(|host| rank(narrow, host).is_none() || rank(wide, host).is_some())
}

/// How well a pattern matches a host; smaller is more specific.
fn rank(pattern: &HostPattern, host: &str) -> Option<(u8, Reverse<usize>, u8)> {
    let labels = |name: &str| name.split('.').map(String::from).collect::<Vec<_>>();
    let below = |suffix: &str| {
        let (host, suffix) = (labels(host), labels(suffix));
        host.ends_with(&suffix).then(|| host.len() - suffix.len()).filter(|&more| more > 0)
    };
    match pattern {
        HostPattern::Exact(name) => (name == host).then_some((0, Reverse(0), 0)),
        HostPattern::WildcardOneLabel(suffix) => {
            below(suffix).filter(|&more| more == 1).map(|_| (1, Reverse(suffix.len()), 0))
        }
        HostPattern::Wildcard(suffix) => below(suffix).map(|_| (1, Reverse(suffix.len()), 1)),
        HostPattern::Any => Some((2, Reverse(0), 0)),
    }
}

fn path_rank(path: &PathMatch) -> (u8, Reverse<usize>) {
    match path {
        PathMatch::Exact(_) => (0, Reverse(0)),
        PathMatch::Regex(_) => (1, Reverse(0)),
        PathMatch::Prefix(prefix) => (2, Reverse(pattern(prefix).trim_end_matches('/').len())),
        PathMatch::RegexPrefix(expression) => (2, Reverse(expression.len())),
    }
}

fn holds(m: &HttpMatch, head: &RequestHead<'_>) -> bool {
    let path = match &m.path {
        PathMatch::Exact(path) => pattern(path) == head.path,
        PathMatch::Prefix(prefix) => {
            let (path, prefix): (Vec<&str>, String) = (head.path.split('/').collect(), pattern(prefix));
            path.starts_with(&prefix.trim_end_matches('/').split('/').collect::<Vec<_>>())
        }
        PathMatch::Regex(expression) => whole(expression, head.path),
        PathMatch::RegexPrefix(expression) => {
            Regex::new(&format!(r"\A(?i)({expression})")).unwrap().is_match(head.path)
        }
    };
    path && m.method.as_ref().is_none_or(|method| method == head.method.as_str())
        && m.headers.iter().all(|header| {
            let lines = head.headers.get_all(&header.name).iter().map(|line| line.to_str().unwrap());
            let lines: Vec<&str> = lines.collect();
            !lines.is_empty()
                && (lines.iter().any(|line| value_holds(&header.value, line))
                    || value_holds(&header.value, &lines.join(",")))
        })
        && m.query.iter().all(|parameter| {
            let query = head.query.unwrap_or_default().replace("%71", "q").replace("%32", "2");
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == parameter.name).is_some_and(|(_, text)| value_holds(&parameter.value, text))
        })
}

fn value_holds(value: &StringMatch, text: &str) -> bool {
    match value {
        StringMatch::Exact(exact) => exact == text,
        StringMatch::Regex(expression) => Regex::new(expression).unwrap().is_match(text),
    }
}

/// Whether some match of the expression is the whole text.
fn whole(expression: &str, text: &str) -> bool {
    Regex::new(&format!(r"\A({expression})\z")).unwrap().is_match(text)
}
