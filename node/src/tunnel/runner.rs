//! What makes a tunnel go: endpoints, dials, incoming connections, liveness, gossip.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, Incoming, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use super::client::CONNECT_LIMIT;
use super::gossip::{self, GossipChannel, GossipEnds};
use super::host::Hosting;
use super::peers::{Peer, TICK};
use super::{Host, Shared, Tunnel, TunnelConfig, TunnelError, endpoint};
use crate::drain::{Drain, Phase};
use crate::identity::NodeName;

/// Names are checked by SPIFFE id; QUIC wants one all the same, and does not send it.
pub(super) const SERVER_NAME: &str = "meshgate";
/// Dials that wait for the runner.
const DIAL_QUEUE: usize = 64;
/// Streams that one connection may have under way here; QUIC's own limit, plus gossip.
const MAX_CONNECTION_TASKS: usize = 2 * endpoint::MAX_STREAMS as usize;
/// Connections that peers may hold open here.
const MAX_CONNECTIONS: usize = 4096;
/// How long farewells may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// Ticks between two updates of gauges.
const GAUGE_TICKS: u32 = 4;
const CLOSE_BYE: VarInt = VarInt::from_u32(0);
const CLOSE_REFUSED: VarInt = VarInt::from_u32(1);

/// A handle's wish for another connection to a peer.
pub(super) struct Dial(pub Arc<Peer>);

/// A tunnel that is bound and does not run yet.
pub struct TunnelRunner {
    shared: Arc<Shared>,
    config: TunnelConfig,
    listening: UdpSocket,
    dialling: UdpSocket,
    dials: mpsc::Receiver<Dial>,
    gossip: GossipEnds,
}

impl Tunnel {
    /// Binds the sockets. The handle may be used, from any thread and runtime, as soon as the
    /// runner runs.
    pub fn bind(mut config: TunnelConfig) -> Result<(Tunnel, GossipChannel, TunnelRunner), TunnelError> {
        let listening = endpoint::bind(config.listen)?;
        let bound = listening.local_addr().map_err(|source| TunnelError::Bind { address: config.listen, source })?;
        config.listen.set_port(bound.port());
        let dialling = endpoint::bind((config.dial_from, 0).into())?;
        let (dial, dials) = mpsc::channel(DIAL_QUEUE);
        let (channel, gossip) = gossip::channel();
        let shared = Arc::new(Shared::new(config.peers.clone(), dial));
        let runner = TunnelRunner { shared: shared.clone(), config, listening, dialling, dials, gossip };
        Ok((Tunnel { shared }, channel, runner))
    }
}

/// What a connection's task is given.
#[derive(Clone)]
struct Serving {
    hosting: Hosting,
    gossip: mpsc::Sender<(std::net::SocketAddr, bytes::Bytes)>,
    trust: crate::identity::Trust,
}

impl TunnelRunner {
    /// Where it listens, with the port that was bound.
    pub fn listen(&self) -> std::net::SocketAddr {
        self.config.listen
    }

    /// Runs the tunnel until the process is cut. Give it a current-thread runtime of its own: all
    /// QUIC connections are driven there, and nothing else should stand in their way.
    pub async fn run(self, host: Arc<dyn Host>, drain: Drain) -> Result<(), TunnelError> {
        let TunnelRunner { shared, config, listening, dialling, mut dials, gossip } = self;
        let identity = config.identity.clone();
        let (server, gso) = endpoint::endpoint(listening, &config, Some(endpoint::server_config(&identity)?))?;
        let (dialler, _) = endpoint::endpoint(dialling, &config, None)?;
        shared.started(gso);
        let sending = gossip::Sending {
            endpoint: dialler.clone(),
            config: endpoint::client_config(&identity, None, endpoint::CONTROL_ALPN)?,
            me: config.listen,
            metrics: shared.metrics.clone(),
        };
        let mut sending = std::pin::pin!(sending.run(gossip.outgoing));
        let serving = Serving {
            hosting: Hosting::new(host, drain.clone(), shared.metrics.clone(), shared.hosted.clone()),
            gossip: gossip.incoming,
            trust: identity.trust().clone(),
        };
        let mut directory = config.peers.clone();
        directory.mark_changed();
        let mut directory_open = true;
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut gossiping, mut ticks) = (true, 0u32);
        let mut cut = std::pin::pin!(drain.reached(Phase::Cut));
        loop {
            tokio::select! {
                () = &mut cut => break,
                changed = directory.changed(), if directory_open => {
                    directory_open = changed.is_ok();
                    let peers = directory.borrow_and_update().clone();
                    shared.peers.replace(identity.node(), &peers, &shared.metrics);
                    dial_all(&shared, &config, &dialler, &mut tasks);
                }
                Some(Dial(peer)) = dials.recv() => dial(&shared, &config, &dialler, peer, &mut tasks),
                Some(incoming) = server.accept() => accept(incoming, &serving, &mut tasks),
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                () = &mut sending, if gossiping => gossiping = false,
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    shared.tick(ticks.is_multiple_of(GAUGE_TICKS));
                    dial_all(&shared, &config, &dialler, &mut tasks);
                }
            }
        }
        for endpoint in [&server, &dialler] {
            endpoint.close(CLOSE_BYE, b"bye");
        }
        let _ = timeout(FAREWELL, async { tokio::join!(server.wait_idle(), dialler.wait_idle()) }).await;
        Ok(())
    }
}

/// Keeps a connection to every peer, so that requests find one.
fn dial_all(shared: &Arc<Shared>, config: &TunnelConfig, dialler: &Endpoint, tasks: &mut JoinSet<()>) {
    for peer in shared.peers.all() {
        dial(shared, config, dialler, peer, tasks);
    }
}

fn dial(shared: &Arc<Shared>, config: &TunnelConfig, dialler: &Endpoint, peer: Arc<Peer>, tasks: &mut JoinSet<()>) {
    if !peer.begin_dial() {
        return;
    }
    let connecting = endpoint::client_config(&config.identity, Some(&peer.node), endpoint::HTTP_ALPN)
        .map_err(|error| error.to_string())
        .and_then(|tls| dialler.connect_with(tls, peer.address, SERVER_NAME).map_err(|error| error.to_string()));
    let metrics = shared.metrics.clone();
    tasks.spawn(async move {
        let result = match connecting {
            Ok(connecting) => match timeout(CONNECT_LIMIT, connecting).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer from {} within {CONNECT_LIMIT:?}", peer.address)),
            },
            Err(error) => Err(error),
        };
        metrics.dialled(if result.is_ok() { "ok" } else { "failed" });
        if let Err(error) = &result {
            tracing::debug!(peer = %peer.node, address = %peer.address, %error, "tunnel not dialled");
        }
        peer.end_dial(result);
    });
}

fn accept(incoming: Incoming, serving: &Serving, tasks: &mut JoinSet<()>) {
    if tasks.len() >= MAX_CONNECTIONS {
        incoming.refuse();
        return;
    }
    let Ok(connecting) = incoming.accept() else {
        return;
    };
    let serving = serving.clone();
    tasks.spawn(async move {
        match timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok(connection)) => serving.serve(connection).await,
            Ok(Err(error)) => tracing::debug!(%error, "incoming tunnel refused"),
            Err(_) => tracing::debug!("incoming tunnel: no handshake in time"),
        }
    });
}

impl Serving {
    async fn serve(self, connection: Connection) {
        let Some((node, control)) = self.who(&connection) else {
            connection.close(CLOSE_REFUSED, b"identity");
            return;
        };
        let mut tasks: JoinSet<()> = JoinSet::new();
        loop {
            let room = tasks.len() < MAX_CONNECTION_TASKS;
            tokio::select! {
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                stream = connection.accept_bi(), if room && !control => match stream {
                    Ok((send, receive)) => {
                        tasks.spawn(self.hosting.clone().serve(node.clone(), send, receive));
                    }
                    Err(_) => return,
                },
                stream = connection.accept_uni(), if room && control => match stream {
                    Ok(stream) => {
                        let (from, metrics) = (connection.remote_address(), self.hosting.metrics.clone());
                        tasks.spawn(gossip::receive(stream, from, self.gossip.clone(), metrics));
                    }
                    Err(_) => return,
                },
            }
        }
    }

    /// The peer's node, and whether the connection is for control.
    fn who(&self, connection: &Connection) -> Option<(NodeName, bool)> {
        let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        let node = self.trust.peer_node(&chain).ok()?;
        let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
        Some((node, data.protocol.as_deref() == Some(endpoint::CONTROL_ALPN)))
    }
}
