//! Client certificates at the edge.

use std::net::SocketAddr;
use std::sync::Arc;

use meshgate_core::snapshot::{
    AppProtocol, ClientValidation, ClientValidationMode, HostPattern, Key, Kind, Listener, Resource, TrustBundle,
};
use meshgate_node::proxy::{AccessLog, AccessLogTarget};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::backend::Backend;
use crate::client::{Client, until};
use crate::mesh::{Mesh, Options};
use crate::resources::{listener, prefix};
use crate::tls::{certificate, client, dial, failed, keep};

/// An authority. All have one name, so that only signatures tell them apart.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A client that shows a certificate of this authority.
    fn client(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["caller.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "caller");
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let chain = vec![CertificateDer::from(leaf.der().to_vec())];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Arc::new(client(version, &[]).with_client_auth_cert(chain, key).unwrap())
    }
}

fn nobody(version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
    Arc::new(client(version, &[]).with_no_client_auth())
}

fn bundle_key() -> Key {
    Key::new(Kind::TrustBundle, "default", "configmap/clients")
}

fn trust(mesh: &mut Mesh, authorities: &[&Authority]) {
    let certificates = authorities.iter().map(|authority| authority.0.der().to_vec()).collect();
    mesh.resources.put(bundle_key(), Resource::TrustBundle(TrustBundle { certificates }));
}

fn asking(port: u16, mode: Option<ClientValidationMode>) -> Vec<Listener> {
    let clients = mode.map(|mode| ClientValidation { trust: vec![bundle_key()], mode });
    let asks = Listener { clients, ..listener("a", port, Some("a.example"), Some("a")) };
    vec![asks, listener("b", port, Some("b.example"), Some("b"))]
}

/// `a.example` asks for certificates, `b.example` does not.
async fn start(options: Options, backend: &Backend, mode: Option<ClientValidationMode>) -> (Mesh, SocketAddr) {
    let mut mesh = Mesh::start(options);
    let address = mesh.reserve();
    mesh.resources.gateway(vec![address.ip()], asking(address.port(), mode));
    for name in ["a", "b"] {
        let host = format!("{name}.example");
        mesh.resources.route(name, &[(name, HostPattern::Exact(host.clone()))], vec![prefix("/", "s")]);
        let (shown, key) = certificate(&host);
        keep(&mesh.keys, &shown, &key);
        mesh.resources.certificate(name, shown);
    }
    mesh.resources.service("s", AppProtocol::Http1, &[(backend.address, None)]);
    (mesh, address)
}

async fn status(stream: TlsStream<TcpStream>, host: &str) -> Option<u16> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = http::Request::get("/x").header("host", host);
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    Some(sender.send_request(request).await.ok()?.status().as_u16())
}

/// The status of a request on a new connection, `None` where it is refused.
async fn ask(address: SocketAddr, config: &Arc<ClientConfig>) -> Option<u16> {
    let stream = dial(address, "a.example", config).await.ok()?;
    status(stream, "a.example").await
}

#[tokio::test]
async fn only_a_valid_certificate_gets_in_and_is_logged() {
    let backend = Backend::start("s").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (access_log, writer) = AccessLog::open(&AccessLogTarget::File(path.clone())).unwrap();
    let writer = std::thread::spawn(move || writer.unwrap().run());
    let options = Options { access_log, ..Options::default() };
    let (mut mesh, address) = start(options, &backend, Some(ClientValidationMode::AllowValidOnly)).await;
    let (ours, other) = (Authority::new(), Authority::new());
    trust(&mut mesh, &[&ours]);
    mesh.apply().await;
    for version in [&TLS13, &TLS12] {
        assert_eq!(ask(address, &ours.client(version)).await, Some(200));
        assert_eq!(ask(address, &other.client(version)).await, None);
        assert_eq!(ask(address, &nobody(version)).await, None);
    }
    until("all are counted", || mesh.metrics().contains(&failed("client_certificate", 4))).await;
    // Its neighbour on the port asks nobody.
    let stream = dial(address, "b.example", &nobody(&TLS13)).await.unwrap();
    let mut neighbour = Client::h1_over(stream).await;
    assert_eq!(neighbour.get("https://b.example/x").await.status, 200);
    assert_eq!(neighbour.get("https://a.example/x").await.status, 421, "not over the neighbour's connection");
    drop(neighbour);
    mesh.stop().await;
    writer.join().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(line["client_cert"]["subject"].as_str().unwrap().contains("CN=caller"), "{line}");
    assert_eq!(line["client_cert"]["names"][0], "caller.example");
    assert_eq!(line["client_cert"]["sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn with_the_fallback_everybody_gets_in() {
    let backend = Backend::start("s").await;
    let mode = Some(ClientValidationMode::AllowInsecureFallback);
    let (mut mesh, address) = start(Options::default(), &backend, mode).await;
    let (ours, other) = (Authority::new(), Authority::new());
    trust(&mut mesh, &[&ours]);
    mesh.apply().await;
    for version in [&TLS13, &TLS12] {
        for config in [ours.client(version), other.client(version), nobody(version)] {
            assert_eq!(ask(address, &config).await, Some(200));
        }
    }
    // The demand becomes strict: who was verified stays, the others are to connect again.
    let verified = dial(address, "a.example", &ours.client(&TLS13)).await.unwrap();
    let unverified = dial(address, "a.example", &other.client(&TLS13)).await.unwrap();
    let (mut verified, mut unverified) = (Client::h1_over(verified).await, Client::h1_over(unverified).await);
    assert_eq!(verified.get("https://a.example/x").await.status, 200);
    assert_eq!(unverified.get("https://a.example/x").await.status, 200);
    let strict = asking(address.port(), Some(ClientValidationMode::AllowValidOnly));
    mesh.resources.gateway(vec![address.ip()], strict);
    mesh.apply().await;
    assert_eq!(verified.get("https://a.example/x").await.status, 200);
    assert_eq!(unverified.get("https://a.example/x").await.status, 421);
    mesh.stop().await;
}

#[tokio::test]
async fn a_connection_that_was_not_asked_does_not_outlive_the_demand() {
    let backend = Backend::start("s").await;
    let (mut mesh, address) = start(Options::default(), &backend, None).await;
    mesh.apply().await;
    let mut open = Client::h1_over(dial(address, "a.example", &nobody(&TLS13)).await.unwrap()).await;
    assert_eq!(open.get("https://a.example/x").await.status, 200);
    let ours = Authority::new();
    trust(&mut mesh, &[&ours]);
    mesh.resources.gateway(vec![address.ip()], asking(address.port(), Some(ClientValidationMode::AllowValidOnly)));
    mesh.apply().await;
    assert_eq!(open.get("https://a.example/x").await.status, 421);
    assert_eq!(ask(address, &ours.client(&TLS13)).await, Some(200));
    mesh.stop().await;
}

#[tokio::test]
async fn a_listener_that_trusts_nobody_refuses_and_leaves_nothing_to_its_neighbour() {
    let backend = Backend::start("s").await;
    let (mut mesh, address) = start(Options::default(), &backend, None).await;
    for mode in [ClientValidationMode::AllowValidOnly, ClientValidationMode::AllowInsecureFallback] {
        for certificate in [Some("a"), None] {
            let clients = Some(ClientValidation { trust: Vec::new(), mode });
            let mut asks = Listener { clients, ..listener("a", address.port(), Some("a.example"), Some("a")) };
            asks.certificates.truncate(certificate.iter().len());
            let any = listener("b", address.port(), None, Some("b"));
            mesh.resources.gateway(vec![address.ip()], vec![asks, any]);
            mesh.apply().await;
            assert_eq!(ask(address, &nobody(&TLS13)).await, None, "{mode:?}, certificate {certificate:?}");
        }
    }
    let stream = dial(address, "b.example", &nobody(&TLS13)).await.unwrap();
    let mut neighbour = Client::h1_over(stream).await;
    assert_eq!(neighbour.get("https://b.example/x").await.status, 200);
    assert_eq!(neighbour.get("https://a.example/x").await.status, 421);
    mesh.stop().await;
}

#[tokio::test]
async fn without_anybody_to_trust_handshakes_are_refused_until_there_is() {
    let backend = Backend::start("s").await;
    let (mut mesh, address) = start(Options::default(), &backend, Some(ClientValidationMode::AllowValidOnly)).await;
    mesh.apply().await;
    let (first, second) = (Authority::new(), Authority::new());
    let refused = dial(address, "a.example", &first.client(&TLS13)).await.unwrap_err();
    assert!(refused.to_string().contains("InternalError"), "{refused}");
    until("it is counted", || mesh.metrics().contains(&failed("no_certificate", 1))).await;
    let stream = dial(address, "b.example", &nobody(&TLS13)).await.unwrap();
    assert_eq!(status(stream, "b.example").await, Some(200), "the neighbour goes on");
    trust(&mut mesh, &[&first]);
    mesh.apply().await;
    let (old, new) = (first.client(&TLS13), second.client(&TLS13));
    let mut open = Client::h1_over(dial(address, "a.example", &old).await.unwrap()).await;
    assert_eq!(open.get("https://a.example/x").await.status, 200);
    // Another bundle: connections stay, handshakes are checked against it.
    trust(&mut mesh, &[&second]);
    mesh.apply().await;
    assert_eq!(open.get("https://a.example/x").await.status, 200);
    assert_eq!(ask(address, &old).await, None);
    assert_eq!(ask(address, &new).await, Some(200));
    mesh.stop().await;
}
