//! Conditions, built in few words.

use super::{Condition, ObjectStatus};
use crate::intent::Meta;
use crate::snapshot::Key;

/// `Accepted`.
pub(crate) const ACCEPTED: &str = "Accepted";
/// `ResolvedRefs`.
pub(crate) const RESOLVED_REFS: &str = "ResolvedRefs";
/// `Conflicted`.
pub(crate) const CONFLICTED: &str = "Conflicted";
/// `Programmed`; compile says only False (what it left out can't be live).
pub(crate) const PROGRAMMED: &str = "Programmed";
/// `PartiallyInvalid`.
pub(crate) const PARTIALLY_INVALID: &str = "PartiallyInvalid";

/// A condition that holds.
pub(crate) fn yes(scope: &str, kind: &'static str, reason: &'static str) -> Condition {
    Condition { scope: scope.to_owned(), kind, status: true, reason, message: String::new() }
}

/// A condition that holds although something is wrong.
pub(crate) fn but(scope: &str, kind: &'static str, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { scope: scope.to_owned(), kind, status: true, reason, message: message.into() }
}

/// A condition that does not hold, and why.
pub(crate) fn no(scope: &str, kind: &'static str, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { scope: scope.to_owned(), kind, status: false, reason, message: message.into() }
}

/// The status of an object, its conditions sorted.
pub(crate) fn status(meta: &Meta, key: Option<Key>, mut conditions: Vec<Condition>) -> ObjectStatus {
    conditions.sort_by(|a, b| (&a.scope, a.kind).cmp(&(&b.scope, b.kind)));
    ObjectStatus { object: meta.object.clone(), generation: meta.generation, key, conditions }
}
