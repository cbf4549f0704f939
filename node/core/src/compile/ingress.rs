//! Ingresses: which class, which listeners, and the routes made from them.

use std::collections::{BTreeMap, BTreeSet};

use super::backends::{self, Style};
use super::endpoints;
use super::hosts::ingress_host;
use super::regexes::{Place, Regexes};
use super::routes::{NEVER, Unit};
use super::status::{ACCEPTED, PROGRAMMED, RESOLVED_REFS, no, status, yes};
use super::store::Objects;
use super::{Finding, codes};
use crate::intent::{
    BackendRef, HttpsRedirect, Ingress, IngressClass, IngressPath, IngressPathType, IngressTls, Meta, ObjectKind,
    ObjectRef,
};
use crate::snapshot::{
    AppProtocol, Attachment, Backend, BackendTarget, Filter, HostPattern, HttpMatch, Key, Kind, Listener, PathMatch,
    PathRewrite, Protocol, Redirect, Resource, Route, RouteHost, Rule,
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
    /// On each host the first Ingress whose paths are no regular expressions.
    plain: BTreeMap<HostPattern, &'a ObjectRef>,
}

impl<'a> Class<'a> {
    fn new(meta: &'a Meta) -> Self {
        Class { meta, ingresses: Vec::new(), roots: BTreeMap::new(), plain: BTreeMap::new() }
    }

    fn add(&mut self, meta: &'a Meta, ingress: &'a Ingress) {
        self.ingresses.push((meta, ingress));
        for path in &ingress.paths {
            if matches!(path_match(ingress, path), PathMatch::Prefix(root) | PathMatch::RegexPrefix(root) if root == "/")
            {
                self.roots.entry(host(path)).or_default().insert(&meta.object);
            }
            if !ingress.options.regex {
                self.plain.entry(host(path)).or_insert(&meta.object);
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

fn path_match(ingress: &Ingress, path: &IngressPath) -> PathMatch {
    match path.path_type {
        IngressPathType::Exact => PathMatch::Exact(path.path.clone()),
        _ if ingress.options.regex => PathMatch::RegexPrefix(path.path.clone()),
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
    regexes: &mut Regexes,
    (meta, ingress): (&Meta, &Ingress),
) -> (Option<Resource>, Unit) {
    let mut body =
        Body { objects, meta, ingress, listeners, unit: Unit::default(), rules: Vec::new(), unresolved: None };
    let mut hosts: BTreeSet<HostPattern> = ingress.paths.iter().map(host).collect();
    hosts.extend(ingress.default_backend.is_some().then_some(HostPattern::Any));
    body.app_root(&hosts);
    for path in &ingress.paths {
        let matching = body.path(class, regexes, path);
        let below = format!("{}.backend", path.field);
        body.rule(&below, &path.field, Some(host(path)), matching, &path.backend);
    }
    if let Some(backend) = &ingress.default_backend {
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
    ingress: &'a Ingress,
    listeners: &'a [Listener],
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
        // A rule for all hosts would have to redirect some of them and not others.
        if !hosts.iter().any(|host| taken(&host) || self.to_https(host).is_some()) {
            return self.rule(field, field, None, prefix("/"), backend);
        }
        for host in hosts.iter().filter(|host| !taken(host)).collect::<Vec<_>>() {
            self.rule(field, field, Some(host.clone()), prefix("/"), backend);
        }
    }

    /// How a path is matched; what is wrong with it, or other than with ingress-nginx, is said.
    fn path(&mut self, class: &Class<'_>, regexes: &mut Regexes, path: &IngressPath) -> PathMatch {
        let matching = path_match(self.ingress, path);
        let field = format!("{}.path", path.field);
        if self.ingress.options.regex && path.path_type == IngressPathType::Exact {
            let message = "pathType Exact is exact here; ingress-nginx would match it as an expression at the start of \
                           the path: use ImplementationSpecific for that";
            let field = format!("{}.pathType", path.field);
            self.unit.findings.push(codes::REGEX_DIFFERS.at(&self.meta.object, field, message));
        }
        let PathMatch::RegexPrefix(expression) = &matching else { return matching };
        if let Some(problem) = regexes.problem(expression, Place::PathPrefix) {
            let message =
                format!("the regular expression {expression:?} can't be used: {problem}; the path sees no request");
            self.unit.findings.push(codes::REGEX_INVALID.at(&self.meta.object, field, message));
            return PathMatch::Regex(NEVER.to_owned());
        }
        if let Some(other) = class.plain.get(&host(path)) {
            let message = format!(
                "paths of {other} on the same host are no expressions; ingress-nginx would make expressions of them, \
                 because this Ingress asks for it"
            );
            self.unit.findings.push(codes::REGEX_DIFFERS.at(&self.meta.object, field, message));
        }
        matching
    }

    /// `app-root`: the exact path `/` of each host is redirected, before any other rule.
    fn app_root(&mut self, hosts: &BTreeSet<HostPattern>) {
        let Some(root) = &self.ingress.options.app_root else { return };
        for host in hosts {
            let path = Some(PathRewrite::Full(root.clone()));
            let redirect = Filter::Redirect(Redirect { path, status: 302, ..Redirect::default() });
            let filters = self.to_https(host).into_iter().chain([redirect]).collect();
            self.unit.fields.push("metadata.annotations[\"nginx.ingress.kubernetes.io/app-root\"]".to_owned());
            self.push(Some(host.clone()), PathMatch::Exact("/".to_owned()), filters, Vec::new());
        }
    }

    /// The redirect of requests without TLS, where the Ingress wants one: by default on hosts that
    /// this Ingress itself gives a certificate, as ingress-nginx does.
    fn to_https(&self, host: &HostPattern) -> Option<Filter> {
        let wanted = match self.ingress.options.https {
            HttpsRedirect::Never => false,
            HttpsRedirect::Always => true,
            HttpsRedirect::WithTls => {
                let named = |tls: &IngressTls| {
                    tls.hosts.is_empty() || tls.hosts.iter().any(|name| ingress_host(name).covers(host))
                };
                let serves =
                    |listener: &Listener| listener.protocol == Protocol::Https && listener.hostname.covers(host);
                self.ingress.tls.iter().any(named) && self.listeners.iter().any(serves)
            }
        };
        let scheme = Some("https".to_owned());
        wanted.then(|| Filter::Redirect(Redirect { scheme, status: 308, unless_tls: true, ..Redirect::default() }))
    }

    /// `backend-protocol`: the Service says what its pods speak, to every peer.
    fn check_protocol(&mut self, below: &str, target: &BackendTarget) {
        let (Some(wanted), BackendTarget::Service { service, port }) = (self.ingress.options.app, target) else {
            return;
        };
        let declared = self.objects.service(&service.namespace, &service.name);
        let declared = declared.and_then(|(_, declared)| declared.ports.iter().find(|one| one.port == *port));
        if declared.is_some_and(|declared| endpoints::app_protocol(declared.app_protocol.as_deref()) != wanted) {
            let (says, set) = match wanted {
                AppProtocol::H2c => ("GRPC", "set appProtocol: kubernetes.io/h2c"),
                AppProtocol::Http1 => ("HTTP", "remove its appProtocol"),
            };
            let message = format!(
                "the annotation backend-protocol says {says}, but port {port} of {service} does not: {set} there"
            );
            self.unit.findings.push(codes::BACKEND_PROTOCOL.at(&self.meta.object, below, message));
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
        self.check_protocol(below, &target);
        let options = &self.ingress.options;
        let redirect = self.to_https(host.as_ref().unwrap_or(&HostPattern::Any));
        let cors = options.cors.clone().map(Filter::Cors);
        let filters = redirect.into_iter().chain(options.filters.iter().cloned()).chain(cors).collect();
        self.unit.fields.push(field.to_owned());
        self.push(host, path, filters, vec![Backend { target, weight: backend.weight, filters: Vec::new() }]);
    }

    fn push(&mut self, host: Option<HostPattern>, path: PathMatch, filters: Vec<Filter>, backends: Vec<Backend>) {
        self.rules.push(Rule {
            name: None,
            matches: vec![HttpMatch { path, method: None, headers: Vec::new(), query: Vec::new() }],
            host,
            filters,
            backends,
            timeouts: self.ingress.options.timeouts,
            retry: None,
            broken: self.ingress.options.broken,
        });
    }
}
