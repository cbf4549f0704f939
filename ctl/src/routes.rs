//! `meshctl routes`: what a peer serves, from its own table.

use std::collections::HashSet;
use std::time::Duration;

use meshgate_proto::admin::ListRoutesRequest;

use crate::cli::Format;
use crate::connect::{ANSWER, Mesh};
use crate::failure::{Failure, Outcome};
use crate::human;
use crate::kinds;
use crate::output::{self, Route, Routes};
use crate::screen::Screen;
use crate::table::{Cell, Table, Tint, plain};

const COLUMNS: [&str; 8] = ["HOST", "PATH", "MATCH", "RULE", "BACKENDS", "POLICIES", "REV", "LIVE"];
const MORE_COLUMNS: [&str; 6] = ["GATEWAY", "LISTENER", "PORT", "PROTOCOL", "ADDRESSES", "GENERATION"];
/// How often --watch asks.
const WATCH: Duration = Duration::from_secs(1);

/// Flags of `meshctl routes`.
#[derive(clap::Args)]
pub struct Args {
    /// Only routes that serve this host
    #[arg(long)]
    host: Option<String>,
    /// Only routes of this namespace
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// Routes of all namespaces, which is the default
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only routes on this Gateway, NAMESPACE/NAME or NAME
    #[arg(long)]
    gateway: Option<String>,
    /// Then print the routes that change, until interrupted
    #[arg(short = 'w', long)]
    watch: bool,
}

/// Prints the routes, once or as they change.
pub async fn run(mesh: &Mesh, screen: &Screen, args: Args) -> Result<Outcome, Failure> {
    let watch = args.watch;
    let request = ListRoutesRequest {
        host: args.host.unwrap_or_default(),
        namespace: args.namespace.unwrap_or_default(),
        gateway: args.gateway.unwrap_or_default(),
    };
    let routes = fetch(mesh, &request).await?;
    print(screen, &routes)?;
    if watch {
        follow(mesh, screen, &request, routes).await?;
    } else if routes.routes.is_empty() && !is_document(screen) {
        let filtered = request != ListRoutesRequest::default();
        eprintln!("No routes{}.", if filtered { " match; without --host, -n and --gateway there may be" } else { "" });
    }
    Ok(Outcome::Fine)
}

async fn fetch(mesh: &Mesh, request: &ListRoutesRequest) -> Result<Routes, Failure> {
    let answer = mesh.call(ANSWER, async |mut peer| peer.list_routes(request.clone()).await).await?;
    Ok(Routes::from(answer))
}

/// Prints what changes until the reader goes away. Peers may come and go meanwhile.
async fn follow(mesh: &Mesh, screen: &Screen, request: &ListRoutesRequest, first: Routes) -> Result<(), Failure> {
    let screen = screen.without_headers();
    let mut before = first;
    let mut away = false;
    while !screen.is_closed() {
        tokio::time::sleep(WATCH).await;
        let now = match fetch(mesh, request).await {
            Ok(now) => now,
            Err(failure @ Failure::Usage(_)) => return Err(failure),
            Err(failure) => {
                if !away {
                    eprintln!("{failure}\nwatching on until a peer answers");
                }
                away = true;
                continue;
            }
        };
        away = false;
        if is_document(&screen) {
            if now != before {
                screen.separate()?;
                screen.document(&now)?;
            }
        } else {
            print_changes(&screen, &before, &now)?;
        }
        before = now;
    }
    Ok(())
}

fn is_document(screen: &Screen) -> bool {
    matches!(screen.format, Format::Json | Format::Yaml)
}

fn print(screen: &Screen, routes: &Routes) -> Result<(), Failure> {
    match screen.format {
        Format::Json | Format::Yaml => screen.document(routes),
        Format::Name => screen.names(routes.routes.iter().map(name)),
        Format::Table | Format::Wide => {
            let mut table = header(screen);
            let rev = output::head_text(routes.head);
            let live = human::fraction(routes.live, routes.expected);
            for route in &routes.routes {
                table.push(row(route, &rev, &live, screen.is_wide()));
            }
            screen.table(&table)
        }
    }
}

/// Prints new and changed routes as they are, and removed ones as `gone`.
fn print_changes(screen: &Screen, before: &Routes, now: &Routes) -> Result<(), Failure> {
    let old: HashSet<&Route> = before.routes.iter().collect();
    let keys: HashSet<_> = now.routes.iter().map(key).collect();
    let changed: Vec<&Route> = now.routes.iter().filter(|route| !old.contains(route)).collect();
    let gone: Vec<&Route> = before.routes.iter().filter(|route| !keys.contains(&key(route))).collect();
    if changed.is_empty() && gone.is_empty() {
        return Ok(());
    }
    if screen.format == Format::Name {
        return screen.names(changed.into_iter().map(name));
    }
    let mut table = header(screen);
    let rev = output::head_text(now.head);
    let live = human::fraction(now.live, now.expected);
    let removed = Cell::new("gone", Tint::Warn);
    for (routes, live) in [(changed, &live), (gone, &removed)] {
        for route in routes {
            table.push(row(route, &rev, live, screen.is_wide()));
        }
    }
    screen.table(&table)
}

/// What makes a route the same one though its backends changed.
fn key(route: &Route) -> impl std::hash::Hash + Eq + '_ {
    let matched = (&route.host, &route.path, &route.matches);
    (matched, (&route.kind, &route.namespace, &route.name, route.rule), (&route.gateway, &route.listener, route.port))
}

fn header(screen: &Screen) -> Table {
    let mut columns = COLUMNS.to_vec();
    if screen.is_wide() {
        columns.extend(MORE_COLUMNS);
    }
    Table::new(&columns)
}

fn row(route: &Route, rev: &str, live: &Cell, wide: bool) -> Vec<Cell> {
    let mut cells = vec![
        plain(&route.host),
        plain(&route.path),
        plain(route.matches.as_deref().unwrap_or_default()),
        plain(rule(route)),
        plain(route.backends.as_deref().unwrap_or_default()),
        plain(route.policies.as_deref().unwrap_or_default()),
        plain(rev),
        live.clone(),
    ];
    if wide {
        cells.extend([
            plain(format!("{}/{}", route.gateway.namespace, route.gateway.name)),
            plain(&route.listener),
            plain(route.port.to_string()),
            plain(&route.protocol),
            plain(route.addresses.join(",")),
            plain(route.generation.to_string()),
        ]);
    }
    cells
}

/// `shop/cart#2`; the kind is told unless it is HTTPRoute.
fn rule(route: &Route) -> String {
    let object = match route.kind.as_str() {
        "HTTPRoute" => format!("{}/{}", route.namespace, route.name),
        _ => name(route),
    };
    format!("{object}#{}", route.rule)
}

fn name(route: &Route) -> String {
    kinds::reference(&route.kind, &route.namespace, &route.name)
}
