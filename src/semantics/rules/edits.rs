//! Fields that a rule sets, appends and removes.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::semantics::keyed::same_variable;
use crate::semantics::normalise::{is_unwanted, singleton};

/// What is done to fields: removed first, then set, then appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Fields that get this value and lose every other.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Further lines.
    pub append: Vec<(HeaderName, HeaderValue)>,
    /// Fields that go.
    pub remove: Vec<HeaderName>,
}

/// One of the things that can be done to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Gets one value.
    Set,
    /// Gets a further line.
    Append,
    /// Goes.
    Remove,
}

impl FieldEdits {
    /// Whether nothing is done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.append.is_empty() && self.remove.is_empty()
    }

    fn replaced(&self) -> impl Iterator<Item = &HeaderName> {
        self.remove.iter().chain(self.set.iter().map(|(name, _)| name))
    }

    /// Removes what clients may not say: also under names that CGI and its kind read as the same.
    pub(super) fn take_out(&self, headers: &mut HeaderMap) {
        for name in self.replaced() {
            headers.remove(name);
            while let Some(alike) = headers.keys().find(|key| same_variable(key, name)).cloned() {
                headers.remove(alike);
            }
        }
    }

    /// Whether nothing of a field is left of what a client said.
    #[must_use]
    pub fn settles(&self, name: &HeaderName) -> bool {
        self.replaced().any(|own| same_variable(own, name))
    }

    /// Writes the fields of the rule into a request that its fields were taken out of.
    pub fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.append {
            headers.append(name, value.clone());
        }
    }

    /// Changes the fields of an answer. What tells caches how long and for whom to keep it is left
    /// alone where that is `settled`: it is one client's, or an answer of our own.
    pub fn apply(&self, headers: &mut HeaderMap, settled: bool) {
        let may = |name: &HeaderName| !(settled && rules_caches(name));
        for name in self.remove.iter().filter(|name| may(name)) {
            headers.remove(name);
        }
        for (name, value) in self.set.iter().filter(|(name, _)| may(name)) {
            headers.insert(name, value.clone());
        }
        for (name, value) in self.append.iter().filter(|(name, _)| may(name)) {
            headers.append(name, value.clone());
        }
    }
}

/// Whether a response field tells caches whether, how long and for whom they may keep it.
fn rules_caches(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "expires" | "pragma" | "surrogate-control") || name.ends_with("cache-control")
}

/// Whether a rule may do this to a field of a request.
///
/// # Errors
/// What speaks against it.
pub fn judge_request_edit(name: &HeaderName, edit: Edit) -> Result<(), &'static str> {
    let text = name.as_str();
    match text {
        "host" => return Err("the key `host` says which Host the origin sees"),
        "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "forwarded" => {
            return Err("the key `forwarded` says which of these fields the origin gets");
        }
        "via" | "cdn-loop" | "x-request-id" => return Err("the edge writes it itself"),
        "accept-encoding" => {
            return Err(
                "answers in a coding that the client did not ask for could not be undone: \
                        switch coding off at the origin, and on here with `compress`",
            );
        }
        "range"
        | "if-range"
        | "if-match"
        | "if-none-match"
        | "if-modified-since"
        | "if-unmodified-since" => {
            return Err(
                "conditions and ranges are judged by the edge, which asks in its own words",
            );
        }
        _ => {}
    }
    if text.starts_with("atoll-") {
        return Err("it speaks to atoll alone");
    }
    if is_of_the_connection(text) || text.starts_with("sec-websocket-") {
        return Err("it belongs to the connection or says where the message ends");
    }
    if edit != Edit::Set && is_unwanted(text) {
        return Err("no client's value of it reaches the origin: there is nothing to change");
    }
    if edit == Edit::Append && (singleton(text).is_some() || *name == header::COOKIE) {
        return Err("it has one value: `set` it");
    }
    Ok(())
}

/// Whether a rule may do this to a field of an answer.
///
/// # Errors
/// What speaks against it.
pub fn judge_response_edit(name: &HeaderName, edit: Edit) -> Result<(), &'static str> {
    let text = name.as_str();
    match text {
        "age" | "date" | "via" | "cache-status" | "x-request-id" => {
            return Err("the edge writes it itself");
        }
        "content-type" | "content-encoding" | "content-range" | "content-length" | "etag"
        | "last-modified" | "accept-ranges" => {
            return Err("it describes the bytes that are sent: the origin has to say it");
        }
        "vary" if edit != Edit::Append => {
            return Err("caches behind would mix up what differs: `append` adds to it");
        }
        "set-cookie" | "set-cookie2" if edit != Edit::Remove => {
            return Err("it would be one cookie for all visitors");
        }
        _ => {}
    }
    if text.starts_with("atoll-") {
        return Err("it speaks to atoll alone");
    }
    if is_of_the_connection(text) {
        return Err("it belongs to the connection or says where the message ends");
    }
    Ok(())
}

fn is_of_the_connection(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "content-length"
            | "expect"
            | "early-data"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::test_support::fields;

    fn name(text: &str) -> HeaderName {
        HeaderName::try_from(text).unwrap()
    }

    fn pair(one: &str, value: &str) -> (HeaderName, HeaderValue) {
        (name(one), HeaderValue::try_from(value).unwrap())
    }

    fn edits() -> FieldEdits {
        FieldEdits {
            set: vec![pair("x-key", "ours"), pair("cache-control", "max-age=9")],
            append: vec![pair("x-more", "two")],
            remove: vec![name("x-debug")],
        }
    }

    #[test]
    fn what_a_client_says_is_gone_under_every_spelling() {
        let mut headers = fields(&[
            ("x-key", "theirs"),
            ("x_key", "theirs"),
            ("X_Debug", "1"),
            ("x-more", "one"),
        ]);
        edits().take_out(&mut headers);
        assert_eq!(headers, fields(&[("x-more", "one")]));
        edits().write(&mut headers);
        let expected = [
            ("x-more", "one"),
            ("x-more", "two"),
            ("x-key", "ours"),
            ("cache-control", "max-age=9"),
        ];
        assert_eq!(headers, fields(&expected));
        for (field, expected) in [("x-key", true), ("x_key", true), ("x-more", false)] {
            assert_eq!(edits().settles(&name(field)), expected, "{field}");
        }
    }

    #[test]
    fn what_rules_caches_is_left_alone_where_it_is_settled() {
        for (settled, expected) in [(false, "max-age=9"), (true, "private")] {
            let mut headers = fields(&[("cache-control", "private"), ("x-debug", "1")]);
            edits().apply(&mut headers, settled);
            assert_eq!(headers.get("cache-control").unwrap(), expected);
            assert_eq!(headers.get("x-key").unwrap(), "ours");
            assert!(!headers.contains_key("x-debug"));
        }
    }

    #[test]
    fn fields_of_the_edge_and_of_the_connection_are_refused() {
        use Edit::{Append, Remove, Set};
        let requests = [
            ("host", Set, false),
            ("content-length", Set, false),
            ("connection", Remove, false),
            ("x-forwarded-for", Set, false),
            ("x-forwarded-prefix", Set, true),
            ("x-forwarded-prefix", Remove, false),
            ("accept-encoding", Remove, false),
            ("if-none-match", Remove, false),
            ("atoll-device", Set, false),
            ("authorization", Set, true),
            ("authorization", Append, false),
            ("cookie", Remove, true),
            ("cookie", Append, false),
            ("x-anything", Append, true),
        ];
        for (field, edit, expected) in requests {
            let judged = judge_request_edit(&name(field), edit);
            assert_eq!(judged.is_ok(), expected, "{edit:?} {field}");
        }
        let responses = [
            ("transfer-encoding", Set, false),
            ("cache-status", Remove, false),
            ("etag", Remove, false),
            ("vary", Remove, false),
            ("vary", Set, false),
            ("vary", Append, true),
            ("set-cookie", Set, false),
            ("set-cookie", Append, false),
            ("set-cookie", Remove, true),
            ("cache-control", Set, true),
            ("strict-transport-security", Set, true),
        ];
        for (field, edit, expected) in responses {
            let judged = judge_response_edit(&name(field), edit);
            assert_eq!(judged.is_ok(), expected, "{edit:?} {field}");
        }
    }
}
