//! ReferenceGrant; v1 and v1beta1 have the same fields.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::lenient::{or_default, text};
use super::resource;

/// A ReferenceGrant. Watched as v1beta1, which is what the CRDs store and every version serves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReferenceGrant {
    /// Name, labels and so on.
    #[serde(deserialize_with = "or_default")]
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(deserialize_with = "or_default")]
    pub spec: ReferenceGrantSpec,
}

resource!(ReferenceGrant, "ReferenceGrant", "v1beta1", "referencegrants", NamespaceResourceScope);

/// `spec` of a ReferenceGrant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    #[serde(deserialize_with = "or_default")]
    pub from: Vec<ReferenceGrantFrom>,
    /// To what.
    #[serde(deserialize_with = "or_default")]
    pub to: Vec<ReferenceGrantTo>,
}

/// Who may refer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReferenceGrantFrom {
    /// API group; empty is core.
    #[serde(deserialize_with = "or_default")]
    pub group: String,
    /// Kind.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Namespace.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
}

/// To what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReferenceGrantTo {
    /// API group; empty is core.
    #[serde(deserialize_with = "or_default")]
    pub group: String,
    /// Kind.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// Name; `None` is every object of the kind.
    #[serde(deserialize_with = "text")]
    pub name: Option<String>,
}
