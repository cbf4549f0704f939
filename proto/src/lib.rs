//! meshgate-proto: the generated protocol buffer types and RPC stubs, and nothing else.
//! Meaning and invariants live in the .proto files.

pub use generated::admin::v1 as admin;
pub use generated::replication::v1 as replication;
pub use generated::snapshot::v1 as snapshot;
pub use generated::tunnel::v1 as tunnel;

/// Modules nested as the packages are, because messages of one refer to another's by path.
mod generated {
    pub mod admin {
        /// The admin API that `meshctl` talks to.
        pub mod v1 {
            tonic::include_proto!("meshgate.admin.v1");
        }
    }
    pub mod replication {
        /// Replication between peers.
        pub mod v1 {
            tonic::include_proto!("meshgate.replication.v1");
        }
    }
    pub mod snapshot {
        /// Snapshot resources and heads, as they are hashed, stored and relayed.
        pub mod v1 {
            tonic::include_proto!("meshgate.snapshot.v1");
        }
    }
    pub mod tunnel {
        /// Headers and frames inside tunnel streams.
        pub mod v1 {
            tonic::include_proto!("meshgate.tunnel.v1");
        }
    }
}
