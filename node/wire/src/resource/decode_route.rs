//! Routes from messages. What is not known breaks its rule: a policy that is ignored would fail
//! open.

use std::time::Duration;

use meshgate_core::snapshot::{
    Attachment, Backend, BackendTarget, Cors, Filter, HeaderModifier, HttpMatch, Mirror, PathMatch, PathRewrite,
    Redirect, Retry, Rewrite, Route, RouteHost, Rule, StringMatch, Timeouts, ValueMatch,
};
use meshgate_proto::snapshot as pb;

use super::decode::{Decoded, all, host, key, malformed, port};

pub(super) fn route(message: pb::Route) -> Decoded<Route> {
    Ok(Route {
        generation: message.generation,
        created: message.created,
        attachments: all(message.attachments, attachment)?,
        rules: all(message.rules, rule)?,
        needs: message.needs,
    })
}

fn attachment(message: pb::Attachment) -> Decoded<Attachment> {
    Ok(Attachment {
        gateway: key(message.gateway)?,
        listener: message.listener,
        hosts: all(message.hosts, route_host)?,
    })
}

fn route_host(message: pb::RouteHost) -> Decoded<RouteHost> {
    let served = host(message.served.unwrap_or_default())?;
    let declared = message.declared.map(host).transpose()?;
    Ok(RouteHost { declared: declared.unwrap_or_else(|| served.clone()), served })
}

fn rule(message: pb::Rule) -> Decoded<Rule> {
    let (filters, unknown) = filters(message.filters)?;
    let mut broken = message.broken || unknown;
    let mut backends = Vec::with_capacity(message.backends.len());
    for message in message.backends {
        let (backend, unknown) = backend(message)?;
        broken |= unknown;
        backends.push(backend);
    }
    Ok(Rule {
        name: message.name,
        matches: all(message.matches, http_match)?,
        host: message.host.map(host).transpose()?,
        filters,
        backends,
        timeouts: Timeouts {
            request: message.request_timeout_ns.map(Duration::from_nanos),
            backend_request: message.backend_request_timeout_ns.map(Duration::from_nanos),
            idle: message.idle_timeout_ns.map(Duration::from_nanos),
        },
        retry: message.retry.map(retry).transpose()?,
        broken,
    })
}

fn retry(message: pb::Retry) -> Decoded<Retry> {
    Ok(Retry {
        codes: all(message.codes, status)?,
        attempts: message.attempts,
        backoff: message.backoff_ns.map(Duration::from_nanos),
    })
}

fn status(number: u32) -> Decoded<u16> {
    u16::try_from(number).map_err(|_| malformed("a status is out of range"))
}

fn http_match(message: pb::HttpMatch) -> Decoded<HttpMatch> {
    use pb::path_match::Path;
    let path = match message.path.and_then(|path| path.path) {
        Some(Path::Exact(path)) => PathMatch::Exact(path),
        Some(Path::Prefix(path)) => PathMatch::Prefix(path),
        Some(Path::Regex(regex)) => PathMatch::Regex(regex),
        Some(Path::RegexPrefix(regex)) => PathMatch::RegexPrefix(regex),
        None => return Err(malformed("an unknown kind of path match")),
    };
    Ok(HttpMatch {
        path,
        method: message.method,
        headers: all(message.headers, value_match)?,
        query: all(message.query, value_match)?,
    })
}

fn value_match(message: pb::ValueMatch) -> Decoded<ValueMatch> {
    use pb::value_match::Value;
    let value = match message.value {
        Some(Value::Exact(value)) => StringMatch::Exact(value),
        Some(Value::Regex(regex)) => StringMatch::Regex(regex),
        None => return Err(malformed("an unknown kind of value match")),
    };
    Ok(ValueMatch { name: message.name, value })
}

/// The filters that are known, and whether there are others.
fn filters(messages: Vec<pb::Filter>) -> Decoded<(Vec<Filter>, bool)> {
    use pb::filter::Filter as Kind;
    let mut known = Vec::with_capacity(messages.len());
    let mut unknown = false;
    for message in messages {
        match message.filter {
            Some(Kind::RequestHeaders(modifier)) => known.push(Filter::RequestHeaders(header_modifier(modifier))),
            Some(Kind::ResponseHeaders(modifier)) => known.push(Filter::ResponseHeaders(header_modifier(modifier))),
            Some(Kind::Redirect(to)) => known.push(Filter::Redirect(redirect(to, &mut unknown)?)),
            Some(Kind::Rewrite(to)) => {
                let path = to.path.and_then(|path| path_rewrite(path, &mut unknown));
                known.push(Filter::Rewrite(Rewrite { hostname: to.hostname, path }));
            }
            Some(Kind::Mirror(to)) => known.push(Filter::Mirror(mirror(to)?)),
            Some(Kind::Cors(policy)) => known.push(Filter::Cors(cors(policy))),
            None => unknown = true,
        }
    }
    Ok((known, unknown))
}

fn header_modifier(message: pb::HeaderModifier) -> HeaderModifier {
    let headers = |list: Vec<pb::Header>| list.into_iter().map(|header| (header.name, header.value)).collect();
    HeaderModifier { set: headers(message.set), add: headers(message.add), remove: message.remove }
}

fn mirror(message: pb::Mirror) -> Decoded<Mirror> {
    use pb::mirror::Target;
    let target = match message.target {
        Some(Target::Service(service)) => service_ref(service)?,
        Some(Target::Invalid(reason)) => BackendTarget::Invalid { reason },
        None => unknown_target(),
    };
    Ok(Mirror { target, denominator: message.denominator, numerator: message.numerator })
}

fn cors(message: pb::Cors) -> Cors {
    Cors {
        allow_origins: message.allow_origins,
        allow_credentials: message.allow_credentials,
        allow_methods: message.allow_methods,
        allow_headers: message.allow_headers,
        expose_headers: message.expose_headers,
        max_age: message.max_age,
    }
}

fn redirect(message: pb::Redirect, unknown: &mut bool) -> Decoded<Redirect> {
    Ok(Redirect {
        scheme: message.scheme,
        hostname: message.hostname,
        path: message.path.and_then(|path| path_rewrite(path, unknown)),
        port: message.port.map(port).transpose()?,
        status: status(message.status)?,
        location: message.location,
        unless_tls: message.unless_tls,
    })
}

/// Sets `unknown` for a kind of rewrite that is not known.
fn path_rewrite(message: pb::PathRewrite, unknown: &mut bool) -> Option<PathRewrite> {
    use pb::path_rewrite::Rewrite;
    *unknown |= message.rewrite.is_none();
    Some(match message.rewrite? {
        Rewrite::Full(path) => PathRewrite::Full(path),
        Rewrite::Prefix(prefix) => PathRewrite::Prefix(prefix),
        Rewrite::Template(template) => PathRewrite::Template(template),
    })
}

/// The backend, and whether it has filters that are not known.
fn backend(message: pb::Backend) -> Decoded<(Backend, bool)> {
    use pb::backend::Target;
    let target = match message.target {
        Some(Target::Service(service)) => service_ref(service)?,
        Some(Target::Invalid(reason)) => BackendTarget::Invalid { reason },
        None => unknown_target(),
    };
    let (filters, unknown) = filters(message.filters)?;
    Ok((Backend { target, weight: message.weight, filters }, unknown))
}

fn service_ref(message: pb::ServiceRef) -> Decoded<BackendTarget> {
    Ok(BackendTarget::Service { service: key(message.service)?, port: port(message.port)? })
}

fn unknown_target() -> BackendTarget {
    BackendTarget::Invalid { reason: "UnknownKind".to_owned() }
}
