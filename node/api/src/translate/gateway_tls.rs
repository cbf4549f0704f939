//! TLS of a Gateway: versions, and client certificates.

use std::collections::{BTreeMap, HashSet};

use meshgate_core::intent::{ClientValidation, ObjectReference};
use meshgate_core::snapshot::{ClientValidationMode, TlsVersion, TlsVersions};

use super::check::{Checker, quote};
use super::gateway::check_group_kind;
use super::{code, pattern};
use crate::types::{self, ValidationMode};

/// The domain of TLS options that are ours.
const OURS: &str = "meshgate.dev/";

/// `tls.options`: ours are read, those of others are theirs.
pub(super) fn versions(at: &str, options: &BTreeMap<String, String>, check: &mut Checker) -> TlsVersions {
    let mut versions = TlsVersions::default();
    check.count(at, options.len(), 0, 16);
    for (key, value) in options {
        let field = format!("{at}[{key:?}]");
        let slot = match key.strip_prefix(OURS) {
            Some("min-tls-version") => &mut versions.min,
            Some("max-tls-version") => &mut versions.max,
            Some(_) => {
                let message = "is ignored: meshgate.dev/min-tls-version and meshgate.dev/max-tls-version are known";
                check.warn(code::UNSUPPORTED, &field, message);
                continue;
            }
            None => continue,
        };
        match value.as_str() {
            "1.2" => *slot = Some(TlsVersion::V12),
            "1.3" => *slot = Some(TlsVersion::V13),
            // Not the default: it could be an older version than the one that was meant.
            other => check.unknown_value(&field, other, &["1.2", "1.3"]),
        }
    }
    if versions.min.zip(versions.max).is_some_and(|(min, max)| min > max) {
        let message = "meshgate.dev/min-tls-version is newer than meshgate.dev/max-tls-version";
        check.refuse(code::CONFLICT, at, message);
    }
    versions
}

/// `spec.tls.frontend`: client certificates by port.
#[derive(Default)]
pub(super) struct Clients {
    default: Option<ClientValidation>,
    ports: BTreeMap<u16, Option<ClientValidation>>,
}

impl Clients {
    pub(super) fn read(frontend: Option<types::FrontendTls>, check: &mut Checker) -> Self {
        let Some(frontend) = frontend else { return Clients::default() };
        let at = "spec.tls.frontend";
        let default = frontend.default.validation;
        let default = default.map(|item| validation(format!("{at}.default.validation"), item, check));
        check.count(&format!("{at}.perPort"), frontend.per_port.len(), 0, 64);
        let mut ports = BTreeMap::new();
        for (i, item) in frontend.per_port.into_iter().enumerate() {
            let at = format!("{at}.perPort[{i}]");
            let port = check.required_port(&format!("{at}.port"), item.port);
            let item = item.tls.validation;
            let clients = item.map(|item| validation(format!("{at}.tls.validation"), item, check));
            if ports.insert(port, clients).is_some() {
                let message = format!("{port} occurs twice: ports must be unique");
                check.refuse(code::CONFLICT, &format!("{at}.port"), message);
            }
        }
        Clients { default, ports }
    }

    /// What holds for the listeners of a port.
    pub(super) fn of(&self, port: u16) -> Option<&ClientValidation> {
        self.ports.get(&port).unwrap_or(&self.default).as_ref()
    }
}

fn validation(field: String, item: types::ClientValidation, check: &mut Checker) -> ClientValidation {
    let at = format!("{field}.caCertificateRefs");
    check.count(&at, item.ca_certificate_refs.len(), 1, 16);
    let mut seen = HashSet::new();
    let mut refs = Vec::with_capacity(item.ca_certificate_refs.len());
    for (i, item) in item.ca_certificate_refs.into_iter().enumerate() {
        let at = format!("{at}[{i}]");
        if !seen.insert((item.kind.clone(), item.namespace.clone(), item.name.clone())) {
            check.warn(code::CONFLICT, &at, format!("{} is named twice", quote(&item.name)));
        }
        refs.push(reference(&at, item, "ConfigMap", check));
    }
    let mode = match item.mode {
        ValidationMode::AllowValidOnly => ClientValidationMode::AllowValidOnly,
        ValidationMode::AllowInsecureFallback => ClientValidationMode::AllowInsecureFallback,
        ValidationMode::Unsupported(other) => {
            check.unknown_value(&format!("{field}.mode"), &other, ValidationMode::KNOWN);
            ClientValidationMode::AllowValidOnly
        }
    };
    ClientValidation { field, refs, mode }
}

/// A reference to an object of `default` kind, where it names no other.
pub(super) fn reference(
    at: &str,
    reference: types::SecretReference,
    default: &str,
    check: &mut Checker,
) -> ObjectReference {
    let kind = reference.kind.unwrap_or_else(|| default.to_owned());
    check_group_kind(at, &reference.group, &kind, check);
    check.text(&format!("{at}.name"), &reference.name, &pattern::OBJECT_NAME);
    check.optional(&format!("{at}.namespace"), reference.namespace.as_deref(), &pattern::LABEL);
    ObjectReference { group: reference.group, kind, namespace: reference.namespace, name: reference.name }
}
