//! Tests of the client against real servers on loopback.

use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use rustls::ServerConfig;
use tokio::net::TcpListener;

use super::super::certificate::Fresh;
use super::*;

/// A server for one connection that answers with what it was asked.
async fn server(tls: Option<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
            let host = request
                .uri()
                .authority()
                .map_or_else(|| request.headers()[header::HOST].to_str().unwrap().to_owned(), ToString::to_string);
            let text = format!("{host}{} {:?}", request.uri().path(), request.headers().get("x-a"));
            Ok::<_, hyper::Error>(
                Response::builder()
                    .header("x-meshgate-via", "local node=node-a route=a/b#0 rev=1/2")
                    .body(Full::new(Bytes::from(text)))
                    .unwrap(),
            )
        });
        let Some(tls) = tls else {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            return;
        };
        // A client that does not trust the certificate ends here.
        let Ok(stream) = tokio_rustls::TlsAcceptor::from(Arc::new(tls)).accept(stream).await else { return };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        } else {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    });
    address
}

fn server_config(fresh: &Fresh) -> ServerConfig {
    use rustls_pki_types::pem::PemObject;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(fresh.key_pem.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![fresh.der.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

#[tokio::test]
async fn plain_requests_carry_host_path_and_headers() {
    let address = server(None).await;
    let answer = Ask::get(address, "shop.example", "/cart").header("x-a", "1").send().await.unwrap();
    assert_eq!((answer.status, answer.version), (StatusCode::OK, Version::HTTP_11));
    assert_eq!(answer.excerpt(), "shop.example/cart Some(\"1\")");
    assert_eq!(answer.via().unwrap().node, "node-a");
    assert!(answer.took > Duration::ZERO);
    assert!(answer.echo().is_err(), "not an echo's body");
}

#[tokio::test]
async fn tls_speaks_what_was_agreed() {
    let fresh = Fresh::new(&["shop.example"]).unwrap();
    for (alpn, version) in [(&b"http/1.1"[..], Version::HTTP_11), (b"h2", Version::HTTP_2)] {
        let address = server(Some(server_config(&fresh))).await;
        let config = trusting(&fresh.der, &[alpn]).unwrap();
        let answer = Ask::get(address, "shop.example", "/x").tls(config).send().await.unwrap();
        assert_eq!(answer.version, version);
        assert!(answer.excerpt().starts_with("shop.example/x"), "{}", answer.excerpt());
    }
}

#[tokio::test]
async fn another_certificate_is_refused() {
    let fresh = Fresh::new(&["shop.example"]).unwrap();
    let address = server(Some(server_config(&fresh))).await;
    let config = trusting(&Fresh::new(&["shop.example"]).unwrap().der, &[b"h2"]).unwrap();
    let error = Ask::get(address, "shop.example", "/").tls(config).send().await.unwrap_err();
    assert!(format!("{error:#}").contains("TLS handshake"), "{error:#}");
}

#[tokio::test]
async fn a_closed_connection_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { drop(listener.accept().await) });
    let start = Instant::now();
    assert!(Ask::get(address, "a", "/").send().await.is_err());
    assert!(start.elapsed() < TIMEOUT, "and at once");
}
