//! Which certificate, which version, which session: what a listener offers, and when it changes.

use std::net::SocketAddr;
use std::sync::Arc;

use meshgate_core::snapshot::{ClientValidation, Key, Kind, Listener, Resource, TlsVersion, TlsVersions, TrustBundle};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::backend::Backend;
use crate::client::{Client, until};
use crate::mesh::{Mesh, Options};
use crate::resources::{certificate_key, listener};
use crate::tls::{certificate, certificate_with, client, connect, dial, failed, keep, shown, two_hosts};

/// One request on a new connection, so that tickets arrive; how the handshake went.
async fn visit(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> HandshakeKind {
    let mut stream = dial(address, name, config).await.unwrap();
    let request = format!("GET /x HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    stream.get_ref().1.handshake_kind().unwrap()
}

fn relisten(mesh: &mut Mesh, address: SocketAddr, versions: TlsVersions, clients: Option<ClientValidation>) {
    let a = Listener { versions, clients, ..listener("a", address.port(), Some("a.example"), Some("a")) };
    let b = listener("b", address.port(), Some("b.example"), Some("b"));
    mesh.resources.gateway(vec![address.ip()], vec![a, b]);
}

#[tokio::test]
async fn sessions_are_resumed_within_a_listeners_policy_only() {
    let backend = Backend::start("a").await;
    let (mut mesh, address, _) = two_hosts(Options::default(), &backend).await;
    let resumed = |kind| matches!(kind, HandshakeKind::Resumed);
    let clients = [&TLS13, &TLS12].map(|version| Arc::new(client(version, &[]).with_no_client_auth()));
    for config in &clients {
        assert!(!resumed(visit(address, "a.example", config).await));
        assert!(resumed(visit(address, "a.example", config).await));
        assert!(!resumed(visit(address, "b.example", config).await));
    }
    // Another certificate leaves the sessions.
    let (new, key) = certificate("a.example");
    keep(&mesh.keys, &new, &key);
    mesh.resources.certificate("a", new);
    mesh.apply().await;
    for config in &clients {
        assert!(resumed(visit(address, "a.example", config).await));
    }
    // Another policy does not.
    relisten(&mut mesh, address, TlsVersions { min: Some(TlsVersion::V12), max: None }, None);
    mesh.apply().await;
    for config in &clients {
        assert!(!resumed(visit(address, "a.example", config).await));
        assert!(resumed(visit(address, "a.example", config).await));
    }
    // And where certificates are asked for there are no sessions, old or new.
    let bundle = Key::new(Kind::TrustBundle, "default", "configmap/clients");
    let authority = certificate("authority.example").0.chain;
    mesh.resources.put(bundle.clone(), Resource::TrustBundle(TrustBundle { certificates: authority }));
    let mode = meshgate_core::snapshot::ClientValidationMode::AllowInsecureFallback;
    relisten(&mut mesh, address, TlsVersions::default(), Some(ClientValidation { trust: vec![bundle], mode }));
    mesh.apply().await;
    for config in &clients {
        for _ in 0..3 {
            assert!(!resumed(visit(address, "a.example", config).await));
        }
    }
    mesh.stop().await;
}

#[tokio::test]
async fn a_listener_speaks_the_versions_that_it_is_told_to() {
    let backend = Backend::start("a").await;
    let (mut mesh, address, _) = two_hosts(Options::default(), &backend).await;
    let (old, new) = (Some(TlsVersion::V12), Some(TlsVersion::V13));
    for (min, max, speaks12, speaks13) in
        [(None, None, true, true), (new, None, false, true), (None, old, true, false), (old, new, true, true)]
    {
        relisten(&mut mesh, address, TlsVersions { min, max }, None);
        mesh.apply().await;
        assert_eq!(connect(address, "a.example", &[], &TLS12).await.is_ok(), speaks12, "{min:?} {max:?}");
        assert_eq!(connect(address, "a.example", &[], &TLS13).await.is_ok(), speaks13, "{min:?} {max:?}");
        assert!(connect(address, "b.example", &[], &TLS12).await.is_ok(), "its neighbour");
    }
    until("they are counted", || mesh.metrics().contains(&failed("protocol", 2))).await;
    mesh.stop().await;
}

#[tokio::test]
async fn the_certificate_is_one_that_the_client_can_check() {
    let backend = Backend::start("a").await;
    let (mut mesh, address, _) = two_hosts(Options::default(), &backend).await;
    let rsa = certificate_with("*.wild.example", KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());
    let ecdsa = certificate("*.wild.example");
    let exact = certificate("one.wild.example");
    let mut wild = listener("a", address.port(), None, Some("rsa"));
    wild.certificates = ["rsa", "ecdsa", "exact"].map(certificate_key).into();
    mesh.resources.gateway(vec![address.ip()], vec![wild]);
    for (name, (certificate, key)) in [("rsa", &rsa), ("ecdsa", &ecdsa), ("exact", &exact)] {
        keep(&mesh.keys, certificate, key);
        mesh.resources.certificate(name, certificate.clone());
    }
    mesh.apply().await;
    let only_rsa = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
    for version in [&TLS13, &TLS12] {
        let config = Arc::new(client(version, &only_rsa).with_no_client_auth());
        let stream = dial(address, "one.wild.example", &config).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec(), rsa.0.chain[0]);
    }
    // ECDSA costs less; of equals the first declared.
    assert_eq!(shown(address, "two.wild.example").await, ecdsa.0.chain[0]);
    assert_eq!(shown(address, "one.wild.example").await, ecdsa.0.chain[0]);
    mesh.resources.all.remove(&certificate_key("ecdsa"));
    mesh.apply().await;
    assert_eq!(shown(address, "one.wild.example").await, exact.0.chain[0]);
    assert_eq!(shown(address, "two.wild.example").await, rsa.0.chain[0]);
    mesh.stop().await;
}

#[tokio::test]
async fn certificates_change_under_handshakes_and_connections() {
    let backend = Backend::start("a").await;
    let (mut mesh, address, _) = two_hosts(Options::default(), &backend).await;
    let mut open = Client::h2_over(connect(address, "a.example", &[b"h2"], &TLS13).await.unwrap()).await;
    let running = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let dialers: Vec<_> = (0..3)
        .map(|_| {
            let running = Arc::clone(&running);
            tokio::spawn(async move {
                let mut count = 0;
                while running.load(std::sync::atomic::Ordering::Relaxed) {
                    let stream = connect(address, "a.example", &[b"http/1.1"], &TLS13).await.unwrap();
                    assert_eq!(Client::h1_over(stream).await.get("https://a.example/x").await.status, 200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    for _ in 0..20 {
        let (new, key) = certificate("a.example");
        keep(&mesh.keys, &new, &key);
        mesh.resources.certificate("a", new.clone());
        mesh.apply().await;
        assert_eq!(shown(address, "a.example").await, new.chain[0]);
        assert_eq!(open.get("https://a.example/x").await.status, 200);
    }
    running.store(false, std::sync::atomic::Ordering::Relaxed);
    for dialer in dialers {
        assert!(dialer.await.unwrap() > 0);
    }
    mesh.stop().await;
}

#[tokio::test]
async fn a_listener_without_its_key_refuses_and_its_neighbour_goes_on() {
    let backend = Backend::start("a").await;
    let (mut mesh, address, certificates) = two_hosts(Options::default(), &backend).await;
    let weak = Arc::downgrade(&mesh.keys.get(&certificates[0].key_hash).unwrap());
    // The Secret is gone, and with it the key from the store: nothing here holds it any more.
    mesh.resources.all.remove(&certificate_key("a"));
    mesh.keys.forget(&[certificates[0].key_hash].into());
    mesh.apply().await;
    until("the key leaves memory", || weak.upgrade().is_none()).await;
    let refused = connect(address, "a.example", &[], &TLS13).await.unwrap_err();
    assert!(refused.to_string().contains("InternalError"), "{refused}");
    assert_eq!(shown(address, "b.example").await, certificates[1].chain[0]);
    // A new one whose key is not here is refused as well, and served as soon as it is.
    let (new, key) = certificate("a.example");
    mesh.resources.certificate("a", new.clone());
    mesh.apply().await;
    assert!(connect(address, "a.example", &[], &TLS13).await.is_err());
    keep(&mesh.keys, &new, &key);
    assert_eq!(shown(address, "a.example").await, new.chain[0]);
    until("both are counted", || mesh.metrics().contains(&failed("no_certificate", 2))).await;
    mesh.stop().await;
}
