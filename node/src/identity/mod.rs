//! Who a peer is and whom it believes: names, certificates of the mesh, private keys of listeners.

mod authority;
mod client_certificate;
mod heads;
mod keys;
mod leader;
mod mesh_tls;
mod node;
mod run_dir;
mod spiffe;
mod tls;
mod trust;

use std::borrow::Borrow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub use client_certificate::ClientCertificate;
pub use heads::{EpochSigner, MeshVerifier};
pub use keys::{KeyHash, KeyStore};
pub use leader::LeaderKey;
pub use mesh_tls::{MeshTls, SYNC_ALPN};
pub use node::NodeIdentity;
pub use run_dir::RunDir;
pub use spiffe::{Role, SpiffeId};
pub use trust::{EXPIRED_GRACE, Trust};

/// A node's name (`nodeName`, SPIFFE id, state folder).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(pub Arc<str>);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// For look-ups by what is no name of its own: equal, ordered and hashed as the text is.
impl Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> Self {
        NodeName(name.into())
    }
}

/// One process of a node: 64 random bits, so that two generations can overlap in an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

impl InstanceId {
    /// A new one.
    pub fn random() -> Self {
        InstanceId(rand::random())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What went wrong with an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The run folder is not safe to keep keys in, or holds something else.
    #[error("run folder {}: {reason}", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("cannot issue a certificate: {0}")]
    Issue(String),
    /// A certificate or a signature is not to be believed.
    #[error("not trusted: {0}")]
    Untrusted(String),
    /// A private key is unusable, or does not belong to its hash.
    #[error("private key: {0}")]
    Key(String),
    /// A TLS configuration or handshake failed.
    #[error("mesh TLS: {0}")]
    Tls(String),
    /// A peer did not finish in time.
    #[error("mesh TLS: no answer within {0:?}")]
    Timeout(std::time::Duration),
}

pub(crate) fn io_error(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> IdentityError + '_ {
    move |source| IdentityError::Io { path: path.to_owned(), source }
}
