//! HTTPRoutes: parents, matches, backends.

use super::backends::{self, Style};
use super::gateways::Gateways;
use super::hosts::gateway_host;
use super::parents::{self, Answer};
use super::regexes::{Place, Regexes};
use super::status::{ACCEPTED, PARTIALLY_INVALID, RESOLVED_REFS, but, no, status, yes};
use super::store::Objects;
use super::{Condition, Finding, ObjectStatus, codes};
use crate::intent::{BackendRef, Filter, HttpRoute, HttpRule, Meta, ObjectKind};
use crate::snapshot::{
    self, Attachment, Backend, BackendTarget, HostPattern, HttpMatch, Key, Kind, Mirror, PathMatch, Resource, Route,
    Rule, StringMatch,
};

/// Matches nothing. It stands for an expression that does not compile, so that the indexes of
/// rules and matches stay those of the object and no peer meets the bad one.
pub(crate) const NEVER: &str = r"[^\s\S]";

/// What was made from a route or an Ingress besides its resource.
#[derive(Debug, Default)]
pub(crate) struct Unit {
    /// What is wrong with it.
    pub(crate) findings: Vec<Finding>,
    /// Its conditions, if it is ours.
    pub(crate) status: Option<ObjectStatus>,
    /// For an Ingress: the field that each rule came from.
    pub(crate) fields: Vec<String>,
}

/// The first thing that is wrong with references, for a condition: reason and words.
pub(crate) type Unresolved = Option<(&'static str, String)>;

/// The key of a route's resource.
pub(crate) fn key(meta: &Meta) -> Key {
    Key { kind: Kind::HttpRoute, namespace: meta.object.namespace.clone(), name: meta.object.name.clone() }
}

/// Compiles one HTTPRoute; nothing but what it refers to is looked at.
pub(crate) fn compile(
    objects: &Objects,
    gateways: &Gateways,
    regexes: &mut Regexes,
    meta: &Meta,
    route: &HttpRoute,
) -> (Option<Resource>, Unit) {
    let mut unit = Unit::default();
    let parents = unit.parents(objects, gateways, meta, route);
    if parents.answers.is_empty() {
        return (None, unit);
    }
    let mut body = Body { objects, meta, regexes, unit: &mut unit, unresolved: None, broken: Vec::new() };
    let rules: Vec<Rule> = route.rules.iter().enumerate().map(|(index, rule)| body.rule(index, rule)).collect();
    let (unresolved, broken) = (body.unresolved, body.broken);

    let resource = (!parents.attachments.is_empty()).then(|| {
        Resource::Route(Route {
            generation: meta.generation,
            created: meta.created,
            attachments: parents.attachments,
            rules,
            needs: Vec::new(),
        })
    });
    let conditions = conditions(parents.answers, unresolved.as_ref(), &broken, route.rules.len());
    unit.status = Some(status(meta, resource.as_ref().map(|_| key(meta)), conditions));
    (resource, unit)
}

/// The conditions for each parent; `broken` are the rules, of so many, that answer 500.
fn conditions(
    answers: Vec<(String, Unresolved)>,
    unresolved: Option<&(&'static str, String)>,
    broken: &[usize],
    rules: usize,
) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (scope, refusal) in answers {
        conditions.push(match refusal {
            Some((reason, message)) => no(&scope, ACCEPTED, reason, message),
            None if !broken.is_empty() && broken.len() == rules => {
                no(&scope, ACCEPTED, "UnsupportedValue", "no rule can be served as declared; each answers 500")
            }
            None => yes(&scope, ACCEPTED, "Accepted"),
        });
        if !broken.is_empty() && broken.len() < rules {
            let list: Vec<String> = broken.iter().map(ToString::to_string).collect();
            let message = format!("can't be served as declared and answer 500: rules {}", list.join(", "));
            conditions.push(but(&scope, PARTIALLY_INVALID, "UnsupportedValue", message));
        }
        conditions.push(match unresolved {
            Some((reason, message)) => no(&scope, RESOLVED_REFS, reason, message.clone()),
            None => yes(&scope, RESOLVED_REFS, "ResolvedRefs"),
        });
    }
    conditions
}

/// What all parents that are ours said.
#[derive(Default)]
struct Parents {
    answers: Vec<(String, Unresolved)>,
    attachments: Vec<Attachment>,
}

impl Unit {
    fn parents(&mut self, objects: &Objects, gateways: &Gateways, meta: &Meta, route: &HttpRoute) -> Parents {
        let hosts: Vec<HostPattern> = route.hostnames.iter().map(|name| gateway_host(name)).collect();
        let mut parents = Parents::default();
        if route.parents.is_empty() {
            let message = "the route names no parent, so it serves nothing; name a Gateway";
            self.findings.push(codes::NO_PARENT.at(&meta.object, "spec.parentRefs", message));
        }
        for (index, reference) in route.parents.iter().enumerate() {
            let scope = parents::scope(meta, reference);
            if parents.answers.iter().any(|(other, _)| *other == scope) {
                continue;
            }
            match parents::ask(objects, gateways, (meta, &hosts), reference, index) {
                Answer::Foreign => {}
                Answer::Missing => {
                    let namespace = reference.namespace.as_deref().unwrap_or(&meta.object.namespace);
                    let message =
                        format!("Gateway {namespace}/{} does not exist; create it or correct the name", reference.name);
                    let field = format!("spec.parentRefs[{index}].name");
                    self.findings.push(codes::PARENT_NOT_FOUND.at(&meta.object, field, message));
                }
                Answer::Taken(attachments) => {
                    parents.answers.push((scope, None));
                    for attachment in attachments {
                        // Two references may lead to one listener.
                        if !parents.attachments.contains(&attachment) {
                            parents.attachments.push(attachment);
                        }
                    }
                }
                Answer::Refused { code, field, reason, message } => {
                    self.findings.push(code.at(&meta.object, field, message.clone()));
                    parents.answers.push((scope, Some((reason, message))));
                }
            }
        }
        parents
    }
}

/// The rules of a route, as they are compiled.
struct Body<'a> {
    objects: &'a Objects,
    meta: &'a Meta,
    regexes: &'a mut Regexes,
    unit: &'a mut Unit,
    unresolved: Unresolved,
    broken: Vec<usize>,
}

impl Body<'_> {
    fn rule(&mut self, index: usize, rule: &HttpRule) -> Rule {
        if rule.backends.is_empty()
            && !rule.filters.iter().any(|filter| matches!(filter, Filter::Plain(snapshot::Filter::Redirect(_))))
        {
            let field = format!("spec.rules[{index}].backendRefs");
            let message = "is empty and nothing redirects: requests get 500 (is the field's name spelled right?)";
            self.unit.findings.push(codes::RULE_WITHOUT_BACKEND.at(&self.meta.object, field, message.to_owned()));
        }
        let mut broken = !rule.unsupported.is_empty();
        for (field, value) in &rule.unsupported {
            let field = if field.starts_with("spec.") { field.clone() } else { format!("spec.rules[{index}].{field}") };
            let message = format!("{value} is not supported, so the rule answers 500; remove it");
            self.unit.findings.push(codes::RULE_UNSUPPORTED.at(&self.meta.object, field, message));
        }
        let mut matches = rule.matches.clone();
        for (number, one) in matches.iter_mut().enumerate() {
            broken |= self.expressions(one, (index, number));
        }
        if broken {
            self.broken.push(index);
        }
        Rule {
            name: rule.name.clone(),
            matches,
            host: None,
            filters: self.filters(&format!("spec.rules[{index}]"), &rule.filters),
            backends: self.backends(index, rule),
            timeouts: rule.timeouts,
            retry: rule.retry.clone(),
            broken,
        }
    }

    /// Replaces the expressions that do not compile. Were there any?
    fn expressions(&mut self, one: &mut HttpMatch, (rule, number): (usize, usize)) -> bool {
        let mut bad = false;
        let field = || format!("spec.rules[{rule}].matches[{number}]");
        match &mut one.path {
            PathMatch::Regex(pattern) => bad |= self.expression(pattern, Place::Path, || field() + ".path.value"),
            PathMatch::RegexPrefix(pattern) => {
                bad |= self.expression(pattern, Place::PathPrefix, || field() + ".path.value");
            }
            PathMatch::Exact(_) | PathMatch::Prefix(_) => {}
        }
        for (values, name) in [(&mut one.headers, "headers"), (&mut one.query, "queryParams")] {
            for (index, value) in values.iter_mut().enumerate() {
                if let StringMatch::Regex(pattern) = &mut value.value {
                    bad |= self.expression(pattern, Place::Value, || format!("{}.{name}[{index}].value", field()));
                }
            }
        }
        bad
    }

    fn expression(&mut self, pattern: &mut String, place: Place, field: impl Fn() -> String) -> bool {
        let Some(problem) = self.regexes.problem(pattern, place) else { return false };
        let message = format!(
            "the regular expression {pattern:?} can't be used: {problem}; this match sees no request, and the rest \
             of its rule answers 500"
        );
        self.unit.findings.push(codes::REGEX_INVALID.at(&self.meta.object, field(), message));
        NEVER.clone_into(pattern);
        true
    }

    fn backends(&mut self, index: usize, rule: &HttpRule) -> Vec<Backend> {
        let mut resolved = Vec::with_capacity(rule.backends.len());
        for (number, reference) in rule.backends.iter().enumerate() {
            let at = format!("spec.rules[{index}].backendRefs[{number}]");
            let target = self.target(&at, reference);
            let filters = self.filters(&at, &reference.filters);
            resolved.push(Backend { target, weight: reference.weight, filters });
        }
        resolved
    }

    /// The filters of the rule or backend `at`, their references resolved. A mirror that does not
    /// resolve copies nothing (HTTPRequestMirrorFilter.backendRef).
    fn filters(&mut self, at: &str, declared: &[Filter]) -> Vec<snapshot::Filter> {
        let resolve = |filter: &Filter| match filter {
            Filter::Plain(filter) => filter.clone(),
            Filter::Mirror { index, backend, denominator, numerator } => {
                let target = self.target(&format!("{at}.filters[{index}].requestMirror.backendRef"), backend);
                snapshot::Filter::Mirror(Mirror { target, denominator: *denominator, numerator: *numerator })
            }
        };
        declared.iter().map(resolve).collect()
    }

    fn target(&mut self, at: &str, reference: &BackendRef) -> BackendTarget {
        let from = (ObjectKind::HttpRoute, &*self.meta.object.namespace);
        backends::resolve(self.objects, from, reference, Style::Route).unwrap_or_else(|problem| {
            let field = format!("{at}{}", problem.field);
            self.unit.findings.push(problem.code.at(&self.meta.object, field, problem.message.clone()));
            self.unresolved.get_or_insert((problem.reason, problem.message));
            BackendTarget::Invalid { reason: problem.reason.to_owned() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::NEVER;
    use crate::compile::{path_regex, value_regex};

    #[test]
    fn what_stands_for_a_bad_expression_compiles_and_matches_nothing() {
        let (path, value) = (path_regex(NEVER).expect("it parses"), value_regex(NEVER).expect("it parses"));
        for text in ["", "/", "a", "\n", "[^\\s\\S]"] {
            assert!(!path.is_match(text) && !value.is_match(text), "{text:?}");
        }
    }
}
