//! The filters RequestMirror and CORS.

use std::collections::HashSet;

use meshgate_core::intent;
use meshgate_core::snapshot::Cors;

use super::backend::reference;
use super::check::{Checker, quote};
use super::matches::METHODS;
use super::{code, pattern};
use crate::types::{CorsFilter, MirrorFilter};

/// Filter number `index` of its list.
pub(super) fn mirror(at: &str, index: usize, filter: MirrorFilter, check: &mut Checker) -> intent::Filter {
    let backend = reference(&format!("{at}.backendRef"), filter.backend_ref, check);
    let (field, numerator, denominator) = match (filter.percent, filter.fraction) {
        (Some(_), Some(_)) => {
            check.refuse(code::CONFLICT, &format!("{at}.fraction"), "either percent or fraction is allowed, not both");
            ("percent", 0, 1)
        }
        (Some(percent), None) => ("percent", percent, 100),
        (None, Some(fraction)) => {
            if fraction.numerator.is_none() {
                check.refuse(code::REQUIRED, &format!("{at}.fraction.numerator"), "is required: 0 and more");
            }
            ("fraction", fraction.numerator.unwrap_or(0), fraction.denominator.unwrap_or(100))
        }
        (None, None) => ("fraction", 1, 1),
    };
    let max = i64::from(i32::MAX);
    if !(1..=max).contains(&denominator) || !(0..=denominator).contains(&numerator) {
        let message = match field {
            "percent" => format!("{numerator} is not allowed: 0 to 100"),
            _ => format!("{numerator}/{denominator} is not allowed: at most all, and a denominator of 1 to {max}"),
        };
        check.refuse(code::VALUE, &format!("{at}.{field}"), message);
    }
    let number = |number: i64| u32::try_from(number).unwrap_or(1);
    intent::Filter::Mirror { index, backend, denominator: number(denominator), numerator: number(numerator) }
}

pub(super) fn cors(at: &str, filter: CorsFilter, check: &mut Checker) -> Cors {
    let origins = format!("{at}.allowOrigins");
    list(&origins, &filter.allow_origins, 64, check);
    for (i, origin) in filter.allow_origins.iter().enumerate() {
        check.text(&format!("{origins}[{i}]"), origin, &pattern::ORIGIN);
    }
    let methods = format!("{at}.allowMethods");
    list(&methods, &filter.allow_methods, METHODS.len(), check);
    for (i, method) in filter.allow_methods.iter().enumerate() {
        if method != "*" && !METHODS.contains(&method.as_str()) {
            check.unknown_value(&format!("{methods}[{i}]"), method, &METHODS);
        }
    }
    for (name, headers) in [("allowHeaders", &filter.allow_headers), ("exposeHeaders", &filter.expose_headers)] {
        let field = format!("{at}.{name}");
        list(&field, headers, 64, check);
        for (i, header) in headers.iter().enumerate() {
            check.text(&format!("{field}[{i}]"), header, &pattern::HEADER_NAME);
        }
    }
    let max_age = filter.max_age.unwrap_or(5);
    if !(1..=i64::from(i32::MAX)).contains(&max_age) {
        check.refuse(code::VALUE, &format!("{at}.maxAge"), format!("{max_age} is not allowed: 1 second and more"));
    }
    Cors {
        allow_origins: filter.allow_origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
        allow_credentials: filter.allow_credentials,
        allow_methods: filter.allow_methods,
        allow_headers: filter.allow_headers,
        expose_headers: filter.expose_headers,
        max_age: u32::try_from(max_age).unwrap_or(5),
    }
}

/// A set, in which `*` stands alone.
fn list(field: &str, items: &[String], max: usize, check: &mut Checker) {
    check.count(field, items.len(), 0, max);
    if items.len() > 1 && items.iter().any(|item| item == "*") {
        check.refuse(code::CONFLICT, field, "\"*\" is allowed only by itself");
    }
    let mut seen = HashSet::new();
    for (i, item) in items.iter().enumerate() {
        if !seen.insert(item) {
            check.refuse(code::CONFLICT, &format!("{field}[{i}]"), format!("{} occurs twice", quote(item)));
        }
    }
}
