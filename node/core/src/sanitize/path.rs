//! Normalises paths, so that what is matched is what backends see (RFC 3986 6.2.2).
//!
//! Escaped unreserved characters are decoded, other escapes put in upper case, dot segments
//! removed. What two readers could take for two paths is refused. `%2F` stays an opaque byte, and
//! empty segments (`//`) are kept: to merge them would change what the backend is asked for.

/// Normalises the path of a request.
///
/// Idempotent: what it returns is returned unchanged.
///
/// # Errors
/// A short reason, for an answer of 400.
pub fn normalise(path: &str) -> Result<String, &'static str> {
    if !path.starts_with('/') {
        return Err("path_not_absolute");
    }
    remove_dot_segments(&decode(path.as_bytes())?)
}

/// A path that someone wrote into a route, in the form that requests' paths have. What requests
/// can't have (it would be refused) is left as it is and never matches.
pub fn pattern(path: &str) -> String {
    encode(path).and_then(|encoded| normalise(&encoded).ok()).unwrap_or_else(|| path.to_owned())
}

/// A path that someone wrote into a rewrite, fit to be sent: characters that can't stand in a
/// path are escaped, dot segments removed. `/` when nothing sensible is left.
pub fn rewritten(path: &str) -> String {
    let absolute = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    encode(&absolute).and_then(|encoded| normalise(&encoded).ok()).unwrap_or_else(|| "/".to_owned())
}

/// Escapes what can't stand in a path. `None` for control characters and backslashes.
fn encode(path: &str) -> Option<String> {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            0..0x20 | 0x7f | b'\\' => return None,
            b' ' | b'"' | b'<' | b'>' | b'?' | b'#' | b'`' | b'{' | b'}' | 0x80.. => push_escape(&mut encoded, byte),
            byte => encoded.push(char::from(byte)),
        }
    }
    Some(encoded)
}

/// Decodes unreserved characters, upper-cases the other escapes, refuses what is ambiguous.
fn decode(path: &[u8]) -> Result<String, &'static str> {
    let mut decoded = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        match byte {
            b'%' => {
                let escaped = escape(path, at).ok_or("path_bad_escape")?;
                at += 3;
                match escaped {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        decoded.push(char::from(escaped));
                    }
                    0..0x20 | 0x7f => return Err("path_control"),
                    b'\\' => return Err("path_backslash"),
                    _ if overlong(escaped, escape(path, at)) => return Err("path_overlong"),
                    _ => push_escape(&mut decoded, escaped),
                }
                continue;
            }
            0..0x20 | 0x7f => return Err("path_control"),
            0x80.. => return Err("path_not_ascii"),
            b'\\' => return Err("path_backslash"),
            b' ' | b'?' | b'#' => return Err("path_bad_character"),
            _ => decoded.push(char::from(byte)),
        }
        at += 1;
    }
    Ok(decoded)
}

/// The byte that the escape at `at` stands for.
fn escape(path: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| path.get(at).and_then(|&digit| char::from(digit).to_digit(16));
    if path.get(at) != Some(&b'%') {
        return None;
    }
    u8::try_from(digit(at + 1)? << 4 | digit(at + 2)?).ok()
}

/// Whether a byte starts a UTF-8 sequence that is longer than it must be: `%C0%AE` is a dot to a
/// careless decoder.
fn overlong(byte: u8, next: Option<u8>) -> bool {
    match byte {
        0xc0 | 0xc1 => true,
        0xe0 => matches!(next, Some(0x80..0xa0)),
        0xf0 => matches!(next, Some(0x80..0x90)),
        _ => false,
    }
}

fn push_escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// RFC 3986 5.2.4 on a path that starts with `/`; leaving the root is an error.
fn remove_dot_segments(path: &str) -> Result<String, &'static str> {
    if !path.contains("/.") && !path.contains("%2F.") {
        return Ok(path.to_owned());
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop().ok_or("path_above_root")?),
            _ if hidden_dots(segment) => return Err("path_hidden_dots"),
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if last {
            kept.push("");
        }
    }
    Ok(kept.iter().flat_map(|segment| ["/", segment]).collect())
}

/// Whether some backends would see a dot segment in here: `..;a` (path parameters cut off) or
/// `..%2Fa` (slash decoded).
fn hidden_dots(segment: &str) -> bool {
    segment.split("%2F").any(|part| {
        let (name, parameters) = part.split_once(';').map_or((part, false), |(name, _)| (name, true));
        matches!(name, "." | "..") && (parameters || name.len() < segment.len())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equivalent_paths_become_one() {
        let cases = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/%7e%2D", "/~-"),
            ("/a%2fb", "/a%2Fb"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/p/../admin", "/admin"),
            ("/p/%2e%2e/admin", "/admin"),
            ("/p/.%2E/admin", "/admin"),
            ("/./a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("//", "//"),
            ("/...", "/..."),
            ("/.well-known", "/.well-known"),
            ("/a/..b", "/a/..b"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/a;b=1/c", "/a;b=1/c"),
            ("/ADMIN", "/ADMIN"),
        ];
        for (raw, expected) in cases {
            assert_eq!(normalise(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        let cases = [
            ("", "path_not_absolute"),
            ("a", "path_not_absolute"),
            ("/..", "path_above_root"),
            ("/a/../..", "path_above_root"),
            ("/%2e%2e", "path_above_root"),
            ("/a%00", "path_control"),
            ("/a%0d%0a", "path_control"),
            ("/a\u{1}", "path_control"),
            ("/a%5cb", "path_backslash"),
            ("/a\\b", "path_backslash"),
            ("/é", "path_not_ascii"),
            ("/%zz", "path_bad_escape"),
            ("/%2", "path_bad_escape"),
            ("/%", "path_bad_escape"),
            ("/%c0%ae", "path_overlong"),
            ("/%e0%80%ae", "path_overlong"),
            ("/p/..;/admin", "path_hidden_dots"),
            ("/p/..%2fadmin", "path_hidden_dots"),
            ("/p/a%2f..%2fadmin", "path_hidden_dots"),
            ("/p/a%2f..", "path_hidden_dots"),
        ];
        for (raw, expected) in cases {
            assert_eq!(normalise(raw), Err(expected), "{raw}");
        }
    }

    #[test]
    fn patterns_take_the_form_of_requests() {
        assert_eq!(pattern("/café"), "/caf%C3%A9");
        assert_eq!(pattern("/%61"), "/a");
        assert_eq!(pattern("/a/../.."), "/a/../..");
        assert_eq!(rewritten("a b?c"), "/a%20b%3Fc");
        assert_eq!(rewritten("/../.."), "/");
    }

    proptest! {
        #[test]
        fn normalising_is_idempotent(path in "/([a./;%2eF\\\\é]|%2[eEfF]|%[0-9a-f]{2}|/\\.{1,2}){0,12}") {
            if let Ok(once) = normalise(&path) {
                prop_assert_eq!(normalise(&once), Ok(once.clone()));
                let dots = once.split('/').any(|segment| matches!(segment, "." | ".."));
                prop_assert!(!dots, "{} has dot segments", once);
            }
        }

        #[test]
        fn what_is_rewritten_is_normal(path in "\\PC{0,20}") {
            let written = rewritten(&path);
            prop_assert_eq!(normalise(&written), Ok(written.clone()));
        }
    }
}
