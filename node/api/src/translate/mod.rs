//! From objects as Kubernetes writes them to [`meshgate_core::intent`], with what is wrong in words.
//!
//! The CRDs' defaults are applied and their rules checked here, for every source alike: an object
//! that an API server with the CRDs would refuse is refused here, with the field and what is allowed.

mod annotations;
mod backend;
mod check;
mod duration;
mod filters;
mod filters_extra;
mod gateway;
mod gateway_tls;
mod ingress;
mod keypair;
mod matches;
mod meta;
mod network;
mod pattern;
mod route;
mod secret;

use meshgate_core::intent::{Finding, Object, ObjectKind, ObjectRef, Severity, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::check::Checker;
pub use self::secret::PrivateKey;

/// Codes of the findings that this crate makes. Stable: users search for them.
pub mod code {
    /// A file can't be read, or is too large.
    pub const FILE: &str = "MG0001";
    /// A document does not parse.
    pub const SYNTAX: &str = "MG0002";
    /// A file became empty or was cut off.
    pub const CUT_OFF: &str = "MG0003";
    /// A kind that meshgate does not read.
    pub const UNKNOWN_KIND: &str = "MG0004";
    /// Not an object, or without a usable name.
    pub const UNNAMED: &str = "MG0005";
    /// An object over the size limit, or too many objects.
    pub const LIMIT: &str = "MG0006";
    /// Two objects with one name.
    pub const DUPLICATE: &str = "MG0007";
    /// A field has the wrong type.
    pub const TYPE: &str = "MG0010";
    /// A required field is missing.
    pub const REQUIRED: &str = "MG0011";
    /// A field's value is not allowed.
    pub const VALUE: &str = "MG0012";
    /// Fields that contradict each other.
    pub const CONFLICT: &str = "MG0013";
    /// A list is too short or too long.
    pub const COUNT: &str = "MG0014";
    /// Declared, valid, and not served by this version.
    pub const UNSUPPORTED: &str = "MG0015";
    /// A certificate or its key can't be used.
    pub const CERTIFICATE: &str = "MG0020";
    /// A private key does not belong to its certificate.
    pub const KEY_MISMATCH: &str = "MG0021";
    /// A certificate is expired or not yet valid.
    pub const EXPIRED: &str = "MG0022";
}

/// What became of one object.
#[derive(Debug, Default)]
pub struct Translated {
    /// Which object it is; `None` when meshgate does not read its kind, or it can't be named.
    pub name: Option<ObjectRef>,
    /// The object. `None` with a name: refused, so its previous version is to be kept.
    pub object: Option<Object>,
    /// The private key, of a Secret.
    pub key: Option<PrivateKey>,
    /// What is wrong or remarkable.
    pub findings: Vec<Finding>,
}

/// Translates one object. `origin` says in findings where it was read: `file:line`, or nothing.
pub fn translate(value: Value, origin: &str) -> Translated {
    let kind = match meta::kind_of(&value) {
        Ok(kind) => kind,
        Err(kind) => return Translated { findings: kind.into_finding(&value, origin), ..Translated::default() },
    };
    let mut check = Checker::new(origin);
    let Some(head) = meta::read(&value, kind, &mut check) else {
        return Translated { findings: check.into_findings(), ..Translated::default() };
    };
    check.object = Some(head.object.clone());
    let name = head.object.clone();
    let of_interest = match kind {
        ObjectKind::Secret => secret::is_tls(&value, &mut check) || secret::has_bundle(&value),
        ObjectKind::ConfigMap => secret::has_bundle(&value),
        _ => true,
    };
    if !of_interest {
        return Translated { findings: check.into_findings(), ..Translated::default() };
    }
    let mut key = None;
    let spec = spec(kind, value, &mut check, &mut key);
    let refused = check.refused;
    let findings = check.into_findings();
    match spec {
        Some(spec) if !refused => {
            Translated { name: Some(name), object: Some(Object { meta: head, spec }), key, findings }
        }
        _ => Translated { name: Some(name), findings, ..Translated::default() },
    }
}

/// The part of an object that differs by kind.
fn spec(kind: ObjectKind, value: Value, check: &mut Checker, key: &mut Option<PrivateKey>) -> Option<Spec> {
    Some(match kind {
        ObjectKind::GatewayClass => Spec::GatewayClass(gateway::class(decode(value, check)?, check)),
        ObjectKind::Gateway => Spec::Gateway(gateway::gateway(decode(value, check)?, check)),
        ObjectKind::HttpRoute => Spec::HttpRoute(route::route(decode(value, check)?, check)),
        ObjectKind::ReferenceGrant => Spec::ReferenceGrant(gateway::grant(decode(value, check)?, check)),
        ObjectKind::IngressClass => Spec::IngressClass(ingress::class(decode(value, check)?, check)),
        ObjectKind::Ingress => Spec::Ingress(ingress::ingress(decode(value, check)?, check)),
        ObjectKind::Service => Spec::Service(network::service(decode(value, check)?, check)),
        ObjectKind::EndpointSlice => Spec::EndpointSlice(network::endpoint_slice(decode(value, check)?, check)),
        ObjectKind::Secret if value.get("type").and_then(Value::as_str) != Some("kubernetes.io/tls") => {
            Spec::TrustBundle(secret::trust_bundle(decode(value, check)?, check)?)
        }
        ObjectKind::Secret => {
            let (certificate, private) = secret::certificate(decode(value, check)?, check)?;
            *key = Some(private);
            Spec::Certificate(certificate)
        }
        ObjectKind::ConfigMap => Spec::TrustBundle(secret::config_map(decode(value, check)?, check)?),
        ObjectKind::Namespace => Spec::Namespace,
    })
}

/// Decodes an object; a field of the wrong type is reported by its path.
fn decode<T: DeserializeOwned>(value: Value, check: &mut Checker) -> Option<T> {
    match serde_path_to_error::deserialize(value) {
        Ok(object) => Some(object),
        Err(error) => {
            let path = error.path().to_string();
            let secret = check.object.as_ref().is_some_and(|object| object.kind == ObjectKind::Secret);
            let message = match secret {
                // The decoder's words may quote the value.
                true => "has the wrong type, or is not base64".to_owned(),
                false => error.into_inner().to_string(),
            };
            check.refuse(code::TYPE, if path == "." { "" } else { &path }, message);
            None
        }
    }
}

/// A finding about something that is not an object that meshgate can name.
pub(crate) fn unnamed(code: &'static str, severity: Severity, message: String, origin: &str) -> Finding {
    Finding { code, severity, object: None, field: String::new(), message, origin: origin.to_owned() }
}

/// Refuses an object for what it is as a whole (its size), under its name where it has one.
pub(crate) fn refuse(value: &Value, code: &'static str, message: String) -> Translated {
    let mut check = Checker::new("");
    if let Ok(kind) = meta::kind_of(value)
        && let Some(head) = meta::read(value, kind, &mut check)
    {
        let name = Some(head.object.clone());
        check.object = Some(head.object);
        check.refuse(code, "", message);
        return Translated { name, findings: check.into_findings(), ..Translated::default() };
    }
    Translated { findings: vec![unnamed(code, Severity::Error, message, "")], ..Translated::default() }
}
