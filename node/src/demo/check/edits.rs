//! Promises about configuration: an edit is live on every node, a broken file harms only itself.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::future::try_join_all;
use meshgate_proto::admin::{Finding, WaitRequest};

use super::super::fleet::{NODES, Node};
use super::LIMIT;
use super::bench::{Bench, shown, until};
use super::report::{Detail, Report};

/// The file that is added, changed and removed, and its route's path.
const FILE: &str = "90-live-edit.yaml";
const PATH: &str = "/live-edit";
/// Requests by which a moved weight is proven on each node.
const PROOF: usize = 10;
/// What a `Wait` is given.
const WAIT_MS: u64 = 5000;
/// A file that is no YAML, and one with a mistake in one field.
const UNPARSABLE: (&str, &str) = ("91-unparsable.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: [broken\n");
const MISTAKEN: (&str, &str) = (
    "92-mistaken.yaml",
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: mistaken, namespace: shop}\n\
     spec:\n  parentRefs: [{name: web, namespace: edge}]\n  hostnames: [shop.example]\n  rules:\n  \
     - matches: [{path: {type: PathPrefix, value: /mistaken}}]\n    backendRefs: [{name: nowhere, port: 80}]\n",
);

/// All promises of this group.
///
/// # Errors
/// Nobody reads any more.
pub async fn check<W: Write>(bench: &Bench<'_>, report: &mut Report<'_, W>) -> anyhow::Result<()> {
    report.group("EDITS  in the copied manifests, live on every node")?;
    report.record("add a route", edit(bench, 100, 0).await)?;
    report.record("move a weight", edit(bench, 0, 100).await)?;
    report.record("remove a route", remove(bench).await)?;
    report.record("file is no YAML", broken(bench, UNPARSABLE, names_file).await)?;
    report.record("mistake in a field", broken(bench, MISTAKEN, names_field).await)?;
    Ok(())
}

/// The route of [`PATH`], to the cart and the checkout by weight.
fn route(cart: u32, checkout: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: live-edit\n  namespace: shop\n\
         spec:\n  parentRefs:\n  - name: web\n    namespace: edge\n  hostnames: [shop.example]\n  rules:\n  \
         - matches:\n    - path: {{type: PathPrefix, value: {PATH}}}\n    backendRefs:\n    \
         - {{name: cart, port: 80, weight: {cart}}}\n    - {{name: checkout, port: 80, weight: {checkout}}}\n"
    )
}

/// Writes the route with these weights; all requests must go to the Service that has one.
async fn edit(bench: &Bench<'_>, cart: u32, checkout: u32) -> anyhow::Result<Detail> {
    let service = if checkout == 0 { "shop/cart" } else { "shop/checkout" };
    let start = Instant::now();
    bench.layout.put(FILE, &route(cart, checkout))?;
    let (live, said) = tokio::join!(live_on(bench, &NODES, service, start), wait(bench, "live-edit", false));
    let (slowest, said) = (live?, said?);
    for node in NODES {
        let ask = bench.shop(node, PATH)?;
        for echo in try_join_all((0..PROOF).map(|_| async { ask.send().await?.echo() })).await? {
            ensure!(echo.service == service, "{}: {} still answers", node.name, echo.service);
        }
    }
    Ok(format!("shop.example{PATH} goes to {service} on all nodes {} after the write; {said}", shown(slowest)).into())
}

/// Waits until these nodes serve [`PATH`] by this Service; returns the slowest one's time.
async fn live_on(bench: &Bench<'_>, nodes: &[Node], service: &str, start: Instant) -> anyhow::Result<Duration> {
    let times = nodes.iter().map(|node| async move {
        let ask = bench.shop(*node, PATH)?;
        until(LIMIT, || async {
            let echo = ask.send().await?.echo()?;
            ensure!(echo.service == service, "{} still answers", echo.service);
            Ok(())
        })
        .await
        .with_context(|| format!("{} does not send {PATH} to {service}", node.name))?;
        anyhow::Ok(start.elapsed())
    });
    Ok(try_join_all(times).await?.into_iter().max().unwrap_or_default())
}

/// Asks a peer to wait for a route of the shop: `Wait` says 3/3 in 4.2 ms.
async fn wait(bench: &Bench<'_>, name: &str, deleted: bool) -> anyhow::Result<String> {
    let request = WaitRequest {
        kind: "HTTPRoute".to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        timeout_ms: WAIT_MS,
        deleted,
    };
    // The source may not have been read again yet: then the leader knows no such route.
    let (said, _) = until(LIMIT, || async {
        let said = bench.admin(NODES[2])?.wait(request.clone()).await?;
        let head = said.head.unwrap_or_default();
        let gone = deleted && said.result == "not_found";
        if gone {
            return Ok("wait: no longer known".to_owned());
        }
        let text = format!(
            "wait: {}/{} peers at {}/{}, {:.1} ms from read to last ack",
            said.live, said.expected, head.epoch, head.rev, said.took_ms
        );
        ensure!(said.result == "live", "wait says {}: {}", said.result, said.reasons.join(", "));
        ensure!(deleted || said.generation > 0, "wait names no generation of {name}");
        ensure!(said.live == said.expected && said.expected > 0, "{text}");
        Ok(text)
    })
    .await?;
    Ok(said)
}

/// Takes the file away again; the storefront answers instead.
async fn remove(bench: &Bench<'_>) -> anyhow::Result<Detail> {
    let start = Instant::now();
    bench.layout.remove(FILE)?;
    let (live, said) = tokio::join!(live_on(bench, &NODES, "shop/storefront", start), wait(bench, "live-edit", true));
    let (slowest, said) = (live?, said?);
    Ok(format!("shop.example{PATH} goes to shop/storefront again after {}; {said}", shown(slowest)).into())
}

/// Adds a broken file: a finding must name it, and everything else goes on.
async fn broken(
    bench: &Bench<'_>,
    (file, text): (&str, &str),
    named: fn(&[Finding]) -> anyhow::Result<String>,
) -> anyhow::Result<Detail> {
    let ask = bench.shop(NODES[0], "/cart/items")?;
    let before = ask.send().await?.echo()?;
    bench.layout.put(file, text)?;
    let found = until(LIMIT, || async { named(&bench.admin(NODES[1])?.findings().await?) }).await;
    let mut served = Ok(());
    for node in NODES {
        let echo = bench.shop(node, "/cart/items")?.send().await?.echo();
        served = served.and(echo.map(|echo| echo.service == before.service).and_then(|same| {
            ensure!(same, "{}: another service answers the cart", node.name);
            Ok(())
        }));
    }
    // Gone again whatever came of it: what follows needs whole manifests.
    bench.layout.remove(file)?;
    let (text, took) = found?;
    served?;
    let gone = until(LIMIT, || async {
        match named(&bench.admin(NODES[1])?.findings().await?) {
            Ok(still) => bail!("still found after the file is gone: {still}"),
            Err(_) => Ok(()),
        }
    });
    gone.await?;
    Ok(format!("{text} (found after {}; the rest was served)", shown(took)).into())
}

fn names_file(findings: &[Finding]) -> anyhow::Result<String> {
    let one = findings
        .iter()
        .find(|one| one.origin.contains(UNPARSABLE.0) || one.message.contains(UNPARSABLE.0))
        .with_context(|| format!("none of {} findings names {}", findings.len(), UNPARSABLE.0))?;
    Ok(format!("{} {}: {}", one.code, UNPARSABLE.0, short(&one.message)))
}

fn names_field(findings: &[Finding]) -> anyhow::Result<String> {
    let one = findings
        .iter()
        .find(|one| one.kind == "HTTPRoute" && one.namespace == "shop" && one.name == "mistaken")
        .with_context(|| format!("none of {} findings names HTTPRoute shop/mistaken", findings.len()))?;
    ensure!(one.field.contains("backendRefs"), "the finding names the field {:?}", one.field);
    Ok(format!("{} HTTPRoute shop/mistaken {}: {}", one.code, one.field, short(&one.message)))
}

fn short(message: &str) -> String {
    message.lines().next().unwrap_or_default().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::manifest;
    use super::*;

    #[test]
    fn the_files_are_broken_as_meant() {
        assert_eq!(manifest::documents(&route(1, 0)).unwrap().len(), 1);
        assert_eq!(manifest::documents(MISTAKEN.1).unwrap().len(), 1);
        assert!(manifest::documents(UNPARSABLE.1).is_err());
    }

    #[test]
    fn findings_must_name_what_is_wrong() {
        let finding = |field: &str| Finding {
            code: "MG0102".into(),
            kind: "HTTPRoute".into(),
            namespace: "shop".into(),
            name: "mistaken".into(),
            field: field.into(),
            message: "no such Service\nmore".into(),
            ..Finding::default()
        };
        let text = names_field(&[finding("spec.rules[0].backendRefs[0].name")]).unwrap();
        assert_eq!(text, "MG0102 HTTPRoute shop/mistaken spec.rules[0].backendRefs[0].name: no such Service");
        assert!(names_field(&[finding("")]).is_err());
        assert!(names_field(&[]).is_err() && names_file(&[]).is_err());
        let file = Finding { origin: format!("/x/{}:3", UNPARSABLE.0), ..Finding::default() };
        assert!(names_file(&[file]).is_ok());
    }
}
