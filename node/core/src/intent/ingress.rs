//! Ingresses as declared.

use super::BackendRef;
use crate::snapshot::{AppProtocol, Cors, Filter, Timeouts};

/// An Ingress as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingress {
    /// `spec.ingressClassName` or the annotation `kubernetes.io/ingress.class`.
    pub class: Option<String>,
    /// `spec.defaultBackend`.
    pub default_backend: Option<BackendRef>,
    /// `spec.rules`, flattened to one a path, in order.
    pub paths: Vec<IngressPath>,
    /// `spec.tls`.
    pub tls: Vec<IngressTls>,
    /// What its annotations ask for.
    pub options: Box<IngressOptions>,
}

/// What annotations of an Ingress ask for, most of them those of ingress-nginx. They hold for all
/// paths of the Ingress, and for no other Ingress.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct IngressOptions {
    /// When requests without TLS are redirected to HTTPS.
    pub https: HttpsRedirect,
    /// `use-regex`, or implied by `rewrite-target`: paths are regular expressions.
    pub regex: bool,
    /// Filters of every path: `rewrite-target`, `upstream-vhost`, `x-forwarded-prefix`, redirects.
    pub filters: Vec<Filter>,
    /// `enable-cors` and `cors-*`.
    pub cors: Option<Cors>,
    /// `app-root`: where the exact path `/` is redirected to.
    pub app_root: Option<String>,
    /// `backend-protocol`: what the backends are expected to speak.
    pub app: Option<AppProtocol>,
    /// `proxy-read-timeout` and `proxy-send-timeout`.
    pub timeouts: Timeouts,
    /// It asks for a restriction of access that isn't supported: every request gets 500.
    pub broken: bool,
}

/// When requests to an Ingress without TLS are redirected to HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HttpsRedirect {
    /// Where the host has TLS.
    #[default]
    WithTls,
    /// Always (`force-ssl-redirect`).
    Always,
    /// Never (`ssl-redirect: "false"`).
    Never,
}

/// One path of an Ingress.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressPath {
    /// Field path, for findings: `spec.rules[1].http.paths[0]`.
    pub field: String,
    /// Host, lower case; `*.` covers exactly one label; `None` is every host.
    pub host: Option<String>,
    /// Path.
    pub path: String,
    /// Path type.
    pub path_type: IngressPathType,
    /// Where the requests go.
    pub backend: BackendRef,
}

/// `pathType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressPathType {
    /// The whole path, case-sensitive.
    Exact,
    /// By `/`-separated elements.
    Prefix,
    /// Served as `Prefix`, or as a regular expression where the Ingress asks for it.
    ImplementationSpecific,
}

/// One entry of an Ingress's `tls`.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressTls {
    /// Hosts, lower case; empty is every host.
    pub hosts: Vec<String>,
    /// The Secret in the Ingress's namespace.
    pub secret: Option<String>,
}
