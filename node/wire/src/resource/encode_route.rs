//! Routes to messages.

use std::time::Duration;

use meshgate_core::snapshot::{
    Attachment, Backend, BackendTarget, Cors, Filter, HeaderModifier, HttpMatch, Key, Mirror, PathMatch, PathRewrite,
    Redirect, Retry, Rewrite, Route, RouteHost, Rule, StringMatch, ValueMatch,
};
use meshgate_proto::snapshot as pb;

use super::encode::host;
use crate::commit::key_to_proto;

pub(super) fn route_message(route: &Route) -> pb::Route {
    pb::Route {
        needs: route.needs.clone(),
        generation: route.generation,
        created: route.created,
        attachments: route.attachments.iter().map(attachment).collect(),
        rules: route.rules.iter().map(rule).collect(),
    }
}

fn attachment(attachment: &Attachment) -> pb::Attachment {
    pb::Attachment {
        gateway: Some(key_to_proto(&attachment.gateway)),
        listener: attachment.listener.clone(),
        hosts: attachment.hosts.iter().map(route_host).collect(),
    }
}

fn route_host(route_host: &RouteHost) -> pb::RouteHost {
    let declared = (route_host.declared != route_host.served).then(|| host(&route_host.declared));
    pb::RouteHost { served: Some(host(&route_host.served)), declared }
}

fn rule(rule: &Rule) -> pb::Rule {
    pb::Rule {
        name: rule.name.clone(),
        matches: rule.matches.iter().map(http_match).collect(),
        host: rule.host.as_ref().map(host),
        filters: rule.filters.iter().map(filter).collect(),
        backends: rule.backends.iter().map(backend).collect(),
        request_timeout_ns: rule.timeouts.request.map(nanos),
        backend_request_timeout_ns: rule.timeouts.backend_request.map(nanos),
        broken: rule.broken,
        idle_timeout_ns: rule.timeouts.idle.map(nanos),
        retry: rule.retry.as_ref().map(retry),
    }
}

fn retry(retry: &Retry) -> pb::Retry {
    pb::Retry {
        codes: retry.codes.iter().copied().map(u32::from).collect(),
        attempts: retry.attempts,
        backoff_ns: retry.backoff.map(nanos),
    }
}

fn http_match(matcher: &HttpMatch) -> pb::HttpMatch {
    use pb::path_match::Path;
    let path = match &matcher.path {
        PathMatch::Exact(path) => Path::Exact(path.clone()),
        PathMatch::Prefix(path) => Path::Prefix(path.clone()),
        PathMatch::Regex(regex) => Path::Regex(regex.clone()),
        PathMatch::RegexPrefix(regex) => Path::RegexPrefix(regex.clone()),
    };
    pb::HttpMatch {
        path: Some(pb::PathMatch { path: Some(path) }),
        method: matcher.method.clone(),
        headers: matcher.headers.iter().map(value_match).collect(),
        query: matcher.query.iter().map(value_match).collect(),
    }
}

fn value_match(matcher: &ValueMatch) -> pb::ValueMatch {
    use pb::value_match::Value;
    let value = match &matcher.value {
        StringMatch::Exact(value) => Value::Exact(value.clone()),
        StringMatch::Regex(regex) => Value::Regex(regex.clone()),
    };
    pb::ValueMatch { name: matcher.name.clone(), value: Some(value) }
}

fn filter(filter: &Filter) -> pb::Filter {
    use pb::filter::Filter as Kind;
    let filter = match filter {
        Filter::RequestHeaders(modifier) => Kind::RequestHeaders(header_modifier(modifier)),
        Filter::ResponseHeaders(modifier) => Kind::ResponseHeaders(header_modifier(modifier)),
        Filter::Redirect(to) => Kind::Redirect(redirect(to)),
        Filter::Rewrite(Rewrite { hostname, path }) => {
            Kind::Rewrite(pb::Rewrite { hostname: hostname.clone(), path: path.as_ref().map(path_rewrite) })
        }
        Filter::Mirror(to) => Kind::Mirror(mirror(to)),
        Filter::Cors(policy) => Kind::Cors(cors(policy)),
    };
    pb::Filter { filter: Some(filter) }
}

fn mirror(mirror: &Mirror) -> pb::Mirror {
    use pb::mirror::Target;
    let target = match &mirror.target {
        BackendTarget::Service { service, port } => Target::Service(service_ref(service, *port)),
        BackendTarget::Invalid { reason } => Target::Invalid(reason.clone()),
    };
    pb::Mirror { target: Some(target), denominator: mirror.denominator, numerator: mirror.numerator }
}

fn cors(cors: &Cors) -> pb::Cors {
    pb::Cors {
        allow_origins: cors.allow_origins.clone(),
        allow_credentials: cors.allow_credentials,
        allow_methods: cors.allow_methods.clone(),
        allow_headers: cors.allow_headers.clone(),
        expose_headers: cors.expose_headers.clone(),
        max_age: cors.max_age,
    }
}

fn header_modifier(modifier: &HeaderModifier) -> pb::HeaderModifier {
    let headers = |list: &[(String, String)]| {
        list.iter().map(|(name, value)| pb::Header { name: name.clone(), value: value.clone() }).collect()
    };
    pb::HeaderModifier { set: headers(&modifier.set), add: headers(&modifier.add), remove: modifier.remove.clone() }
}

fn redirect(redirect: &Redirect) -> pb::Redirect {
    pb::Redirect {
        scheme: redirect.scheme.clone(),
        hostname: redirect.hostname.clone(),
        path: redirect.path.as_ref().map(path_rewrite),
        port: redirect.port.map(u32::from),
        status: u32::from(redirect.status),
        location: redirect.location.clone(),
        unless_tls: redirect.unless_tls,
    }
}

fn path_rewrite(rewrite: &PathRewrite) -> pb::PathRewrite {
    use pb::path_rewrite::Rewrite;
    let rewrite = match rewrite {
        PathRewrite::Full(path) => Rewrite::Full(path.clone()),
        PathRewrite::Prefix(prefix) => Rewrite::Prefix(prefix.clone()),
        PathRewrite::Template(template) => Rewrite::Template(template.clone()),
    };
    pb::PathRewrite { rewrite: Some(rewrite) }
}

fn backend(backend: &Backend) -> pb::Backend {
    use pb::backend::Target;
    let target = match &backend.target {
        BackendTarget::Service { service, port } => Target::Service(service_ref(service, *port)),
        BackendTarget::Invalid { reason } => Target::Invalid(reason.clone()),
    };
    pb::Backend { target: Some(target), weight: backend.weight, filters: backend.filters.iter().map(filter).collect() }
}

fn service_ref(service: &Key, port: u16) -> pb::ServiceRef {
    pb::ServiceRef { service: Some(key_to_proto(service)), port: u32::from(port) }
}

/// Whole nanoseconds; more than 584 years are that many.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
