//! Tables for people, and values in them.

use serde_json::Value;

use super::remote::plain;

/// Rows in columns as wide as what stands in them.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut all: Vec<Vec<String>> = vec![head.iter().map(|&name| name.to_owned()).collect()];
    all.extend(rows);
    let widths: Vec<usize> = (0..head.len())
        .map(|at| all.iter().filter_map(|row| row.get(at)).map(|c| c.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    all.iter().map(line).collect()
}

/// A member of a JSON object as text; a dash where there is none.
pub(super) fn member(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => plain(text),
        Some(other) => other.to_string(),
    }
}

/// A number of a JSON object; 0 where there is none.
pub(super) fn number(value: &Value, name: &str) -> f64 {
    value.get(name).and_then(Value::as_f64).unwrap_or(0.0)
}

/// The rows of a list in a JSON object.
pub(super) fn rows<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Bytes as a person reads them: `812 B`, `1.4 MiB`.
pub(super) fn size(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A count as a person reads it: `812`, `1.4 k`.
pub(super) fn amount(count: f64) -> String {
    scaled(count, 1000.0, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    let whole = number < step;
    while number >= step {
        let Some(next) = units.next() else { break };
        (number, unit) = (number / step, next);
    }
    if whole { format!("{number:.0} {unit}") } else { format!("{number:.1} {unit}") }
}

/// Seconds as a person reads them: `4.2 s`, `3 m 20 s`, `-5 s`, `2 d 3 h`.
pub(super) fn seconds(seconds: f64) -> String {
    let sign = if seconds <= -0.5 { "-" } else { "" };
    let whole = seconds.abs().round();
    let parts = |one: f64, big: &str, small: &str| {
        let left = ((whole % one) / (one / if one > 4000.0 { 24.0 } else { 60.0 })).floor();
        format!("{sign}{:.0} {big} {left:.0} {small}", (whole / one).floor())
    };
    match whole {
        _ if whole < 60.0 => format!("{sign}{whole:.0} s"),
        _ if whole < 3600.0 => parts(60.0, "m", "s"),
        _ if whole < 86_400.0 => parts(3600.0, "h", "m"),
        _ => parts(86_400.0, "d", "h"),
    }
}

/// `text` in a query, each byte that could end or change it encoded.
pub(super) fn query_value(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_for_people() {
        for (value, expected) in [
            (size(0.0), "0 B"),
            (size(1023.0), "1023 B"),
            (size(1_468_006.0), "1.4 MiB"),
            (amount(950.0), "950"),
            (amount(12_345.0), "12.3 k"),
            (seconds(4.2), "4 s"),
            (seconds(-5.0), "-5 s"),
            (seconds(200.0), "3 m 20 s"),
            (seconds(7_260.0), "2 h 1 m"),
            (seconds(183_600.0), "2 d 3 h"),
            (query_value("https://a/b?c=d&e#é"), "https://a/b%3Fc%3Dd%26e%23%C3%A9"),
        ] {
            assert_eq!(value, expected);
        }
    }
}
