//! `request_headers` and `response_headers`.

use http::header::{HeaderName, HeaderValue};

use crate::semantics::{Edit, FieldEdits, judge_request_edit, judge_response_edit};

use super::super::super::error::{Problem, shown};
use super::super::super::reader::{Entry, Found, Read, Table};

/// Fields of one table.
const MOST: usize = 64;

const EXPECTED: &str = "a table: { set = { X-Name = \"value\" }, remove = [\"X-Other\"] }";

type Judge = fn(&HeaderName, Edit) -> Result<(), &'static str>;

pub(super) fn read_request(table: &mut Table<'_>, into: &mut FieldEdits) {
    if let Some(found) = table.optional::<Edits<true>>("request_headers") {
        *into = found.value.0;
    }
}

pub(super) fn read_response(table: &mut Table<'_>, into: &mut FieldEdits) {
    if let Some(found) = table.optional::<Edits<false>>("response_headers") {
        *into = found.value.0;
    }
}

/// What is done to the fields of a request, or else of an answer.
struct Edits<const REQUEST: bool>(FieldEdits);

impl<const REQUEST: bool> Read for Edits<REQUEST> {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let judge: Judge = if REQUEST { judge_request_edit } else { judge_response_edit };
        let mut edits = FieldEdits::default();
        let mut known = true;
        for (key, value) in entry.pairs(EXPECTED)? {
            match key.value {
                "set" => edits.set = pairs(&value, Edit::Set, judge),
                "append" => edits.append = pairs(&value, Edit::Append, judge),
                "remove" => edits.remove = names(&value, judge),
                _ => {
                    known = false;
                    let message =
                        format!("unknown key {} in `{}`", shown(key.value), entry.place.key);
                    let problem = Problem::new(message).at(key.place.span).label("unknown key");
                    entry.sink().push(problem.help("allowed keys: append, remove, set"));
                }
            }
        }
        let count = edits.set.len() + edits.append.len() + edits.remove.len();
        if count > MOST {
            entry.report(
                format!("`{}` is too long", entry.place.key),
                "too long",
                format!("at most {MOST} fields"),
            );
        }
        known.then_some(Self(edits))
    }
}

/// A field that a rule may do this to; reports why not.
fn name(found: &Found<&str>, entry: &Entry<'_>, edit: Edit, judge: Judge) -> Option<HeaderName> {
    let problem = |what: String| Problem::new(what).at(found.place.span.clone());
    let Ok(name) = HeaderName::try_from(found.value) else {
        let what = format!("{} is not the name of a field", shown(found.value));
        entry.sink().push(problem(what).help("for example \"X-Name\""));
        return None;
    };
    if let Err(why) = judge(&name, edit) {
        let act = match edit {
            Edit::Set => "set",
            Edit::Append => "appended to",
            Edit::Remove => "removed",
        };
        entry
            .sink()
            .push(problem(format!("the field {} cannot be {act}", shown(found.value))).help(why));
        return None;
    }
    Some(name)
}

fn pairs(entry: &Entry<'_>, edit: Edit, judge: Judge) -> Vec<(HeaderName, HeaderValue)> {
    let Some(pairs) = entry.pairs("a table: { X-Name = \"value\" }") else { return Vec::new() };
    let pair = |(key, value): (Found<&str>, Entry<'_>)| {
        let name = name(&key, entry, edit, judge);
        let value = value.parsed("the value of a field in quotes", |text| {
            let fine =
                text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) && text.trim() == text;
            let value = HeaderValue::try_from(text).ok().filter(|_| fine);
            value.ok_or_else(|| "a value has printable ASCII, and no blanks around it".to_owned())
        });
        let (name, mut value) = (name?, value?);
        let secret = ["auth", "cookie", "token", "secret", "key"];
        value.set_sensitive(secret.iter().any(|part| name.as_str().contains(part)));
        Some((name, value))
    };
    pairs.into_iter().filter_map(pair).collect()
}

fn names(entry: &Entry<'_>, judge: Judge) -> Vec<HeaderName> {
    let Some(list) = entry.list::<String>("a list of names: [\"X-Name\"]") else {
        return Vec::new();
    };
    let name = |found: Found<String>| {
        let Found { value, place } = found;
        name(&Found { value: &*value, place }, entry, Edit::Remove, judge)
    };
    list.into_iter().filter_map(name).collect()
}
