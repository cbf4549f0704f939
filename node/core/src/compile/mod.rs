//! Compiles intent into resources. It can't fail: a bad object yields a [`Finding`] for itself,
//! and every good one still ships. It is deterministic and ignores input order.
//!
//! What has to be compiled again after a change is decided in one place, `Dirty` in `compiler.rs`.

mod addresses;
mod backends;
pub mod codes;
mod compiler;
mod endpoints;
mod gateways;
mod grants;
mod hosts;
mod ingress;
mod ingress_tls;
mod listener_refs;
mod listeners;
mod parents;
pub mod precedence;
mod regexes;
mod routes;
mod shadows;
mod status;
mod store;
mod verdicts;

pub use compiler::Compiler;
pub(crate) use regexes::one_line;
pub use regexes::{REGEX_NEST_LIMIT, REGEX_SIZE_LIMIT, path_prefix_regex, path_regex, value_regex};

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::intent::{Finding, Object, ObjectRef};
use crate::snapshot::{Key, Resource};

/// What the compiler must know besides the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Only GatewayClasses with this `controllerName` are ours.
    pub controller_name: String,
    /// Only IngressClasses with this `controller` are ours.
    pub ingress_controller: String,
    /// How Gateways get addresses.
    pub addresses: AddressMode,
}

/// `controllerName` of the GatewayClasses that are ours.
pub const GATEWAY_CONTROLLER: &str = "meshgate.dev/gateway-controller";

/// `controller` of the IngressClasses that are ours.
pub const INGRESS_CONTROLLER: &str = "meshgate.dev/ingress-controller";

impl Default for Settings {
    /// Those of every mesh in directory mode.
    fn default() -> Self {
        Settings {
            controller_name: GATEWAY_CONTROLLER.to_owned(),
            ingress_controller: INGRESS_CONTROLLER.to_owned(),
            addresses: AddressMode::Loopback,
        }
    }
}

/// How Gateways get addresses (ARCHITECTURE.md, "Gateway addresses").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressMode {
    /// 127.n.g.1 on node n: the lowest free g, by namespace and name where no earlier
    /// allocation says otherwise.
    Loopback,
}

/// Earlier allocations of Gateway addresses; part of the intent, so that compile stays stateless.
pub type Allocations = BTreeMap<Key, u8>;

/// A change of one object: new or changed (`Some`), or gone (`None`).
pub type Change = (ObjectRef, Option<Object>);

/// What [`Compiler::apply`] returns: what is different from before. Whoever needs the whole keeps a
/// map of its own; from an empty compiler, this is the whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// Resources that are new or different (`Some`) or gone (`None`), sorted by key.
    pub resources: Vec<(Key, Option<Resource>)>,
    /// Objects about which something else is found than before, sorted; each with all that is found
    /// about it now, sorted. Every finding names its object.
    pub findings: Vec<(ObjectRef, Vec<Finding>)>,
    /// Routes and Gateways of ours whose conditions are other than before (`Some`) or gone (`None`),
    /// sorted.
    pub statuses: Vec<(ObjectRef, Option<Arc<ObjectStatus>>)>,
}

/// The conditions of an object, as the Gateway API names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStatus {
    /// Whose.
    pub object: ObjectRef,
    /// Generation they were computed for.
    pub generation: u64,
    /// The resource made from it, if one was.
    pub key: Option<Key>,
    /// Conditions: one list a parent (routes) or listener (Gateways: name; empty for the whole).
    pub conditions: Vec<Condition>,
}

/// One condition of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Parent (for a route: `namespace/name`, then `/section` and `:port` where the reference has
    /// them) or listener name (for a Gateway); empty: the object.
    pub scope: String,
    /// `Accepted`, `ResolvedRefs`, `Conflicted`, ... `Programmed` only as False, for what was left
    /// out of the snapshot.
    pub kind: &'static str,
    /// True or false.
    pub status: bool,
    /// CamelCase reason of the specification.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}
