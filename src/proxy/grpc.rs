//! gRPC calls where the policy lets them stream: message by message in both directions, with
//! trailers, for as long as they like, and never stored.
//!
//! The default stays hardened: elsewhere such a request is one like others, whose body has to keep
//! pace and whose trailers are dropped.
//!
//! What goes wrong here is said as gRPC's clients expect it, in an answer of a head alone ("Trailers-Only"
//! of the protocol): status 200 and `grpc-status`. With a plain 502 and a page of text they would
//! guess; the codes are those that they would guess for a status, but for two: a call that may have
//! been carried out is not called UNAVAILABLE, which many of them repeat, and a limit is
//! RESOURCE_EXHAUSTED.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};

use super::body::Limited;
use super::{Ask, Worker};
use crate::clock;
use crate::listener::{Pressure, Response};
use crate::message::{Body, BodyError, Refusal};
use crate::origin::SendError;
use crate::semantics::{CacheStatus, Forward, Outcome};
use crate::telemetry::Record;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

impl Ask {
    /// Whether it is a gRPC call that may stream.
    pub(super) fn is_grpc(&self) -> bool {
        self.policy.grpc && self.request.method == Method::POST && says_grpc(&self.request.headers)
    }
}

/// `application/grpc`, alone or with a suffix or parameter: not `application/grpc-web`.
fn says_grpc(headers: &HeaderMap) -> bool {
    const KIND: &[u8] = b"application/grpc";
    let Some(kind) = headers.get(CONTENT_TYPE) else { return false };
    let bytes = kind.as_bytes();
    bytes.get(..KIND.len()).is_some_and(|start| start.eq_ignore_ascii_case(KIND))
        && matches!(bytes.get(KIND.len()), None | Some(b'+' | b';' | b' '))
}

impl Worker {
    /// Sends a call on, and hands on what comes back as it comes.
    pub(super) async fn call(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        body: Body,
        record: Box<Record>,
    ) -> Response {
        if self.edge.pressure.step() >= Pressure::Shed {
            return self.refusal(Refusal::Overload, record, clock::now());
        }
        ask.interim.allow_silence();
        let body = Limited::wrap(body, ask.policy.body_bytes);
        let outgoing = self.outgoing(ask, ask.request.headers.clone(), body);
        let origin = self.edge.origin_of(ask.site, &ask.policy);
        let site = self.edge.number_of(ask.site);
        let interim = ask.interim.clone();
        let sent = self.origins.send(origin, site, outgoing, move |head| interim.send(head));
        match sent.await {
            Ok(answer) => {
                // Whatever the call was: its method may change what others have stored.
                let _ = self.invalidate(ask, &answer.head);
                let status = CacheStatus::forward(Forward::Bypass);
                self.relay(ask, answer, status, Outcome::Pass, record)
            }
            Err(SendError::RequestBody(BodyError::TooLarge)) => {
                self.refusal(Refusal::BodyTooLarge, record, clock::now())
            }
            Err(error) => {
                tracing::debug!(%error, origin, "origin gave no answer");
                let (code, word) = super::error::status_of(&error);
                self.origin_failed(code, word, Forward::Bypass, record, clock::now())
            }
        }
    }
}

/// An answer of ours as gRPC says it; one of the origin stays as it is.
pub(super) fn in_its_words(response: &mut Response) {
    let Some(record) = &mut response.record else { return };
    if record.outcome != Outcome::Refused {
        return;
    }
    let status = response.status;
    let word = record.origin_error.or(record.refusal.map(Refusal::label)).unwrap_or_default();
    let message = match word {
        "" => status.canonical_reason().unwrap_or("error").to_owned(),
        word => format!("{}: {word}", status.canonical_reason().unwrap_or("error")),
    };
    record.status = StatusCode::OK.as_u16();
    response.join_fields();
    response.status = StatusCode::OK;
    response.body = Body::Empty;
    response.headers.remove(RETRY_AFTER);
    response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response.headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(code(status, word))));
    if let Ok(message) = HeaderValue::try_from(message) {
        response.headers.insert(GRPC_MESSAGE, message);
    }
}

/// The code of gRPC for an answer of ours.
fn code(status: StatusCode, word: &str) -> u8 {
    const UNKNOWN: u8 = 2;
    const DEADLINE_EXCEEDED: u8 = 4;
    const PERMISSION_DENIED: u8 = 7;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const UNIMPLEMENTED: u8 = 12;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    const UNAUTHENTICATED: u8 = 16;
    match status {
        StatusCode::BAD_REQUEST => INTERNAL,
        StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
        StatusCode::FORBIDDEN => PERMISSION_DENIED,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => UNIMPLEMENTED,
        StatusCode::REQUEST_TIMEOUT => DEADLINE_EXCEEDED,
        // It may be at work on the call; where no connection came about it is not.
        StatusCode::GATEWAY_TIMEOUT if word == "http_response_timeout" => DEADLINE_EXCEEDED,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => RESOURCE_EXHAUSTED,
        StatusCode::SERVICE_UNAVAILABLE if word == "connection_limit_reached" => RESOURCE_EXHAUSTED,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            UNAVAILABLE
        }
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_call() {
        let rows = [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc; x=y", true),
            ("application/grpc-web", false),
            ("application/grp", false),
            ("text/plain", false),
        ];
        for (kind, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(says_grpc(&headers), expected, "{kind}");
        }
        assert!(!says_grpc(&HeaderMap::new()));
    }

    #[test]
    fn codes_are_what_clients_expect() {
        let rows = [
            (502, "connection_terminated", 14),
            (503, "connection_refused", 14),
            (503, "connection_limit_reached", 8),
            (503, "overload", 14),
            (504, "connection_timeout", 14),
            (504, "http_response_timeout", 4),
            (413, "body-too-large", 8),
            (400, "", 13),
            (401, "", 16),
            (403, "", 7),
            (404, "", 12),
            (508, "loop", 2),
        ];
        for (status, word, expected) in rows {
            assert_eq!(
                code(StatusCode::from_u16(status).unwrap(), word),
                expected,
                "{status} {word}"
            );
        }
    }
}
