//! A client's request, from its head to its answer's.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, header, request};
use http_body::Body as _;
use meshgate_core::filter;
use meshgate_core::sanitize::{self, Canonical};
use meshgate_core::snapshot::Filter;
use meshgate_core::table::{Decision, Matched};

use super::answer::{self, Answer};
use super::attempt::Sender;
use super::body::ResponseBody;
use super::client_body::ClientBody;
use super::context::{ConnectionInfo, Local, ProxyContext};
use super::exchange::Exchange;
use super::forward::{self, Forward};
use super::grpc;
use super::mirror::Original;
use super::plan::{self, Choice, Plan};
use super::retry::Policy;
use super::tee::{Copy, Watched};
use super::upgrade;
use super::view::View;
use crate::h1;
use crate::tunnel::Replay;

/// Answers a request of a client.
///
/// Dropping the future drops whatever was asked of a backend: the client has left.
pub async fn handle(
    local: Arc<Local>,
    connection: Arc<ConnectionInfo>,
    request: Request<ClientBody>,
) -> Response<ResponseBody> {
    let grpc = grpc::asked(request.headers());
    let response = answer(local, connection, request).await;
    if grpc { grpc::shape(response) } else { response }
}

async fn answer(
    local: Arc<Local>,
    connection: Arc<ConnectionInfo>,
    request: Request<ClientBody>,
) -> Response<ResponseBody> {
    let (mut parts, body) = request.into_parts();
    let context = local.context();
    let mut exchange = Exchange::begin(&local, &connection, &parts);
    let waits = parts.headers.contains_key(header::EXPECT);
    let canonical = match sanitize::request(&mut parts, &connection.canonical()) {
        Ok(canonical) => canonical,
        Err(refused) => return own(context, exchange, &answer::refused(refused)),
    };
    let view = local.view();
    exchange.asks(&canonical.host, &canonical.path, view.table.head());
    let matched = match plan::decide(&view.table, &connection, &canonical, &parts) {
        Decision::Rule(matched) => matched,
        Decision::Reject(status, reason) => return own(context, exchange, &Answer::rejected(status, reason)),
    };
    exchange.matched(&matched, view.rule(&context.metrics, &connection.gateway, &matched));
    let cors = filter::cors(&matched.action.filters);
    if let Some(headers) = cors.and_then(|cors| filter::preflight(cors, &parts.method, &parts.headers)) {
        return own(context, exchange, &Answer::preflight(headers));
    }
    let origin = cors.and_then(|_| parts.headers.get(header::ORIGIN).cloned());
    let served = Served { local: &local, connection: &connection, view: &view, matched, canonical, waits };
    let mut response = served.answer(parts, body, exchange).await;
    if let Some(cors) = cors {
        filter::allow_origin(cors, origin.as_ref(), response.headers_mut());
    }
    if context.debug_headers {
        show_way(context, &served.matched, view.table.head(), &mut response);
    }
    response
}

/// A request that a rule matched.
struct Served<'a> {
    local: &'a Arc<Local>,
    connection: &'a Arc<ConnectionInfo>,
    view: &'a Arc<View>,
    matched: Matched<'a>,
    canonical: Canonical,
    /// The client waits for a 100.
    waits: bool,
}

impl Served<'_> {
    async fn answer(
        &self,
        mut parts: request::Parts,
        body: ClientBody,
        mut exchange: Exchange,
    ) -> Response<ResponseBody> {
        let context = self.local.context();
        let planned = plan::execute(&self.view.table, self.connection, &self.canonical, &self.matched, &mut parts);
        let choice = match planned {
            Plan::Forward(choice) => choice,
            Plan::Answer(answer) => return own(context, exchange, &answer),
        };
        exchange.chose(&choice);
        let action = self.matched.action;
        let filters: [&[Filter]; 2] = [&action.filters, &choice.backend.filters];
        let is_mirror = |filter: &Filter| matches!(filter, Filter::Mirror(_));
        let mirrored = filters.into_iter().flatten().any(is_mirror);
        let count = exchange.count_body();
        let no_body = body.is_end_stream();
        let body = if no_body || !mirrored && count.is_none() {
            if mirrored {
                self.mirror(filters, &parts, Copy::empty);
            }
            Replay::new(body, &context.retained)
        } else {
            let mut watched = Watched::new(body, count);
            self.mirror(filters, &parts, || watched.copy());
            Replay::new(watched, &context.retained)
        };
        // Behind the mirrors: a copy switches to nothing.
        upgrade::ask(&self.canonical, &mut parts, no_body);
        let Choice { port, .. } = choice;
        let head = self.view.table.head();
        let forward = Forward {
            context,
            sender: Sender {
                local: self.local,
                connection: self.connection,
                interim: self.connection.interim.as_ref(),
                head,
                app: port.app,
            },
            port,
            filters,
            timeouts: action.timeouts,
            policy: Policy::new(action.retry.as_ref()),
            body: body.asked_for(self.waits),
            parts,
        };
        forward::forward(forward, exchange).await
    }

    /// Sends the copies that the filters want.
    fn mirror(&self, filters: [&[Filter]; 2], parts: &request::Parts, mut copy: impl FnMut() -> Copy) {
        let (local, connection, view) = (self.local, self.connection, self.view);
        let original = Original { local, connection, view, timeouts: self.matched.action.timeouts, parts };
        for filters in filters {
            for target in filter::mirrors(filters, rand::random) {
                original.mirror(target, &mut copy);
            }
        }
    }
}

/// Answers a client that sent what is no request.
pub fn refuse(local: &Arc<Local>, connection: &Arc<ConnectionInfo>, refused: h1::Refused) -> Response<ResponseBody> {
    let (parts, ()) = Request::new(()).into_parts();
    own(local.context(), Exchange::begin(local, connection, &parts), &answer::malformed(refused))
}

/// An answer of the proxy itself.
pub(super) fn own(context: &ProxyContext, mut exchange: Exchange, answer: &Answer) -> Response<ResponseBody> {
    exchange.answers(answer.status, answer.reason, answer.failed());
    let (mut head, bytes) = answer.response();
    if context.debug_headers
        && let Ok(node) = HeaderValue::try_from(format!("none node={}", context.node))
    {
        head.headers_mut().insert(forward::VIA, node);
    }
    head.map(|()| ResponseBody::own(bytes, exchange))
}

/// Completes the debug header with what the forwarding does not know.
fn show_way(
    context: &ProxyContext,
    matched: &Matched<'_>,
    head: meshgate_core::snapshot::HeadId,
    response: &mut Response<ResponseBody>,
) {
    let via = response.headers().get(forward::VIA).and_then(|via| via.to_str().ok()).unwrap_or("none");
    let way = via.split(' ').next().unwrap_or("none");
    let (namespace, name) = (&matched.route.namespace, &matched.route.name);
    let text = format!("{way} node={} route={namespace}/{name}#{} rev={head}", context.node, matched.rule);
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().insert(forward::VIA, value);
    }
}
