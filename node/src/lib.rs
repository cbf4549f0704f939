//! meshgate-node: a peer. See ARCHITECTURE.md for the map of its modules; a module imports only
//! from a lower row (`tests/tidy.rs` keeps that).

pub mod admin;
pub mod app;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod drain;
pub mod edge;
pub mod h1;
pub mod identity;
pub mod proxy;
pub mod reconcile;
pub mod relay;
pub mod replicate;
pub mod telemetry;
pub mod timer;
pub mod tunnel;
