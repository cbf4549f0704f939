//! Sockets and QUIC settings. Measurements behind the numbers are in the project's performance notes.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    MtuDiscoveryConfig, Runtime as _, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{TunnelConfig, TunnelError};
use crate::identity::{IdentityError, InstanceId, NodeIdentity, NodeName};

/// What a connection for gossip speaks.
pub(super) const CONTROL_ALPN: &[u8] = b"meshgate-control/1";
/// What a connection for requests speaks.
pub(super) const HTTP_ALPN: &[u8] = b"meshgate-http/1";

/// Streams a connection; quinn allocates them all at once, so more makes handshakes slow.
pub(super) const MAX_STREAMS: u32 = 256;
/// Received and unread bytes a connection.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
/// Received and unread bytes a stream: so small that readers who stall on every stream of a
/// connection together still can't use up its window, and so never stop another stream.
const STREAM_WINDOW: u32 = CONNECTION_WINDOW / MAX_STREAMS;
/// Ten segments of this size are below the 64 KiB that one segmented send may carry.
const MAX_MTU: u16 = 6500;
const FIRST_MTU: u16 = 1200;
const MTU_PROBE_INTERVAL: Duration = Duration::from_secs(60);
const FIRST_RTT: Duration = Duration::from_millis(5);
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Silence that ends a connection. New work goes elsewhere long before.
const IDLE_MS: u32 = 15_000;
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// Handshakes that may be under way at once.
const MAX_INCOMING: usize = 1024;
const CID_LENGTH: usize = 8;

/// A bound socket that has no runtime yet.
pub(super) fn bind(address: SocketAddr) -> Result<UdpSocket, TunnelError> {
    try_bind(address).map_err(|source| TunnelError::Bind { address, source })
}

fn try_bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // As far as the kernel's limits allow; what was granted is logged.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    // Linux reports twice what was asked for.
    let granted = socket.recv_buffer_size()? / 2;
    if granted < SOCKET_BUFFER {
        tracing::info!(
            granted,
            wanted = SOCKET_BUFFER,
            "small UDP socket buffer; raise net.core.rmem_max and wmem_max"
        );
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// An endpoint on the current runtime, and whether its socket segments packets.
pub(super) fn endpoint(
    socket: UdpSocket,
    config: &TunnelConfig,
    server: Option<ServerConfig>,
) -> Result<(Endpoint, bool), TunnelError> {
    let wrong = |error: std::io::Error| TunnelError::Config(error.to_string());
    let socket: Arc<dyn AsyncUdpSocket> = TokioRuntime.wrap_udp_socket(socket).map_err(wrong)?;
    let gso = socket.max_transmit_segments() > 1;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &config.reset_secret);
    let mut endpoint = EndpointConfig::new(Arc::new(key));
    let generation = generation_byte(config.identity.instance());
    endpoint.cid_generator(move || Box::new(GenerationCids(generation)));
    endpoint.max_udp_payload_size(MAX_MTU).map_err(|error| TunnelError::Config(error.to_string()))?;
    let endpoint =
        Endpoint::new_with_abstract_socket(endpoint, server, socket, Arc::new(TokioRuntime)).map_err(wrong)?;
    Ok((endpoint, gso))
}

pub(super) fn server_config(identity: &NodeIdentity) -> Result<ServerConfig, TunnelError> {
    let tls = identity.server_config(&[HTTP_ALPN, CONTROL_ALPN]).map_err(identity_error)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| TunnelError::Config(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    config.migration(false);
    config.max_incoming(MAX_INCOMING);
    Ok(config)
}

pub(super) fn client_config(
    identity: &NodeIdentity,
    expected: Option<&NodeName>,
    alpn: &[u8],
) -> Result<ClientConfig, TunnelError> {
    let tls = identity.client_config(expected, alpn).map_err(identity_error)?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| TunnelError::Config(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

fn identity_error(error: IdentityError) -> TunnelError {
    TunnelError::Config(error.to_string())
}

fn transport() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_MTU).interval(MTU_PROBE_INTERVAL);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(MAX_STREAMS.into())
        .max_concurrent_uni_streams(MAX_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .initial_mtu(FIRST_MTU)
        .mtu_discovery_config(Some(mtu))
        .initial_rtt(FIRST_RTT)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MS).into()))
        .ack_frequency_config(Some(AckFrequencyConfig::default()))
        .send_fairness(false)
        .enable_segmentation_offload(true)
        .datagram_receive_buffer_size(None);
    transport
}

fn generation_byte(instance: InstanceId) -> u8 {
    instance.0.to_be_bytes()[0]
}

/// Connection ids that begin with a byte of the process's generation, by which a packet can be
/// brought to the right process while two generations share a port.
struct GenerationCids(u8);

impl ConnectionIdGenerator for GenerationCids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id: [u8; CID_LENGTH] = rand::random();
        id[0] = self.0;
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
