//! Gateway.

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

use super::lenient::{Present, or_default, text};
use super::{open_enum, resource};

/// A Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gateway {
    /// Name, labels and so on.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(deserialize_with = "or_default")]
    pub spec: GatewaySpec,
}

resource!(Gateway, "Gateway", "v1", "gateways", NamespaceResourceScope);

/// `spec` of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewaySpec {
    /// The GatewayClass.
    #[serde(deserialize_with = "or_default")]
    pub gateway_class_name: String,
    /// Listeners.
    #[serde(deserialize_with = "or_default")]
    pub listeners: Vec<Listener>,
    /// Requested addresses.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<GatewayAddress>,
    /// TLS of all listeners.
    pub tls: Option<GatewayTls>,
}

/// A requested address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayAddress {
    /// `IPAddress`, `Hostname` or another.
    #[serde(rename = "type", deserialize_with = "text")]
    pub kind: Option<String>,
    /// The address.
    #[serde(deserialize_with = "text")]
    pub value: Option<String>,
}

/// `spec.tls`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayTls {
    /// Validation of client certificates.
    pub frontend: Option<FrontendTls>,
    /// The certificate shown to backends.
    pub backend: Option<Present>,
}

/// `spec.tls.frontend`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FrontendTls {
    /// For every HTTPS listener ...
    #[serde(deserialize_with = "or_default")]
    pub default: PortTlsConfig,
    /// ... whose port is not here.
    #[serde(deserialize_with = "or_default")]
    pub per_port: Vec<PortTls>,
}

/// TLS of the listeners of one port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortTls {
    /// Port.
    #[serde(deserialize_with = "or_default")]
    pub port: i64,
    /// TLS.
    #[serde(deserialize_with = "or_default")]
    pub tls: PortTlsConfig,
}

/// TLS towards clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortTlsConfig {
    /// Client certificates; `None` asks for none.
    pub validation: Option<ClientValidation>,
}

/// Validation of client certificates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientValidation {
    /// Where the certificates of authorities are.
    #[serde(deserialize_with = "or_default")]
    pub ca_certificate_refs: Vec<SecretReference>,
    /// What becomes of clients without a valid certificate.
    pub mode: ValidationMode,
}

open_enum! {
    /// `mode` of a validation.
    ValidationMode { AllowValidOnly, AllowInsecureFallback }
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Listener {
    /// Name, unique within the Gateway.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Host served; `None` is every host.
    #[serde(deserialize_with = "text")]
    pub hostname: Option<String>,
    /// Port.
    #[serde(deserialize_with = "or_default")]
    pub port: i64,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `UDP` or another.
    #[serde(deserialize_with = "or_default")]
    pub protocol: String,
    /// TLS.
    pub tls: Option<ListenerTls>,
    /// Routes that may attach.
    #[serde(deserialize_with = "or_default")]
    pub allowed_routes: AllowedRoutes,
    /// Filters of the listener (experimental).
    pub filters: Option<Present>,
}

/// `tls` of a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListenerTls {
    /// Where TLS ends; `None` is `Terminate`.
    pub mode: Option<TlsMode>,
    /// Certificates.
    #[serde(deserialize_with = "or_default")]
    pub certificate_refs: Vec<SecretReference>,
    /// Options of an implementation.
    #[serde(deserialize_with = "or_default")]
    pub options: BTreeMap<String, String>,
}

open_enum! {
    /// Where TLS ends.
    TlsMode { Terminate, Passthrough }
}

/// A reference to a Secret, or to a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecretReference {
    /// API group; empty is core.
    #[serde(deserialize_with = "or_default")]
    pub group: String,
    /// Kind; `None` is `Secret`.
    #[serde(deserialize_with = "text")]
    pub kind: Option<String>,
    /// Name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Namespace; `None` is the Gateway's own.
    #[serde(deserialize_with = "text")]
    pub namespace: Option<String>,
}

/// Routes that may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AllowedRoutes {
    /// From which namespaces.
    #[serde(deserialize_with = "or_default")]
    pub namespaces: RouteNamespaces,
    /// Of which kinds.
    #[serde(deserialize_with = "or_default")]
    pub kinds: Vec<RouteGroupKind>,
}

/// Namespaces whose routes may attach.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteNamespaces {
    /// Which.
    pub from: FromNamespaces,
    /// Their labels, with `from: Selector`.
    pub selector: Option<LabelSelector>,
}

open_enum! {
    /// `from` of [`RouteNamespaces`].
    FromNamespaces { Same, All, Selector, None }
}

/// A kind of route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteGroupKind {
    /// API group; `None` is the Gateway API's.
    pub group: Option<String>,
    /// Kind.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
}
