//! Identities: run folders, certificates, keys, TLS between peers.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use meshgate_node::identity::{
    IdentityError, InstanceId, KeyStore, LeaderKey, MeshTls, NodeIdentity, NodeName, RunDir,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn run() -> (tempfile::TempDir, RunDir) {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::open(folder.path().join("run")).unwrap();
    (folder, run)
}

fn issue(run: &RunDir, node: &str) -> NodeIdentity {
    NodeIdentity::issue(run, node.into(), InstanceId::random()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn processes_that_start_at_once_agree() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/run");
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || RunDir::open(path).unwrap())
        })
        .collect();
    let runs: Vec<RunDir> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for run in &runs {
        assert_eq!(run.mesh_id(), runs[0].mesh_id());
        assert_eq!(run.ca_certificate(), runs[0].ca_certificate());
        let identity = issue(run, "n");
        assert_eq!(runs[0].trust().peer_node(&[identity.certificate_der()]).unwrap(), NodeName::from("n"));
        assert_eq!(run.reset_secret(&"n".into()), runs[0].reset_secret(&"n".into()));
        assert_ne!(run.reset_secret(&"n".into()), run.reset_secret(&"m".into()));
    }
    assert_eq!(mode(&path), 0o700);
    let mut files: Vec<_> = fs::read_dir(&path).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["ca.crt", "ca.key", "mesh.json", "trust.pem"]);
    assert!(files.iter().all(|file| mode(file) == 0o600));
}

#[test]
fn a_folder_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    let error = RunDir::open(&path).unwrap_err();
    assert!(matches!(error, IdentityError::Folder { .. }), "{error}");
    assert!(error.to_string().contains("chmod 700"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(path.join("mesh.json"), r#"{"mesh_id":"../x"}"#).unwrap();
    assert!(RunDir::open(&path).unwrap_err().to_string().contains("mesh_id"));
}

#[test]
fn names_that_cannot_be_ids_get_no_certificate() {
    let (_folder, run) = run();
    for name in ["", "a/b", "a b", "..", &"x".repeat(300)] {
        assert!(NodeIdentity::issue(&run, name.into(), InstanceId(1)).is_err(), "{name:?}");
    }
}

#[test]
fn signatures_name_their_node() {
    let ((_f1, run), (_f2, other)) = (run(), self::run());
    let (a, stranger) = (issue(&run, "a"), issue(&other, "a"));
    let (certificate, signature) = a.sign_with_certificate(b"message").unwrap();
    let verify = |certificate: &[u8], message: &[u8], signature: &[u8]| {
        run.trust().verify_signed_by(certificate, message, signature)
    };
    assert_eq!(verify(&certificate, b"message", &signature).unwrap(), NodeName::from("a"));
    assert!(verify(&certificate, b"massage", &signature).is_err());
    assert!(verify(&stranger.certificate_der(), b"message", &stranger.sign(b"message").unwrap()).is_err());
    let leader = LeaderKey::issue(&run, &"a".into(), 1).unwrap();
    assert!(
        verify(leader.certificate_der(), b"message", &leader.sign(b"message")).is_err(),
        "not a node's certificate"
    );
    assert!(run.trust().peer_node(&[CertificateDer::from(leader.certificate_der())]).is_err());
    let before = a.certificate_der();
    a.renew().unwrap();
    assert_ne!(a.certificate_der(), before);
    assert!(verify(&a.certificate_der(), b"m", &a.sign(b"m").unwrap()).is_ok());
}

#[test]
fn a_leaders_certificate_holds_its_epoch_and_key() {
    let ((_f1, run), (_f2, other)) = (run(), self::run());
    let leader = LeaderKey::issue(&run, &"n1".into(), 42).unwrap();
    let (epoch, key, node) = run.trust().leader_key(leader.certificate_der(), run.mesh_id()).unwrap();
    assert_eq!((epoch, node), (42, NodeName::from("n1")));
    let public = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, key);
    public.verify(b"head", &leader.sign(b"head")).unwrap();
    assert!(public.verify(b"heat", &leader.sign(b"head")).is_err());

    assert!(run.trust().leader_key(leader.certificate_der(), other.mesh_id()).is_err());
    assert!(other.trust().leader_key(leader.certificate_der(), other.mesh_id()).is_err());
    assert!(run.trust().leader_key(&issue(&run, "n1").certificate_der(), run.mesh_id()).is_err(), "a node's is not");
    assert!(run.trust().leader_key(run.ca_certificate(), run.mesh_id()).is_err());
    let mut changed = leader.certificate_der().to_vec();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    assert!(run.trust().leader_key(&changed, run.mesh_id()).is_err());
}

fn key_pair() -> (PrivateKeyDer<'static>, [u8; 32]) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let der = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).unwrap();
    let hash = digest(&SHA256, &signing.public_key().unwrap()).as_ref().try_into().unwrap();
    (der, hash)
}

#[test]
fn listener_keys_outlive_the_process_but_not_their_use() {
    let (_folder, run) = run();
    let node = NodeName::from("n1");
    let store = KeyStore::open(&run, &node).unwrap();
    let ((first, first_hash), (second, second_hash)) = (key_pair(), key_pair());
    assert!(store.insert(second_hash, first.clone_key()).is_err(), "the key of another hash");
    assert!(store.is_empty());
    store.insert(first_hash, first.clone_key()).unwrap();
    store.insert(first_hash, first.clone_key()).unwrap();
    store.insert(second_hash, second).unwrap();
    assert!(store.get(&first_hash).is_some() && store.get(&[0; 32]).is_none());
    assert_eq!(store.der(&first_hash).unwrap().secret_der(), first.secret_der());
    let folder = run.keys_dir(&node);
    assert_eq!(mode(&folder), 0o700);
    assert!(fs::read_dir(&folder).unwrap().all(|file| mode(&file.unwrap().path()) == 0o600));
    assert_eq!(format!("{store:?}"), "KeyStore { keys: 2, .. }");

    store.forget(&std::iter::once(second_hash).collect());
    fs::write(folder.join(format!("{}.key", "0".repeat(64))), b"rubbish").unwrap();
    let again = KeyStore::open(&run, &node).unwrap();
    assert_eq!(again.load().unwrap(), 1);
    assert!(again.get(&first_hash).is_some() && again.get(&second_hash).is_none());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[tokio::test]
async fn peers_know_each_other_and_no_one_else() {
    let ((_f1, run), (_f2, other)) = (run(), self::run());
    let server = MeshTls::new(issue(&run, "server")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let callers = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = callers.clone();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok((mut stream, node)) = server.accept(stream).await {
                seen.lock().unwrap().push(node.to_string());
                let _ = stream.write_all(b"hello").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    let client = MeshTls::new(issue(&run, "client")).unwrap();
    let node = NodeName::from("server");
    for expected in [Some(&node), None] {
        let (mut stream, node) = client.dial(expected, address, Some("127.0.0.2".parse().unwrap())).await.unwrap();
        assert_eq!(node, NodeName::from("server"));
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }
    assert!(client.dial(Some(&"other".into()), address, None).await.is_err(), "another node's name");
    let stranger = MeshTls::new(issue(&other, "client")).unwrap();
    assert!(stranger.dial(Some(&node), address, None).await.is_err(), "another mesh");
    assert_eq!(*callers.lock().unwrap(), ["client", "client"]);
    serving.abort();
}
