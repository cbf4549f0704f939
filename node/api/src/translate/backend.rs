//! Backend references of an HTTPRoute.

use meshgate_core::intent::{BackendRef, PortRef};

use super::check::Checker;
use super::filters::{Place, filters};
use super::gateway::check_group_kind;
use super::{code, pattern};
use crate::types::BackendReference;

/// Backends of a rule, with their filters.
pub(super) fn backends(
    at: &str,
    refs: Vec<BackendReference>,
    unsupported: &mut Vec<(String, String)>,
    check: &mut Checker,
) -> Vec<BackendRef> {
    check.count(&format!("{at}.backendRefs"), refs.len(), 0, 16);
    let refs = refs.into_iter().enumerate();
    refs.map(|(i, item)| backend(&format!("{at}.backendRefs[{i}]"), i, item, unsupported, check)).collect()
}

fn backend(
    at: &str,
    index: usize,
    mut item: BackendReference,
    unsupported: &mut Vec<(String, String)>,
    check: &mut Checker,
) -> BackendRef {
    let within_rule = format!("backendRefs[{index}].");
    let filters =
        filters(&Place { at, within_rule: &within_rule }, std::mem::take(&mut item.filters), unsupported, check);
    BackendRef { filters, ..reference(at, item, check) }
}

/// A backend by itself, without filters.
pub(super) fn reference(at: &str, item: BackendReference, check: &mut Checker) -> BackendRef {
    let kind = item.kind.unwrap_or_else(|| "Service".to_owned());
    check_group_kind(at, &item.group, &kind, check);
    check.text(&format!("{at}.name"), &item.name, &pattern::OBJECT_NAME);
    check.optional(&format!("{at}.namespace"), item.namespace.as_deref(), &pattern::LABEL);
    let port = item.port.map(|port| PortRef::Number(check.port(&format!("{at}.port"), port)));
    if port.is_none() && item.group.is_empty() && kind == "Service" {
        check.refuse(code::REQUIRED, &format!("{at}.port"), "is required for a Service: 1 to 65535");
    }
    let weight = item.weight.unwrap_or(1);
    if !(0..=1_000_000).contains(&weight) {
        let message = format!("{weight} is not allowed: 0 to 1000000");
        check.refuse(code::VALUE, &format!("{at}.weight"), message);
    }
    let weight = u32::try_from(weight).unwrap_or(0);
    BackendRef {
        group: item.group,
        kind,
        namespace: item.namespace,
        name: item.name,
        port,
        weight,
        filters: Vec::new(),
    }
}
