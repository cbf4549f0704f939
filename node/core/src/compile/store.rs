//! All objects, by kind, namespace and name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::intent::{
    Certificate, Gateway, Ingress, IngressClass, Meta, Object, ObjectKind, ObjectRef, ReferenceGrant, Service, Spec,
};

type ByName<T> = BTreeMap<Arc<str>, T>;

/// The objects as they are now. Nested maps, so that a look-up allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    kinds: BTreeMap<ObjectKind, ByName<ByName<Object>>>,
}

impl Objects {
    /// Puts or removes an object; returns what was there.
    pub(crate) fn set(&mut self, name: &ObjectRef, object: Option<Object>) -> Option<Object> {
        let namespaces = self.kinds.entry(name.kind).or_default();
        match object {
            Some(object) => {
                namespaces.entry(Arc::clone(&name.namespace)).or_default().insert(Arc::clone(&name.name), object)
            }
            None => namespaces.get_mut(&name.namespace)?.remove(&name.name),
        }
    }

    /// One object.
    pub(crate) fn get(&self, kind: ObjectKind, namespace: &str, name: &str) -> Option<&Object> {
        self.kinds.get(&kind)?.get(namespace)?.get(name)
    }

    /// All objects of a kind, by namespace and name.
    pub(crate) fn of(&self, kind: ObjectKind) -> impl Iterator<Item = &Object> {
        self.kinds.get(&kind).into_iter().flat_map(BTreeMap::values).flat_map(BTreeMap::values)
    }

    /// The Gateways.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = (&Meta, &Gateway)> {
        self.of(ObjectKind::Gateway).filter_map(|object| match &object.spec {
            Spec::Gateway(gateway) => Some((&object.meta, gateway)),
            _ => None,
        })
    }

    /// The IngressClasses.
    pub(crate) fn ingress_classes(&self) -> impl Iterator<Item = (&Meta, &IngressClass)> {
        self.of(ObjectKind::IngressClass).filter_map(|object| match &object.spec {
            Spec::IngressClass(class) => Some((&object.meta, class)),
            _ => None,
        })
    }

    /// The Ingresses.
    pub(crate) fn ingresses(&self) -> impl Iterator<Item = (&Meta, &Ingress)> {
        self.of(ObjectKind::Ingress).filter_map(|object| match &object.spec {
            Spec::Ingress(ingress) => Some((&object.meta, ingress)),
            _ => None,
        })
    }

    /// The ReferenceGrants of a namespace.
    pub(crate) fn grants(&self, namespace: &str) -> impl Iterator<Item = &ReferenceGrant> {
        let grants = self.kinds.get(&ObjectKind::ReferenceGrant).and_then(|namespaces| namespaces.get(namespace));
        grants.into_iter().flat_map(BTreeMap::values).filter_map(|object| match &object.spec {
            Spec::ReferenceGrant(grant) => Some(grant),
            _ => None,
        })
    }

    /// A Service.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<(&Meta, &Service)> {
        match self.get(ObjectKind::Service, namespace, name) {
            Some(Object { meta, spec: Spec::Service(service) }) => Some((meta, service)),
            _ => None,
        }
    }

    /// The public half of a Secret.
    pub(crate) fn certificate(&self, namespace: &str, name: &str) -> Option<(&Meta, &Certificate)> {
        match self.get(ObjectKind::Secret, namespace, name) {
            Some(Object { meta, spec: Spec::Certificate(certificate) }) => Some((meta, certificate)),
            _ => None,
        }
    }

    /// Certificates of authorities: of a ConfigMap, or of a Secret of any type.
    pub(crate) fn authorities(&self, kind: ObjectKind, namespace: &str, name: &str) -> Option<&[Vec<u8>]> {
        match &self.get(kind, namespace, name)?.spec {
            Spec::TrustBundle(bundle) => Some(&bundle.certificates),
            Spec::Certificate(certificate) => {
                Some(&certificate.authorities).filter(|all| !all.is_empty()).map(Vec::as_slice)
            }
            _ => None,
        }
    }

    /// The labels of a namespace; none if it is not known.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.get(ObjectKind::Namespace, "", namespace).map(|object| &object.meta.labels)
    }
}
