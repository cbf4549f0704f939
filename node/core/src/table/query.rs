//! Query parameters, compared without allocating.
//!
//! Names and values are percent-decoded; `+` stays a plus (the specification does not give it a
//! meaning). Of equal names the first counts (HTTPQueryParamMatch).

use std::borrow::Cow;

/// The raw value of the first parameter called `name`. A parameter without `=` has the empty
/// value.
pub(super) fn first<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(raw, _)| equals(raw, name))
        .map(|(_, value)| value)
}

/// Whether `raw`, decoded, is `expected`.
pub(super) fn equals(raw: &str, expected: &str) -> bool {
    bytes(raw).eq(expected.bytes())
}

/// `raw`, decoded; bytes that are not UTF-8 are replaced.
pub(super) fn decoded(raw: &str) -> Cow<'_, str> {
    if !raw.contains('%') {
        return Cow::Borrowed(raw);
    }
    let decoded: Vec<u8> = bytes(raw).collect();
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// The decoded bytes; a `%` that is no escape stands for itself.
fn bytes(raw: &str) -> impl Iterator<Item = u8> {
    let raw = raw.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let &byte = raw.get(at)?;
        if byte == b'%'
            && let (Some(high), Some(low)) = (hex(raw.get(at + 1)), hex(raw.get(at + 2)))
        {
            at += 3;
            return Some(high << 4 | low);
        }
        at += 1;
        Some(byte)
    })
}

fn hex(digit: Option<&u8>) -> Option<u8> {
    match digit? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
        digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_names_counts_and_names_are_decoded() {
        assert_eq!(first("a=1&b=2&a=3", "a"), Some("1"));
        assert_eq!(first("%61=1", "a"), Some("1"));
        assert_eq!(first("b&a", "a"), Some(""));
        assert_eq!(first("a%3D=1", "a="), Some("1"));
        assert_eq!(first("ab=1", "a"), None);
        assert_eq!(first("", ""), None);
        assert_eq!(first("a=b=c", "a"), Some("b=c"));
    }

    #[test]
    fn values_are_decoded_and_bad_escapes_stand_for_themselves() {
        assert!(equals("a%20b", "a b"));
        assert!(equals("a+b", "a+b"));
        assert!(equals("100%", "100%"));
        assert!(equals("%zz", "%zz"));
        assert!(!equals("ab", "abc"));
        assert!(!equals("abc", "ab"));
        assert_eq!(decoded("%C3%A9"), "é");
    }
}
