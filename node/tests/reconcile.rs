//! A reconciler on a real directory and a real lease file, with its commits applied to a snapshot.

#![allow(clippy::unwrap_used, reason = "an integration test")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use meshgate_core::intent::{ObjectKind, ObjectRef};
use meshgate_core::snapshot::{HeadId, Key, Kind, Resource};
use meshgate_node::drain::{self, DrainControl, Phase};
use meshgate_node::identity::{InstanceId, KeyStore};
use meshgate_node::reconcile::elect::{self, Candidate};
use meshgate_node::reconcile::{LeaderHandle, ReconcileConfig, ReplicaView, start};
use meshgate_wire::{Commit, Ed25519Signer, HeadSigner, Snapshot, decode};
use tokio::sync::{mpsc, watch};

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{port: 80}]}
";

const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: meshgate}
spec: {controllerName: meshgate.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec:
  gatewayClassName: meshgate
  listeners: [{name: http, port: 8080, protocol: HTTP}]
";

fn route(path: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: cart, namespace: shop}}
spec:
  parentRefs: [{{name: web}}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]
    backendRefs: [{{name: cart, port: 80}}]
"
    )
}

/// Stands for the replica: applies commits, in order, to a snapshot.
#[derive(Clone, Default)]
struct Applied(Arc<Mutex<(HeadId, Snapshot)>>);

impl ReplicaView for Applied {
    fn held(&self) -> (HeadId, Snapshot) {
        self.0.lock().unwrap().clone()
    }
    fn head(&self) -> HeadId {
        self.0.lock().unwrap().0
    }
    fn newest(&self) -> HeadId {
        self.head()
    }
}

impl Applied {
    fn apply(&self, commit: &Commit) {
        let mut held = self.0.lock().unwrap();
        assert_eq!(commit.base, held.0, "a commit starts from what is held");
        let next = held.1.apply(&commit.changes);
        assert_eq!(next.roots(), commit.head.roots(), "the head says what the changes lead to");
        *held = (commit.head.id(), next);
    }

    fn generation(&self, kind: Kind, name: &str) -> Option<u64> {
        let held = self.0.lock().unwrap();
        let leaf = held.1.get(&Key::new(kind, "shop", name))?;
        match decode(kind, &leaf.value).unwrap() {
            Resource::Route(route) => Some(route.generation),
            Resource::Gateway(gateway) => Some(gateway.generation),
            _ => None,
        }
    }
}

struct Running {
    leader: LeaderHandle,
    commits: mpsc::Receiver<Commit>,
    control: DrainControl,
    tasks: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

/// Signs until it is told not to.
struct Moody(Ed25519Signer, Arc<AtomicBool>);

impl HeadSigner for Moody {
    fn certificate(&self) -> &[u8] {
        self.0.certificate()
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        if self.1.load(Ordering::Relaxed) { Err("no hand to sign with".to_owned()) } else { self.0.sign(message) }
    }
}

fn reconciler(folder: &Path, instance: u64, applied: &Applied) -> Running {
    moody_reconciler(folder, instance, applied, &Arc::default())
}

fn moody_reconciler(folder: &Path, instance: u64, applied: &Applied, refuses: &Arc<AtomicBool>) -> Running {
    let refuses = Arc::clone(refuses);
    let (control, drain) = drain::channel();
    let (terms_sender, terms) = watch::channel(None);
    let candidate = Candidate {
        run: folder.join("run"),
        node: "node-a".into(),
        instance: InstanceId(instance),
        seen_epoch: watch::channel(0).1,
    };
    let (sender, commits) = mpsc::channel(8);
    let config = ReconcileConfig {
        mesh_id: "mesh".into(),
        source: folder.join("source"),
        last_good: folder.join("run/last-good"),
        replica: Arc::new(applied.clone()),
        signer: Arc::new(move |_| {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
            let signer = Ed25519Signer::from_pkcs8(key.serialized_der(), Bytes::from_static(b"certificate"));
            Ok(Box::new(Moody(signer?, Arc::clone(&refuses))) as Box<_>)
        }),
        keys: Arc::new(KeyStore::in_folder(folder.join("keys")).unwrap()),
        commits: sender,
    };
    let (leader, leading) = start(config, terms, drain.clone());
    let tasks = vec![tokio::spawn(elect::run(candidate, terms_sender, drain)), tokio::spawn(leading)];
    Running { leader, commits, control, tasks }
}

impl Running {
    /// The next commit, applied.
    async fn next(&mut self, applied: &Applied) -> Commit {
        let commit = tokio::time::timeout(Duration::from_secs(10), self.commits.recv()).await;
        let commit = commit.expect("a commit within 10 s").expect("the reconciler runs");
        applied.apply(&commit);
        commit
    }

    async fn quiet(&mut self) {
        assert!(self.commits.try_recv().is_err(), "nothing changed, so nothing is published");
    }

    async fn end(self) {
        self.control.advance(Phase::Cut);
        for task in self.tasks {
            task.await.unwrap().unwrap();
        }
    }
}

fn folders() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["run", "source"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    for (name, text) in [("service", SERVICE), ("gateway", GATEWAY), ("route", &route("/cart"))] {
        write(folder.path(), name, text);
    }
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    // As editors and `kubectl` users do: a whole new file, renamed into place.
    let source = folder.join("source");
    fs::write(source.join(".new"), text).unwrap();
    fs::rename(source.join(".new"), source.join(format!("{name}.yaml"))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_becomes_a_commit_and_bad_input_changes_nothing() {
    let folder = folders();
    let applied = Applied::default();
    let mut running = reconciler(folder.path(), 1, &applied);
    let first = running.next(&applied).await;
    assert_eq!(first.head.id(), HeadId { epoch: 1, rev: 1 });
    assert_eq!(applied.generation(Kind::HttpRoute, "cart"), Some(1));

    write(folder.path(), "route", &route("/basket"));
    let edit = running.next(&applied).await;
    assert_eq!(edit.changes.len(), 1, "one object changed, one resource travels");
    assert_eq!(applied.generation(Kind::HttpRoute, "cart"), Some(2));

    // A file that does not parse keeps its last good objects, and is reported.
    write(folder.path(), "route", "kind: HTTPRoute\n  broken: [");
    running.leader.read_now().await.unwrap();
    running.quiet().await;
    let findings = running.leader.book().findings();
    assert!(findings.iter().any(|finding| finding.origin.contains("route.yaml")), "{findings:?}");

    // A directory that can't be read is no empty one.
    let away = folder.path().join("away");
    fs::rename(folder.path().join("source"), &away).unwrap();
    assert!(running.leader.read_now().await.is_err());
    running.quiet().await;
    fs::rename(&away, folder.path().join("source")).unwrap();

    // A file that is gone is a deletion.
    fs::remove_file(folder.path().join("source/route.yaml")).unwrap();
    let gone = running.next(&applied).await;
    assert_eq!(gone.changes.len(), 1);
    assert!(gone.changes[0].value.is_none());
    running.leader.read_now().await.unwrap();
    assert!(!running.leader.book().knows(&ObjectRef::new(ObjectKind::HttpRoute, "shop", "cart")));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_goes_on_from_what_was_published() {
    let folder = folders();
    let applied = Applied::default();
    let mut first = reconciler(folder.path(), 1, &applied);
    first.next(&applied).await;
    write(folder.path(), "route", &route("/basket"));
    first.next(&applied).await;
    first.end().await;

    fs::remove_file(folder.path().join("source/service.yaml")).unwrap();
    let mut second = reconciler(folder.path(), 2, &applied);
    let takeover = second.next(&applied).await;
    assert_eq!(takeover.head.id(), HeadId { epoch: 2, rev: 3 }, "a new epoch, the next rev");
    let keys: Vec<String> = takeover.changes.iter().map(|change| change.key.to_string()).collect();
    assert!(keys.contains(&"Service shop/cart".to_owned()), "what went meanwhile is deleted: {keys:?}");
    assert!(!keys.iter().any(|key| key.starts_with("Gateway")), "what did not change does not travel: {keys:?}");
    assert_eq!(applied.generation(Kind::Gateway, "web"), Some(1), "generations survive");
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_keeps_the_objects_of_a_file_that_is_broken_by_then() {
    let folder = folders();
    let applied = Applied::default();
    let mut first = reconciler(folder.path(), 1, &applied);
    first.next(&applied).await;
    write(folder.path(), "route", "kind: HTTPRoute\n  broken: [");
    write(folder.path(), "service", &SERVICE.replace("port: 80", "port: eighty"));
    first.leader.read_now().await.unwrap();
    first.quiet().await;
    first.end().await;

    let mut second = reconciler(folder.path(), 2, &applied);
    let takeover = second.next(&applied).await;
    assert!(takeover.changes.is_empty(), "nothing is deleted: {:?}", takeover.changes);
    second.leader.read_now().await.unwrap();
    let findings = second.leader.book().findings();
    for file in ["route.yaml", "service.yaml"] {
        assert!(findings.iter().any(|finding| finding.origin.starts_with(file)), "{file}: {findings:?}");
    }
    // Once mended, it counts again.
    write(folder.path(), "route", &route("/basket"));
    assert_eq!(second.next(&applied).await.changes.len(), 1);
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_over_an_unmounted_source_publishes_nothing() {
    let folder = folders();
    let applied = Applied::default();
    let mut first = reconciler(folder.path(), 1, &applied);
    first.next(&applied).await;
    first.end().await;

    // What is left of a mount point: another directory, and empty.
    fs::rename(folder.path().join("source"), folder.path().join("away")).unwrap();
    fs::create_dir(folder.path().join("source")).unwrap();
    let second = reconciler(folder.path(), 2, &applied);
    let before = applied.held();
    let mut waited = 0;
    while second.leader.term().is_none() && waited < 500 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        waited += 1;
    }
    assert!(second.leader.read_now().await.is_err());
    assert!(before == applied.held() && second.commits.is_empty(), "the mesh goes on with what it has");
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_key_stays_out_of_what_is_published() {
    let folder = folders();
    let pair = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
    let indent = |pem: String| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let secret = format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: pair, namespace: shop}}\n\
         stringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indent(pair.cert.pem()),
        indent(pair.signing_key.serialize_pem())
    );
    write(folder.path(), "secret", &secret);
    let https = "{name: https, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: pair}]}}";
    write(folder.path(), "gateway", &GATEWAY.replace("protocol: HTTP}", &format!("protocol: HTTP}}, {https}")));

    let applied = Applied::default();
    let mut running = reconciler(folder.path(), 1, &applied);
    let first = running.next(&applied).await;
    let certificate = Key::new(Kind::Certificate, "shop", "pair");
    assert!(first.changes.iter().any(|change| change.key == certificate), "it is served: {:?}", first.changes);
    // Whatever follows the version and algorithm in PKCS#8 is the secret itself.
    let der = pair.signing_key.serialized_der();
    let needle = &der[der.len() - 100..][..32];
    for change in &first.changes {
        let value = change.value.as_deref().unwrap_or_default();
        assert!(!value.windows(needle.len()).any(|window| window == needle), "{} holds the key", change.key);
    }
    // It is where it belongs: in the key store, for its owner only.
    let files: Vec<_> = fs::read_dir(folder.path().join("keys")).unwrap().map(Result::unwrap).collect();
    assert_eq!(files.len(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&files[0].metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let stored = fs::read(files[0].path()).unwrap();
    assert!(stored.windows(needle.len()).any(|window| window == needle), "the needle is the key's");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finding_names_the_line_where_its_object_stands_now() {
    let folder = folders();
    let applied = Applied::default();
    let mut running = reconciler(folder.path(), 1, &applied);
    running.next(&applied).await;
    let cart = ObjectRef::new(ObjectKind::HttpRoute, "shop", "cart");
    let origins = |running: &Running| -> Vec<String> {
        running.leader.book().findings_of(&cart).into_iter().map(|finding| finding.origin).collect()
    };
    assert!(origins(&running).is_empty());

    let broken = route("/cart").replace("name: cart, port: 80", "name: nothing, port: 80");
    write(folder.path(), "route", &broken);
    running.next(&applied).await;
    running.leader.read_now().await.unwrap();
    assert_eq!(origins(&running), ["route.yaml:1"]);

    // The object stays the same; only its place is another.
    let service = SERVICE.replace("name: cart", "name: other");
    write(folder.path(), "route", &format!("{service}---\n{broken}"));
    running.next(&applied).await;
    running.leader.read_now().await.unwrap();
    // A document begins with its marker.
    let line = 1 + service.lines().count();
    assert_eq!(origins(&running), [format!("route.yaml:{line}")]);
    assert_eq!(running.leader.book().findings().len(), running.leader.book().findings_count());

    write(folder.path(), "route", &route("/cart"));
    running.next(&applied).await;
    running.leader.read_now().await.unwrap();
    assert!(origins(&running).is_empty());
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pass_found_is_kept_though_it_can_not_be_published() {
    let folder = folders();
    let (applied, refuses) = (Applied::default(), Arc::default());
    let mut running = moody_reconciler(folder.path(), 1, &applied, &refuses);
    let first = running.next(&applied).await.head.id();
    refuses.store(true, Ordering::Relaxed);
    write(folder.path(), "route", &route("/cart").replace("name: cart, port: 80", "name: nothing, port: 80"));
    write(folder.path(), "other", &SERVICE.replace("name: cart", "name: other"));
    for _ in 0..2 {
        assert!(running.leader.read_now().await.unwrap_err().contains("no hand"));
    }
    running.quiet().await;
    let codes = |running: &Running| -> Vec<_> { running.leader.book().findings().iter().map(|f| f.code).collect() };
    let cart = ObjectRef::new(ObjectKind::HttpRoute, "shop", "cart");
    let other = ObjectRef::new(ObjectKind::Service, "shop", "other");
    assert_eq!(codes(&running).iter().filter(|code| **code == "MG0503").count(), 1);
    let found = running.leader.book().findings_of(&cart);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(running.leader.book().knows(&other));
    assert_eq!(running.leader.book().changed(&cart).unwrap().head, first, "no head shows it yet");

    refuses.store(false, Ordering::Relaxed);
    let later = running.next(&applied).await.head.id();
    running.leader.read_now().await.unwrap();
    assert!(!codes(&running).contains(&"MG0503"));
    assert_eq!(running.leader.book().findings_of(&cart), found);
    assert_eq!(running.leader.book().changed(&cart).unwrap().head, later);
    assert_eq!(running.leader.book().changed(&other).unwrap().head, later);
    running.end().await;
}
