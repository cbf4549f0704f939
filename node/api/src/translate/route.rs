//! HTTPRoute.

use std::collections::HashSet;
use std::time::Duration;

use meshgate_core::intent::{self, HttpRoute, HttpRule, ParentRef};
use meshgate_core::snapshot::{Filter, HttpMatch, PathMatch, PathRewrite, Retry, Timeouts};

use super::backend::backends;
use super::check::{Checker, quote};
use super::filters::{Place, filters};
use super::gateway::check_group_kind;
use super::matches::matches;
use super::{code, duration, pattern};
use crate::types::{self, GATEWAY_GROUP, HttpRouteRule, HttpTimeouts, ParentReference, RetryPolicy};

pub(super) fn route(route: types::HttpRoute, check: &mut Checker) -> HttpRoute {
    let mut spec = route.spec;
    check.count("spec.hostnames", spec.hostnames.len(), 0, 16);
    for (i, host) in spec.hostnames.iter().enumerate() {
        check.text(&format!("spec.hostnames[{i}]"), host, &pattern::HOSTNAME);
    }
    if spec.rules.is_empty() {
        spec.rules.push(HttpRouteRule::default());
    }
    check.count("spec.rules", spec.rules.len(), 1, 16);
    let total: usize = spec.rules.iter().map(|rule| rule.matches.len().max(1)).sum();
    if total > 128 {
        check.refuse(code::COUNT, "spec.rules", format!("have {total} matches together; at most 128 are allowed"));
    }
    check_rule_names(&spec.rules, check);
    let parents = parents(spec.parent_refs, check);
    let rules = spec.rules.into_iter().enumerate();
    let rules = rules.map(|(i, item)| rule(&format!("spec.rules[{i}]"), item, check)).collect();
    HttpRoute { parents, hostnames: spec.hostnames, rules }
}

fn check_rule_names(rules: &[HttpRouteRule], check: &mut Checker) {
    let mut names = HashSet::new();
    for (i, rule) in rules.iter().enumerate() {
        let field = format!("spec.rules[{i}].name");
        check.optional(&field, rule.name.as_deref(), &pattern::SUBDOMAIN);
        if let Some(name) = &rule.name
            && !names.insert(name)
        {
            let message = format!("{} is the name of another rule too: names must be unique", quote(name));
            check.refuse(code::CONFLICT, &field, message);
        }
    }
}

fn parents(refs: Vec<ParentReference>, check: &mut Checker) -> Vec<ParentRef> {
    check.count("spec.parentRefs", refs.len(), 0, 32);
    let mut out: Vec<ParentRef> = Vec::with_capacity(refs.len());
    for (i, item) in refs.into_iter().enumerate() {
        let at = format!("spec.parentRefs[{i}]");
        let group = item.group.unwrap_or_else(|| GATEWAY_GROUP.to_owned());
        let kind = item.kind.unwrap_or_else(|| "Gateway".to_owned());
        check_group_kind(&at, &group, &kind, check);
        check.text(&format!("{at}.name"), &item.name, &pattern::OBJECT_NAME);
        check.optional(&format!("{at}.namespace"), item.namespace.as_deref(), &pattern::LABEL);
        check.optional(&format!("{at}.sectionName"), item.section_name.as_deref(), &pattern::SUBDOMAIN);
        let port = item.port.map(|port| check.port(&format!("{at}.port"), port));
        let section_name = item.section_name;
        let parent = ParentRef { group, kind, namespace: item.namespace, name: item.name, section_name, port };
        check_distinct(&at, &parent, &out, check);
        out.push(parent);
    }
    out
}

/// References to one parent tell listeners apart, all in the same way.
fn check_distinct(at: &str, parent: &ParentRef, others: &[ParentRef], check: &mut Checker) {
    let identity =
        |parent: &ParentRef| (parent.group.clone(), parent.kind.clone(), parent.namespace.clone(), parent.name.clone());
    let same = others.iter().filter(|other| identity(other) == identity(parent));
    for other in same {
        let alike = other.section_name.is_some() == parent.section_name.is_some()
            && other.port.is_some() == parent.port.is_some();
        if !alike {
            let message = "another reference to the same parent has sectionName or port: both must, or neither";
            check.refuse(code::CONFLICT, at, message);
        } else if other.section_name == parent.section_name && other.port == parent.port {
            let message = "refers to the same parent as another: sectionName or port must differ";
            check.refuse(code::CONFLICT, at, message);
        } else {
            continue;
        }
        return;
    }
}

fn rule(at: &str, rule: HttpRouteRule, check: &mut Checker) -> HttpRule {
    let mut unsupported = Vec::new();
    if rule.session_persistence.is_some() {
        unsupported.push(("sessionPersistence".to_owned(), "sessionPersistence".to_owned()));
    }
    let matches = matches(at, rule.matches, check);
    let filters = filters(&Place { at, within_rule: "" }, rule.filters, &mut unsupported, check);
    let backends = backends(at, rule.backend_refs, &mut unsupported, check);
    if !backends.is_empty() && filters.iter().any(|filter| matches!(filter, intent::Filter::Plain(Filter::Redirect(_))))
    {
        let message = "RequestRedirect answers by itself: backendRefs are not allowed beside it";
        check.refuse(code::CONFLICT, &format!("{at}.backendRefs"), message);
    }
    check_prefixes(&format!("{at}.filters"), &filters, &matches, check);
    for (i, backend) in backends.iter().enumerate() {
        check_prefixes(&format!("{at}.backendRefs[{i}].filters"), &backend.filters, &matches, check);
    }
    let timeouts = timeouts(&format!("{at}.timeouts"), &rule.timeouts, check);
    let retry = rule.retry.map(|policy| retry(&format!("{at}.retry"), policy, check));
    HttpRule { name: rule.name, matches, filters, backends, timeouts, retry, unsupported }
}

/// A prefix can only be replaced where exactly one match has one.
fn check_prefixes(at: &str, filters: &[intent::Filter], matches: &[HttpMatch], check: &mut Checker) {
    let replaces = |filter: &intent::Filter| match filter {
        intent::Filter::Plain(Filter::Redirect(redirect)) => matches!(redirect.path, Some(PathRewrite::Prefix(_))),
        intent::Filter::Plain(Filter::Rewrite(rewrite)) => matches!(rewrite.path, Some(PathRewrite::Prefix(_))),
        intent::Filter::Plain(_) | intent::Filter::Mirror { .. } => false,
    };
    let single_prefix = matches!(matches, [HttpMatch { path: PathMatch::Prefix(_), .. }]);
    if !single_prefix && filters.iter().any(replaces) {
        let message = "replacePrefixMatch needs exactly one match in the rule, of type PathPrefix";
        check.refuse(code::CONFLICT, at, message);
    }
}

fn timeouts(at: &str, timeouts: &HttpTimeouts, check: &mut Checker) -> Timeouts {
    let request = timeout(&format!("{at}.request"), timeouts.request.as_deref(), check);
    let backend_request = timeout(&format!("{at}.backendRequest"), timeouts.backend_request.as_deref(), check);
    if let (Some(whole), Some(one)) = (request, backend_request)
        && !whole.is_zero()
        && one > whole
    {
        let message = "must not be longer than timeouts.request";
        check.refuse(code::CONFLICT, &format!("{at}.backendRequest"), message);
    }
    Timeouts { request, backend_request, idle: None }
}

fn retry(at: &str, policy: RetryPolicy, check: &mut Checker) -> Retry {
    let mut codes = Vec::with_capacity(policy.codes.len());
    for (i, code) in policy.codes.iter().enumerate() {
        let field = format!("{at}.codes[{i}]");
        match u16::try_from(*code) {
            Ok(status) if (400..=599).contains(&status) && !codes.contains(&status) => codes.push(status),
            Ok(status) if codes.contains(&status) => {
                check.refuse(super::code::CONFLICT, &field, format!("{status} occurs twice"));
            }
            _ => check.refuse(super::code::VALUE, &field, format!("{code} is not allowed: 400 to 599")),
        }
    }
    let attempts = policy.attempts.unwrap_or(1);
    if attempts < 0 {
        check.refuse(code::VALUE, &format!("{at}.attempts"), format!("{attempts} is not allowed: 0 and more"));
    }
    let backoff = timeout(&format!("{at}.backoff"), policy.backoff.as_deref(), check);
    Retry { codes, attempts: u32::try_from(attempts).unwrap_or(u32::MAX), backoff }
}

fn timeout(field: &str, text: Option<&str>, check: &mut Checker) -> Option<Duration> {
    let text = text?;
    let value = duration::parse(text);
    if value.is_none() {
        let allowed = "one to four numbers of at most five digits, each with a unit h, m, s or ms, such as 1m30s";
        check.refuse(code::VALUE, field, format!("{} is not a duration: {allowed}", quote(text)));
    }
    value
}
