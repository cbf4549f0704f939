//! How strictly the edge reads HTTP: bytes of our own on one side, a backend that records the
//! bytes that it gets on the other. A case is refused, or arrives as exactly one clean request.

#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code, reason = "shared with the tests of the edge")]
#[path = "../edge/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with the tests of the edge")]
#[path = "../edge/mesh.rs"]
mod mesh;
#[allow(dead_code, reason = "shared with the tests of the edge")]
#[path = "../edge/resources.rs"]
mod resources;

mod chunk;
mod exchange;
mod field;
mod gaps;
mod h2;
mod h2_wire;
mod hop;
mod host;
mod line;
mod path;
mod recorder;
mod response;
mod run;
mod smuggle;
