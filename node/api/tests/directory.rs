//! The directory source on real files.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use meshgate_api::{Batch, Directory, SourceError, load_directory};
use meshgate_core::intent::{Finding, Object, ObjectKind, ObjectRef, Severity, Spec};
use tempfile::TempDir;

fn service(name: &str, port: u32) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports:\n    - port: {port}\n")
}

fn service_ref(name: &str) -> ObjectRef {
    ObjectRef::new(ObjectKind::Service, "default", name)
}

fn open(dir: &TempDir) -> Directory {
    Directory::open(dir.path()).unwrap()
}

/// Changed Services by name, with their port; `None` is gone.
fn services(batch: &Batch) -> Vec<(String, Option<u16>)> {
    let changes = batch.changes.iter().filter(|(name, _)| name.kind == ObjectKind::Service);
    changes.map(|(name, object)| (name.name.to_string(), object.as_ref().map(port))).collect()
}

fn port(object: &Object) -> u16 {
    let Spec::Service(service) = &object.spec else { panic!("not a Service") };
    service.ports[0].port
}

fn set(name: &str, port: u16) -> (String, Option<u16>) {
    (name.to_owned(), Some(port))
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
}

fn one(batch: &Batch) -> &Finding {
    assert_eq!(batch.findings.len(), 1, "{:#?}", batch.findings);
    &batch.findings[0]
}

#[test]
fn reads_only_what_changed() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.yaml", &service("a", 1));
    write(dir.path(), "b.yml", &service("b", 2));
    fs::create_dir(dir.path().join("more")).unwrap();
    write(
        dir.path(),
        "more/c.json",
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"},"spec":{"ports":[{"port":3}]}}"#,
    );
    write(dir.path(), "notes.txt", "not a manifest");
    write(dir.path(), ".hidden.yaml", "not: [closed");
    let mut directory = open(&dir);
    let batch = directory.read().unwrap();
    assert_eq!(services(&batch), [set("a", 1), set("b", 2), set("c", 3)]);
    assert_eq!((batch.files, batch.findings.len()), (3, 0));

    let batch = directory.read().unwrap();
    assert!(batch.changes.is_empty() && batch.keys.is_empty());

    write(dir.path(), "b.yml", &service("b", 22));
    assert_eq!(services(&directory.read().unwrap()), [set("b", 22)]);
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(services(&directory.read().unwrap()), [("a".to_owned(), None)]);
}

#[test]
fn a_namespace_that_is_named_is_made_up_and_goes_with_its_last_object() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.yaml", &service("a", 1));
    let mut directory = open(&dir);
    let batch = directory.read().unwrap();
    let name = ObjectRef::new(ObjectKind::Namespace, "", "default");
    let object = batch.changes.iter().find(|(object, _)| *object == name).unwrap().1.as_ref().unwrap();
    assert_eq!(object.meta.labels["kubernetes.io/metadata.name"], "default");
    assert_eq!((object.meta.created, object.meta.generation), (None, 0));

    write(dir.path(), "ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  labels: {team: x}\n");
    let batch = directory.read().unwrap();
    let labels = &batch.changes[0].1.as_ref().unwrap().meta.labels;
    assert_eq!((labels["team"].as_str(), labels["kubernetes.io/metadata.name"].as_str()), ("x", "default"));

    fs::remove_file(dir.path().join("ns.yaml")).unwrap();
    let batch = directory.read().unwrap();
    assert!(!batch.changes[0].1.as_ref().unwrap().meta.labels.contains_key("team"), "made up again");

    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    let batch = directory.read().unwrap();
    assert_eq!(batch.changes, [(service_ref("a"), None), (name, None)]);
}

#[test]
fn one_bad_document_does_not_hide_the_others() {
    let dir = TempDir::new().unwrap();
    let text = format!("{}---\nkind: [broken\n---\n{}", service("a", 1), service("b", 2));
    write(dir.path(), "x.yaml", &text);
    let batch = open(&dir).read().unwrap();
    assert_eq!(services(&batch), [set("a", 1), set("b", 2)]);
    let finding = one(&batch);
    assert_eq!((finding.code, finding.severity), ("MG0002", Severity::Error));
    let line: usize = finding.origin.strip_prefix("x.yaml:").unwrap().parse().unwrap();
    assert!((8..=9).contains(&line), "{finding:?}");
}

#[test]
fn a_broken_document_keeps_its_last_good_objects() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "x.yaml", &format!("{}---\n{}", service("a", 1), service("b", 2)));
    let mut directory = open(&dir);
    directory.read().unwrap();
    write(dir.path(), "x.yaml", &format!("{}---\nspec: [\n---\n{}", service("a", 11), service("c", 3)));
    let batch = directory.read().unwrap();
    assert_eq!(services(&batch), [set("a", 11), set("c", 3)], "b stays");
    assert!(one(&batch).message.ends_with("stays in use"), "{:?}", batch.findings);
    // Repaired without b: now it is really gone.
    write(dir.path(), "x.yaml", &format!("{}---\n{}", service("a", 11), service("c", 3)));
    let batch = directory.read().unwrap();
    assert_eq!(services(&batch), [("b".to_owned(), None)]);
    assert!(batch.findings.is_empty());
}

#[test]
fn an_emptied_file_keeps_its_last_good_objects() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "x.yaml", &service("a", 1));
    let mut directory = open(&dir);
    directory.read().unwrap();
    write(dir.path(), "x.yaml", "\n \n");
    let batch = directory.read().unwrap();
    assert!(batch.changes.is_empty());
    assert_eq!((one(&batch).code, one(&batch).origin.as_str()), ("MG0003", "x.yaml"));
    // A comment is not nothing: someone meant it.
    write(dir.path(), "x.yaml", "# gone\n");
    let batch = directory.read().unwrap();
    assert_eq!(services(&batch), [("a".to_owned(), None)]);
    assert!(batch.findings.is_empty());
}

#[test]
fn a_file_that_is_cut_off_keeps_its_last_good_objects() {
    let dir = TempDir::new().unwrap();
    let text = service("a", 8080);
    write(dir.path(), "x.yaml", &text);
    let mut directory = open(&dir);
    directory.read().unwrap();
    // `port: 80` is valid YAML, and not what was written.
    write(dir.path(), "x.yaml", text.strip_suffix("80\n").unwrap());
    let batch = directory.read().unwrap();
    assert!(batch.changes.is_empty(), "{:?}", batch.changes);
    assert_eq!((one(&batch).code, one(&batch).origin.as_str()), ("MG0003", "x.yaml:6"));
    // With a line end it is meant so.
    write(dir.path(), "x.yaml", &service("a", 80));
    assert_eq!(services(&directory.read().unwrap()), [set("a", 80)]);
    // A missing line end alone is nothing.
    write(dir.path(), "x.yaml", service("a", 81).trim_end());
    assert_eq!(services(&directory.read().unwrap()), [set("a", 81)]);
}

#[test]
fn a_directory_that_goes_away_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("source");
    fs::create_dir(&path).unwrap();
    write(&path, "a.yaml", &service("a", 1));
    let mut directory = Directory::open(&path).unwrap();
    directory.read().unwrap();
    fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    assert!(matches!(directory.read(), Err(SourceError::Unreadable { .. })));
    assert!(matches!(directory.read_paths(&["a.yaml".into()]), Err(SourceError::Unreadable { .. })));
    // An empty mount point in its place is no empty configuration.
    fs::create_dir(&path).unwrap();
    assert!(matches!(directory.read(), Err(SourceError::Replaced(_))));
    assert!(matches!(directory.read_paths(&["a.yaml".into()]), Err(SourceError::Replaced(_))));
    fs::remove_dir(&path).unwrap();
    fs::rename(dir.path().join("elsewhere"), &path).unwrap();
    let batch = directory.read().unwrap();
    assert!(batch.changes.is_empty() && batch.findings.is_empty(), "{batch:?}");
    // Deleting every file in place is meant.
    fs::remove_file(path.join("a.yaml")).unwrap();
    assert_eq!(services(&directory.read().unwrap()), [("a".to_owned(), None)]);
    assert!(matches!(Directory::open(dir.path().join("nowhere")), Err(SourceError::Unreadable { .. })));
}

#[test]
fn of_two_objects_with_one_name_the_first_path_counts() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "b.yaml", &service("x", 2));
    let mut directory = open(&dir);
    assert_eq!(services(&directory.read().unwrap()), [set("x", 2)]);
    write(dir.path(), "a.yaml", &service("x", 1));
    let batch = directory.read().unwrap();
    assert_eq!(services(&batch), [set("x", 1)]);
    let finding = one(&batch);
    assert_eq!((finding.code, finding.object.clone()), ("MG0007", Some(service_ref("x"))));
    assert!(finding.message.contains("a.yaml:1") && finding.message.contains("b.yaml:1"), "{}", finding.message);
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    let batch = directory.read().unwrap();
    assert_eq!(services(&batch), [set("x", 2)]);
    assert!(batch.findings.is_empty());
    // Twice in one file.
    write(dir.path(), "b.yaml", &format!("{}---\n{}", service("x", 2), service("x", 3)));
    let batch = directory.read().unwrap();
    assert!(batch.changes.is_empty());
    assert!(one(&batch).message.contains("b.yaml:1 and in b.yaml:7"), "{}", one(&batch).message);
}

#[test]
fn an_object_over_the_limit_is_refused_and_its_last_version_kept() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "x.yaml", &service("x", 1));
    let mut directory = open(&dir);
    directory.read().unwrap();
    let big = format!("{}---\n{}  filler: {}\n", service("y", 2), service("x", 3), "z".repeat(2 << 20));
    write(dir.path(), "x.yaml", &big);
    let batch = directory.read().unwrap();
    assert_eq!(services(&batch), [set("y", 2)], "{:?}", batch.findings);
    assert_eq!((one(&batch).code, one(&batch).object.clone()), ("MG0006", Some(service_ref("x"))));
    assert!(one(&batch).message.contains("the previous version stays in use"), "{}", one(&batch).message);

    write(dir.path(), "x.yaml", &"#".repeat((16 << 20) + 1));
    let batch = directory.read().unwrap();
    assert!(batch.changes.is_empty());
    assert_eq!(batch.findings[0].code, "MG0001");
}

#[test]
fn lists_are_unpacked_and_unknown_kinds_ignored() {
    let dir = TempDir::new().unwrap();
    let list = r#"{"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":1}]}},
        {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"}},
        {"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}]}"#;
    write(dir.path(), "list.json", list);
    write(
        dir.path(),
        "typed.yaml",
        "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: b}\n  spec: {ports: [{port: 2}]}\n",
    );
    write(dir.path(), "junk.yaml", "just: text\n");
    let batch = open(&dir).read().unwrap();
    assert_eq!(services(&batch), [set("a", 1), set("b", 2)]);
    let found: Vec<_> = batch.findings.iter().map(|f| (f.code, f.severity, f.origin.as_str())).collect();
    assert_eq!(found, [("MG0004", Severity::Warning, "list.json:1"), ("MG0005", Severity::Error, "junk.yaml:1")]);
}

#[test]
fn a_refused_object_keeps_its_previous_version() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "x.yaml", &service("x", 1));
    let mut directory = open(&dir);
    let first = directory.read().unwrap();
    write(dir.path(), "x.yaml", &format!("{}---\n{}", service("x", 70000), service("new", 0)));
    let batch = directory.read().unwrap();
    assert!(batch.changes.is_empty(), "{:?}", batch.changes);
    let found: Vec<_> = batch.findings.iter().map(|f| (f.field.as_str(), f.origin.as_str())).collect();
    assert_eq!(found, [("spec.ports[0].port", "x.yaml:7"), ("spec.ports[0].port", "x.yaml:1")]);
    assert!(batch.findings[0].message.ends_with("the object is left out"), "{}", batch.findings[0].message);
    assert!(batch.findings[1].message.ends_with("the previous version stays in use"));
    // The same spec again is the same hash, whatever its layout.
    write(
        dir.path(),
        "x.yaml",
        "spec: {ports: [{port: 1}]}\nkind: Service\napiVersion: v1\nmetadata: {name: x}\nstatus: {a: 1}\n",
    );
    let batch = directory.read().unwrap();
    assert!(batch.changes.is_empty() && batch.findings.is_empty(), "{batch:?}");
    assert_eq!(services(&first), [set("x", 1)]);
}

#[test]
fn a_file_that_cannot_be_read_keeps_its_objects() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "x.yaml", &service("x", 1));
    let mut directory = open(&dir);
    directory.read().unwrap();
    fs::write(dir.path().join("x.yaml"), [0xff, 0xfe, 0xfd]).unwrap();
    let batch = directory.read().unwrap();
    assert!(batch.changes.is_empty());
    assert_eq!(one(&batch).message, "is not UTF-8; its objects stay in use");
    // And the finding stays while the file does.
    assert_eq!(directory.read().unwrap().findings.len(), 1);
    std::os::unix::fs::symlink("nothing", dir.path().join("dangling.yaml")).unwrap();
    assert_eq!(directory.read().unwrap().findings.len(), 2);
}

#[test]
fn many_documents_in_one_file_and_one_edit() {
    let dir = TempDir::new().unwrap();
    let text: Vec<_> = (0..5000).map(|i| service(&format!("s{i}"), 1)).collect();
    write(dir.path(), "all.yaml", &text.join("---\n"));
    let mut directory = open(&dir);
    assert_eq!(services(&directory.read().unwrap()).len(), 5000);
    let edited = text.join("---\n").replacen(
        "name: s777}\nspec:\n  ports:\n    - port: 1\n",
        "name: s777}\nspec:\n  ports:\n    - port: 2\n",
        1,
    );
    write(dir.path(), "all.yaml", &edited);
    let start = std::time::Instant::now();
    let batch = directory.read_paths(&["all.yaml".into()]).unwrap();
    println!("one edit among 5000 documents: {:?}", start.elapsed());
    assert_eq!(services(&batch), [set("s777", 2)]);
}

#[test]
fn many_files_and_one_edit() {
    let dir = TempDir::new().unwrap();
    for i in 0..5000 {
        write(dir.path(), &format!("f{i}.yaml"), &service(&format!("s{i}"), 1));
    }
    let mut directory = open(&dir);
    assert_eq!(services(&directory.read().unwrap()).len(), 5000);
    write(dir.path(), "f77.yaml", &service("s77", 2));
    let start = std::time::Instant::now();
    let batch = directory.read_paths(&[dir.path().join("f77.yaml")]).unwrap();
    println!("one edit among 5000 files, by name: {:?}", start.elapsed());
    assert_eq!(services(&batch), [set("s77", 2)]);
    write(dir.path(), "f78.yaml", &service("s78", 2));
    let start = std::time::Instant::now();
    let batch = directory.read().unwrap();
    println!("one edit among 5000 files, by looking at all: {:?}", start.elapsed());
    assert_eq!(services(&batch), [set("s78", 2)]);
}

#[test]
fn the_demo_loads_without_findings() {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
        .join("../../manifests/examples/demo");
    let (objects, findings) = load_directory(path).unwrap();
    assert_eq!(findings, []);
    let count = |kind| objects.iter().filter(|object| object.meta.object.kind == kind).count();
    assert_eq!((count(ObjectKind::Gateway), count(ObjectKind::HttpRoute), count(ObjectKind::Ingress)), (2, 7, 1));
    assert_eq!((count(ObjectKind::Service), count(ObjectKind::EndpointSlice)), (6, 6));
    assert_eq!((count(ObjectKind::Secret), count(ObjectKind::Namespace)), (1, 5));
}
