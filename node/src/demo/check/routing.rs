//! Promises about requests: which route decides, which node answers, which way it went.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail, ensure};
use futures_util::future::try_join_all;
use http::Version;
use tokio::io::AsyncReadExt;

use super::super::client::{Answer, Ask};
use super::super::echo::Echo;
use super::super::fleet::{NODES, Node};
use super::super::via::Way;
use super::bench::Bench;
use super::report::{Detail, Report};

const A: Node = NODES[0];
const B: Node = NODES[1];
const C: Node = NODES[2];

/// Requests for the weighted promise, how many at once, and the share of the canary in percent.
const WEIGHTED: usize = 200;
const AT_ONCE: usize = 10;
const CANARY: f64 = 20.0;
/// Percentage points that the share may be off.
const TOLERANCE: f64 = 10.0;

/// What a request must come to.
struct Want {
    /// `namespace/name` of the Service.
    service: &'static str,
    /// Route and rule, or a prefix of them.
    route: &'static str,
    /// The way, where the pods' nodes decide it.
    way: Option<Way>,
    /// Anything more.
    also: fn(&Answer, &Echo) -> anyhow::Result<()>,
}

const fn want(service: &'static str, route: &'static str, way: Option<Way>) -> Want {
    Want { service, route, way, also: |_, _| Ok(()) }
}

const LOCAL: Option<Way> = Some(Way::Local);
const TUNNEL: Option<Way> = Some(Way::Tunnel);

/// All promises of this group.
///
/// # Errors
/// Nobody reads any more.
pub async fn check<W: Write>(bench: &Bench<'_>, report: &mut Report<'_, W>) -> anyhow::Result<()> {
    report.group("ROUTES  what was asked, the rule that decided, who answered, which way, time")?;
    let refused = bench.echoes.counters().refused.load(Ordering::Relaxed);
    for (what, node, ask, want) in served(bench) {
        report.record(what, served_as(ask, node, want).await)?;
    }
    report.record("weighted 80/20", weighted(bench).await)?;
    for (what, node, ask, status, location) in answered(bench) {
        report.record(what, answered_as(ask, node, status, location).await)?;
    }
    report.record("pods refuse others", refuses(bench, refused).await)?;
    Ok(())
}

type Served = (&'static str, Node, anyhow::Result<Ask>, Want);

/// Requests that a pod answers.
fn served(bench: &Bench<'_>) -> Vec<Served> {
    let mut all = ways(bench);
    all.extend(paths_and_values(bench));
    all.extend(filters(bench));
    all.extend(other_doors(bench));
    all
}

const CART: &str = "shop/cart#1";

/// The same node and across, with each node as the edge.
fn ways(bench: &Bench<'_>) -> Vec<Served> {
    let canary = bench.shop(B, "/checkout").map(asks_for_canary);
    vec![
        ("same node", B, bench.shop(B, "/cart/items"), want("shop/cart", CART, LOCAL)),
        ("cross-node", A, bench.shop(A, "/cart/items"), want("shop/cart", CART, TUNNEL)),
        ("cross-node, third edge", C, bench.shop(C, "/cart/items"), want("shop/cart", CART, TUNNEL)),
        ("cross-node, to node-a", B, canary, want("shop/checkout-canary", "shop/checkout-canary#0", TUNNEL)),
    ]
}

fn asks_for_canary(ask: Ask) -> Ask {
    ask.header("x-canary", "always")
}

/// Which rule decides.
fn paths_and_values(bench: &Bench<'_>) -> Vec<Served> {
    let front = |way| want("shop/storefront", "shop/storefront#0", way);
    let canary = |rule| want("shop/checkout-canary", rule, LOCAL);
    let header = bench.shop(A, "/checkout/pay").map(asks_for_canary);
    vec![
        ("prefix by segments", A, bench.shop(A, "/cartoon"), front(None)),
        ("header", A, header, canary("shop/checkout-canary#0")),
        ("query", A, bench.shop(A, "/search?beta=1"), canary("shop/products#1")),
        ("query, other value", A, bench.shop(A, "/search?beta=2"), front(None)),
        ("regex, whole path", C, bench.shop(C, "/products/x42"), front(TUNNEL)),
    ]
}

/// What filters do to the request and the answer.
fn filters(bench: &Bench<'_>) -> Vec<Served> {
    let exact = Want {
        also: |answer, _| {
            let header = answer.header("cache-control");
            ensure!(header == "no-store", "cache-control is {header:?}, not set by the filter");
            Ok(())
        },
        ..want("shop/cart", "shop/cart#0", LOCAL)
    };
    let regex = Want {
        also: |_, echo| {
            let page = echo.headers.get("x-page").map_or("", String::as_str);
            ensure!(page == "product", "x-page is {page:?} at the pod, not set by the filter");
            Ok(())
        },
        ..want("shop/storefront", "shop/products#0", TUNNEL)
    };
    let rewrite = Want {
        also: |_, echo| {
            ensure!(echo.path == "/cart/items?n=1", "the pod saw {}", echo.path);
            Ok(())
        },
        ..want("shop/cart", "shop/moved#0", LOCAL)
    };
    vec![
        ("exact, header to client", B, bench.shop(B, "/cart/health"), exact),
        ("regex, header to pod", C, bench.shop(C, "/products/42/reviews"), regex),
        ("rewrite", B, bench.shop(B, "/basket/items?n=1"), rewrite),
    ]
}

/// TLS, another team's Gateway, Ingress.
fn other_doors(bench: &Bench<'_>) -> Vec<Served> {
    let http1 = Want { also: |answer, _| spoken(answer, Version::HTTP_11), ..want("shop/cart", CART, TUNNEL) };
    let http2 = Want { also: |answer, _| spoken(answer, Version::HTTP_2), ..want("shop/cart", CART, LOCAL) };
    let intranet = |rule, way| want("legacy/intranet", rule, way);
    let ingress = |node, host, path| bench.ingress(node, host, path);
    vec![
        ("TLS, HTTP/1.1", A, bench.shop_tls(A, "/cart/items", false), http1),
        ("TLS, HTTP/2", B, bench.shop_tls(B, "/cart/items", true), http2),
        ("wildcard host", A, bench.team_b(A, "v1.eu.api.example", "/any"), want("team-b/echo", "team-b/echo#0", None)),
        ("Ingress, Prefix", C, ingress(C, "intranet.example", "/wiki/start"), intranet("legacy/intranet#0", LOCAL)),
        ("Ingress, Exact", A, ingress(A, "intranet.example", "/login"), intranet("legacy/intranet#1", TUNNEL)),
        ("Ingress, by segments", B, ingress(B, "intranet.example", "/wikis"), intranet("legacy/intranet#2", TUNNEL)),
        ("Ingress, default", B, ingress(B, "other.example", "/wiki"), intranet("legacy/intranet#2", TUNNEL)),
    ]
}

fn spoken(answer: &Answer, version: Version) -> anyhow::Result<()> {
    ensure!(answer.version == version, "spoke {:?} instead of {version:?}", answer.version);
    Ok(())
}

/// Asks, and compares what the pod saw with what the peer says.
async fn served_as(ask: anyhow::Result<Ask>, from: Node, want: Want) -> anyhow::Result<Detail> {
    let ask = ask?;
    let answer = ask.send().await.with_context(|| ask.shown())?;
    let echo = answer.echo().with_context(|| ask.shown())?;
    let via = answer.via().with_context(|| format!("x-meshgate-via is {:?}", answer.header("x-meshgate-via")))?;
    ensure!(echo.service == want.service, "{} answered instead of {}", echo.service, want.service);
    ensure!(via.route.starts_with(want.route), "route {} decided instead of {}", via.route, want.route);
    ensure!(via.node == from.name, "{} says that it took it instead of {}", via.node, from.name);
    // The pod's own words are the proof: it accepts nobody but its node's peer.
    let way = if echo.node == from.name { Way::Local } else { Way::Tunnel };
    ensure!(via.way == way, "the peer says {}, but {} took it and {} answered", via.way, from.name, echo.node);
    if let Some(wanted) = want.way {
        ensure!(way == wanted, "went {way} instead of {wanted}");
    }
    (want.also)(&answer, &echo)?;
    Ok(Detail::Request {
        asked: ask.shown(),
        from,
        via: Some(via),
        pod: format!("{}@{}", echo.pod, echo.node),
        took: answer.took,
    })
}

type Answered = (&'static str, Node, anyhow::Result<Ask>, u16, &'static str);

/// Requests that the peer itself answers.
fn answered(bench: &Bench<'_>) -> Vec<Answered> {
    vec![
        ("redirect", A, bench.shop(A, "/old/chairs"), 301, "http://shop.example:8080/chairs"),
        ("redirect to HTTPS", C, bench.shop(C, "/account/me"), 308, "https://shop.example:8443/account/me"),
        ("unknown host", A, bench.shop(A, "/").map(|ask| Ask { host: "nobody.example".to_owned(), ..ask }), 404, ""),
        ("Gateways apart", B, bench.team_b(B, "shop.example", "/"), 404, ""),
        ("wildcard, bare domain", C, bench.team_b(C, "api.example", "/"), 404, ""),
    ]
}

async fn answered_as(ask: anyhow::Result<Ask>, from: Node, status: u16, location: &str) -> anyhow::Result<Detail> {
    let ask = ask?;
    let answer = ask.send().await.with_context(|| ask.shown())?;
    ensure!(answer.status == status, "{}: answered {} instead of {status}", ask.shown(), answer.status);
    let said = answer.header("location");
    ensure!(said == location, "location is {said:?} instead of {location:?}");
    let arrow = if location.is_empty() { String::new() } else { format!(" -> {location}") };
    Ok(format!("{} at {}: {status}{arrow}, {:.1} ms", ask.shown(), from.name, answer.took.as_secs_f64() * 1000.0)
        .into())
}

/// The share of each backend over many requests, some at once.
async fn weighted(bench: &Bench<'_>) -> anyhow::Result<Detail> {
    let ask = bench.shop(A, "/checkout")?;
    let mut pods: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..WEIGHTED / AT_ONCE {
        let round = try_join_all((0..AT_ONCE).map(|_| async { ask.send().await?.echo() })).await?;
        for echo in round {
            *pods.entry(format!("{}@{}", echo.pod, echo.node)).or_default() += 1;
        }
    }
    let canary: usize = pods.iter().filter(|(pod, _)| pod.contains("canary")).map(|(_, count)| count).sum();
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let share = canary as f64 * 100.0 / WEIGHTED as f64;
    let shares: Vec<String> = pods.iter().map(|(pod, count)| format!("{pod} {count}")).collect();
    ensure!((share - CANARY).abs() <= TOLERANCE, "canary got {share:.0} %: {}", shares.join(", "));
    Ok(format!("{WEIGHTED} x {}: {}", ask.shown(), shares.join(", ")).into())
}

/// No pod was asked by another node's peer so far, and a direct connection is closed unread.
async fn refuses(bench: &Bench<'_>, before: u64) -> anyhow::Result<Detail> {
    let counters = bench.echoes.counters();
    let meanwhile = counters.refused.load(Ordering::Relaxed) - before;
    ensure!(meanwhile == 0, "{meanwhile} connections came from another node, past the tunnel");
    let backend = bench.echoes.backends().first().context("no backend")?;
    let mut stream = tokio::net::TcpStream::connect(backend.address).await?;
    let mut byte = [0];
    match tokio::time::timeout(super::LIMIT, stream.read(&mut byte)).await {
        Ok(Ok(0) | Err(_)) => {}
        Ok(Ok(_)) => bail!("{} answered a stranger", backend.pod),
        Err(_) => bail!("{} keeps a stranger's connection open", backend.pod),
    }
    Ok(format!(
        "{} requests came by their own node's peer, 0 past it; a direct connection to {} was closed",
        counters.requests.load(Ordering::Relaxed),
        backend.pod
    )
    .into())
}
