//! One authority a request (RFC 9110 7.2, RFC 9112 3.2, RFC 9113 8.3.1).

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Version, request};

/// Longest host name, in bytes (RFC 1035 2.3.4).
const HOST_LIMIT: usize = 253;

/// A host and, when it was written, a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// Lower case, no trailing dot; an IPv6 address in brackets and in its shortest form.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl Authority {
    /// Parses the authority of a URI or the value of `Host`.
    ///
    /// # Errors
    /// A short reason, for an answer of 400.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains('@') {
            return Err("authority_userinfo");
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or("authority_bad_host")?;
                let address: Ipv6Addr = address.parse().map_err(|_| "authority_bad_host")?;
                (format!("[{address}]"), port)
            }
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                (host_name(name)?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => Some(port_number(digits)?),
            None if port.is_empty() => None,
            None => return Err("authority_bad_port"),
        };
        Ok(Authority { host, port })
    }

    /// As it is sent to a backend: the one `Host`. A line that says it already stays.
    pub(super) fn set(&self, headers: &mut HeaderMap) -> Option<HeaderValue> {
        let written = match self.port {
            Some(port) => Cow::Owned(format!("{}:{port}", self.host)),
            None => Cow::Borrowed(&*self.host),
        };
        if let Some(line) = headers.get(HOST).filter(|line| line.as_bytes() == written.as_bytes()) {
            return Some(line.clone());
        }
        let value = HeaderValue::from_str(&written).ok()?;
        headers.insert(HOST, value.clone());
        Some(value)
    }

    /// Whether two authorities mean the same; a port that is not written is the scheme's.
    fn same(&self, other: &Self, default_port: u16) -> bool {
        self.host == other.host && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

fn host_name(name: &str) -> Result<String, &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err("authority_empty");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let labels = name.split('.').all(|label| !label.is_empty());
    if name.len() > HOST_LIMIT || !labels || !name.bytes().all(allowed) {
        return Err("authority_bad_host");
    }
    Ok(name.to_ascii_lowercase())
}

fn port_number(digits: &str) -> Result<u16, &'static str> {
    let plain = !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = if plain { digits.parse().unwrap_or(0) } else { 0 };
    if number == 0 { Err("authority_bad_port") } else { Ok(number) }
}

/// The one authority of a request: from the request target, `:authority` or `Host`, which must
/// agree.
///
/// # Errors
/// A short reason, for an answer of 400.
pub(super) fn of(parts: &request::Parts, tls: bool) -> Result<Authority, &'static str> {
    let mut lines = parts.headers.get_all(HOST).iter();
    let host = lines.next();
    if lines.next().is_some() {
        return Err("host_repeated");
    }
    let modern = matches!(parts.version, Version::HTTP_2 | Version::HTTP_3);
    if host.is_none() && !modern {
        return Err("host_missing");
    }
    match parts.uri.scheme_str() {
        Some("http" | "https") => {}
        Some(_) => return Err("target_bad_scheme"),
        // Not in absolute form: an authority alone is a request target without a path.
        None if !modern && parts.uri.authority().is_some() => return Err("target_bad_form"),
        None => {}
    }
    let host = host.map(parse_header).transpose()?;
    let target = parts.uri.authority().map(|authority| Authority::parse(authority.as_str())).transpose()?;
    match (target, host) {
        (Some(target), Some(host)) if !target.same(&host, if tls { 443 } else { 80 }) => Err("host_disagrees"),
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) => Err("host_missing"),
    }
}

fn parse_header(value: &HeaderValue) -> Result<Authority, &'static str> {
    Authority::parse(value.to_str().map_err(|_| "authority_bad_host")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_become_canonical() {
        let cases = [
            ("example.org", "example.org", None),
            ("EXAMPLE.org.", "example.org", None),
            ("example.org:8080", "example.org", Some(8080)),
            ("example.org.:80", "example.org", Some(80)),
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[2001:DB8:0:0::1]:443", "[2001:db8::1]", Some(443)),
            ("a_b.svc", "a_b.svc", None),
        ];
        for (text, host, port) in cases {
            assert_eq!(Authority::parse(text), Ok(Authority { host: host.into(), port }), "{text}");
        }
    }

    #[test]
    fn bad_authorities_are_refused() {
        let cases = [
            ("", "authority_empty"),
            (".", "authority_empty"),
            (":80", "authority_empty"),
            ("user@example.org", "authority_userinfo"),
            ("user:pass@example.org", "authority_userinfo"),
            ("a,b", "authority_bad_host"),
            ("a b", "authority_bad_host"),
            ("a/b", "authority_bad_host"),
            ("a?b", "authority_bad_host"),
            ("a#b", "authority_bad_host"),
            ("a%2eb", "authority_bad_host"),
            ("*.example.org", "authority_bad_host"),
            ("a..b", "authority_bad_host"),
            (".a", "authority_bad_host"),
            ("a..", "authority_bad_host"),
            ("a:", "authority_bad_port"),
            ("a:0", "authority_bad_port"),
            ("a:+80", "authority_bad_port"),
            ("a:65536", "authority_bad_port"),
            ("a:80:80", "authority_bad_port"),
            ("a:8o", "authority_bad_port"),
            ("::1", "authority_empty"),
            ("[::1", "authority_bad_host"),
            ("[::1%25eth0]", "authority_bad_host"),
            ("[::1]80", "authority_bad_port"),
            ("[example]", "authority_bad_host"),
        ];
        for (text, reason) in cases {
            assert_eq!(Authority::parse(text), Err(reason), "{text:?}");
        }
        assert_eq!(Authority::parse(&"a".repeat(254)), Err("authority_bad_host"));
    }
}
