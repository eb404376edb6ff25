//! Errors as clients see them: one function turns each into a status, one writes the answer.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};

use super::Worker;
use super::fields::{X_REQUEST_ID, add_cache_status, add_date};
use crate::clock::Now;
use crate::listener::{Client, Response};
use crate::message::{Body, BodyError, Refusal, RequestHead};
use crate::origin::SendError;
use crate::semantics::{CacheStatus, Forward, Outcome, Policy, REGISTERED_METHODS};
use crate::telemetry::Record;

/// Status and word for an origin that gave no usable answer: 504 where time ran out, 503 where it
/// is out of reach or full and a later try may succeed, 502 for the rest.
pub(super) fn status_of(error: &SendError) -> (StatusCode, &'static str) {
    let status = match error {
        SendError::DnsTimeout | SendError::ConnectionTimeout | SendError::HttpResponseTimeout => {
            StatusCode::GATEWAY_TIMEOUT
        }
        SendError::ConnectionLimitReached
        | SendError::DestinationUnavailable
        | SendError::NotProcessed
        | SendError::ConnectionRefused => StatusCode::SERVICE_UNAVAILABLE,
        SendError::RequestBody(why) => return (body_status(why), error.label()),
        SendError::DnsError(_)
        | SendError::ConnectionFailed(_)
        | SendError::TlsProtocolError(_)
        | SendError::TlsCertificateError(_)
        | SendError::ConnectionTerminated { .. }
        | SendError::HttpProtocolError(_) => StatusCode::BAD_GATEWAY,
    };
    (status, error.label())
}

/// Status for a client's body that broke off.
fn body_status(why: &BodyError) -> StatusCode {
    match why {
        BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
        BodyError::Incomplete | BodyError::Malformed(_) | BodyError::Cancelled => {
            StatusCode::BAD_REQUEST
        }
    }
}

impl Worker {
    /// Answer for a message that never became a request.
    pub(super) fn refuse(
        &self,
        refusal: Refusal,
        head: Option<&RequestHead>,
        client: &Client,
        now: Now,
    ) -> Response {
        let mut record = self.recorder.record(self.ids.make(), now);
        record.client = client.address;
        if let Some(head) = head {
            record.set_head(head, head.authority.as_deref().unwrap_or_default());
        }
        // The door has counted it.
        self.refused(refusal, record, now)
    }

    /// Answer for a request that is refused here; the connection closes.
    pub(super) fn refusal(&self, refusal: Refusal, record: Box<Record>, now: Now) -> Response {
        self.edge.metrics.doors.refused(refusal);
        self.refused(refusal, record, now)
    }

    fn refused(&self, refusal: Refusal, mut record: Box<Record>, now: Now) -> Response {
        record.refusal = Some(refusal);
        let mut response = self.own(refusal.status(), refusal.label(), record, now);
        if refusal == Refusal::Overload {
            response.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.close = true;
        response
    }

    /// 405 with the methods that are forwarded here.
    pub(super) fn method_not_allowed(
        &self,
        policy: &Policy,
        record: Box<Record>,
        now: Now,
    ) -> Response {
        let mut response = self.refusal(Refusal::MethodNotAllowed, record, now);
        response.headers.insert(ALLOW, allow(policy));
        response
    }

    /// Answer to `OPTIONS *`, which asks about the server and not about a resource.
    pub(super) fn options(&self, policy: &Policy, record: Box<Record>, now: Now) -> Response {
        let mut response = self.own(StatusCode::NO_CONTENT, "", record, now);
        response.headers.insert(ALLOW, allow(policy));
        response
    }

    /// 508 for a request that has been here before (RFC 8586).
    pub(super) fn loop_detected(&self, record: Box<Record>, now: Now) -> Response {
        self.own(StatusCode::LOOP_DETECTED, "loop", record, now)
    }

    /// 504 for a client that wanted nothing forwarded (RFC 9111 section 5.2.1.7).
    pub(super) fn only_if_cached(&self, record: Box<Record>, now: Now) -> Response {
        self.own(StatusCode::GATEWAY_TIMEOUT, "only-if-cached", record, now)
    }

    /// 500 for the one request whose fill came to an end that it should not have.
    pub(super) fn panicked(&self, record: Box<Record>) -> Response {
        self.own(StatusCode::INTERNAL_SERVER_ERROR, "internal", record, crate::clock::now())
    }

    /// The origin gave no usable answer and nothing stale may stand in.
    pub(super) fn origin_failed(
        &self,
        status: StatusCode,
        word: &'static str,
        why: Forward,
        mut record: Box<Record>,
        now: Now,
    ) -> Response {
        record.origin_error = Some(word);
        record.forward = Some(why);
        let mut response = self.own(status, word, record, now);
        let field = CacheStatus { detail: Some(word), ..CacheStatus::forward(why) };
        add_cache_status(&mut response.headers, &field, None);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    /// An answer of our own: a line of text that a person can report.
    pub(super) fn own(
        &self,
        status: StatusCode,
        word: &str,
        mut record: Box<Record>,
        now: Now,
    ) -> Response {
        let id = record.request_id.as_str().to_owned();
        record.outcome = Outcome::Refused;
        record.status = status.as_u16();
        record.first_byte = Some(now.since(record.started));
        let text = if status == StatusCode::NO_CONTENT {
            String::new()
        } else {
            let reason = status.canonical_reason().unwrap_or("Error");
            format!("{} {reason}: {word}\nrequest {id}\n", status.as_u16())
        };
        let head = record.method == Method::HEAD;
        let mut response = Response::new(status, Body::Empty);
        if head {
            response.head_length = Some(text.len() as u64);
        } else {
            response.body = Body::from(text);
        }
        let headers = &mut response.headers;
        add_date(headers, now);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(X_REQUEST_ID, id);
        }
        response.record = Some(record);
        response
    }
}

fn allow(policy: &Policy) -> HeaderValue {
    let named = policy.methods.iter().map(Method::as_str);
    let names: Vec<&str> = match policy.methods.iter().any(|method| method.as_str() == "*") {
        true => named.filter(|name| *name != "*").chain(REGISTERED_METHODS).collect(),
        false => named.collect(),
    };
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("GET"))
}
