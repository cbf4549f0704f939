//! Lean types of the Gateway API (v1.7), ours because the published crate is behind.
//!
//! They hold the fields that meshgate reads, leave the rest aside, and decode leniently: missing,
//! null and empty are the same, and enum values that this version does not know are kept as
//! `Unsupported`. So one strange object never stops a list or a watch; what is wrong with it is
//! [`mod@crate::translate`]'s to say.

mod class;
mod gateway;
mod grant;
mod lenient;
mod route;

pub use class::{GatewayClass, GatewayClassSpec};
pub use gateway::{
    AllowedRoutes, ClientValidation, FromNamespaces, FrontendTls, Gateway, GatewayAddress, GatewaySpec, GatewayTls,
    Listener, ListenerTls, PortTls, PortTlsConfig, RouteGroupKind, RouteNamespaces, SecretReference, TlsMode,
    ValidationMode,
};
pub use grant::{ReferenceGrant, ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo};
pub use lenient::Present;
pub use route::{
    BackendReference, CorsFilter, FilterType, Fraction, HeaderFilter, HttpHeader, HttpPathMatch, HttpRoute,
    HttpRouteFilter, HttpRouteMatch, HttpRouteRule, HttpRouteSpec, HttpTimeouts, MatchType, MirrorFilter,
    ParentReference, PathMatchType, PathModifier, PathModifierType, RedirectFilter, RetryPolicy, RewriteFilter,
    ValueMatcher,
};

/// The API group of everything in this module.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Implements [`kube::Resource`] for a type with a `metadata` field.
macro_rules! resource {
    ($type:ty, $kind:literal, $version:literal, $plural:literal, $scope:ty) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                crate::types::GATEWAY_GROUP.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// A string enum that keeps what it does not know. The first variant is the default.
macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident { $first:ident, $($variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub enum $name {
            #[doc = concat!("`", stringify!($first), "`, the default.")]
            #[default]
            $first,
            $(#[doc = concat!("`", stringify!($variant), "`.")] $variant,)*
            /// A value that this version does not know.
            Unsupported(String),
        }

        impl $name {
            /// The values that this version knows.
            pub const KNOWN: &'static [&'static str] = &[stringify!($first), $(stringify!($variant)),*];

            /// The value as it is written in a manifest.
            pub fn as_str(&self) -> &str {
                match self {
                    Self::$first => stringify!($first),
                    $(Self::$variant => stringify!($variant),)*
                    Self::Unsupported(other) => other,
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match text.as_str() {
                    "" | stringify!($first) => Self::$first,
                    $(stringify!($variant) => Self::$variant,)*
                    _ => Self::Unsupported(text),
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <Option<String> as serde::Deserialize>::deserialize(deserializer)?;
                Ok(text.map_or_else(Self::default, Self::from))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

pub(crate) use {open_enum, resource};

#[cfg(test)]
mod tests {
    use kube::Resource as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn types_have_their_place_in_the_api() {
        let group = "/apis/gateway.networking.k8s.io";
        assert_eq!(HttpRoute::url_path(&(), Some("n")), format!("{group}/v1/namespaces/n/httproutes"));
        assert_eq!(Gateway::url_path(&(), Some("n")), format!("{group}/v1/namespaces/n/gateways"));
        assert_eq!(GatewayClass::url_path(&(), None), format!("{group}/v1/gatewayclasses"));
        assert_eq!(ReferenceGrant::url_path(&(), None), format!("{group}/v1beta1/referencegrants"));
        assert_eq!(HttpRoute::kind(&()), "HTTPRoute");
    }

    #[test]
    fn unknown_values_are_kept() {
        let filter: HttpRouteFilter = serde_json::from_value(json!({"type": "Teleport", "teleport": {}})).unwrap();
        assert_eq!(filter.kind, Some(FilterType::Unsupported("Teleport".to_owned())));
        assert_eq!(serde_json::to_value(&filter).unwrap()["type"], "Teleport");
        let filter: HttpRouteFilter = serde_json::from_value(json!({"type": ""})).unwrap();
        assert_eq!(filter.kind, None);
    }
}
