//! Durations in the format of GEP-2257: `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.

use std::time::Duration;

/// The value of a duration, or `None` where the text is not one.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) {
            return None;
        }
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        // "ms" before "m": the longest unit wins.
        let (unit, length) = match after.as_bytes() {
            [b'm', b's', ..] => (Duration::from_millis(1), 2),
            [b'h', ..] => (Duration::from_secs(3600), 1),
            [b'm', ..] => (Duration::from_secs(60), 1),
            [b's', ..] => (Duration::from_secs(1), 1),
            _ => return None,
        };
        total += unit * u32::try_from(number).ok()?;
        rest = &after[length..];
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gep_2257() {
        let good = [("0s", 0), ("1h", 3_600_000), ("1m30s", 90_000), ("100ms", 100), ("1h1m1s1ms", 3_661_001)];
        for (text, millis) in good {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "1", "s", "1.5s", "-1s", "1us", "1d", "100000s", "1s1s1s1s1s", "1s ", "1 s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
