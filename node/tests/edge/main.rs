//! The edge and the proxy on real sockets of the loopback: clients of our own on one side,
//! backends of our own on the other.

#![allow(clippy::unwrap_used, clippy::panic)]

mod backend;
mod balance;
mod client;
mod connect;
mod cors;
mod drain;
mod flood;
mod grpc;
mod h1;
mod h2c;
mod hostile;
mod http;
mod interim;
mod listeners;
mod log;
mod mesh;
mod mirror;
mod resources;
mod retries;
mod retry;
mod shaky;
mod stream;
mod timeouts;
mod tls;
mod tls_clients;
mod tls_sessions;
mod tls_wire;
mod trusted;
mod tunnel;
mod upgrade;
mod ways;
