//! The compiler as its callers see it.

mod fixtures;
mod gateways;
mod incremental;
mod ingress;
mod routes;
mod speed;
