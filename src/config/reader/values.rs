//! The types that one value of a file can be, and how each is read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use toml::de::DeValue;

use super::super::error::shown;
use super::super::names::parse_address;
use super::super::units::{parse_duration, parse_percent, parse_size};
use super::{Entry, Found, Read};

/// A whole number that is not negative.
pub(in crate::config) struct Number(pub(in crate::config) u64);

/// A size in bytes.
pub(in crate::config) struct Size(pub(in crate::config) u64);

/// A share in percent.
pub(in crate::config) struct Percent(pub(in crate::config) u32);

/// A time, or `"none"`.
pub(in crate::config) struct MaybeTime(pub(in crate::config) Option<Duration>);

/// A size in bytes, or `"none"`.
pub(in crate::config) struct MaybeSize(pub(in crate::config) Option<u64>);

impl Read for Number {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let Some(integer) = entry.value.as_integer() else {
            entry.wrong_type("a whole number");
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix());
        if number.is_err() {
            entry.invalid("expected a whole number from 0 to 18446744073709551615");
        }
        number.ok().map(Self)
    }
}

impl Read for Size {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        if entry.value.is_integer() {
            return Number::read(entry).map(|number| Self(number.0));
        }
        entry.parsed("a size: \"64KiB\" or a number of bytes", parse_size).map(Self)
    }
}

impl Read for Percent {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let percent = if entry.value.is_integer() {
            u32::try_from(Number::read(entry)?.0).unwrap_or(u32::MAX)
        } else {
            entry.parsed("a share: \"10%\" or a number of percent", parse_percent)?
        };
        if percent > 100 {
            entry.invalid("a share is at most 100%");
        }
        (percent <= 100).then_some(Self(percent))
    }
}

impl Read for Duration {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        if let Some(integer) = entry.value.as_integer() {
            let number = shown(integer.as_str());
            let number = number.trim_matches('"');
            entry.wrong_type(&format!("a time with its unit: \"{number}s\" or \"{number}ms\""));
            return None;
        }
        entry.parsed("a time such as \"30s\"", parse_duration)
    }
}

impl Read for MaybeTime {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        if entry.value.as_str() == Some("none") {
            return Some(Self(None));
        }
        Duration::read(entry).map(|time| Self(Some(time)))
    }
}

impl Read for MaybeSize {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        if entry.value.as_str() == Some("none") {
            return Some(Self(None));
        }
        Size::read(entry).map(|size| Self(Some(size.0)))
    }
}

impl Read for bool {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let value = entry.value.as_bool();
        if value.is_none() {
            entry.wrong_type("true or false");
        }
        value
    }
}

impl Read for f64 {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let text = match entry.value {
            DeValue::Float(float) => Some(float.as_str()),
            DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str()),
            _ => None,
        };
        let value = text.and_then(|text| text.parse().ok());
        if value.is_none() {
            entry.wrong_type("a number such as 1.0");
        }
        value
    }
}

impl Read for String {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.text("a text in quotes").map(str::to_owned)
    }
}

impl Read for PathBuf {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.parsed("the path of a file in quotes", |text| {
            if text.is_empty() || text.contains('\0') {
                return Err("expected the path of a file".to_owned());
            }
            Ok(Self::from(text))
        })
    }
}

impl Read for SocketAddr {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.parsed("an address with a port: \"0.0.0.0:443\"", parse_address)
    }
}

impl Read for IpNet {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.parsed("a network: \"10.0.0.0/8\"", |text| {
            let address = || text.parse::<std::net::IpAddr>().ok().map(Self::from);
            text.parse::<Self>().ok().or_else(address).map(|net| net.trunc()).ok_or_else(|| {
                "expected a network or an address: \"10.0.0.0/8\", \"2001:db8::/32\"".to_owned()
            })
        })
    }
}

impl Read for Method {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.parsed("a method: \"GET\"", |text| {
            if ["CONNECT", "TRACE", "TRACK", "PRI"].contains(&text) {
                return Err(format!("{text} is never forwarded"));
            }
            let upper = !text.is_empty() && !text.bytes().any(|b| b.is_ascii_lowercase());
            Self::from_bytes(text.as_bytes())
                .ok()
                .filter(|_| upper)
                .ok_or_else(|| "methods are written in capitals: \"GET\"".to_owned())
        })
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let items: Vec<Found<T>> = Read::read(entry)?;
        Some(items.into_iter().map(|item| item.value).collect())
    }
}

/// A list with the place of each of its values; those that are wrong are left out.
impl<T: Read> Read for Vec<Found<T>> {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let Some(array) = entry.value.as_array() else {
            entry.wrong_type("a list: [\"...\", \"...\"]");
            return None;
        };
        let items = entry.items(array);
        Some(
            items
                .filter_map(|item| T::read(&item).map(|value| Found { value, place: item.place }))
                .collect(),
        )
    }
}
