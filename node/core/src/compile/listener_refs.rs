//! What listeners refer to: certificates, and certificates of authorities.

use super::grants::permitted;
use super::store::Objects;
use super::{codes, endpoints};
use crate::intent::{Meta, ObjectKind, ObjectReference};
use crate::snapshot::{Key, Kind, Listener, Resource};

/// Why a reference does not resolve.
pub(crate) struct Unresolved {
    /// Kind of finding.
    pub(crate) code: codes::Code,
    /// Field below the reference.
    pub(crate) part: &'static str,
    /// Reason for the condition.
    pub(crate) reason: &'static str,
    /// In words.
    pub(crate) message: String,
}

/// The certificate that a listener refers to.
pub(crate) fn certificate(objects: &Objects, meta: &Meta, reference: &ObjectReference) -> Result<Key, Unresolved> {
    let fail = |code, part, reason, message| Unresolved { code, part, reason, message };
    let own = &*meta.object.namespace;
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let name = reference.name.as_str();
    if !reference.group.is_empty() || reference.kind != ObjectKind::Secret.name() {
        let message = format!("a certificate can't come from a {}; name a Secret", reference.kind);
        return Err(fail(codes::CERTIFICATE_KIND, "kind", "InvalidCertificateRef", message));
    }
    if !permitted(objects, (ObjectKind::Gateway, own), (ObjectKind::Secret, namespace, name)) {
        let message = format!(
            "Secret {namespace}/{name} is in another namespace; a ReferenceGrant in {namespace} must allow \
             Gateways of {own} to use it"
        );
        return Err(fail(codes::CERTIFICATE_NOT_PERMITTED, "namespace", "RefNotPermitted", message));
    }
    match objects.certificate(namespace, name) {
        Some((secret, _)) => Ok(certificate_key(secret)),
        None => {
            let message = no_certificate(namespace, name);
            Err(fail(codes::CERTIFICATE_NOT_FOUND, "name", "InvalidCertificateRef", message))
        }
    }
}

/// The certificates of authorities that a listener refers to.
pub(crate) fn authority(objects: &Objects, meta: &Meta, reference: &ObjectReference) -> Result<Key, Unresolved> {
    let fail = |code, part, reason, message| Unresolved { code, part, reason, message };
    let own = &*meta.object.namespace;
    let (namespace, name) = (reference.namespace.as_deref().unwrap_or(own), reference.name.as_str());
    let kind = match (reference.group.as_str(), reference.kind.as_str()) {
        ("", "ConfigMap") => ObjectKind::ConfigMap,
        ("", "Secret") => ObjectKind::Secret,
        _ => {
            let message =
                format!("certificates of authorities can't come from a {}; name a ConfigMap or Secret", reference.kind);
            return Err(fail(codes::AUTHORITY_KIND, "kind", "InvalidCACertificateKind", message));
        }
    };
    let object = format!("{} {namespace}/{name}", kind.name());
    if !permitted(objects, (ObjectKind::Gateway, own), (kind, namespace, name)) {
        let message = format!(
            "{object} is in another namespace; a ReferenceGrant in {namespace} must allow Gateways of {own} to use it"
        );
        return Err(fail(codes::AUTHORITY_NOT_PERMITTED, "namespace", "RefNotPermitted", message));
    }
    if objects.authorities(kind, namespace, name).is_none() {
        let message = format!("{object} does not exist or has no PEM certificates under the key ca.crt");
        return Err(fail(codes::AUTHORITY_NOT_FOUND, "name", "InvalidCACertificateRef", message));
    }
    Ok(trust_key(kind, namespace, name))
}

/// The key of the trust bundle from an object.
fn trust_key(kind: ObjectKind, namespace: &str, name: &str) -> Key {
    Key::new(Kind::TrustBundle, namespace, &format!("{}/{name}", kind.name().to_ascii_lowercase()))
}

/// Everything that a served listener refers to.
pub(crate) fn of(listener: &Listener) -> impl Iterator<Item = &Key> {
    listener.certificates.iter().chain(listener.clients.iter().flat_map(|clients| &clients.trust))
}

/// The resource that such a reference is to.
pub(crate) fn resource(objects: &Objects, key: &Key) -> Option<Resource> {
    if key.kind == Kind::Certificate {
        let (_, certificate) = objects.certificate(&key.namespace, &key.name)?;
        return Some(endpoints::certificate(certificate));
    }
    let (kind, name) = key.name.split_once('/')?;
    let kind = if kind == "secret" { ObjectKind::Secret } else { ObjectKind::ConfigMap };
    Some(endpoints::trust_bundle(objects.authorities(kind, &key.namespace, name)?))
}

/// The key of a Secret's resource.
pub(crate) fn certificate_key(secret: &Meta) -> Key {
    Key { kind: Kind::Certificate, namespace: secret.object.namespace.clone(), name: secret.object.name.clone() }
}

/// Words for a Secret that can't be used.
pub(crate) fn no_certificate(namespace: &str, name: &str) -> String {
    format!(
        "Secret {namespace}/{name} does not exist or is no valid certificate; create it with type \
         kubernetes.io/tls, tls.crt and tls.key"
    )
}
