//! meshgate-api: from what users declare, as Kubernetes objects, to [`meshgate_core::intent`].
//!
//! [`types`] are the Gateway API's, [`source`] reads a directory of manifests and watches it, and
//! [`mod@translate`] applies defaults, checks every field and speaks of what is wrong. Kubernetes'
//! types end here.

pub mod source;
pub mod translate;
pub mod types;

pub use source::{Batch, Changes, Directory, PrivateKeyChange, SourceError, Waker, Watcher, load_directory};
pub use translate::{PrivateKey, Translated, translate};
