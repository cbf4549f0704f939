//! Every finding that compile can make, in one table. Codes are stable: users search for them
//! and silence them by name, so a code is never given another meaning.
//!
//! `MG01xx` references, `MG02xx` Gateways, `MG03xx` routes, `MG04xx` Ingresses.

use crate::intent::{Finding, ObjectRef, Severity};

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// `MG0101` and so on.
    pub id: &'static str,
    /// How much it hurts.
    pub severity: Severity,
    /// What it means, in a line.
    pub summary: &'static str,
}

impl Code {
    /// A finding of this kind about a field of an object.
    pub(crate) fn at(&self, object: &ObjectRef, field: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding {
            code: self.id,
            severity: self.severity,
            object: Some(object.clone()),
            field: field.into(),
            message: message.into(),
            origin: String::new(),
        }
    }
}

macro_rules! codes {
    ($(#[doc = $doc:literal] $name:ident = $id:literal, $severity:ident;)+) => {
        $(
            #[doc = $doc]
            pub const $name: Code = Code { id: $id, severity: Severity::$severity, summary: $doc.trim_ascii_start() };
        )+
        /// All of them, by code.
        pub const ALL: &[Code] = &[$($name),+];
    };
}

codes! {
    /// A route names a Gateway that does not exist.
    PARENT_NOT_FOUND = "MG0101", Warning;
    /// A Gateway or Ingress names a class that does not exist.
    CLASS_NOT_FOUND = "MG0102", Warning;
    /// A certificate's Secret does not exist or holds no valid certificate and key.
    CERTIFICATE_NOT_FOUND = "MG0103", Error;
    /// A certificate reference is of a kind other than Secret.
    CERTIFICATE_KIND = "MG0104", Error;
    /// A Secret of another namespace is used without a ReferenceGrant.
    CERTIFICATE_NOT_PERMITTED = "MG0105", Error;
    /// A backend's Service does not exist.
    BACKEND_NOT_FOUND = "MG0106", Error;
    /// A backend's Service does not have the port, or no port is given.
    BACKEND_PORT = "MG0107", Error;
    /// A Service of another namespace is used without a ReferenceGrant.
    BACKEND_NOT_PERMITTED = "MG0108", Error;
    /// A backend is of a kind other than Service.
    BACKEND_KIND = "MG0109", Error;
    /// A backend is a Service of type ExternalName.
    BACKEND_EXTERNAL_NAME = "MG0110", Error;
    /// A listener's protocol is not served.
    PROTOCOL_UNSUPPORTED = "MG0201", Error;
    /// Two listeners of a Gateway have the same name.
    LISTENER_NAME_DUPLICATE = "MG0202", Error;
    /// Two listeners of a Gateway have the same port, protocol and hostname.
    LISTENER_CONFLICT = "MG0203", Error;
    /// Two listeners of a Gateway want different protocols on one port.
    PROTOCOL_CONFLICT = "MG0204", Error;
    /// An HTTPS listener has no certificate reference.
    CERTIFICATE_MISSING = "MG0205", Error;
    /// A listener allows a kind of route that it can't serve.
    ROUTE_KIND_UNSUPPORTED = "MG0206", Error;
    /// No address is left for a Gateway.
    ADDRESSES_EXHAUSTED = "MG0207", Error;
    /// Certificates of authorities can't be found.
    AUTHORITY_NOT_FOUND = "MG0208", Error;
    /// Certificates of authorities come from something else than a ConfigMap or Secret.
    AUTHORITY_KIND = "MG0209", Error;
    /// Certificates of authorities of another namespace are used without a ReferenceGrant.
    AUTHORITY_NOT_PERMITTED = "MG0210", Error;
    /// A parent has no listener of the name and port that a route asks for.
    NO_MATCHING_LISTENER = "MG0301", Error;
    /// The listeners of a parent do not allow a route.
    NOT_ALLOWED_BY_LISTENERS = "MG0302", Error;
    /// A route and the listeners of a parent have no hostname in common.
    NO_MATCHING_HOSTNAME = "MG0303", Error;
    /// A regular expression does not compile.
    REGEX_INVALID = "MG0304", Error;
    /// A rule asks for something that is not supported, so it answers 500.
    RULE_UNSUPPORTED = "MG0305", Error;
    /// A match never sees a request, because an older route has the same one.
    MATCH_SHADOWED = "MG0306", Warning;
    /// A route has no parent, so it serves nothing.
    NO_PARENT = "MG0307", Warning;
    /// A rule has neither a backend nor a redirect, so it answers 500.
    RULE_WITHOUT_BACKEND = "MG0308", Warning;
    /// An Ingress names no class and no class is the default.
    NO_INGRESS_CLASS = "MG0401", Warning;
    /// A host and path of an Ingress never see a request, because an older object has the same.
    PATH_SHADOWED = "MG0402", Warning;
    /// Ingresses name different Secrets for one host.
    TLS_HOST_TAKEN = "MG0403", Warning;
    /// A TLS entry of an Ingress names no Secret.
    TLS_WITHOUT_SECRET = "MG0404", Warning;
    /// An Ingress expects another protocol of a backend than its Service's port names.
    BACKEND_PROTOCOL = "MG0405", Error;
    /// A path is matched otherwise than ingress-nginx would match it.
    REGEX_DIFFERS = "MG0406", Warning;
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(ALL.is_sorted_by(|a, b| a.id < b.id), "{ALL:?}");
        assert!(ALL.iter().all(|code| code.id.len() == 6 && code.summary.ends_with('.')), "{ALL:?}");
    }
}
