//! A client's request, from its head to its answer's.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, header};
use http_body::Body as _;
use meshgate_core::sanitize;
use meshgate_core::table::{Decision, Matched};

use super::answer::{self, Answer};
use super::body::ResponseBody;
use super::client_body::ClientBody;
use super::context::{ConnectionInfo, Local, ProxyContext};
use super::exchange::Exchange;
use super::forward::{self, Forward};
use super::grpc;
use super::plan::{self, Plan};
use super::upgrade;
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
    local.retries.deposit();
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
    let (port, backend) = match plan::execute(&view.table, &connection, &canonical, &matched, &mut parts) {
        Plan::Forward(port, backend) => (port, backend),
        Plan::Answer(answer) => return own(context, exchange, &answer),
    };
    upgrade::ask(&canonical, &mut parts, body.is_end_stream());
    let forward = Forward {
        context,
        local: &local,
        connection: &connection,
        head: view.table.head(),
        port,
        filters: [&matched.action.filters, &backend.filters],
        timeouts: matched.action.timeouts,
        body: Replay::new(body, &context.retained).asked_for(waits),
        parts,
    };
    let mut response = forward::forward(forward, exchange).await;
    if context.debug_headers {
        show_way(context, &matched, view.table.head(), &mut response);
    }
    response
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
