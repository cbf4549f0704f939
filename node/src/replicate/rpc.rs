//! Calls to the Mesh service of a peer, over a stream that is authenticated already.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Uri;
use hyper_util::rt::TokioIo;
use meshgate_proto::replication as pb;
use pb::mesh_client::MeshClient;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::delta_log::MAX_DELTA_BYTES;
use super::types::{BoxedIo, Dialer, ForwardError};
use crate::identity::NodeName;

/// How long a connection to a peer may take.
const DIAL_WAIT: Duration = Duration::from_secs(2);

/// How long a peer may take to be reached, and for each answer with keys. Short, so that a stalled
/// peer leaves time to ask others before an apply stops waiting.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// No further keys are asked for after this long; those that came are used.
const FETCH_TOTAL: Duration = Duration::from_secs(1);

/// The largest message: a delta with room for what is around its changes.
pub(super) const MAX_MESSAGE_BYTES: usize = 2 * MAX_DELTA_BYTES;

/// Keys that one call asks for.
pub(super) const MAX_KEYS: usize = 64;

/// The largest body of a forwarded call.
pub(super) const MAX_FORWARD_BYTES: usize = MAX_DELTA_BYTES;

/// Connects to a peer's Mesh service.
pub(super) async fn connect(dialer: &dyn Dialer, node: &NodeName, addr: SocketAddr) -> io::Result<MeshClient<Channel>> {
    let connecting = async {
        let io = dialer.dial(node, addr).await?;
        // The one stream there is: the channel can't connect again by itself.
        let once = Arc::new(Mutex::new(Some(io)));
        let connector = tower::service_fn(move |_: Uri| {
            let io = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { io.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        let endpoint = Endpoint::from_static("http://mesh");
        endpoint.connect_with_connector(connector).await.map_err(io::Error::other)
    };
    let channel = timeout(DIAL_WAIT, connecting).await.map_err(io::Error::from)??;
    Ok(MeshClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// Calls a peer's Mesh service once: keys and forwarded admin calls.
#[derive(Clone)]
pub struct Caller {
    dialer: Arc<dyn Dialer>,
}

impl Caller {
    /// A caller that dials by `dialer`.
    pub fn new(dialer: Arc<dyn Dialer>) -> Self {
        Caller { dialer }
    }

    /// Private keys (hash, PKCS#8 DER) of those asked for that the peer has; not all of many, if
    /// that takes long. Whether a key fits
    /// its hash is the caller's to check.
    ///
    /// # Errors
    /// The peer can't be reached or does not answer; a retry is safe.
    pub async fn fetch_keys(
        &self,
        node: &NodeName,
        addr: SocketAddr,
        key_hashes: &[[u8; 32]],
    ) -> Result<Vec<([u8; 32], Bytes)>, ForwardError> {
        let begun = Instant::now();
        let connecting = connect(self.dialer.as_ref(), node, addr);
        let connected = timeout(FETCH_WAIT, connecting).await.map_err(|_| ForwardError::Timeout)?;
        let mut client = connected.map_err(unreachable(node))?;
        let mut found = Vec::new();
        for hashes in key_hashes.chunks(MAX_KEYS) {
            let key_hashes = hashes.iter().map(|hash| Bytes::copy_from_slice(hash)).collect();
            let call = timeout(FETCH_WAIT, client.fetch_keys(pb::FetchKeysRequest { key_hashes })).await;
            let answer = match call.map_or(Err(ForwardError::Timeout), |answer| answer.map_err(from_status)) {
                Ok(answer) => answer.into_inner(),
                Err(error) if found.is_empty() => return Err(error),
                Err(_) => break,
            };
            let wanted = |key: pb::PrivateKey| {
                let hash = <[u8; 32]>::try_from(key.key_hash.as_ref()).ok()?;
                hashes.contains(&hash).then_some((hash, key.der))
            };
            found.extend(answer.keys.into_iter().filter_map(wanted));
            if begun.elapsed() > FETCH_TOTAL {
                break;
            }
        }
        Ok(found)
    }

    /// Hands an admin call to a peer and waits at most `within` for its answer.
    ///
    /// # Errors
    /// The peer's, or it can't be reached in time; a retry is safe.
    pub async fn forward(
        &self,
        node: &NodeName,
        addr: SocketAddr,
        method: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, ForwardError> {
        let call = async {
            let mut client = connect(self.dialer.as_ref(), node, addr).await.map_err(unreachable(node))?;
            let request = pb::ForwardRequest { method: method.to_owned(), body };
            Ok(client.forward(request).await.map_err(from_status)?.into_inner().body)
        };
        timeout(within, call).await.unwrap_or(Err(ForwardError::Timeout))
    }
}

fn unreachable(node: &NodeName) -> impl Fn(io::Error) -> ForwardError {
    let node = node.clone();
    move |error| ForwardError::Unavailable(format!("{node} can't be reached: {error}"))
}

/// An error as a status; [`from_status`] is its mirror.
pub(super) fn to_status(error: ForwardError) -> Status {
    match error {
        ForwardError::UnknownMethod(method) => Status::unimplemented(method),
        ForwardError::Unavailable(why) => Status::unavailable(why),
        ForwardError::Invalid(why) => Status::invalid_argument(why),
        ForwardError::Timeout => Status::deadline_exceeded("no answer in time"),
    }
}

fn from_status(status: Status) -> ForwardError {
    let message = status.message().to_owned();
    match status.code() {
        Code::Unimplemented => ForwardError::UnknownMethod(message),
        Code::InvalidArgument | Code::OutOfRange => ForwardError::Invalid(message),
        Code::DeadlineExceeded => ForwardError::Timeout,
        code => ForwardError::Unavailable(format!("{code:?}: {message}")),
    }
}

/// A stream that came in, with the name its certificate says.
pub(super) struct PeerIo {
    pub(super) io: BoxedIo,
    pub(super) peer: PeerIdentity,
}

/// Who is at the other end; the server puts it into each request.
#[derive(Clone, Debug)]
pub(super) struct PeerIdentity(pub(super) NodeName);
