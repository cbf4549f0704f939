//! `meshctl analyze`: what is wrong with which object.

use std::path::{Path, PathBuf};

use meshgate_api::{Directory, SourceError};
use meshgate_core::compile::{Allocations, Compiler, Settings};
use meshgate_proto::admin::ListFindingsRequest;

use crate::cli::Format;
use crate::connect::{ANSWER, Mesh};
use crate::failure::{Failure, Outcome};
use crate::human;
use crate::kinds;
use crate::output::{Finding, Findings};
use crate::screen::Screen;
use crate::table::{Cell, Tint, plain};

/// Flags of `meshctl analyze`.
#[derive(clap::Args)]
pub struct Args {
    /// Only findings of this namespace
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// Findings of all namespaces, which is the default
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Check a directory of manifests offline, without asking any peer
    #[arg(short = 'f', long = "file", value_name = "DIR")]
    file: Option<PathBuf>,
}

/// Prints the findings, errors first; any is exit code 1.
pub async fn run(mesh: &Mesh, screen: &Screen, args: Args) -> Result<Outcome, Failure> {
    let namespace = args.namespace.unwrap_or_default();
    let mut findings = match &args.file {
        Some(directory) => offline(directory, &namespace)?,
        None => live(mesh, namespace).await?,
    };
    sort(&mut findings);
    let found = Findings { findings };
    print(screen, &found)?;
    Ok(Outcome::finding_if(!found.findings.is_empty()))
}

/// What a leader would find in the directory: read, translated and compiled by the same code.
fn offline(directory: &Path, namespace: &str) -> Result<Vec<Finding>, Failure> {
    let unreadable = |error: SourceError| Failure::Local(std::io::Error::other(error));
    let mut source = Directory::open(directory).map_err(unreadable)?;
    let batch = source.read().map_err(unreadable)?;
    let compiled = Compiler::new(Settings::default(), Allocations::new()).apply(batch.changes);
    let mut findings: Vec<_> = compiled.findings.into_iter().flat_map(|(_, findings)| findings).collect();
    source.locate(&mut findings);
    findings.extend(batch.findings.iter().cloned());
    let wanted = findings.iter().filter(|finding| {
        namespace.is_empty() || finding.object.as_ref().is_some_and(|object| *object.namespace == *namespace)
    });
    Ok(wanted.map(Finding::from).collect())
}

/// The findings that the leader knows of.
async fn live(mesh: &Mesh, namespace: String) -> Result<Vec<Finding>, Failure> {
    let request = ListFindingsRequest { namespace };
    let answer = mesh.call(ANSWER, async |mut peer| peer.list_findings(request.clone()).await).await?;
    Ok(answer.findings.into_iter().map(Finding::from).collect())
}

/// Errors first, then by object, then by field.
fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        let key = |it: &Finding| (it.severity != "error", it.object.namespace.clone(), it.object.kind.clone());
        let rest = |it: &Finding| (it.object.name.clone(), it.field.clone(), it.code.clone());
        key(a).cmp(&key(b)).then_with(|| rest(a).cmp(&rest(b)))
    });
}

fn print(screen: &Screen, found: &Findings) -> Result<(), Failure> {
    let findings = &found.findings;
    match screen.format {
        Format::Json | Format::Yaml => screen.document(found),
        Format::Name => {
            let name = |it: &Finding| kinds::reference(&it.object.kind, &it.object.namespace, &it.object.name);
            screen.names(findings.iter().map(name))
        }
        Format::Table | Format::Wide if findings.is_empty() => {
            screen.lines(&[vec![Cell::new("No findings.", Tint::Good)]])
        }
        Format::Table | Format::Wide => {
            screen.lines(&findings.iter().map(line).collect::<Vec<_>>())?;
            let errors = findings.iter().filter(|finding| finding.severity == "error").count();
            let warnings = findings.len() - errors;
            eprintln!("{}, {}.", human::count(errors, "error"), human::count(warnings, "warning"));
            Ok(())
        }
    }
}

/// `Warning MG0102 HTTPRoute shop/all spec.rules[0]: shadowed by shop/cart rule 2 (routes.yaml:31)`
fn line(finding: &Finding) -> Vec<Cell> {
    let severity = match finding.severity.as_str() {
        "error" => Cell::new("Error", Tint::Bad),
        "warning" => Cell::new("Warning", Tint::Warn),
        other => plain(other),
    };
    let object = &finding.object;
    let name =
        if object.namespace.is_empty() { object.name.clone() } else { format!("{}/{}", object.namespace, object.name) };
    let field = finding.field.as_ref().map(|field| format!(" {field}")).unwrap_or_default();
    let mut line = vec![severity, plain(&finding.code), plain(&object.kind), plain(format!("{name}{field}:"))];
    line.push(plain(&finding.message));
    line.extend(finding.origin.as_ref().map(|origin| plain(format!("({origin})"))));
    line
}
