//! TLS at the edge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use meshgate_core::snapshot::{AppProtocol, Certificate, HostPattern};
use meshgate_node::drain::Phase;
use meshgate_node::edge::EdgeConfig;
use meshgate_node::identity::KeyStore;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::backend::Backend;
use crate::client::{Client, refused, until};
use crate::log::{Log, lines};
use crate::mesh::{Mesh, Options, impatient};
use crate::resources::{listener, prefix};

/// A certificate for a name, and its key.
pub fn certificate(name: &str) -> (Certificate, KeyPair) {
    certificate_with(name, KeyPair::generate().unwrap())
}

/// A certificate for a name with a key.
pub fn certificate_with(name: &str, key: KeyPair) -> (Certificate, KeyPair) {
    let chain = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let hash = digest(&SHA256, &key.subject_public_key_info());
    let certificate = Certificate {
        chain: vec![chain.der().to_vec()],
        key_hash: hash.as_ref().try_into().unwrap(),
        dns_names: vec![name.to_owned()],
        not_after: i64::MAX,
    };
    (certificate, key)
}

pub fn keep(keys: &KeyStore, certificate: &Certificate, key: &KeyPair) {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    keys.insert(certificate.key_hash, der).unwrap();
}

/// A line of the metrics.
pub fn failed(reason: &str, times: u32) -> String {
    format!("meshgate_tls_handshake_failures_total{{reason=\"{reason}\"}} {times}")
}

/// Believes everything that is signed by one of these schemes.
#[derive(Debug)]
struct Credulous(Vec<SignatureScheme>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

pub async fn connect(
    address: SocketAddr,
    name: &str,
    alpn: &[&[u8]],
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = client(version, &[]).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    dial(address, name, &Arc::new(config)).await
}

/// A client that believes every certificate, or those with these schemes.
pub fn client(
    version: &'static rustls::SupportedProtocolVersion,
    schemes: &[SignatureScheme],
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = default_provider();
    let schemes = match schemes {
        [] => provider.signature_verification_algorithms.supported_schemes(),
        some => some.to_vec(),
    };
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous(schemes)))
}

/// A connection after its handshake.
pub async fn dial(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

pub async fn shown(address: SocketAddr, name: &str) -> Vec<u8> {
    let stream = connect(address, name, &[], &rustls::version::TLS13).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Two HTTPS listeners on one port: `a.example`, `b.example`.
pub async fn two_hosts(options: Options, backend: &Backend) -> (Mesh, SocketAddr, [Certificate; 2]) {
    let mut mesh = Mesh::start(options);
    let address = mesh.reserve();
    let port = address.port();
    let hosts = ["a.example", "b.example"];
    let listeners =
        vec![listener("a", port, Some(hosts[0]), Some("a")), listener("b", port, Some(hosts[1]), Some("b"))];
    mesh.resources.gateway(vec![address.ip()], listeners);
    for (name, host) in [("a", hosts[0]), ("b", hosts[1])] {
        let host = HostPattern::Exact(host.to_owned());
        mesh.resources.route(name, &[(name, host)], vec![prefix("/", "a")]);
    }
    mesh.resources.service("a", AppProtocol::Http1, &[(backend.address, None)]);
    let certificates = [certificate(hosts[0]), certificate(hosts[1])];
    for (name, (certificate, key)) in ["a", "b"].into_iter().zip(&certificates) {
        keep(&mesh.keys, certificate, key);
        mesh.resources.certificate(name, certificate.clone());
    }
    mesh.apply().await;
    (mesh, address, certificates.map(|(certificate, _)| certificate))
}

#[tokio::test]
async fn alpn_decides_the_protocol_and_sni_the_certificate() {
    let a = Backend::start("a").await;
    let (log, access_log) = Log::start();
    let options = Options { access_log, ..Options::default() };
    let (mesh, address, certificates) = two_hosts(options, &a).await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let stream = connect(address, "a.example", &[b"h2", b"http/1.1"], version).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut client = Client::h2_over(stream).await;
        // A client may coalesce connections (RFC 9113 9.1.1), and is sent elsewhere.
        assert_eq!(client.get("https://b.example/x").await.status, 421);
        assert_eq!(client.get("https://c.example/x").await.status, 404);
        let answer = client.get("https://a.example/x").await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("x-forwarded-proto: https"), "{}", answer.text());
        let stream = connect(address, "b.example", &[b"http/1.1"], version).await.unwrap();
        let mut client = Client::h1_over(stream).await;
        assert_eq!(client.get("https://b.example/x").await.status, 200);
        // A host of another listener on this connection: another certificate would be due.
        let misdirected = client.get("https://a.example/x").await;
        assert_eq!(misdirected.status, 421, "{}", misdirected.text());
    }
    assert_eq!(shown(address, "a.example").await, certificates[0].chain[0]);
    assert_eq!(shown(address, "b.example").await, certificates[1].chain[0]);
    let unknown = connect(address, "c.example", &[], &rustls::version::TLS13).await.unwrap_err();
    assert!(unknown.to_string().contains("UnrecognisedName"), "{unknown}");
    mesh.stop().await;
    let logged: Vec<String> = lines(&log.text())
        .iter()
        .map(|line| format!("{} {} {} {}", line["tls_version"], line["sni"], line["protocol"], line["reason"]))
        .collect();
    for version in ["1.3", "1.2"] {
        for line in [
            r#""a.example" "HTTP/2.0" "ok""#,
            r#""b.example" "HTTP/1.1" "ok""#,
            r#""b.example" "HTTP/1.1" "misdirected""#,
        ] {
            assert!(logged.contains(&format!("\"{version}\" {line}")), "{line} in {logged:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_is_swapped_live_and_not_before_its_key_is_here() {
    let a = Backend::start("a").await;
    let (mut mesh, address, certificates) = two_hosts(Options::default(), &a).await;
    let (new, key) = certificate("a.example");
    mesh.resources.certificate("a", new.clone());
    mesh.apply().await;
    assert_eq!(mesh.live.borrow().missing_keys, [crate::resources::certificate_key("a")]);
    assert_eq!(shown(address, "a.example").await, certificates[0].chain[0], "the old pair serves on");
    keep(&mesh.keys, &new, &key);
    assert_eq!(shown(address, "a.example").await, new.chain[0]);
    until("the key is reported", || mesh.live.borrow().missing_keys.is_empty()).await;
    mesh.stop().await;
}

#[tokio::test]
async fn silent_handshakes_are_cut() {
    let a = Backend::start("a").await;
    let options = Options { config: impatient(), ..Options::default() };
    let (mesh, address, _) = two_hosts(options, &a).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    crate::client::read_to_end(&mut silent).await;
    until("it is counted", || mesh.stats.handshakes_failed.load(Ordering::Relaxed) == 1).await;
    assert!(mesh.metrics().contains(&failed("timeout", 1)), "{}", mesh.metrics());
    mesh.stop().await;
}

#[tokio::test]
async fn a_request_right_after_the_handshake_is_answered_although_the_listener_closes() {
    let a = Backend::start("a").await;
    let (mesh, address, _) = two_hosts(Options::default(), &a).await;
    let stream = connect(address, "a.example", &[b"http/1.1"], &rustls::version::TLS13).await.unwrap();
    mesh.drain.advance(Phase::Draining);
    refused(address).await;
    let answer = Client::h1_over(stream).await.get("https://a.example/x").await;
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, "close"));
    mesh.ended().await;
}

#[tokio::test]
async fn clients_that_fall_silent_after_their_hello_give_their_places_back() {
    let a = Backend::start("a").await;
    let config = EdgeConfig { threads: 1, handshake_timeout: Duration::from_secs(60), ..EdgeConfig::default() };
    let (mesh, address, _) = two_hosts(Options { config, ..Options::default() }, &a).await;
    let mut silent = Vec::new();
    for _ in 0..260 {
        let config = Arc::new(client(&rustls::version::TLS13, &[]).with_no_client_auth());
        let name = ServerName::try_from("a.example").unwrap();
        let mut hello = Vec::new();
        rustls::ClientConnection::new(config, name).unwrap().write_tls(&mut hello).unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&hello).await.unwrap();
        silent.push(stream);
    }
    let stream = connect(address, "a.example", &[b"http/1.1"], &rustls::version::TLS13);
    let stream = tokio::time::timeout(Duration::from_secs(20), stream).await.unwrap().unwrap();
    assert_eq!(Client::h1_over(stream).await.get("https://a.example/x").await.status, 200);
    drop(silent);
    mesh.stop().await;
}

#[tokio::test]
async fn silent_connections_take_no_place_from_others() {
    let a = Backend::start("a").await;
    let config = EdgeConfig { threads: 1, ..EdgeConfig::default() };
    let (mesh, address, _) = two_hosts(Options { config, ..Options::default() }, &a).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    until("all are accepted", || mesh.stats.active.load(Ordering::Relaxed) >= 300).await;
    let stream = connect(address, "a.example", &[b"http/1.1"], &rustls::version::TLS13);
    let stream = tokio::time::timeout(Duration::from_secs(5), stream).await.unwrap().unwrap();
    assert_eq!(Client::h1_over(stream).await.get("https://a.example/x").await.status, 200);
    drop(silent);
    mesh.stop().await;
}
