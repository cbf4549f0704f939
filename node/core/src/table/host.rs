//! Hosts: which pattern covers which, and a map from patterns that finds the most specific first.

use std::sync::Arc;

use super::shared::SharedMap;
use crate::snapshot::HostPattern;

/// Values by host pattern. A look-up allocates nothing and costs one hash a label; clones share
/// what they have in common.
#[derive(Clone, Debug)]
pub(super) struct HostMap<T> {
    exact: SharedMap<Arc<str>, T>,
    one_label: SharedMap<Arc<str>, T>,
    wildcard: SharedMap<Arc<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        let (exact, one_label, wildcard) = Default::default();
        HostMap { exact, one_label, wildcard, any: None }
    }
}

impl<T: Clone> HostMap<T> {
    /// Puts a value under a pattern, in place of an earlier one.
    pub(super) fn insert(&mut self, pattern: &HostPattern, value: T) {
        match pattern {
            HostPattern::Exact(name) => drop(self.exact.insert(name.as_str().into(), value)),
            HostPattern::WildcardOneLabel(suffix) => drop(self.one_label.insert(suffix.as_str().into(), value)),
            HostPattern::Wildcard(suffix) => drop(self.wildcard.insert(suffix.as_str().into(), value)),
            HostPattern::Any => self.any = Some(value),
        }
    }

    /// Takes a pattern out.
    pub(super) fn remove(&mut self, pattern: &HostPattern) {
        match pattern {
            HostPattern::Exact(name) => drop(self.exact.remove(name.as_str())),
            HostPattern::WildcardOneLabel(suffix) => drop(self.one_label.remove(suffix.as_str())),
            HostPattern::Wildcard(suffix) => drop(self.wildcard.remove(suffix.as_str())),
            HostPattern::Any => self.any = None,
        }
    }

    /// The value of exactly this pattern.
    pub(super) fn get(&self, pattern: &HostPattern) -> Option<&T> {
        match pattern {
            HostPattern::Exact(name) => self.exact.get(name.as_str()),
            HostPattern::WildcardOneLabel(suffix) => self.one_label.get(suffix.as_str()),
            HostPattern::Wildcard(suffix) => self.wildcard.get(suffix.as_str()),
            HostPattern::Any => self.any.as_ref(),
        }
    }

    /// The value of exactly this pattern, to be changed.
    pub(super) fn get_mut(&mut self, pattern: &HostPattern) -> Option<&mut T> {
        match pattern {
            HostPattern::Exact(name) => self.exact.get_mut(name.as_str()),
            HostPattern::WildcardOneLabel(suffix) => self.one_label.get_mut(suffix.as_str()),
            HostPattern::Wildcard(suffix) => self.wildcard.get_mut(suffix.as_str()),
            HostPattern::Any => self.any.as_mut(),
        }
    }

    /// The first answer of `f` over the values whose pattern matches `host`, the most specific
    /// first: exact, wildcards from the longest (of equal ones the one-label kind), any.
    pub(super) fn find<'a, R>(&'a self, host: &str, mut f: impl FnMut(&'a T) -> Option<R>) -> Option<R> {
        if let Some(found) = self.exact.get(host).and_then(&mut f) {
            return Some(found);
        }
        if !self.one_label.is_empty() || !self.wildcard.is_empty() {
            let dots = host.bytes().enumerate().filter(|&(at, byte)| byte == b'.' && at > 0).map(|(at, _)| at);
            for (number, dot) in dots.enumerate() {
                let suffix = &host[dot + 1..];
                if number == 0
                    && let Some(found) = self.one_label.get(suffix).and_then(&mut f)
                {
                    return Some(found);
                }
                if let Some(found) = self.wildcard.get(suffix).and_then(&mut f) {
                    return Some(found);
                }
            }
        }
        self.any.as_ref().and_then(f)
    }

    /// All patterns with their values, the most specific first.
    pub(super) fn sorted(&self) -> Vec<(HostPattern, &T)> {
        let exact = self.exact.iter().map(|(name, value)| (HostPattern::Exact(name.to_string()), value));
        let one = self.one_label.iter().map(|(name, value)| (HostPattern::WildcardOneLabel(name.to_string()), value));
        let wild = self.wildcard.iter().map(|(name, value)| (HostPattern::Wildcard(name.to_string()), value));
        let any = self.any.iter().map(|value| (HostPattern::Any, value));
        let mut all: Vec<_> = exact.chain(one).chain(wild).chain(any).collect();
        all.sort_by(|(a, _), (b, _)| a.specificity().cmp(&b.specificity()).then_with(|| a.cmp(b)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        match text.strip_prefix("*.") {
            _ if text == "*" => HostPattern::Any,
            Some(suffix) => HostPattern::Wildcard(suffix.into()),
            None => match text.strip_prefix("?.") {
                Some(suffix) => HostPattern::WildcardOneLabel(suffix.into()),
                None => HostPattern::Exact(text.into()),
            },
        }
    }

    fn order(patterns: &[&str], host: &str) -> Vec<String> {
        let mut map = HostMap::default();
        for text in patterns {
            map.insert(&pattern(text), text.to_string());
        }
        let mut seen = Vec::new();
        map.find(host, |text| {
            seen.push(text.clone());
            None::<()>
        });
        seen
    }

    #[test]
    fn the_most_specific_pattern_comes_first() {
        let all = ["*", "*.com", "?.b.com", "*.b.com", "a.b.com", "*.a.b.com"];
        assert_eq!(order(&all, "a.b.com"), ["a.b.com", "?.b.com", "*.b.com", "*.com", "*"]);
        assert_eq!(order(&all, "x.y.b.com"), ["*.b.com", "*.com", "*"]);
        assert_eq!(order(&all, "b.com"), ["*.com", "*"]);
        assert_eq!(order(&all, "com"), ["*"]);
        assert_eq!(order(&all, ".com"), ["*"]);
        assert_eq!(order(&all, ""), ["*"]);
    }

    #[test]
    fn covering_means_no_host_is_left_out() {
        let cases = [
            ("*", "*.a", true),
            ("*.a", "*", false),
            ("*.a", "b.a", true),
            ("*.a", "c.b.a", true),
            ("?.a", "b.a", true),
            ("?.a", "c.b.a", false),
            ("*.a", "a", false),
            ("*.a", "xa", false),
            ("*.a", "*.b.a", true),
            ("*.b.a", "*.a", false),
            ("*.a", "?.a", true),
            ("?.a", "*.a", false),
            ("b.a", "b.a", true),
            ("b.a", "*.a", false),
        ];
        for (wide, narrow, expected) in cases {
            assert_eq!(pattern(wide).covers(&pattern(narrow)), expected, "{wide} covers {narrow}");
        }
    }
}
