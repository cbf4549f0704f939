//! Messages of the Sync stream to values and back.

use std::time::Duration;

use bytes::Bytes;
use meshgate_core::replica::Held as HeldState;
use meshgate_core::snapshot::HeadId;
use meshgate_core::table::{FEATURES, Held};
use meshgate_proto::replication as pb;
use meshgate_wire::{Commit, SignedHead, head_id_from_proto, head_id_to_proto, key_from_proto, key_to_proto};
use pb::sync_request::Message as Request;
use pb::sync_response::Message as Response;

use super::acks::{Ack, MAX_NAMED};
use super::types::BindError;
use crate::identity::{InstanceId, NodeName};

/// The longest text that a peer may put into an acknowledgement.
const MAX_TEXT: usize = 1024;

/// What a follower says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) instance: InstanceId,
    pub(super) held: HeadId,
    pub(super) fence: u64,
    pub(super) want_full: bool,
}

/// The first request.
pub(super) fn hello(node: &NodeName, instance: InstanceId, held: &HeldState, want_full: bool) -> pb::SyncRequest {
    request(Request::Hello(pb::Hello {
        node: node.to_string(),
        instance: instance.0,
        held: Some(head_id_to_proto(held.id)),
        routes_root: Bytes::copy_from_slice(&held.roots.0.0),
        endpoints_root: Bytes::copy_from_slice(&held.roots.1.0),
        fence: held.fence,
        features: FEATURES.to_vec(),
        want_full,
    }))
}

/// Reads the first request.
pub(super) fn read_hello(message: &pb::SyncRequest) -> Option<Hello> {
    let Some(Request::Hello(hello)) = &message.message else { return None };
    Some(Hello {
        instance: InstanceId(hello.instance),
        held: head_id_from_proto(hello.held),
        fence: hello.fence,
        want_full: hello.want_full,
    })
}

/// Asks for a full snapshot.
pub(super) fn resend() -> pb::SyncRequest {
    request(Request::Resend(pb::Resend {}))
}

fn request(message: Request) -> pb::SyncRequest {
    pb::SyncRequest { message: Some(message) }
}

/// An acknowledgement as a request.
pub(super) fn ack(ack: &Ack) -> pb::SyncRequest {
    let bind_error = |error: &BindError| pb::BindError {
        gateway: Some(key_to_proto(&error.gateway)),
        listener: error.listener.clone(),
        address: error.address.clone(),
        message: short(&error.message),
    };
    let held = |held: &Held| pb::Held { key: Some(key_to_proto(&held.key)), reason: short(&held.reason) };
    request(Request::Ack(pb::Ack {
        applied: Some(head_id_to_proto(ack.applied)),
        live: Some(head_id_to_proto(ack.live)),
        apply_us: u64::try_from(ack.took.as_micros()).unwrap_or(u64::MAX),
        held: ack.held.iter().map(held).collect(),
        held_total: u32::try_from(ack.held_total).unwrap_or(u32::MAX),
        bind_errors: ack.bind_errors.iter().map(bind_error).collect(),
        table_ok: ack.table_ok,
    }))
}

/// Reads an acknowledgement. What is too long is cut: a follower can lie only about itself, and
/// only so much.
pub(super) fn read_ack(message: pb::Ack) -> Ack {
    let applied = head_id_from_proto(message.applied);
    let held = message
        .held
        .into_iter()
        .take(MAX_NAMED)
        .filter_map(|held| Some(Held { key: key_from_proto(held.key?)?, reason: short(&held.reason) }));
    let bind_errors = message.bind_errors.into_iter().take(MAX_NAMED).filter_map(|error| {
        Some(BindError {
            gateway: key_from_proto(error.gateway?)?,
            listener: short(&error.listener),
            address: short(&error.address),
            message: short(&error.message),
        })
    });
    Ack {
        applied,
        live: head_id_from_proto(message.live).min(applied),
        took: Duration::from_micros(message.apply_us),
        held: held.collect(),
        held_total: message.held_total as usize,
        bind_errors: bind_errors.collect(),
        table_ok: message.table_ok,
    }
}

fn short(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

fn response(message: Response) -> pb::SyncResponse {
    pb::SyncResponse { message: Some(message) }
}

/// A delta.
pub(super) fn delta(commit: &Commit) -> pb::SyncResponse {
    response(Response::Delta(commit.to_proto()))
}

/// A full snapshot starts.
pub(super) fn start(head: &SignedHead, leaves: usize, bytes: usize) -> pb::SyncResponse {
    let start = pb::SnapshotStart { head: Some(head.to_proto()), leaves: leaves as u64, bytes: bytes as u64 };
    response(Response::Start(start))
}

/// A part of it.
pub(super) fn chunk(data: Bytes) -> pb::SyncResponse {
    response(Response::Chunk(pb::SnapshotChunk { data }))
}

/// It is complete.
pub(super) fn end() -> pb::SyncResponse {
    response(Response::End(pb::SnapshotEnd {}))
}

/// Keep-alive.
pub(super) fn announce(head: HeadId) -> pb::SyncResponse {
    response(Response::Announce(pb::Announce { head: Some(head_id_to_proto(head)) }))
}
