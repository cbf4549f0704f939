//! `meshctl wait`: until an object, or everything that the source holds, is live on every peer.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use meshgate_proto::admin::{WaitRequest, WaitResponse};

use crate::cli::Format;
use crate::connect::Mesh;
use crate::failure::{Attempt, Failure, Outcome};
use crate::human;
use crate::kinds::{self, Object};
use crate::output::{self, ObjectRef, Waited};
use crate::screen::Screen;
use crate::table::{Cell, Tint, plain};

/// How long to wait unless --timeout says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one peer is asked to wait, so that one that dies meanwhile costs no more than this.
const SLICE: Duration = Duration::from_secs(5);
/// What the way there and back may take on top.
const SLACK: Duration = Duration::from_secs(2);
/// Between two questions, while nobody leads or a peer is away.
const PAUSE: Duration = Duration::from_millis(200);

/// Flags of `meshctl wait`.
#[derive(clap::Args)]
pub struct Args {
    /// KIND/NAMESPACE/NAME or KIND/NAME; everything that the source holds if left out
    object: Option<String>,
    /// Namespace of KIND/NAME [default: default]
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// What to wait for
    #[arg(long = "for", value_enum, default_value_t = Condition::Live)]
    condition: Condition,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Condition {
    /// Every peer serves it
    Live,
    /// No peer serves it any more
    #[value(alias = "delete")]
    Deleted,
}

impl Condition {
    fn name(self) -> &'static str {
        match self {
            Condition::Live => "live",
            Condition::Deleted => "deleted",
        }
    }
}

/// Waits, and prints how it ended.
pub async fn run(mesh: &Mesh, screen: &Screen, args: Args, patience: Option<Duration>) -> Result<Outcome, Failure> {
    screen.refuse_names("wait")?;
    let patience = patience.unwrap_or(PATIENCE);
    let object = match &args.object {
        Some(text) => Some(Object::parse(text, args.namespace.as_deref())?),
        None if args.namespace.is_some() || args.condition == Condition::Deleted => {
            return Err(Failure::Usage("-n and --for=deleted need an object, for instance httproute/cart".to_owned()));
        }
        None => None,
    };
    let request = request(object.as_ref(), args.condition);
    let answer = until(&mesh.with_usual_connect(), request, patience).await?;
    let object = object.map(|it| ObjectRef { kind: it.kind.to_owned(), namespace: it.namespace, name: it.name });
    let waited = Waited::new(object, args.condition.name(), answer);
    let outcome = match (waited.result.as_str(), args.condition) {
        ("live", _) | ("not_found", Condition::Deleted) => Outcome::Fine,
        ("timeout", _) => Outcome::TimedOut,
        ("no_leader", _) => return Err(Failure::NoLeader),
        _ => Outcome::Finding,
    };
    if matches!(screen.format, Format::Json | Format::Yaml) {
        screen.document(&waited)?;
    } else {
        screen.lines(&report(&waited, patience))?;
    }
    Ok(outcome)
}

fn request(object: Option<&Object>, condition: Condition) -> WaitRequest {
    let text = |get: fn(&Object) -> &str| object.map(get).unwrap_or_default().to_owned();
    WaitRequest {
        kind: text(|object| object.kind),
        namespace: text(|object| &object.namespace),
        name: text(|object| &object.name),
        timeout_ms: 0,
        deleted: condition == Condition::Deleted,
    }
}

/// Asks in slices until there is an answer or patience ends. A leader that changes and a peer that
/// dies meanwhile are waited out; that no peer answers at first is a failure at once.
async fn until(mesh: &Mesh, request: WaitRequest, patience: Duration) -> Result<WaitResponse, Failure> {
    let start = Instant::now();
    let mut met = false;
    loop {
        let left = patience.saturating_sub(start.elapsed());
        let slice = left.min(SLICE);
        let timeout_ms = u64::try_from(slice.as_millis()).unwrap_or(u64::MAX);
        let request = WaitRequest { timeout_ms, ..request.clone() };
        let asked = mesh.call(slice + SLACK, async |mut peer| peer.wait(request.clone()).await);
        let answer = tokio::time::timeout(left + SLACK, asked).await.unwrap_or_else(|_| Err(silence(left + SLACK)));
        let over = start.elapsed() + PAUSE >= patience;
        match answer {
            Ok(answer) if over || !matches!(answer.result.as_str(), "timeout" | "no_leader") => return Ok(answer),
            Err(failure @ (Failure::Usage(_) | Failure::Local(_))) => return Err(failure),
            Err(failure) if over || !met => return Err(failure),
            Ok(_) => met = true,
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn silence(limit: Duration) -> Failure {
    let problem = format!("no answer within {limit:?}");
    Failure::Unreachable(vec![Attempt { server: "all peers".to_owned(), problem, silent: true }])
}

/// `httproute/shop/cart gen 7 → rev 2/18233: live on 3/3 nodes in 21ms (slowest node-c 19ms)`
fn report(waited: &Waited, patience: Duration) -> Vec<Vec<Cell>> {
    let object = waited.object.as_ref();
    let mut what = object.map_or("everything".to_owned(), |it| kinds::reference(&it.kind, &it.namespace, &it.name));
    if waited.generation > 0 {
        what.push_str(&format!(" gen {}", waited.generation));
    }
    if waited.head.is_some() && waited.result != "rejected" {
        what.push_str(&format!(" → rev {}", output::head_text(waited.head)));
    }
    what.push(':');
    let mut line = vec![plain(what)];
    let nodes = if waited.expected == 1 { "node" } else { "nodes" };
    let deleted = waited.condition == Condition::Deleted.name();
    let verb = if deleted { "gone from" } else { "live on" };
    match waited.result.as_str() {
        "live" => {
            line.extend([Cell::new(verb, Tint::Good), human::fraction(waited.live, waited.expected)]);
            line.push(plain(format!("{nodes} in {}", human::millis(waited.took_ms))));
            if let Some(slowest) = &waited.slowest {
                line.push(plain(format!("(slowest {} {})", slowest.node, human::millis(slowest.ms))));
            }
        }
        "timeout" => {
            line.extend([Cell::new(verb, Tint::Warn), human::fraction(waited.live, waited.expected)]);
            let missing = if waited.missing.is_empty() { "unknown".to_owned() } else { waited.missing.join(", ") };
            line.push(plain(format!("{nodes} after {patience:?}; missing: {missing}")));
        }
        "not_found" if deleted => line.push(Cell::new("gone: the source doesn't hold it", Tint::Good)),
        "not_found" => line.push(Cell::new("not found: the source doesn't hold it; right namespace?", Tint::Bad)),
        other => line.push(Cell::new(other, Tint::Bad)),
    }
    let reasons = waited.reasons.iter().map(|reason| vec![plain(format!("  {reason}"))]);
    std::iter::once(line).chain(reasons).collect()
}
