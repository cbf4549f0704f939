//! meshgate-proto: the generated protocol buffer types and RPC stubs, and nothing else.
//! Meaning and invariants live in the .proto files.

/// The admin API that `meshctl` talks to.
pub mod admin {
    tonic::include_proto!("meshgate.admin.v1");
}

/// Replication between peers.
pub mod replication {
    tonic::include_proto!("meshgate.replication.v1");
}

/// Snapshot resources and heads, as they are hashed, stored and relayed.
pub mod snapshot {
    tonic::include_proto!("meshgate.snapshot.v1");
}

/// Headers and frames inside tunnel streams.
pub mod tunnel {
    tonic::include_proto!("meshgate.tunnel.v1");
}
