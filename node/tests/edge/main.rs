//! The edge and the proxy on real sockets of the loopback: clients of our own on one side,
//! backends of our own on the other.

#![allow(clippy::unwrap_used, clippy::panic)]

mod backend;
mod client;
mod connect;
mod drain;
mod flood;
mod grpc;
mod h2c;
mod hostile;
mod http;
mod interim;
mod listeners;
mod mesh;
mod resources;
mod retry;
mod stream;
mod tls;
mod tunnel;
mod upgrade;
mod ways;
