//! Resources to values and back.

mod decode;
mod encode;

pub use decode::{DecodeError, decode};
pub use encode::encode;

#[cfg(test)]
mod tests;
