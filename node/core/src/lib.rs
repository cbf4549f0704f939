//! meshgate-core decides everything and touches nothing.
//!
//! It does no IO, reads no clock, draws no randomness and never awaits: `now` and entropy are
//! arguments. The way of the data through it:
//!
//! [`intent`] (what users declared) -> [`compile`] -> [`snapshot`] resources (what is replicated)
//! -> [`table`] (what answers requests) -> [`sanitize`], [`filter`] and [`balance`] a request.
//! [`replica`] decides which replicated state wins.

pub mod balance;
pub mod compile;
pub mod filter;
pub mod intent;
pub mod replica;
pub mod sanitize;
pub mod snapshot;
pub mod table;
