//! The tests as data; `README.md` of the published set describes every field.

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(crate) struct Category {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) tests: Vec<Test>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Test {
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) kind: Kind,
    pub(crate) requests: Vec<Exchange>,
    #[serde(default)]
    pub(crate) depends_on: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    #[default]
    Required,
    Optimal,
    Check,
}

/// One exchange: what the client sends, what the origin answers, what must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Exchange {
    pub(crate) request_method: Option<String>,
    pub(crate) request_headers: Vec<(String, Value)>,
    pub(crate) request_body: Option<String>,
    pub(crate) filename: Option<String>,
    pub(crate) query_arg: Option<String>,
    pub(crate) magic_ims: bool,
    pub(crate) pause_after: bool,
    pub(crate) response_status: Option<(u16, String)>,
    pub(crate) response_headers: Vec<Vec<Value>>,
    pub(crate) response_body: Option<String>,
    pub(crate) response_pause: Option<f64>,
    pub(crate) disconnect: bool,
    pub(crate) interim_responses: Vec<Vec<Value>>,
    pub(crate) magic_locations: bool,
    pub(crate) rfc850date: Vec<String>,
    pub(crate) expected_type: Option<String>,
    #[serde(deserialize_with = "present")]
    pub(crate) expected_status: Option<Value>,
    pub(crate) expected_response_headers: Vec<Value>,
    pub(crate) expected_response_headers_missing: Vec<Value>,
    #[serde(deserialize_with = "present")]
    pub(crate) expected_response_text: Option<Value>,
    pub(crate) check_body: Option<bool>,
    pub(crate) expected_interim_responses: Option<Vec<Vec<Value>>>,
    pub(crate) expected_method: Option<String>,
    pub(crate) expected_request_headers: Vec<Value>,
    pub(crate) expected_request_headers_missing: Vec<Value>,
    pub(crate) setup: bool,
    pub(crate) setup_tests: Vec<String>,
}

impl Exchange {
    pub(crate) fn method(&self) -> &str {
        self.request_method.as_deref().unwrap_or("GET")
    }

    pub(crate) fn is(&self, expected: &str) -> bool {
        self.expected_type.as_deref() == Some(expected)
    }

    /// Whether a failure of this check means that the test could not be set up.
    pub(crate) fn sets_up(&self, check: &str) -> bool {
        self.setup || self.setup_tests.iter().any(|name| name == check)
    }
}

/// Tells a `null` from an absent field.
fn present<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(input).map(Some)
}

/// The fields that hold dates where their value is a number.
const DATES: [&str; 5] =
    ["date", "expires", "last-modified", "if-modified-since", "if-unmodified-since"];

/// A field value, with offsets turned into dates from `now`, milliseconds since 1970.
pub(crate) fn value(name: &str, value: &Value, now: i64, rfc850: &[String]) -> String {
    let name = name.to_ascii_lowercase();
    match value {
        Value::Number(number) if DATES.contains(&name.as_str()) => {
            let offset = number.as_f64().unwrap_or(0.0);
            date(now, offset, rfc850.contains(&name))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `now` plus `offset` seconds as an HTTP date.
pub(crate) fn date(now: i64, offset: f64, rfc850: bool) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "test data is small")]
    let seconds = (now + (offset * 1000.0) as i64).div_euclid(1000);
    let time = std::time::UNIX_EPOCH
        + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let fixed = httpdate::fmt_http_date(time);
    if rfc850 { to_rfc850(&fixed) } else { fixed }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as `Sunday, 06-Nov-94 08:49:37 GMT`.
fn to_rfc850(fixed: &str) -> String {
    const DAYS: [&str; 7] =
        ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    let words: Vec<&str> = fixed.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let [day, date, month, year, time, _] = words[..] else { return fixed.to_owned() };
    let day = DAYS.iter().find(|name| name.starts_with(day)).unwrap_or(&day);
    format!("{day}, {date}-{month}-{} {time} GMT", &year[2..])
}
