//! Policy keys that say what makes the cache key, and lifetimes by status.

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, header};

use crate::semantics::{Keep, KeyPolicy, Names, QueryKey, StatusLifetimes, judge_key_header};

use super::super::error::{Problem, shown};
use super::super::reader::{Entry, Found, Place, Read, Sink, Table};

/// The keys that make a key policy.
pub(super) const KEYS: [&str; 5] =
    ["key_query", "key_headers", "key_cookies", "key_device", "key_languages"];

/// Names of parameters in one list.
const MOST_PARAMETERS: usize = 256;
/// Values in one list of another kind; each is looked for in every request.
const MOST: usize = 32;
/// A lifetime of a 5xx beyond this is warned of.
const LONG_ERROR: Duration = Duration::from_secs(60);

/// Reads the keys over `into`. What comes to the default is `None`, so that the way of a request
/// asks only whether there is anything to do.
pub(super) fn read(table: &mut Table<'_>, into: &mut Option<Box<KeyPolicy>>) {
    let mut policy = into.take().map_or_else(KeyPolicy::default, |policy| *policy);
    table.set("key_query", &mut policy.query);
    if let Some(list) = list::<FieldName>(table, "key_headers", MOST) {
        policy.headers = list.into_iter().map(|name| name.0).collect();
    }
    if let Some(found) = table.optional::<Cookies>("key_cookies") {
        policy.cookies = found.value.0;
    }
    table.set("key_device", &mut policy.device);
    if let Some(list) = list::<Language>(table, "key_languages", MOST) {
        policy.languages = list.into_iter().map(|language| language.0).collect();
    }
    advise(table, &policy);
    *into = (policy != KeyPolicy::default()).then(|| Box::new(policy));
}

/// A list of bounded length in which nothing stands twice.
fn list<T: Read + Named>(table: &mut Table<'_>, key: &'static str, most: usize) -> Option<Vec<T>> {
    let found = table.optional::<Vec<Found<T>>>(key)?;
    Some(distinct(table.sink, found, most))
}

fn distinct<T: Named>(sink: &Sink, list: Found<Vec<Found<T>>>, most: usize) -> Vec<T> {
    if list.value.len() > most {
        let problem = Problem::new(format!("`{}` is too long", list.place.key));
        sink.push(problem.at(list.place.span).help(format!("at most {most} values")));
    }
    let mut seen: HashMap<String, Place> = HashMap::new();
    for found in &list.value {
        if let Some(first) = seen.insert(found.value.name(), found.place.clone()) {
            sink.push(
                Problem::new(format!("`{}` names one thing twice", list.place.key))
                    .at(found.place.span.clone())
                    .label("here again")
                    .other(first.span, "first here")
                    .help("leave one of the two out"),
            );
        }
    }
    list.value.into_iter().map(|found| found.value).collect()
}

/// By what two values of a list are told apart.
trait Named {
    fn name(&self) -> String;
}

/// A field whose values may join the key.
struct FieldName(HeaderName);

impl Read for FieldName {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.parsed("the name of a request field: \"X-Currency\"", |text| {
            let name = HeaderName::try_from(text).map_err(|_not_a_name| {
                "expected the name of a request field: \"X-Currency\"".to_owned()
            })?;
            judge_key_header(&name).map_err(str::to_owned)?;
            Ok(Self(name))
        })
    }
}

impl Named for FieldName {
    fn name(&self) -> String {
        self.0.as_str().to_owned()
    }
}

/// Cookies by name; `None` where all go on.
struct Cookies(Option<Vec<Box<str>>>);

impl Read for Cookies {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        if entry.is_text("untouched") {
            return Some(Self(None));
        }
        let value = entry.list("\"untouched\", or a list of names: [\"currency\"]")?;
        let found = Found { value, place: entry.place.clone() };
        let names: Vec<CookieName> = distinct(entry.sink(), found, MOST);
        Some(Self(Some(names.into_iter().map(|name| name.0).collect())))
    }
}

struct CookieName(Box<str>);

impl Read for CookieName {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.parsed("the name of a cookie: \"currency\"", |text| {
            let fine =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if text.is_empty() || !text.bytes().all(fine) {
                return Err(format!("{} is not the name of a cookie", shown(text)));
            }
            if text.ends_with('*') {
                return Err("each cookie is named in full: \"*\" has no meaning here".to_owned());
            }
            Ok(Self(text.into()))
        })
    }
}

impl Named for CookieName {
    fn name(&self) -> String {
        self.0.to_string()
    }
}

/// A language tag.
struct Language(HeaderValue);

impl Read for Language {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        const EXPECTED: &str = "a language tag: \"en\" or \"pt-BR\"";
        entry.parsed(EXPECTED, |text| {
            let subtag = |part: &str| {
                matches!(part.len(), 1..=8) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
            };
            let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
            let fine = first && text.len() <= 35 && text.split('-').all(subtag);
            let value = HeaderValue::try_from(text).ok().filter(|_| fine);
            value.map(Self).ok_or_else(|| format!("expected {EXPECTED}"))
        })
    }
}

impl Named for Language {
    fn name(&self) -> String {
        String::from_utf8_lossy(self.0.as_bytes()).to_ascii_lowercase()
    }
}

/// The name of a parameter of the query, or the beginning of one and `*`.
struct Parameter(String);

impl Read for Parameter {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        entry.parsed("the name of a parameter: \"id\" or \"utm_*\"", |text| {
            let plain = text.strip_suffix('*').unwrap_or(text);
            if plain.is_empty() {
                return Err("expected the name of a parameter; for each of them write \
                            key_query = \"all\" or \"none\""
                    .to_owned());
            }
            if plain.contains('*') {
                return Err("\"*\" stands at the end only: \"utm_*\"".to_owned());
            }
            let foreign = |byte: u8| !(0x21..=0x7e).contains(&byte) || b"&=#\"<>\\".contains(&byte);
            if plain.bytes().any(foreign) {
                return Err("as it stands in a URL: without \"=\" and \"&\", and what is neither \
                            letter, digit nor sign percent-encoded"
                    .to_owned());
            }
            if has_small_escape(plain) {
                return Err("percent-encoding is written in capitals: \"%C3%A9\"".to_owned());
            }
            Ok(Self(text.to_owned()))
        })
    }
}

impl Named for Parameter {
    fn name(&self) -> String {
        self.0.clone()
    }
}

/// Whether a `%` is not followed by two digits as canonical targets have them.
fn has_small_escape(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'A'..=b'F');
    text.split('%').skip(1).any(|rest| {
        rest.as_bytes().get(..2).is_none_or(|pair| !pair.iter().all(|byte| digit(*byte)))
    })
}

impl Read for QueryKey {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        const EXPECTED: &str =
            "\"all\", \"sorted\", \"none\", { only = [\"id\"] } or { without = [\"utm_*\"] }";
        if let Some(table) = entry.as_table("key_query") {
            return selected(entry, table);
        }
        entry.parsed(EXPECTED, |text| match text {
            "all" => Ok(Self::default()),
            "sorted" => Ok(Self { keep: Keep::All, sorted: true }),
            "none" => Ok(Self { keep: Keep::None, sorted: false }),
            _ => Err(format!("expected {EXPECTED}")),
        })
    }
}

/// `{ only = [..] }` or `{ without = [..] }`, with or without `sorted = true`.
fn selected(entry: &Entry<'_>, mut table: Table<'_>) -> Option<QueryKey> {
    let only = parameters(&mut table, "only", "none", "keep nothing");
    let without = parameters(&mut table, "without", "all", "drop nothing");
    let mut sorted = false;
    table.set("sorted", &mut sorted);
    let both = table.span_of("only").is_some() && table.span_of("without").is_some();
    let neither = table.span_of("only").is_none() && table.span_of("without").is_none();
    table.finish();
    if both || neither {
        let what = if both { "both `only` and" } else { "neither `only` nor" };
        let message = format!("`{}` says {what} `without`", entry.place.key);
        let help = "`only` names the parameters that are kept, `without` those that are dropped";
        entry.report(message, "one of the two", help);
        return None;
    }
    let keep = only.map(Keep::Only).or(without.map(Keep::Without))?;
    Some(QueryKey { keep, sorted })
}

fn parameters(table: &mut Table<'_>, key: &'static str, word: &str, what: &str) -> Option<Names> {
    let place = Place { key: key.to_owned(), span: table.span_of(key) };
    let list = list::<Parameter>(table, key, MOST_PARAMETERS)?;
    if table.array_is_empty(key) {
        let problem = Problem::new(format!("`{key}` is empty")).at(place.span);
        table.sink.push(problem.help(format!("to {what} write key_query = \"{word}\"")));
    }
    Some(Names::new(list.iter().map(|parameter| parameter.0.as_str())))
}

impl Read for StatusLifetimes {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let mut lifetimes = Self::default();
        for (status, value) in entry.pairs("a table: { \"404\" = \"1m\", \"5xx\" = \"0s\" }")? {
            let Some(lifetime) = Duration::read(&value) else { continue };
            match covered(status.value) {
                Ok(Covered::Status(number)) => lifetimes.set_status(number, lifetime),
                Ok(Covered::Class(number)) => lifetimes.set_class(number, lifetime),
                Err(help) => entry.sink().push(
                    Problem::new(format!("`{}` can have no lifetime", status.place.key))
                        .at(status.place.span)
                        .help(help),
                ),
            }
            if status.value.starts_with('5') && lifetime > LONG_ERROR {
                let what = format!("`{}` stays for more than a minute", status.place.key);
                let help = "what the origin fails at once, all visitors are told for that long";
                entry.sink().push(Problem::new(what).warning().at(value.place.span).help(help));
            }
        }
        Some(lifetimes)
    }
}

/// What a key of `status_lifetime` stands for.
enum Covered {
    Status(u16),
    /// First digit.
    Class(u16),
}

fn covered(text: &str) -> Result<Covered, String> {
    const EXPECTED: &str = "expected a status from 200 to 599, or a class: \"404\", \"5xx\"";
    match text {
        "2xx" => return Ok(Covered::Class(2)),
        "3xx" => return Ok(Covered::Class(3)),
        "4xx" => return Ok(Covered::Class(4)),
        "5xx" => return Ok(Covered::Class(5)),
        _ => {}
    }
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let status = text.parse::<u16>().ok().filter(|status| digits && (200..600).contains(status));
    match status {
        None => Err(EXPECTED.to_owned()),
        Some(status) if StatusLifetimes::NEVER.contains(&status) => Err(format!(
            "{status} belongs to one client's range or condition, or must not be stored (RFC 6585)"
        )),
        Some(status) => Ok(Covered::Status(status)),
    }
}

/// Fields in the key that make a key for nearly every client, or no difference.
fn advise(table: &Table<'_>, policy: &KeyPolicy) {
    let rows = [
        (header::USER_AGENT, policy.device, "key_device"),
        (header::ACCEPT_LANGUAGE, !policy.languages.is_empty(), "key_languages"),
    ];
    let Some(span) = table.span_of("key_headers") else { return };
    for (name, classed, class) in rows {
        if !policy.headers.contains(&name) {
            continue;
        }
        let (what, help) = if classed {
            ("makes no difference here", format!("`{class}` puts its class into the key"))
        } else {
            ("is another for nearly every client", format!("`{class}` makes a few classes of it"))
        };
        let problem = Problem::new(format!("`{name}` in `key_headers` {what}"));
        table.sink.push(problem.warning().at(Some(span.clone())).help(help));
    }
}
