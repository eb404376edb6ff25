//! What would be done with a request and why, as a value that tells itself in two ways: whole, as
//! JSON for the admin API, and in one bounded line for the field `Atoll-Explain`.
//!
//! An explanation is a row of sections, a section one or several rows of facts, a fact a name and
//! a value. Whoever adds something that a decision rests on adds a fact; nothing else has to know
//! it. Names end in their unit where the value has one.

use std::fmt::Write as _;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::semantics::sfv_string;

/// Bytes of a text from elsewhere that are shown in the line.
const LINE_TEXT_BYTES: usize = 160;
/// Bytes of a text from elsewhere that are shown elsewhere.
const TEXT_BYTES: usize = 2048;

/// What would be done with a request and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explanation {
    /// In the order in which a person reads them.
    pub sections: Vec<Section>,
}

/// Facts about one thing, or about each of several.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// What is known.
    pub content: Content,
}

/// What a section holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Facts about one thing.
    One(Facts),
    /// Facts about each of several; there may be none.
    Several(Vec<Facts>),
}

/// Names and values, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts(Vec<(&'static str, Value)>);

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One of our own words.
    Word(&'static str),
    /// Text from elsewhere, or a sentence.
    Text(String),
    /// A count or a number of bytes.
    Count(u64),
    /// A whole number that may be negative.
    Whole(i64),
    /// A time, told in seconds.
    Time(Duration),
    /// A share of one.
    Share(f64),
    /// Yes or no.
    Flag(bool),
}

impl Facts {
    /// No facts yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// Adds a fact that is known in some cases only.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds a fact where it is so.
    #[must_use]
    pub fn with_flag(self, name: &'static str, is_so: bool) -> Self {
        self.with_some(name, is_so.then_some(true))
    }

    /// The value of a fact.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }
}

impl Explanation {
    /// Adds a section about one thing.
    pub fn add(&mut self, name: &'static str, facts: Facts) {
        self.sections.push(Section { name, content: Content::One(facts) });
    }

    /// Adds a section about several.
    pub fn add_all(&mut self, name: &'static str, rows: Vec<Facts>) {
        self.sections.push(Section { name, content: Content::Several(rows) });
    }

    /// The value of a fact of a section about one thing.
    #[must_use]
    pub fn value(&self, section: &str, name: &str) -> Option<&Value> {
        let section = self.sections.iter().find(|other| other.name == section)?;
        match &section.content {
            Content::One(facts) => facts.value(name),
            Content::Several(_) => None,
        }
    }

    /// The essence as a member of a structured field's list (RFC 9651 section 3.1), as
    /// `Cache-Status` is written: `atoll; decision=hit; reason=fresh; site="main"; rule="/"`.
    #[must_use]
    pub fn line(&self) -> String {
        let mut out = String::with_capacity(256);
        out.push_str("atoll");
        for (parameter, section, name) in LINE {
            if let Some(value) = self.value(section, name) {
                let _ = write!(out, "; {parameter}");
                value.write_parameter(&mut out);
            }
        }
        out
    }
}

/// Facts that stand in the line: parameter, section, name. Each text is cut, so that the whole
/// stays far below what a head may hold.
const LINE: [(&str, &str, &str); 18] = [
    ("decision", "decision", "decision"),
    ("reason", "decision", "reason"),
    ("fwd", "decision", "forward"),
    ("outcome", "decision", "outcome"),
    ("site", "site", "name"),
    ("rule", "site", "rule"),
    ("key", "key", "url"),
    ("source", "freshness", "source"),
    ("lifetime", "freshness", "lifetime_seconds"),
    ("fresh-for", "freshness", "fresh_for_seconds"),
    ("age", "freshness", "age_seconds"),
    ("ttl", "freshness", "ttl_seconds"),
    ("state", "purging", "state"),
    ("born", "purging", "born"),
    ("epoch", "purging", "epoch"),
    ("lease", "purging", "lease"),
    ("uncacheable", "uncacheable", "reason"),
    ("fill", "fill", "number"),
];

impl Value {
    /// The value of a parameter with its `=` (RFC 9651 section 3.1.2).
    fn write_parameter(&self, out: &mut String) {
        let _ = match self {
            Self::Word(word) => write!(out, "={word}"),
            Self::Text(text) => {
                out.push('=');
                sfv_string(cut(text, LINE_TEXT_BYTES), out);
                Ok(())
            }
            // Integers of structured fields have 15 digits at most.
            Self::Count(count) => write!(out, "={}", (*count).min(999_999_999_999_999)),
            Self::Whole(whole) => {
                write!(out, "={}", (*whole).clamp(-999_999_999_999_999, 999_999_999_999_999))
            }
            Self::Time(time) => match time.subsec_millis() {
                0 => write!(out, "={}", time.as_secs().min(999_999_999_999_999)),
                millis => {
                    write!(out, "={}.{millis:03}", time.as_secs().min(999_999_999_999))
                }
            },
            Self::Share(share) => write!(out, "={share:.3}"),
            Self::Flag(is_so) => write!(out, "=?{}", u8::from(*is_so)),
        };
    }
}

/// The beginning of a text, at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        match text.len() > TEXT_BYTES {
            true => Self::Text(format!("{}...", cut(&text, TEXT_BYTES))),
            false => Self::Text(text),
        }
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<i64> for Value {
    fn from(whole: i64) -> Self {
        Self::Whole(whole)
    }
}

impl From<Duration> for Value {
    fn from(time: Duration) -> Self {
        Self::Time(time)
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Self::Flag(is_so)
    }
}

impl Serialize for Explanation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.sections.len()))?;
        for section in &self.sections {
            match &section.content {
                Content::One(facts) => map.serialize_entry(section.name, facts)?,
                Content::Several(rows) => map.serialize_entry(section.name, rows)?,
            }
        }
        map.end()
    }
}

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Word(word) => serializer.serialize_str(word),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Whole(whole) => serializer.serialize_i64(*whole),
            Self::Time(time) => serializer.serialize_f64((time.as_secs_f64() * 1e3).round() / 1e3),
            Self::Share(share) => serializer.serialize_f64((share * 1e4).round() / 1e4),
            Self::Flag(is_so) => serializer.serialize_bool(*is_so),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Explanation {
        let mut sample = Explanation::default();
        sample.add("decision", Facts::new().with("decision", "hit").with("forward", "stale"));
        sample.add("site", Facts::new().with("name", "a \"b\"\\".to_owned()));
        let times = Facts::new()
            .with("lifetime_seconds", Duration::from_secs(60))
            .with("fresh_for_seconds", Duration::from_millis(57_250))
            .with("ttl_seconds", -3_i64);
        sample.add("freshness", times);
        sample.add_all("stored", vec![Facts::new().with("body_bytes", 5_u64)]);
        sample.add("purging", Facts::new().with("lease", true).with_some("born", None::<u64>));
        sample
    }

    #[test]
    fn the_line_is_a_structured_field_and_json_has_everything() {
        let line = "atoll; decision=hit; fwd=stale; site=\"a \\\"b\\\"\\\\\"; lifetime=60; \
                    fresh-for=57.250; ttl=-3; lease=?1";
        assert_eq!(sample().line(), line);
        let expected = serde_json::json!({
            "decision": {"decision": "hit", "forward": "stale"},
            "site": {"name": "a \"b\"\\"},
            "freshness": {"lifetime_seconds": 60.0, "fresh_for_seconds": 57.25, "ttl_seconds": -3},
            "stored": [{"body_bytes": 5}],
            "purging": {"lease": true},
        });
        assert_eq!(serde_json::to_value(sample()).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn whatever_the_texts_are_the_line_is_a_short_field_value(
            site in "\\PC{0,400}", url in "\\PC{0,4000}", count: u64, whole: i64, nanos: u64,
        ) {
            let mut sample = Explanation::default();
            sample.add("site", Facts::new().with("name", site.clone()).with("rule", site));
            sample.add("key", Facts::new().with("url", url));
            sample.add("purging", Facts::new().with("born", count));
            let time = Duration::from_nanos(nanos);
            let times = Facts::new().with("ttl_seconds", whole).with("age_seconds", time);
            sample.add("freshness", times);
            let line = sample.line();
            prop_assert!(line.len() < 2048);
            prop_assert!(http::HeaderValue::try_from(&line).is_ok());
            prop_assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        }
    }
}
