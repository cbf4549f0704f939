//! Ingresses: which class, which listeners, and the routes made from them.

use std::collections::{BTreeMap, BTreeSet};

use super::backends::{self, Style};
use super::hosts::ingress_host;
use super::routes::Unit;
use super::status::{ACCEPTED, PROGRAMMED, RESOLVED_REFS, no, status, yes};
use super::store::Objects;
use super::{Finding, codes};
use crate::intent::{BackendRef, Ingress, IngressClass, IngressPath, IngressPathType, Meta, ObjectKind, ObjectRef};
use crate::snapshot::{
    Attachment, Backend, BackendTarget, HostPattern, HttpMatch, Key, Kind, Listener, PathMatch, Resource, Route,
    RouteHost, Rule,
};

/// The Ingresses of a class of ours, the oldest first.
#[derive(Debug)]
pub(crate) struct Class<'a> {
    /// The class.
    pub(crate) meta: &'a Meta,
    /// Never empty.
    pub(crate) ingresses: Vec<(&'a Meta, &'a Ingress)>,
    /// Who has a rule for everything on a host: there no default backend is asked.
    roots: BTreeMap<HostPattern, BTreeSet<&'a ObjectRef>>,
}

impl<'a> Class<'a> {
    fn new(meta: &'a Meta) -> Self {
        Class { meta, ingresses: Vec::new(), roots: BTreeMap::new() }
    }

    fn add(&mut self, meta: &'a Meta, ingress: &'a Ingress) {
        self.ingresses.push((meta, ingress));
        for path in &ingress.paths {
            if path_match(path) == prefix("/") {
                self.roots.entry(host(path)).or_default().insert(&meta.object);
            }
        }
    }

    /// Has another Ingress a rule for everything on this host?
    fn taken_from(&self, ingress: &ObjectRef, host: &HostPattern) -> bool {
        self.roots.get(host).is_some_and(|owners| owners.iter().any(|owner| *owner != ingress))
    }
}

fn host(path: &IngressPath) -> HostPattern {
    path.host.as_deref().map_or(HostPattern::Any, ingress_host)
}

fn path_match(path: &IngressPath) -> PathMatch {
    match path.path_type {
        IngressPathType::Exact => PathMatch::Exact(path.path.clone()),
        IngressPathType::Prefix | IngressPathType::ImplementationSpecific => prefix(&path.path),
    }
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
                entry.or_insert_with(|| Class::new(class)).add(meta, ingress);
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
    class: &Class<'_>,
    listeners: &[Listener],
    meta: &Meta,
    ingress: &Ingress,
) -> (Option<Resource>, Unit) {
    let mut body = Body { objects, meta, unit: Unit::default(), rules: Vec::new(), unresolved: None };
    let mut hosts = BTreeSet::new();
    for path in &ingress.paths {
        body.rule(&format!("{}.backend", path.field), &path.field, Some(host(path)), path_match(path), &path.backend);
        hosts.insert(host(path));
    }
    if let Some(backend) = &ingress.default_backend {
        hosts.insert(HostPattern::Any);
        body.default_backend(class, &hosts, backend);
    }
    let gateway = &gateway_key(class.meta);
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
fn attachments(gateway: &Key, listeners: &[Listener], hosts: &BTreeSet<HostPattern>) -> Vec<Attachment> {
    let on = |listener: &Listener| {
        let meets = |host: &&HostPattern| host.covers(&listener.hostname) || listener.hostname.covers(host);
        let hosts: Vec<RouteHost> = hosts.iter().filter(meets).cloned().map(RouteHost::named).collect();
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
    /// For every host of the Ingress and for all that no Ingress names, but last: where another
    /// Ingress has a rule for everything, age must not let a default win against it.
    fn default_backend(&mut self, class: &Class<'_>, hosts: &BTreeSet<HostPattern>, backend: &BackendRef) {
        let field = "spec.defaultBackend";
        let taken = |host: &&HostPattern| class.taken_from(&self.meta.object, host);
        if !hosts.iter().any(|host| taken(&host)) {
            return self.rule(field, field, None, prefix("/"), backend);
        }
        for host in hosts.iter().filter(|host| !taken(host)).collect::<Vec<_>>() {
            self.rule(field, field, Some(host.clone()), prefix("/"), backend);
        }
    }

    /// `below` is the field of the backend, `field` that of the rule.
    fn rule(&mut self, below: &str, field: &str, host: Option<HostPattern>, path: PathMatch, backend: &BackendRef) {
        let from = (ObjectKind::Ingress, &*self.meta.object.namespace);
        let target = backends::resolve(self.objects, from, backend, Style::Ingress).unwrap_or_else(|problem| {
            let field = format!("{below}{}", problem.field);
            self.unit.findings.push(problem.code.at(&self.meta.object, field, problem.message.clone()));
            self.unresolved.get_or_insert((problem.reason, problem.message));
            BackendTarget::Invalid { reason: problem.reason.to_owned() }
        });
        self.unit.fields.push(field.to_owned());
        self.rules.push(Rule {
            name: None,
            matches: vec![HttpMatch { path, method: None, headers: Vec::new(), query: Vec::new() }],
            host,
            filters: Vec::new(),
            backends: vec![Backend { target, weight: backend.weight, filters: Vec::new() }],
            timeouts: Default::default(),
            retry: None,
            broken: false,
        });
    }
}
