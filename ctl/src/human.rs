//! Numbers and times as people read them.

use std::time::Duration;

use jiff::Timestamp;

use crate::table::{Cell, Tint};

/// The first four and the last two characters of a digest: `9f3a…c1`.
pub fn short_root(root: &str) -> String {
    let count = root.chars().count();
    if count <= 8 {
        return root.to_owned();
    }
    let tail: String = root.chars().skip(count - 2).collect();
    root.chars().take(4).chain(['…']).chain(tail.chars()).collect()
}

/// Milliseconds: `0.4ms`, `21ms`, `1.3s`.
pub fn millis(ms: f64) -> String {
    match ms {
        ms if ms >= 999.5 => format!("{}s", one_decimal(ms / 1000.0)),
        ms if ms >= 9.95 => format!("{ms:.0}ms"),
        ms => format!("{}ms", one_decimal(ms)),
    }
}

fn one_decimal(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

/// A span in its largest unit that keeps two digits or so, as kubectl's ages: `45s`, `90m`, `22h`, `12d`.
pub fn age(span: Duration) -> String {
    match span.as_secs() {
        secs if secs < 120 => format!("{secs}s"),
        secs if secs < 2 * 3600 => format!("{}m", secs / 60),
        secs if secs < 2 * 86_400 => format!("{}h", secs / 3600),
        secs => format!("{}d", secs / 86_400),
    }
}

/// How long ago `then` is; zero if it lies ahead.
pub fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// What a certificate has left.
pub fn certificate(not_after: Option<Timestamp>, now: Timestamp) -> Cell {
    let Some(not_after) = not_after else { return Cell::new("", Tint::Plain) };
    if not_after <= now {
        return Cell::new("expired", Tint::Bad);
    }
    let left = since(now, not_after);
    let tint = if left < Duration::from_secs(3600) { Tint::Warn } else { Tint::Plain };
    Cell::new(age(left), tint)
}

/// `n/m`, green if whole.
pub fn fraction(part: u32, whole: u32) -> Cell {
    let tint = if part >= whole && whole > 0 { Tint::Good } else { Tint::Warn };
    Cell::new(format!("{part}/{whole}"), tint)
}

/// `1 node`, `3 nodes`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots() {
        assert_eq!(short_root("9f3a00000000c1"), "9f3a…c1");
        assert_eq!(short_root("9f3ac1"), "9f3ac1");
    }

    #[test]
    fn milliseconds() {
        let cases = [(0.42, "0.4ms"), (4.0, "4ms"), (9.97, "10ms"), (21.3, "21ms"), (999.7, "1s"), (1340.0, "1.3s")];
        for (ms, text) in cases {
            assert_eq!(millis(ms), text);
        }
    }

    #[test]
    fn ages() {
        for (secs, text) in [(5, "5s"), (119, "119s"), (150, "2m"), (7200, "2h"), (79_200, "22h"), (200_000, "2d")] {
            assert_eq!(age(Duration::from_secs(secs)), text);
        }
    }

    #[test]
    fn certificates() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let at = |secs: i64| Timestamp::from_second(1_000_000 + secs).ok();
        assert_eq!(certificate(at(79_200), now), Cell::new("22h", Tint::Plain));
        assert_eq!(certificate(at(60), now), Cell::new("60s", Tint::Warn));
        assert_eq!(certificate(at(0), now), Cell::new("expired", Tint::Bad));
        assert_eq!(certificate(None, now), Cell::new("-", Tint::Plain));
    }
}
