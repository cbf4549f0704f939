//! GatewayClass.

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::lenient::or_default;
use super::resource;

/// A GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayClass {
    /// Name, labels and so on.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(deserialize_with = "or_default")]
    pub spec: GatewayClassSpec,
}

resource!(GatewayClass, "GatewayClass", "v1", "gatewayclasses", ClusterResourceScope);

/// `spec` of a GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// Who serves Gateways of the class.
    #[serde(deserialize_with = "or_default")]
    pub controller_name: String,
}
