//! The compiler as its callers see it.

mod fixtures;
mod gateways;
mod incremental;
mod ingress;
mod policies;
mod routes;
mod speed;
