//! What the measurements share: a folder, child processes, what /proc says, randomness.

pub mod child;
pub mod folder;
pub mod process;
pub mod random;
