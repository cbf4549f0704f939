//! HTTP/1.1 (RFC 9112), both ends of it, as the hot path needs it: strict, bounded, and without a
//! task, a channel or a lock that is waited for. The task of a client's connection polls
//! everything: its own socket, the one to the pod, and the bodies between them.
//!
//! Ways in: [`serve()`] answers the requests of a client's connection through a [`Service`];
//! [`Connection`] sends requests to a pod. What both share: [`head`] finds and parses heads,
//! [`framing`] says where bodies end, [`decode`] reads them, [`encode`] writes heads and bodies
//! into the queue of [`out`].
//!
//! What a client does wrong is answered ([`Refused`]), and ends its connection; what a pod does
//! wrong fails the request and closes the connection to it.

mod body;
mod client;
mod closing;
mod date;
mod decode;
mod encode;
mod framing;
mod head;
mod input;
mod out;
mod prefixed;
mod refused;
mod serve;
mod shared;
mod spare;
#[cfg(test)]
mod tests;

pub use body::{AnswerBody, Body};
pub use client::{Connection, Incoming, SendFailure};
pub use closing::Closing;
pub use prefixed::Prefixed;
pub use refused::Refused;
pub use serve::{Service, Settings, serve};

pub use crate::relay::{Interim, Upgraded};

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of a request's target; more is answered with 414.
pub const MAX_TARGET: usize = 8 * 1024;

/// Bytes of a head; more is answered with 431.
pub const MAX_HEAD: usize = 64 * 1024;

/// Fields of a head; more are answered with 431.
pub const MAX_FIELDS: usize = 100;

/// Bytes of all chunk extensions of a body.
pub const MAX_EXTENSIONS: usize = 16 * 1024;

/// Bytes of a body's trailers.
pub const MAX_TRAILERS: usize = 8 * 1024;
