//! HTTP dates (RFC 9110 section 5.6.7), read as strictly as their grammar but for letter case.
//!
//! Recipients must accept three forms. Everything else is no date: one-digit hours, two-digit
//! years in the preferred form, zones other than GMT. For `Expires` that means "already expired".

use std::time::{Duration, SystemTime};

/// Reads a date. `now` decides the century of the obsolete form with two-digit years: what would
/// lie more than 50 years ahead is past.
pub(super) fn parse(text: &[u8], now: SystemTime) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?;
    let (year, month, day, time) = match text.split_once(", ") {
        Some((weekday, rest)) if weekday.len() == 3 => preferred(weekday, rest)?,
        Some((weekday, rest)) => obsolete(weekday, rest, now)?,
        None => asctime(text)?,
    };
    let days = days_since_1970(year, month, day)?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + time))
}

type Parts = (u64, u64, u64, u64);

/// `Sun, 06 Nov 1994 08:49:37 GMT`, after the comma.
fn preferred(weekday: &str, rest: &str) -> Option<Parts> {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    position(&DAYS, weekday)?;
    let [day, month, year, time, zone] = fields(rest)?;
    gmt(zone)?;
    Some((number(year, 4)?, month_number(month)?, number(day, 2)?, time_of_day(time)?))
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`, after the comma.
fn obsolete(weekday: &str, rest: &str, now: SystemTime) -> Option<Parts> {
    const DAYS: [&str; 7] =
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    position(&DAYS, weekday)?;
    let [date, time, zone] = fields(rest)?;
    gmt(zone)?;
    let mut parts = date.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let this_year = year_of(now);
    let mut year = this_year - this_year % 100 + number(year, 2)?;
    if year > this_year + 50 {
        year -= 100;
    } else if year + 50 <= this_year {
        year += 100;
    }
    Some((year, month_number(month)?, number(day, 2)?, time_of_day(time)?))
}

/// `Sun Nov  6 08:49:37 1994`.
fn asctime(text: &str) -> Option<Parts> {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    position(&DAYS, text.get(..3)?)?;
    let month = month_number(text.get(4..7)?)?;
    let day = text.get(8..10)?;
    let day = match day.strip_prefix(' ') {
        Some(digit) => number(digit, 1)?,
        None => number(day, 2)?,
    };
    let blanks = [3, 7, 10, 19].iter().all(|at| text.as_bytes().get(*at) == Some(&b' '));
    if !blanks || text.len() != 24 {
        return None;
    }
    Some((number(text.get(20..)?, 4)?, month, day, time_of_day(text.get(11..19)?)?))
}

/// Exactly `N` words with one blank between.
fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut words = text.split(' ');
    let mut out = [""; N];
    for slot in &mut out {
        *slot = words.next()?;
    }
    if words.next().is_none() { Some(out) } else { None }
}

fn position(names: &[&str], name: &str) -> Option<u64> {
    let at = names.iter().position(|known| known.eq_ignore_ascii_case(name))?;
    Some(at as u64)
}

fn month_number(name: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    position(&MONTHS, name).map(|at| at + 1)
}

fn gmt(zone: &str) -> Option<()> {
    zone.eq_ignore_ascii_case("GMT").then_some(())
}

/// Exactly `digits` decimal digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Seconds since midnight; a leap second counts as the one before.
fn time_of_day(text: &str) -> Option<u64> {
    let mut parts = text.split(':');
    let hour = number(parts.next()?, 2)?;
    let minute = number(parts.next()?, 2)?;
    let second = number(parts.next()?, 2)?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(hour * 3600 + minute * 60 + second.min(59))
}

/// Days since 1970 by the Gregorian calendar; `None` before, and for days that do not exist.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    const LENGTH: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if year < 1970 {
        return None;
    }
    let index = usize::try_from(month.checked_sub(1)?).ok()?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = LENGTH.get(index)? + u64::from(leap && month == 2);
    if day == 0 || day > length {
        return None;
    }
    let past = year - 1;
    let leaps = past / 4 - past / 100 + past / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let this_year = BEFORE.get(index)? + u64::from(leap && month > 2) + day - 1;
    Some((year - 1970) * 365 + leaps + this_year)
}

/// Year of a moment, near enough for choosing a century.
fn year_of(now: SystemTime) -> u64 {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Mean Gregorian year: off by at most a day at its borders.
    1970 + seconds / 31_556_952
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        parse(text.as_bytes(), now)
            .map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn three_forms_and_nothing_else() {
        let rows = [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("sun, 06 NOV 1994 08:49:37 gmt", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800)),
            ("Thursday, 18-Aug-50 02:01:18 GMT", Some(2_544_400_878)),
            ("Thu, 29 Feb 2023 00:00:00 GMT", None),
            ("Thu, 18 Aug 2050 02:01:18 UTC", None),
            ("Thu, 18 Aug 2050 02:01:18", None),
            ("Thu, 18 Aug 50 02:01:18 GMT", None),
            ("Thu, 18  Aug  2050 02:01:18 GMT", None),
            ("Thu, 18 Aug 2050 02.01.18 GMT", None),
            ("Thu, 18 Aug 2050 2:01:18 GMT", None),
            ("Thu, 18-Aug-2050 02:01:18 GMT", None),
            ("Thu, 8 Aug 2050 02:01:18 GMT", None),
            ("18 Aug 2050 02:01:18 GMT", None),
            ("Thu 18 Aug 2050 02:01:18 GMT", None),
            ("Thu, 18 Aug 2050 24:00:00 GMT", None),
            ("0", None),
            ("-1", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes, SystemTime::UNIX_EPOCH);
        }

        #[test]
        fn what_is_written_is_read_back(at in 0_u64..4_102_444_800) {
            let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
            let text = httpdate::fmt_http_date(moment);
            prop_assert_eq!(parse(text.as_bytes(), moment), Some(moment));
        }
    }
}
