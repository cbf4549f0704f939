//! Ingresses: which class, which listeners, and the routes made from them.

use std::collections::BTreeMap;

use super::backends::{self, Style};
use super::hosts::{covers, ingress_host};
use super::routes::Unit;
use super::status::{ACCEPTED, PROGRAMMED, RESOLVED_REFS, no, status, yes};
use super::store::Objects;
use super::{Finding, codes};
use crate::intent::{BackendRef, Ingress, IngressClass, IngressPathType, Meta, ObjectKind};
use crate::snapshot::{Attachment, HostPattern, HttpMatch, Key, Kind, Listener, PathMatch, Resource, Route, Rule};

/// The Ingresses of a class of ours, the oldest first.
#[derive(Debug)]
pub(crate) struct Class<'a> {
    /// The class.
    pub(crate) meta: &'a Meta,
    /// Never empty.
    pub(crate) ingresses: Vec<(&'a Meta, &'a Ingress)>,
}

/// The key of the Gateway that is made up for a class.
pub(crate) fn gateway_key(class: &Meta) -> Key {
    Key { kind: Kind::Gateway, namespace: "".into(), name: class.object.name.clone() }
}

/// The key of an Ingress's resource.
pub(crate) fn key(meta: &Meta) -> Key {
    Key { kind: Kind::Ingress, namespace: meta.object.namespace.clone(), name: meta.object.name.clone() }
}

/// The classes of ours that are used, by key of their Gateway, and Ingresses that name none.
pub(crate) fn classes<'a>(objects: &'a Objects, controller: &str) -> (BTreeMap<Key, Class<'a>>, Vec<Finding>) {
    let by_name: BTreeMap<&str, (&Meta, &IngressClass)> =
        objects.ingress_classes().map(|(meta, class)| (&*meta.object.name, (meta, class))).collect();
    let default = default_class(objects);
    let mut used: BTreeMap<Key, Class<'a>> = BTreeMap::new();
    let mut findings = Vec::new();
    for (meta, ingress) in objects.ingresses() {
        let class = match (&ingress.class, default) {
            (Some(name), _) => by_name.get(name.as_str()).copied(),
            (None, default) => default,
        };
        match (class, &ingress.class) {
            (Some((class, spec)), _) if spec.controller == controller => {
                let entry = used.entry(gateway_key(class));
                entry.or_insert(Class { meta: class, ingresses: Vec::new() }).ingresses.push((meta, ingress));
            }
            (Some(_), _) => {}
            (None, Some(name)) => {
                let message = format!("IngressClass {name} does not exist, so nothing serves this Ingress");
                findings.push(codes::CLASS_NOT_FOUND.at(&meta.object, "spec.ingressClassName", message));
            }
            (None, None) => {
                let message = "no class is named and no IngressClass is the default, so nothing serves this Ingress";
                findings.push(codes::NO_INGRESS_CLASS.at(&meta.object, "spec.ingressClassName", message));
            }
        }
    }
    for class in used.values_mut() {
        class.ingresses.sort_by_key(|(meta, _)| {
            (meta.created.unwrap_or(0), meta.object.namespace.clone(), meta.object.name.clone())
        });
    }
    (used, findings)
}

/// Of several default classes the newest, then the first by name: what admission would choose.
fn default_class(objects: &Objects) -> Option<(&Meta, &IngressClass)> {
    let defaults = objects.ingress_classes().filter(|(_, class)| class.is_default);
    defaults.min_by_key(|(meta, _)| (std::cmp::Reverse(meta.created.unwrap_or(0)), meta.object.name.clone()))
}

/// Compiles an Ingress onto the listeners of its class; without listeners (no address was left)
/// it serves nothing.
pub(crate) fn compile(
    objects: &Objects,
    gateway: &Key,
    listeners: &[Listener],
    meta: &Meta,
    ingress: &Ingress,
) -> (Option<Resource>, Unit) {
    let mut body = Body { objects, meta, unit: Unit::default(), rules: Vec::new(), unresolved: None };
    let mut hosts = Vec::new();
    for path in &ingress.paths {
        let host = path.host.as_deref().map_or(HostPattern::Any, ingress_host);
        let one = match path.path_type {
            IngressPathType::Exact => PathMatch::Exact(path.path.clone()),
            IngressPathType::Prefix | IngressPathType::ImplementationSpecific => prefix(&path.path),
        };
        body.rule(&path.field, Some(host.clone()), one, &path.backend);
        hosts.push(host);
    }
    if let Some(backend) = &ingress.default_backend {
        // For every host of the Ingress, and for all that no Ingress names.
        body.rule("spec.defaultBackend", None, prefix("/"), backend);
        hosts.push(HostPattern::Any);
    }
    hosts.sort();
    hosts.dedup();

    let attachments = attachments(gateway, listeners, &hosts);
    let Body { mut unit, rules, unresolved, .. } = body;
    let resource = (!attachments.is_empty() && !rules.is_empty()).then(|| {
        Resource::Route(Route {
            generation: meta.generation,
            created: meta.created,
            attachments,
            rules,
            needs: Vec::new(),
        })
    });
    let mut conditions = vec![
        yes("", ACCEPTED, "Accepted"),
        match unresolved {
            Some((reason, message)) => no("", RESOLVED_REFS, reason, message),
            None => yes("", RESOLVED_REFS, "ResolvedRefs"),
        },
    ];
    if resource.is_none() {
        conditions.push(no("", PROGRAMMED, "Invalid", "it has no rule, or its class has no address"));
    }
    unit.status = Some(status(meta, resource.as_ref().map(|_| key(meta)), conditions));
    (resource, unit)
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(if path.is_empty() { "/".to_owned() } else { path.to_owned() })
}

/// On each listener the hosts that it can see. They stay as the rules have them, so that a
/// rule's host is one of its attachment's.
fn attachments(gateway: &Key, listeners: &[Listener], hosts: &[HostPattern]) -> Vec<Attachment> {
    let on = |listener: &Listener| {
        let meets = |host: &&HostPattern| covers(host, &listener.hostname) || covers(&listener.hostname, host);
        let hosts: Vec<HostPattern> = hosts.iter().filter(meets).cloned().collect();
        (!hosts.is_empty()).then(|| Attachment { gateway: gateway.clone(), listener: listener.name.clone(), hosts })
    };
    listeners.iter().filter_map(on).collect()
}

struct Body<'a> {
    objects: &'a Objects,
    meta: &'a Meta,
    unit: Unit,
    rules: Vec<Rule>,
    unresolved: super::routes::Unresolved,
}

impl Body<'_> {
    fn rule(&mut self, field: &str, host: Option<HostPattern>, path: PathMatch, backend: &BackendRef) {
        let from = (ObjectKind::Ingress, &*self.meta.object.namespace);
        let (resolved, problem) = backends::resolve(self.objects, from, backend, Style::Ingress);
        if let Some(problem) = problem {
            let below = if host.is_some() { ".backend" } else { "" };
            let field = format!("{field}{below}{}", problem.field);
            self.unit.findings.push(problem.code.at(&self.meta.object, field, problem.message.clone()));
            self.unresolved.get_or_insert((problem.reason, problem.message));
        }
        self.unit.fields.push(field.to_owned());
        self.rules.push(Rule {
            name: None,
            matches: vec![HttpMatch { path, method: None, headers: Vec::new(), query: Vec::new() }],
            host,
            filters: Vec::new(),
            backends: vec![resolved],
            timeouts: Default::default(),
            broken: false,
        });
    }
}
