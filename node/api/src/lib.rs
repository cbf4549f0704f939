//! meshgate-api: from what users declare, as Kubernetes objects, to [`meshgate_core::intent`].
//!
//! [`types`] are the Gateway API's, [`source`] reads a directory of manifests and watches it, and
//! [`translate`] applies defaults, checks every field and speaks of what is wrong. Kubernetes' types
//! end here.


pub mod translate;
pub mod types;


pub use translate::{PrivateKey, Translated, translate};
