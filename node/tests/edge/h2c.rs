//! HTTP/2 frame by frame: a client, and a pod that speaks gRPC's share of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::client::PATIENCE;

/// A client's connection, by prior knowledge.
pub async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

/// Sends a piece, as the windows allow.
pub async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) {
    let sending = async {
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
            let part = data.split_to(room.min(data.len()));
            stream.send_data(part, false).unwrap();
        }
        if end {
            stream.send_data(Bytes::new(), true).unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, sending).await.expect("no window in time");
}

/// The next piece; `None` at the end.
pub async fn next(stream: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let piece = tokio::time::timeout(PATIENCE, stream.data()).await.expect("nothing comes")?;
    if let Ok(data) = &piece {
        stream.flow_control().release_capacity(data.len()).unwrap();
    }
    Some(piece)
}

/// All that comes, which must be `length` bytes.
pub async fn exactly(stream: &mut RecvStream, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        all.extend_from_slice(&next(stream).await.expect("it ended").unwrap());
    }
    all
}

/// A pod that speaks HTTP/2 only. See [`serve`] for what it does.
pub struct Pod {
    pub address: SocketAddr,
    /// Why clients broke off.
    pub resets: Arc<Mutex<Vec<Reason>>>,
    task: JoinHandle<()>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pod {
    pub async fn start() -> Pod {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let resets: Arc<Mutex<Vec<Reason>>> = Arc::default();
        let told = Arc::clone(&resets);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let told = Arc::clone(&told);
                open.spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    let Ok(mut connection) = builder.enable_connect_protocol().handshake::<_, Bytes>(stream).await
                    else {
                        return;
                    };
                    let mut streams = tokio::task::JoinSet::new();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        streams.spawn(serve(request, respond, Arc::clone(&told)));
                    }
                });
            }
        });
        Pod { address, resets, task }
    }
}

/// Echoes; `/only` is trailers only, `/meta` 8 KiB of metadata, `/reset` breaks off, `/hang` waits
/// until the client breaks off. The answer says which `te` came.
async fn serve(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, told: Arc<Mutex<Vec<Reason>>>) {
    let (parts, mut body) = request.into_parts();
    let te = parts.headers.get_all("te").iter().map(|te| te.to_str().unwrap()).collect::<Vec<_>>().join("|");
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response.headers_mut().insert("x-te", HeaderValue::from_str(&te).unwrap());
    match parts.uri.path() {
        "/only" => {
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
            respond.send_response(response, true).unwrap();
            return;
        }
        "/meta" => {
            let large = HeaderValue::from_str(&"m".repeat(8 * 1024)).unwrap();
            response.headers_mut().insert("x-large_one", large);
        }
        "/hang" => {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            told.lock().unwrap().extend(reason.ok());
            return;
        }
        _ => {}
    }
    let mut stream = respond.send_response(response, false).unwrap();
    if parts.uri.path() == "/reset" {
        send(&mut stream, Bytes::from_static(b"some"), false).await;
        // A reset overtakes what was not sent yet.
        let _ = body.data().await;
        stream.send_reset(if parts.uri.query().is_some() { Reason::NO_ERROR } else { Reason::CANCEL });
        return;
    }
    while let Some(piece) = body.data().await {
        match piece {
            Ok(data) => {
                let _ = body.flow_control().release_capacity(data.len());
                send(&mut stream, data, false).await;
            }
            Err(error) => return told.lock().unwrap().extend(error.reason()),
        }
    }
    if parts.method == Method::CONNECT {
        return send(&mut stream, Bytes::from_static(b"bye"), true).await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-large", HeaderValue::from_str(&"t".repeat(4 * 1024)).unwrap());
    stream.send_trailers(trailers).unwrap();
}
