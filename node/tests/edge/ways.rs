//! The same pod, reached directly and through a real tunnel: nothing may depend on the way.

use std::net::SocketAddr;
use std::sync::Arc;

use meshgate_core::snapshot::AppProtocol;

use crate::http::one_with;
use crate::mesh::{Mesh, Options};
use crate::resources::prefix;
use crate::tunnel::{Wire, host_of};

/// A mesh that reaches its one pod in one way.
pub struct Way {
    pub name: &'static str,
    pub mesh: Mesh,
    pub address: SocketAddr,
    wire: Option<Wire>,
}

impl Way {
    /// Straight to the pod.
    pub async fn direct(pod: SocketAddr, app: AppProtocol) -> Way {
        Way::with(Options::default(), "direct", pod, app).await
    }

    /// Through the peer of the pod's node.
    pub async fn tunnel(pod: SocketAddr, app: AppProtocol) -> Way {
        let wire = Wire::between(host_of(pod, app), host_of(pod, app)).await;
        let options = Options { remote: Arc::new(wire.near.clone()), expected: vec!["n2"], ..Options::default() };
        Way { wire: Some(wire), ..Way::with(options, "tunnel", pod, app).await }
    }

    /// Each way.
    pub async fn all(pod: SocketAddr, app: AppProtocol) -> [Way; 2] {
        [Way::direct(pod, app).await, Way::tunnel(pod, app).await]
    }

    /// As [`Way::direct`], with options of its own.
    pub async fn with(options: Options, name: &'static str, pod: SocketAddr, app: AppProtocol) -> Way {
        let (mut mesh, address) = one_with(options, &[], vec![prefix("/", "a")]).await;
        let node = (name == "tunnel").then_some("n2");
        mesh.resources.service("a", app, &[(pod, node)]);
        mesh.apply().await;
        Way { name, mesh, address, wire: None }
    }

    /// Ends everything.
    pub async fn end(self) {
        self.mesh.stop().await;
        if let Some(wire) = self.wire {
            wire.cut().await;
        }
    }
}
