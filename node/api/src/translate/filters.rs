//! Filters of rules and backends.

use std::collections::HashSet;

use meshgate_core::intent;
use meshgate_core::snapshot::{Filter, HeaderModifier, PathRewrite, Redirect, Rewrite};

use super::check::{Checker, quote};
use super::{code, filters_extra as extra, pattern};
use crate::types::{
    FilterType, HeaderFilter, HttpHeader, HttpRouteFilter, PathModifier, PathModifierType, RedirectFilter,
    RewriteFilter,
};

/// Where filters stand: their field path in the object, and in the rule.
pub(super) struct Place<'a> {
    /// `spec.rules[0]` or `spec.rules[0].backendRefs[1]`.
    pub(super) at: &'a str,
    /// Empty, or `backendRefs[1].`.
    pub(super) within_rule: &'a str,
}

/// Translates filters in order; those that can't be served go to `unsupported`.
pub(super) fn filters(
    place: &Place<'_>,
    filters: Vec<HttpRouteFilter>,
    unsupported: &mut Vec<(String, String)>,
    check: &mut Checker,
) -> Vec<intent::Filter> {
    let list = format!("{}.filters", place.at);
    check.count(&list, filters.len(), 0, 16);
    check_combination(&list, &filters, check);
    let mut out = Vec::with_capacity(filters.len());
    for (i, item) in filters.into_iter().enumerate() {
        let at = format!("{list}[{i}]");
        let Some(kind) = item.kind.clone() else {
            check.refuse(
                code::REQUIRED,
                &format!("{at}.type"),
                format!("is required: one of {}", FilterType::KNOWN.join(", ")),
            );
            continue;
        };
        check_members(&at, &kind, &item, check);
        match kind {
            FilterType::RequestHeaderModifier => {
                let modifier = item.request_header_modifier.unwrap_or_default();
                out.push(intent::Filter::Plain(Filter::RequestHeaders(headers(
                    &format!("{at}.requestHeaderModifier"),
                    modifier,
                    check,
                ))));
            }
            FilterType::ResponseHeaderModifier => {
                let modifier = item.response_header_modifier.unwrap_or_default();
                out.push(intent::Filter::Plain(Filter::ResponseHeaders(headers(
                    &format!("{at}.responseHeaderModifier"),
                    modifier,
                    check,
                ))));
            }
            // A backend is chosen to send a request to, not to answer without it.
            FilterType::RequestRedirect if place.within_rule.is_empty() => {
                let filter = item.request_redirect.unwrap_or_default();
                out.push(intent::Filter::Plain(Filter::Redirect(redirect(
                    &format!("{at}.requestRedirect"),
                    filter,
                    check,
                ))));
            }
            FilterType::URLRewrite => {
                let filter = item.url_rewrite.unwrap_or_default();
                out.push(intent::Filter::Plain(Filter::Rewrite(rewrite(&format!("{at}.urlRewrite"), filter, check))));
            }
            FilterType::RequestMirror => {
                let filter = item.request_mirror.unwrap_or_default();
                out.push(extra::mirror(&format!("{at}.requestMirror"), i, filter, check));
            }
            // Its answer to a preflight comes before any backend is chosen.
            FilterType::CORS if place.within_rule.is_empty() => {
                let filter = item.cors.unwrap_or_default();
                out.push(intent::Filter::Plain(Filter::Cors(extra::cors(&format!("{at}.cors"), filter, check))));
            }
            other => {
                unsupported.push((format!("{}filters[{i}].type", place.within_rule), other.as_str().to_owned()));
            }
        }
    }
    out
}

fn check_combination(list: &str, filters: &[HttpRouteFilter], check: &mut Checker) {
    let count = |kind: &FilterType| filters.iter().filter(|item| item.kind.as_ref() == Some(kind)).count();
    if count(&FilterType::RequestRedirect) > 0 && count(&FilterType::URLRewrite) > 0 {
        let message = "either RequestRedirect or URLRewrite is allowed, not both";
        check.refuse(code::CONFLICT, list, message);
    }
    let single = [
        FilterType::RequestHeaderModifier,
        FilterType::ResponseHeaderModifier,
        FilterType::RequestRedirect,
        FilterType::URLRewrite,
        FilterType::CORS,
    ];
    for kind in single.iter().filter(|kind| count(kind) > 1) {
        check.refuse(code::CONFLICT, list, format!("{} occurs more than once: one is allowed", kind.as_str()));
    }
}

/// The field of the filter's type is there, and no other.
fn check_members(at: &str, kind: &FilterType, item: &HttpRouteFilter, check: &mut Checker) {
    let members = [
        (FilterType::RequestHeaderModifier, "requestHeaderModifier", item.request_header_modifier.is_some()),
        (FilterType::ResponseHeaderModifier, "responseHeaderModifier", item.response_header_modifier.is_some()),
        (FilterType::RequestMirror, "requestMirror", item.request_mirror.is_some()),
        (FilterType::RequestRedirect, "requestRedirect", item.request_redirect.is_some()),
        (FilterType::URLRewrite, "urlRewrite", item.url_rewrite.is_some()),
        (FilterType::ExtensionRef, "extensionRef", item.extension_ref.is_some()),
        (FilterType::CORS, "cors", item.cors.is_some()),
        (FilterType::ExternalAuth, "externalAuth", item.external_auth.is_some()),
    ];
    for (owner, field, present) in members {
        if owner == *kind && !present {
            let message = format!("is required for the filter type {}", kind.as_str());
            check.refuse(code::REQUIRED, &format!("{at}.{field}"), message);
        } else if owner != *kind && present {
            let message = format!("is not allowed for the filter type {}", kind.as_str());
            check.refuse(code::CONFLICT, &format!("{at}.{field}"), message);
        }
    }
}

fn headers(at: &str, filter: HeaderFilter, check: &mut Checker) -> HeaderModifier {
    check.count(&format!("{at}.remove"), filter.remove.len(), 0, 16);
    let mut removed = HashSet::new();
    for (i, name) in filter.remove.iter().enumerate() {
        if !removed.insert(name) {
            check.refuse(code::CONFLICT, &format!("{at}.remove[{i}]"), format!("{} occurs twice", quote(name)));
        }
    }
    HeaderModifier {
        set: pairs(&format!("{at}.set"), filter.set, check),
        add: pairs(&format!("{at}.add"), filter.add, check),
        remove: filter.remove,
    }
}

fn pairs(at: &str, headers: Vec<HttpHeader>, check: &mut Checker) -> Vec<(String, String)> {
    check.count(at, headers.len(), 0, 16);
    let mut names = HashSet::new();
    for (i, header) in headers.iter().enumerate() {
        check.text(&format!("{at}[{i}].name"), &header.name, &pattern::HEADER_NAME);
        check.text(&format!("{at}[{i}].value"), &header.value, &pattern::HEADER_VALUE);
        if !names.insert(&header.name) {
            let message = format!("{} occurs twice: names must be unique", quote(&header.name));
            check.refuse(code::CONFLICT, &format!("{at}[{i}].name"), message);
        }
    }
    headers.into_iter().map(|header| (header.name, header.value)).collect()
}

fn redirect(at: &str, filter: RedirectFilter, check: &mut Checker) -> Redirect {
    if let Some(scheme) = filter.scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
        check.unknown_value(&format!("{at}.scheme"), scheme, &["http", "https"]);
    }
    check.optional(&format!("{at}.hostname"), filter.hostname.as_deref(), &pattern::PRECISE_HOSTNAME);
    let status = filter.status_code.unwrap_or(302);
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        check.unknown_value(&format!("{at}.statusCode"), &status.to_string(), &["301", "302", "303", "307", "308"]);
    }
    Redirect {
        scheme: filter.scheme,
        hostname: filter.hostname,
        path: filter.path.and_then(|item| path(&format!("{at}.path"), item, check)),
        port: filter.port.map(|port| check.port(&format!("{at}.port"), port)),
        status: u16::try_from(status).unwrap_or(302),
        location: None,
        unless_tls: false,
    }
}

fn rewrite(at: &str, filter: RewriteFilter, check: &mut Checker) -> Rewrite {
    check.optional(&format!("{at}.hostname"), filter.hostname.as_deref(), &pattern::PRECISE_HOSTNAME);
    let path = filter.path.and_then(|item| path(&format!("{at}.path"), item, check));
    Rewrite { hostname: filter.hostname, path }
}

fn path(at: &str, item: PathModifier, check: &mut Checker) -> Option<PathRewrite> {
    let Some(kind) = item.kind else {
        let message = format!("is required: one of {}", PathModifierType::KNOWN.join(", "));
        check.refuse(code::REQUIRED, &format!("{at}.type"), message);
        return None;
    };
    let (wanted, unwanted, value, other) = match &kind {
        PathModifierType::ReplaceFullPath => {
            ("replaceFullPath", "replacePrefixMatch", item.replace_full_path, item.replace_prefix_match)
        }
        PathModifierType::ReplacePrefixMatch => {
            ("replacePrefixMatch", "replaceFullPath", item.replace_prefix_match, item.replace_full_path)
        }
        PathModifierType::Unsupported(other) => {
            check.unknown_value(&format!("{at}.type"), other, PathModifierType::KNOWN);
            return None;
        }
    };
    if other.is_some() {
        let message = format!("is not allowed with type: {}", kind.as_str());
        check.refuse(code::CONFLICT, &format!("{at}.{unwanted}"), message);
    }
    let field = format!("{at}.{wanted}");
    let Some(value) = value else {
        check.refuse(code::REQUIRED, &field, format!("is required with type: {}", kind.as_str()));
        return None;
    };
    if value.chars().count() > 1024 {
        check.refuse(code::VALUE, &field, "is too long: at most 1024 characters are allowed");
    }
    Some(match kind {
        PathModifierType::ReplaceFullPath => PathRewrite::Full(value),
        _ => PathRewrite::Prefix(value),
    })
}
