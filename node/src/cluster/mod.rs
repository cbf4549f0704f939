//! Who is there: membership and small facts by gossip.
//!
//! A hint, never an authority: a lying member can delay, never change, what is served.

mod facts;

pub use facts::{Facts, LeaderClaim, MAX_FACTS, Roles};
