//! Times, sizes and shares as people write them: `30s`, `1h30m`, `64KiB`, `10%`.
//!
//! A bare number is a size in bytes but never a time: `timeout = 30` has been read as seconds by
//! one half of the world and as milliseconds by the other.

use std::time::Duration;

/// Longest time that can be written: HTTP's own bound for ages (RFC 9111 section 1.2.2).
const LONGEST: Duration = Duration::from_secs(1 << 31);

/// Units of time in milliseconds, from large to small.
const TIMES: [(&str, u64); 6] = [
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of size in bytes, from large to small.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a time such as `250ms`, `30s` or `1h30m`.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const FORM: &str =
        "a time is a number with a unit: \"250ms\", \"30s\", \"5m\", \"1h30m\", \"1d\"";
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(FORM.to_owned());
    }
    let mut total: u64 = 0;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(|| FORM.to_owned())?;
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() {
            return Err(format!("a time needs a unit: \"{number}s\" or \"{number}ms\""));
        }
        let (_, millis) = TIMES
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| "the units of time are ms, s, m, h, d and w".to_owned())?;
        if *millis >= smallest {
            return Err("the parts of a time go from large to small: \"1h30m\"".to_owned());
        }
        smallest = *millis;
        total = number
            .checked_mul(*millis)
            .and_then(|part| total.checked_add(part))
            .filter(|total| Duration::from_millis(*total) <= LONGEST)
            .ok_or_else(|| "the longest time is 2147483648s (68 years)".to_owned())?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Reads a size such as `64KiB`, `1GB` or `1500` into bytes.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const FORM: &str = "a size is a number of bytes, with or without a unit: \"512\", \"64KiB\", \"1GiB\", \"1GB\"";
    let (number, unit) = leading_number(text.trim()).ok_or_else(|| FORM.to_owned())?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Ok(number);
    }
    let (_, bytes) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(
        || match SIZES.iter().find(|(name, _)| {
            name.len() == 3 && name.get(..1).is_some_and(|letter| letter.eq_ignore_ascii_case(unit))
        }) {
            Some((name, _)) => {
                let letter = name.get(..1).unwrap_or_default();
                format!("write \"{number}{name}\" (1024s) or \"{number}{letter}B\" (1000s)")
            }
            None => "the units of size are B, KB, MB, GB, TB and KiB, MiB, GiB, TiB".to_owned(),
        },
    )?;
    number
        .checked_mul(*bytes)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| "the largest size is 8388607TiB".to_owned())
}

/// Reads a share such as `10%` into percent.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn parse_percent(text: &str) -> Result<u32, String> {
    text.trim()
        .strip_suffix('%')
        .map(str::trim_end)
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| "a share is a whole number of percent: \"10%\"".to_owned())
}

/// The shortest exact form that [`parse_duration`] reads back.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (name, unit) in TIMES.iter().filter(|(name, _)| *name != "w") {
        if millis / unit > 0 {
            out.push_str(&format!("{}{name}", millis / unit));
            millis %= unit;
        }
    }
    out
}

/// The shortest exact form in powers of 1024 that [`parse_size`] reads back.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let exact = SIZES
        .iter()
        .filter(|(name, _)| name.len() == 3)
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match exact {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// Digits at the beginning as a number, and what follows.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    number.parse().ok().map(|number| (number, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_written() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("2w", 1_209_600_000),
            (" 1m30s500ms ", 90_500),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn wrong_times_say_what_is_right() {
        for (text, expected) in [
            ("", "a number with a unit"),
            ("30", "\"30s\" or \"30ms\""),
            ("s", "a number with a unit"),
            ("-1s", "a number with a unit"),
            ("1.5s", "needs a unit"),
            ("30 s", "needs a unit"),
            ("1y", "the units of time"),
            ("1S", "the units of time"),
            ("1s1m", "from large to small"),
            ("1s1s", "from large to small"),
            ("99999999999999999s", "the longest time"),
            ("1000000w1d", "the longest time"),
            ("99999999999999999999999s", "a number with a unit"),
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_read_as_written() {
        for (text, bytes) in [
            ("0", 0),
            ("1500", 1500),
            ("1B", 1),
            ("64KiB", 65_536),
            ("64 kib", 65_536),
            ("1GB", 1_000_000_000),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_say_what_is_right() {
        for (text, expected) in [
            ("", "a number of bytes"),
            ("lots", "a number of bytes"),
            ("-1", "a number of bytes"),
            ("1.5GiB", "the units of size"),
            ("64k", "\"64KiB\" (1024s) or \"64KB\" (1000s)"),
            ("1 G", "\"1GiB\" (1024s) or \"1GB\" (1000s)"),
            ("1PiB", "the units of size"),
            ("99999999TiB", "the largest size"),
        ] {
            let error = parse_size(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn shares_are_whole_percents() {
        assert_eq!(parse_percent("10%"), Ok(10));
        assert_eq!(parse_percent(" 0 % "), Ok(0));
        for text in ["", "%", "10", "+1%", "1.5%", "99999999999%"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_formatted_is_read_back(millis in 0..LONGEST.as_secs() * 1000, bytes in 0..i64::MAX as u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            let _ = (parse_duration(&text), parse_size(&text), parse_percent(&text));
        }
    }
}
