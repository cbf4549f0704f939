//! Resources to values and back.

mod decode;
mod decode_route;
mod encode;
mod encode_route;

pub use decode::{DecodeError, decode};
pub use encode::encode;

#[cfg(test)]
mod tests;
