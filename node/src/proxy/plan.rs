//! What becomes of a request: an answer of our own, or a request for a Service's port.

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri, Version, header, request};
use meshgate_core::balance::choose_backend;
use meshgate_core::filter::{self, RedirectContext};
use meshgate_core::sanitize::Canonical;
use meshgate_core::snapshot::{Backend, BackendTarget};
use meshgate_core::table::{Action, Decision, Matched, RequestHead, ServicePort, Table};

use super::answer::{self, Answer};
use super::context::ConnectionInfo;

/// What is done with a request that a rule matched.
pub enum Plan<'t> {
    /// Answered here.
    Answer(Answer),
    /// Sent to one of the port's endpoints.
    Forward(Choice<'t>),
}

/// A rule's backend and what it leads to.
#[derive(Clone, Copy)]
pub struct Choice<'t> {
    /// The port of the backend's Service.
    pub port: &'t ServicePort,
    /// The backend.
    pub backend: &'t Backend,
    /// Its place among the rule's backends.
    pub index: usize,
}

/// Asks the table.
pub fn decide<'t>(
    table: &'t Table,
    connection: &ConnectionInfo,
    canonical: &Canonical,
    parts: &request::Parts,
) -> Decision<'t> {
    let head = RequestHead {
        host: &canonical.host,
        path: &canonical.path,
        query: canonical.query.as_deref(),
        method: &parts.method,
        headers: &parts.headers,
        sni: connection.sni.as_deref(),
        verified: connection.certificate.as_ref().map(|certificate| &*certificate.trust),
    };
    table.decide(&connection.gateway, connection.port, &head)
}

/// Executes the rule up to the choice of a Service, and makes `parts` what will be sent.
pub fn execute<'t>(
    table: &'t Table,
    connection: &ConnectionInfo,
    canonical: &Canonical,
    matched: &Matched<'t>,
    parts: &mut request::Parts,
) -> Plan<'t> {
    let action = matched.action;
    if action.broken {
        return Plan::Answer(answer::RULE_BROKEN);
    }
    if let Some(redirect) = redirect(connection, canonical, matched) {
        return Plan::Answer(redirect);
    }
    let Some((index, backend)) = choose(action) else { return Plan::Answer(answer::NO_BACKEND) };
    let BackendTarget::Service { service, port } = &backend.target else {
        return Plan::Answer(answer::BACKEND_INVALID);
    };
    let Some(port) = table.service(service, *port) else { return Plan::Answer(answer::BACKEND_INVALID) };
    match rewrite(canonical, matched, backend, parts) {
        Some(()) => Plan::Forward(Choice { port, backend, index }),
        None => Plan::Answer(answer::RULE_BROKEN),
    }
}

fn choose(action: &Action) -> Option<(usize, &Backend)> {
    match action.backends.as_slice() {
        [only] if only.weight > 0 => Some((0, only)),
        several => {
            let index = choose_backend(several, rand::random())?;
            Some((index, several.get(index)?))
        }
    }
}

fn redirect(connection: &ConnectionInfo, canonical: &Canonical, matched: &Matched<'_>) -> Option<Answer> {
    let redirect = filter::redirect(&matched.action.filters, connection.tls)?;
    let context = RedirectContext {
        scheme: connection.scheme(),
        host: &canonical.host,
        listener_port: connection.port,
        path: &canonical.path,
        query: canonical.query.as_deref(),
        matched: matched.path,
    };
    Some(Answer::redirect(redirect.status, &filter::redirect_location(redirect, &context)))
}

/// Applies the request's filters: of the rule, then of the backend. `None`: the result is not a
/// valid address.
fn rewrite(canonical: &Canonical, matched: &Matched<'_>, backend: &Backend, parts: &mut request::Parts) -> Option<()> {
    let mut path: Option<String> = None;
    for filters in [&matched.action.filters, &backend.filters] {
        if filters.is_empty() {
            continue;
        }
        let before = path.as_deref().unwrap_or(&canonical.path);
        let rewritten = filter::apply_request(filters, before, matched.path, &mut parts.headers);
        if let Some(host) = rewritten.host {
            parts.headers.insert(header::HOST, HeaderValue::try_from(host).ok()?);
        }
        path = rewritten.path.or(path);
    }
    parts.uri = address(canonical, path, std::mem::take(&mut parts.uri))?;
    parts.version = Version::HTTP_11;
    Some(())
}

/// The address in origin form. What the client sent is used where it is the same.
fn address(canonical: &Canonical, path: Option<String>, sent: Uri) -> Option<Uri> {
    let path = path.as_deref().unwrap_or(&canonical.path);
    let same = sent.path() == path && sent.query() == canonical.query.as_deref();
    if same && sent.authority().is_none() {
        return Some(sent);
    }
    let target = match (same, &canonical.query) {
        (true, _) => sent.into_parts().path_and_query?,
        (false, None) => PathAndQuery::try_from(path).ok()?,
        (false, Some(query)) => PathAndQuery::try_from(format!("{path}?{query}")).ok()?,
    };
    Some(Uri::from(target))
}
