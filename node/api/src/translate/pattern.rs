//! The CRDs' patterns, as functions (a regular expression engine would be the larger half of this).

/// What a text may look like.
pub(super) struct Rule {
    /// Does a non-empty text follow it?
    pub(super) test: fn(&str) -> bool,
    /// The most characters.
    pub(super) max: usize,
    /// In words.
    pub(super) allowed: &'static str,
}

/// A DNS label.
pub(super) const LABEL: Rule = Rule { test: label, max: 63, allowed: "lower-case letters, digits and '-' are allowed" };

/// A DNS name of labels.
pub(super) const SUBDOMAIN: Rule =
    Rule { test: subdomain, max: 253, allowed: "lower-case letters, digits, '-' and '.' are allowed" };

/// A host, which may start with `*.`.
pub(super) const HOSTNAME: Rule = Rule {
    test: |text| subdomain(text.strip_prefix("*.").unwrap_or(text)),
    max: 253,
    allowed: "a lower-case DNS name is allowed, with or without '*.' before it",
};

/// A host without a wildcard.
pub(super) const PRECISE_HOSTNAME: Rule =
    Rule { test: subdomain, max: 253, allowed: "a lower-case DNS name without wildcard is allowed" };

/// The name of another object.
pub(super) const OBJECT_NAME: Rule = Rule { test: |_| true, max: 253, allowed: "1 to 253 characters" };

/// A kind.
pub(super) const KIND: Rule = Rule { test: kind, max: 63, allowed: "a kind of letters, digits and '-' is allowed" };

/// `domain/path`.
pub(super) const CONTROLLER: Rule =
    Rule { test: controller, max: 253, allowed: "a domain and a path are allowed, such as example.com/controller" };

/// A listener's protocol.
pub(super) const PROTOCOL: Rule =
    Rule { test: protocol, max: 255, allowed: "HTTP, HTTPS, TLS, TCP, UDP, or a protocol with a domain before it" };

/// An origin of CORS.
pub(super) const ORIGIN: Rule = Rule {
    test: origin,
    max: 253,
    allowed: "*, or http:// or https:// with a host (*, or a name with or without '*.' before it) and at most a port",
};

/// A header's (or query parameter's) name.
pub(super) const HEADER_NAME: Rule =
    Rule { test: header_name, max: 256, allowed: "letters, digits and !#$%&'*+-.^_`|~ are allowed" };

/// A header's value.
pub(super) const HEADER_VALUE: Rule = Rule {
    test: header_value,
    max: 4096,
    allowed: "visible ASCII with single blanks between words is allowed, none at the ends",
};

/// A query parameter's value.
pub(super) const QUERY_VALUE: Rule = Rule { test: |_| true, max: 1024, allowed: "1 to 1024 characters" };

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn label(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|byte| alphanumeric(*byte))
        && bytes.last().is_some_and(|byte| alphanumeric(*byte))
        && bytes.iter().all(|byte| alphanumeric(*byte) || *byte == b'-')
}

/// The CRDs limit the whole name, not each label.
pub(super) fn subdomain(text: &str) -> bool {
    text.split('.').all(label)
}

fn origin(text: &str) -> bool {
    let Some(authority) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return text == "*";
    };
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (host == "*" || host.strip_prefix("*.").unwrap_or(host).split('.').all(label))
        && (1..=5).contains(&port.len())
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn kind(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

fn controller(text: &str) -> bool {
    let Some((domain, path)) = text.split_once('/') else { return false };
    subdomain(domain)
        && !path.is_empty()
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte))
}

fn protocol(text: &str) -> bool {
    let word = |word: &str| {
        let bytes = word.as_bytes();
        bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    match text.split_once('/') {
        None => word(text),
        Some((domain, name)) => {
            subdomain(domain) && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }
    }
}

fn header_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn header_value(text: &str) -> bool {
    let visible = |byte: u8| (b'!'..=b'~').contains(&byte);
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|byte| visible(*byte))
        && bytes.last().is_some_and(|byte| visible(*byte))
        && bytes.iter().all(|byte| visible(*byte) || matches!(byte, b' ' | b'\t'))
        && bytes.windows(2).all(|pair| visible(pair[0]) || visible(pair[1]))
}

/// What is wrong with a path that is matched literally, if anything (HTTPPathMatch's rules).
pub(super) fn path_problem(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some("must start with '/'".to_owned());
    }
    if let Some(bad) = ["//", "/./", "/../", "%2f", "%2F", "#"].into_iter().find(|bad| path.contains(bad)) {
        return Some(format!("must not contain '{bad}'"));
    }
    if let Some(bad) = ["/..", "/."].into_iter().find(|bad| path.ends_with(bad)) {
        return Some(format!("must not end with '{bad}'"));
    }
    None
}

/// Only characters that RFC 3986 allows in a path, and whole percent escapes.
pub(super) fn path_characters(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let allowed = match byte {
            b'%' => [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(|d| d.is_ascii_hexdigit())),
            _ => byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte),
        };
        if !allowed {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in ["a", "shop.example", "*.shop.example", "1.a-b.c"] {
            assert!((HOSTNAME.test)(good), "{good}");
        }
        for bad in ["*", "*.", "a.*.b", "Shop.example", "a..b", "-a", "a-", "a.", "a_b", "a:80", "**.a"] {
            assert!(!(HOSTNAME.test)(bad), "{bad}");
        }
        assert!(!(PRECISE_HOSTNAME.test)("*.a"));
    }

    #[test]
    fn header_values() {
        for good in ["a", "a b", "a\tb", "a b c"] {
            assert!(header_value(good), "{good:?}");
        }
        for bad in [" a", "a ", "a  b", "a\nb", "ü", "a \tb"] {
            assert!(!header_value(bad), "{bad:?}");
        }
    }

    #[test]
    fn paths() {
        for good in ["/", "/a", "/a/", "/a%20b", "/...", "/a..b", "/.a"] {
            assert_eq!(path_problem(good), None, "{good}");
            assert!(path_characters(good), "{good}");
        }
        for bad in ["", "a", "//", "/a//b", "/./a", "/a/../b", "/a%2Fb", "/a%2fb", "/a#b", "/a/..", "/a/."] {
            assert!(path_problem(bad).is_some(), "{bad}");
        }
        for bad in ["/a b", "/%", "/%2", "/%zz", "/a?b", "/ü", "/a\"b"] {
            assert!(!path_characters(bad), "{bad}");
        }
    }

    #[test]
    fn controllers_and_protocols() {
        assert!(controller("meshgate.dev/gateway-controller"));
        assert!(!controller("meshgate.dev"));
        assert!(!controller("meshgate.dev/"));
        assert!(!controller("/x"));
        assert!(protocol("HTTPS") && protocol("example.com/bar"));
        assert!(!protocol("-x") && !protocol("example.com/") && !protocol("a b"));
    }
}
