//! Annotations of an Ingress: those of ingress-nginx that are served, a word about each other one.

use std::collections::BTreeMap;
use std::time::Duration;

use meshgate_core::intent::{HttpsRedirect, IngressOptions};
use meshgate_core::snapshot::{AppProtocol, Cors, Filter, HeaderModifier, PathRewrite, Redirect, Rewrite, Timeouts};

use super::check::{Checker, quote};
use super::{code, pattern};

const NGINX: &str = "nginx.ingress.kubernetes.io/";
const OURS: &str = "meshgate.dev/";

/// What ingress-nginx allows where `cors-allow-methods` and `cors-allow-headers` are not there.
const CORS_METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const CORS_HEADERS: &str =
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";
const CORS_MAX_AGE: u32 = 1_728_000;

/// Restrict who may send requests: without them the rules answer 500, or they would be open to all.
const RESTRICTIONS: [&str; 10] = [
    "auth-secret",
    "auth-tls-match-cn",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "auth-type",
    "auth-url",
    "allowlist-source-range",
    "denylist-source-range",
    "whitelist-source-range",
    "enable-modsecurity",
];

/// The annotations of one prefix; what is read is taken out.
struct Annotations {
    prefix: &'static str,
    left: BTreeMap<String, String>,
}

impl Annotations {
    fn new(prefix: &'static str, all: &BTreeMap<String, String>) -> Self {
        let ours = all.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())));
        Annotations { prefix, left: ours.collect() }
    }

    fn field(&self, name: &str) -> String {
        format!("metadata.annotations[\"{}{name}\"]", self.prefix)
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let value = self.left.remove(name)?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// A value, or a finding for one that can't be read.
    fn parsed<T>(
        &mut self,
        name: &str,
        allowed: &str,
        check: &mut Checker,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let value = parse(&text);
        if value.is_none() {
            let message = format!("{} is not allowed, so it is ignored: {allowed}", quote(&text));
            check.error(code::VALUE, &self.field(name), message);
        }
        value
    }

    fn flag(&mut self, name: &str, check: &mut Checker) -> Option<bool> {
        self.parsed(name, "\"true\" or \"false\"", check, |text| text.parse().ok())
    }
}

/// What the annotations ask for.
pub(super) fn options(all: &BTreeMap<String, String>, check: &mut Checker) -> IngressOptions {
    let mut ours = Annotations::new(OURS, all);
    let mut nginx = Annotations::new(NGINX, all);
    let https = https(&mut ours, &mut nginx, check);
    let rewrite_target = nginx.parsed("rewrite-target", "a path", check, rewrite_target);
    // ingress-nginx rewrites with regular expressions only.
    let regex = nginx.flag("use-regex", check).unwrap_or(false) || rewrite_target.is_some();
    let mut filters: Vec<Filter> = redirect(&mut nginx, check).map(Filter::Redirect).into_iter().collect();
    let host = "a host, without variables";
    let hostname = nginx.parsed("upstream-vhost", host, check, |text| is_host(text).then(|| text.to_owned()));
    if rewrite_target.is_some() || hostname.is_some() {
        filters.push(Filter::Rewrite(Rewrite { hostname, path: rewrite_target.map(PathRewrite::Template) }));
    }
    let prefix = nginx.parsed("x-forwarded-prefix", "a path, without variables", check, |text| {
        (pattern::HEADER_VALUE.test)(text).then(|| text.to_owned()).filter(|text| !text.contains('$'))
    });
    filters.extend(prefix.map(|prefix| {
        let set = vec![("X-Forwarded-Prefix".to_owned(), prefix)];
        Filter::RequestHeaders(HeaderModifier { set, ..HeaderModifier::default() })
    }));
    let app_root = nginx.parsed("app-root", "a path that starts with '/'", check, |text| {
        (text.starts_with('/') && !text.contains('$')).then(|| text.to_owned())
    });
    let cors = cors(&mut nginx, check);
    let app = nginx.parsed("backend-protocol", "HTTP or GRPC, to pods without TLS", check, |text| {
        match text.to_ascii_uppercase().as_str() {
            "HTTP" => Some(AppProtocol::Http1),
            "GRPC" => Some(AppProtocol::H2c),
            _ => None,
        }
    });
    if nginx.flag("canary", check) == Some(true) {
        let message = "is not supported, and its paths belong to another Ingress: none of it is served; use weights of \
                       an HTTPRoute";
        check.error(code::UNSUPPORTED, &nginx.field("canary"), message);
    }
    let timeouts = Timeouts { idle: idle(&mut nginx, check), ..Timeouts::default() };
    let broken = rest(nginx, check);
    rest(ours, check);
    IngressOptions { https, regex, filters, cors, app_root, app, timeouts, broken }
}

/// Does the Ingress ask for a part of another one's requests?
pub(super) fn is_canary(all: &BTreeMap<String, String>) -> bool {
    all.get(&format!("{NGINX}canary")).is_some_and(|value| value.trim() == "true")
}

fn https(ours: &mut Annotations, nginx: &mut Annotations, check: &mut Checker) -> HttpsRedirect {
    let own = ours.flag("ssl-redirect", check);
    let (redirect, force) = (nginx.flag("ssl-redirect", check), nginx.flag("force-ssl-redirect", check));
    match (own, force, redirect) {
        (Some(false), _, _) => HttpsRedirect::Never,
        (_, Some(true), _) => HttpsRedirect::Always,
        (None, _, Some(false)) => HttpsRedirect::Never,
        _ => HttpsRedirect::WithTls,
    }
}

/// A path with `$1` to `$9`, and no other variables.
fn rewrite_target(text: &str) -> Option<String> {
    let variables = text.split('$').skip(1).all(|after| after.starts_with(|c| matches!(c, '1'..='9')));
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#');
    (text.starts_with(['/', '$']) && variables && visible).then(|| text.to_owned())
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "80"));
    pattern::subdomain(&host.to_ascii_lowercase()) && port.parse::<u16>().is_ok()
}

/// `temporal-redirect`, or else `permanent-redirect`.
fn redirect(nginx: &mut Annotations, check: &mut Checker) -> Option<Redirect> {
    let mut found = None;
    for (name, default) in [("temporal-redirect", 302), ("permanent-redirect", 301)] {
        let allowed = "301, 302, 303, 307 or 308";
        let status = nginx.parsed(&format!("{name}-code"), allowed, check, |text| {
            text.parse().ok().filter(|status| [301, 302, 303, 307, 308].contains(status))
        });
        let allowed = "an address that starts with http://, https:// or '/', without variables but $request_uri after \
                       the host";
        let to = nginx.parsed(name, allowed, check, location);
        found = found.or(to.map(|to| Redirect { status: status.unwrap_or(default), ..to }));
    }
    found
}

/// An address to redirect to, whole or with the request's path and query after the host.
fn location(text: &str) -> Option<Redirect> {
    if let Some(base) = text.strip_suffix("$request_uri") {
        let (scheme, authority) = base.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (authority, None),
        };
        let hostname = Some(host.to_ascii_lowercase()).filter(|host| pattern::subdomain(host))?;
        return Some(Redirect {
            scheme: Some(scheme.to_owned()),
            hostname: Some(hostname),
            port,
            ..Redirect::default()
        });
    }
    let starts = ["http://", "https://", "/"].iter().any(|start| text.starts_with(start));
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'$');
    (starts && visible).then(|| Redirect { location: Some(text.to_owned()), ..Redirect::default() })
}

/// `enable-cors`; the rest of them says nothing without it.
fn cors(nginx: &mut Annotations, check: &mut Checker) -> Option<Cors> {
    let enabled = nginx.flag("enable-cors", check).unwrap_or(false);
    let words =
        |text: &str| text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect();
    let origins: Vec<String> = words(&nginx.text("cors-allow-origin").unwrap_or_else(|| "*".to_owned()));
    let methods = words(&nginx.text("cors-allow-methods").unwrap_or_else(|| CORS_METHODS.to_owned()));
    let headers = words(&nginx.text("cors-allow-headers").unwrap_or_else(|| CORS_HEADERS.to_owned()));
    let expose = words(&nginx.text("cors-expose-headers").unwrap_or_default());
    let credentials = nginx.flag("cors-allow-credentials", check);
    let max_age = nginx.parsed("cors-max-age", "seconds", check, |text| text.parse().ok());
    if !enabled {
        return None;
    }
    let field = nginx.field("cors-allow-origin");
    let (allowed, refused): (Vec<_>, Vec<_>) = origins.into_iter().partition(|origin| (pattern::ORIGIN.test)(origin));
    for origin in refused {
        let message = format!("{} is not allowed, so it is ignored: {}", quote(&origin), pattern::ORIGIN.allowed);
        check.error(code::VALUE, &field, message);
    }
    // Browsers take no credentials from an answer to every origin, which is what ingress-nginx gives.
    let any = allowed.iter().any(|origin| origin == "*");
    if any && credentials == Some(true) {
        let message = "is ignored: credentials need named origins in cors-allow-origin";
        check.warn(code::CONFLICT, &nginx.field("cors-allow-credentials"), message);
    }
    Some(Cors {
        allow_origins: if any {
            vec!["*".to_owned()]
        } else {
            allowed.iter().map(|o| o.to_ascii_lowercase()).collect()
        },
        allow_credentials: credentials.unwrap_or(true) && !any,
        allow_methods: methods,
        allow_headers: headers,
        expose_headers: expose,
        max_age: max_age.unwrap_or(CORS_MAX_AGE),
    })
}

/// The longer one of two timeouts between reads and between writes: a connection has one.
fn idle(nginx: &mut Annotations, check: &mut Checker) -> Option<Duration> {
    let mut seconds = |name| {
        nginx.parsed(name, "whole seconds, 1 and more", check, |text| text.parse::<u32>().ok().filter(|&s| s > 0))
    };
    let longest = seconds("proxy-read-timeout").max(seconds("proxy-send-timeout"));
    longest.map(|seconds| Duration::from_secs(seconds.into()))
}

/// A finding for each annotation that was not read. Was there one that must not be ignored?
fn rest(annotations: Annotations, check: &mut Checker) -> bool {
    let mut broken = false;
    for name in annotations.left.keys() {
        let field = annotations.field(name);
        if name.ends_with("-snippet") {
            broken = true;
            let message = "is not served: nothing that a tenant writes is run as configuration, and it may restrict who \
                           may send requests: the Ingress answers 500; remove it, or use filters of an HTTPRoute";
            check.error(code::UNSUPPORTED, &field, message);
        } else if RESTRICTIONS.contains(&name.as_str()) {
            broken = true;
            let message = "is not supported, and without it everybody could send requests: the Ingress answers 500; \
                           remove it";
            check.error(code::UNSUPPORTED, &field, message);
        } else {
            check.warn(code::UNSUPPORTED, &field, "is ignored: this version does not know it");
        }
    }
    broken
}
