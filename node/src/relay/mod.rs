//! What passes between a client and a pod beside requests and answers, whatever carries it:
//! interim responses, and streams that stopped speaking HTTP.

mod interim;
mod upgrade;

pub use interim::Interim;
pub use upgrade::{Copied, IDLE, Upgraded, copy};

/// Interim responses of one request that are passed on.
pub const MAX_INTERIM: usize = 16;
