//! Joins the parts: implements the traits by which lower modules ask for what they may not import.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use meshgate_core::snapshot::HeadId;
use meshgate_proto::admin as pb;
use meshgate_wire::Snapshot;
use tokio::sync::watch;
use tracing::debug;

use super::views;
use crate::admin::Surroundings;
use crate::cluster::Members;
use crate::edge;
use crate::identity::{KeyStore, MeshTls, NodeName};
use crate::proxy::{ProxyMetrics, Totals};
use crate::reconcile::ReplicaView;
use crate::replicate::{Applied, BoxedIo, Caller, Dialer, KeyEnsurer, KeyLookup};
use crate::tunnel::Tunnel;

/// Dials the replication service of peers, by mTLS, from this node's own address.
pub(super) struct SyncDialer {
    pub tls: MeshTls,
    pub from: IpAddr,
}

impl Dialer for SyncDialer {
    fn dial(&self, node: &NodeName, address: SocketAddr) -> BoxFuture<'static, io::Result<BoxedIo>> {
        let (tls, node, from) = (self.tls.clone(), node.clone(), self.from);
        Box::pin(async move {
            let (stream, _) = tls.dial(Some(&node), address, Some(from)).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as BoxedIo)
        })
    }
}

/// Private keys for peers that ask. Every peer of the mesh serves every listener, so every
/// authenticated one may have them.
pub(super) struct StoredKeys(pub Arc<KeyStore>);

impl KeyLookup for StoredKeys {
    fn lookup(&self, _: &NodeName, hash: &[u8; 32]) -> Option<Bytes> {
        self.0.der(hash).map(|der| Bytes::copy_from_slice(der.secret_der()))
    }
}

/// Fetches listeners' keys before a table that needs them is swapped in.
pub(super) struct KeyFetcher {
    pub keys: Arc<KeyStore>,
    pub members: watch::Receiver<Arc<Members>>,
    pub caller: Caller,
    pub own: NodeName,
}

#[async_trait]
impl KeyEnsurer for KeyFetcher {
    async fn ensure(&self, hashes: &[[u8; 32]], source: Option<&NodeName>) -> Vec<[u8; 32]> {
        let mut missing = self.missing(hashes);
        for (node, address) in self.sources(source) {
            if missing.is_empty() {
                break;
            }
            match self.caller.fetch_keys(&node, address, &missing).await {
                Ok(fetched) => self.keep(fetched),
                Err(error) => debug!(%node, "no listener keys from this peer: {error}"),
            }
            missing = self.missing(hashes);
        }
        missing
    }
}

impl KeyFetcher {
    fn missing(&self, hashes: &[[u8; 32]]) -> Vec<[u8; 32]> {
        hashes.iter().filter(|hash| self.keys.get(hash).is_none()).copied().collect()
    }

    /// Whom to ask: who sent the head, the leader, then everybody else by chance, so that the same
    /// few who don't answer do not use up each attempt.
    fn sources(&self, source: Option<&NodeName>) -> Vec<(NodeName, SocketAddr)> {
        let members = self.members.borrow().clone();
        let leader = members.leader().map(|claim| claim.node);
        let mut sources: Vec<_> = members
            .nodes()
            .filter(|member| member.alive && member.facts.node != self.own)
            .map(|member| (member.facts.node.clone(), member.facts.sync))
            .collect();
        sources.sort_by_cached_key(|(node, _)| {
            (Some(node) != source, Some(node) != leader.as_ref(), rand::random::<u64>())
        });
        sources
    }

    fn keep(&self, fetched: Vec<([u8; 32], Bytes)>) {
        for (hash, der) in fetched {
            let key = rustls_pki_types::PrivateKeyDer::try_from(der.to_vec());
            let kept = key.map_err(str::to_owned).and_then(|key| {
                // The store checks that the key belongs to its hash: a lying peer gains nothing.
                self.keys.insert(hash, key).map_err(|error| error.to_string())
            });
            if let Err(error) = kept {
                debug!("a peer sent an unusable listener key: {error}");
            }
        }
    }
}

/// What the reconciler goes on from.
pub(super) struct OwnReplica {
    pub applied: watch::Receiver<Option<Arc<Applied>>>,
    pub members: watch::Receiver<Arc<Members>>,
}

impl ReplicaView for OwnReplica {
    fn held(&self) -> (HeadId, Snapshot) {
        let applied = self.applied.borrow().clone();
        applied.map_or_else(Default::default, |applied| (applied.id(), applied.snapshot.clone()))
    }

    fn head(&self) -> HeadId {
        self.applied.borrow().as_ref().map_or_else(HeadId::default, |applied| applied.id())
    }

    fn newest(&self) -> HeadId {
        views::newest(&self.members.borrow()).max(self.head())
    }
}

/// What the admin API shows of the data path. A process without the gateway role has none.
pub(super) struct DataPath {
    pub live: watch::Receiver<edge::LiveReport>,
    pub tunnel: Tunnel,
    pub metrics: Arc<ProxyMetrics>,
}

impl Surroundings for DataPath {
    fn bound(&self) -> Vec<pb::Bound> {
        let live = self.live.borrow();
        let bound = live.bound.iter().map(|bound| pb::Bound {
            gateway: bound.gateway.to_string(),
            port: u32::from(bound.port),
            address: bound.address.to_string(),
            error: String::new(),
            protocol: format!("{:?}", bound.protocol).to_uppercase(),
        });
        let errors = live.errors.iter().map(|error| pb::Bound {
            gateway: error.gateway.to_string(),
            port: u32::from(error.port),
            address: error.address.map(|address| address.to_string()).unwrap_or_default(),
            error: error.message.clone(),
            protocol: String::new(),
        });
        bound.chain(errors).collect()
    }

    fn tunnel(&self, node: &NodeName) -> Option<pb::Tunnel> {
        let stats = self.tunnel.stats(node)?;
        Some(pb::Tunnel {
            transport: if stats.connections > 0 { "quic" } else { "none" }.to_owned(),
            rtt_ms: stats.rtt.as_secs_f64() * 1e3,
            loss_percent: stats.lost_percent,
            mtu: u32::from(stats.mtu),
            connections: u32::try_from(stats.connections).unwrap_or(u32::MAX),
            gso: stats.gso,
        })
    }

    fn totals(&self) -> Totals {
        self.metrics.totals()
    }
}
