//! Errors as problem details (RFC 9457): a status, a code that programs read, a sentence that
//! people read.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use super::{Reply, reply};
use crate::config::Scope;

/// Why a request to the admin listener is not carried out.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Box<str>,
    /// Part of the request that is at fault.
    field: Option<&'static str>,
    hint: Hint,
    /// Members that it has beside those of every problem.
    more: Option<Box<Map<String, Value>>>,
}

/// What the answer's fields add.
#[derive(Clone, Debug)]
enum Hint {
    None,
    /// `WWW-Authenticate`
    Token,
    /// `Allow`
    Methods(Box<str>),
    /// `Retry-After`, in seconds.
    Wait(u64),
}

impl Hint {
    fn field(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::None => None,
            Self::Token => {
                Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"atoll\"")))
            }
            Self::Methods(methods) => {
                HeaderValue::try_from(&**methods).ok().map(|value| (header::ALLOW, value))
            }
            Self::Wait(seconds) => Some((header::RETRY_AFTER, HeaderValue::from(*seconds))),
        }
    }
}

impl Problem {
    /// A problem with a code for programs and a sentence for people.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<Box<str>>) -> Self {
        Self { status, code, detail: detail.into(), field: None, hint: Hint::None, more: None }
    }

    /// 400.
    pub(super) fn bad(code: &'static str, detail: impl Into<Box<str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 400 for one field of the request.
    pub(super) fn field(
        code: &'static str,
        field: &'static str,
        detail: impl Into<Box<str>>,
    ) -> Self {
        Self { field: Some(field), ..Self::bad(code, detail) }
    }

    /// The same for one field of the request.
    pub(super) fn of_field(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }

    /// The same with further members, which stand behind those of every problem.
    pub(super) fn with(self, more: Map<String, Value>) -> Self {
        Self { more: Some(Box::new(more)), ..self }
    }

    /// The same, worth trying again after so many seconds.
    pub(super) fn again_after(self, seconds: u64) -> Self {
        Self { hint: Hint::Wait(seconds), ..self }
    }

    /// 403.
    pub(super) fn forbidden(code: &'static str, detail: impl Into<Box<str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// 401: no token, or none that is known.
    pub(super) fn no_token() -> Self {
        Self {
            hint: Hint::Token,
            ..Self::new(StatusCode::UNAUTHORIZED, "token", "this needs a known bearer token")
        }
    }

    /// 401: an event that does not prove where it comes from.
    pub(super) fn no_proof() -> Self {
        let detail = "this needs a known hook, and the proof that it is configured with";
        Self { hint: Hint::Token, ..Self::new(StatusCode::UNAUTHORIZED, "proof", detail) }
    }

    /// 403: a token without the scope.
    pub(super) fn scope(scope: Scope) -> Self {
        let name = scope_name(scope);
        Self::forbidden("scope", format!("the token does not have the scope {name}"))
    }

    /// 404, or 405 where other methods are answered at the path.
    pub(super) fn no_route(allowed: &[&str]) -> Self {
        if allowed.is_empty() {
            return Self::new(StatusCode::NOT_FOUND, "path", "there is nothing at this path");
        }
        let allow = allowed.join(", ");
        Self {
            hint: Hint::Methods(allow.as_str().into()),
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                format!("this path answers {allow} only"),
            )
        }
    }

    /// 404: an identifier that stands for nothing.
    pub(super) fn unknown_service() -> Self {
        let detail = "there is no service or zone of this identifier";
        Self::new(StatusCode::NOT_FOUND, "unknown-service", detail)
    }

    /// 429 with the time to wait.
    pub(super) fn wait(code: &'static str, detail: impl Into<Box<str>>, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self {
            hint: Hint::Wait(seconds.max(1)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail)
        }
    }

    /// 500: our own fault.
    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer could not be written")
    }

    /// Status that the client gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its code for programs.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// Its sentence for people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The field that its answer adds.
    pub(super) fn field_of_answer(&self) -> Option<(HeaderName, HeaderValue)> {
        self.hint.field()
    }

    /// Its answer in another shape: the status and the fields stay.
    pub(super) fn reply_in(&self, media_type: &'static str, text: String) -> Reply {
        let mut reply = reply(self.status, media_type, text);
        if let Some((name, value)) = self.hint.field() {
            reply.headers_mut().insert(name, value);
        }
        reply
    }

    /// The problem as an answer.
    pub(super) fn into_reply(self) -> Reply {
        let text = self.text();
        self.reply_in("application/problem+json", text)
    }

    /// The body of the answer.
    pub(super) fn text(&self) -> String {
        let mut body = Map::new();
        body.insert("type".into(), "about:blank".into());
        body.insert("title".into(), self.status.canonical_reason().unwrap_or("Error").into());
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("code".into(), self.code.into());
        body.insert("detail".into(), (*self.detail).into());
        if let Some(field) = self.field {
            body.insert("field".into(), field.into());
        }
        for (name, value) in self.more.iter().flat_map(|more| more.iter()) {
            body.entry(name.as_str()).or_insert_with(|| value.clone());
        }
        let mut text = Value::Object(body).to_string();
        text.push('\n');
        text
    }
}

/// A scope as it stands in the configuration.
pub(super) fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Purge => "purge",
        Scope::PurgeAll => "purge-all",
        Scope::Warm => "warm",
        Scope::Config => "config",
        Scope::Drain => "drain",
    }
}
