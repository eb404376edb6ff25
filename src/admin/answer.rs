//! Answers that are written whole, and values in them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::Reply;
use super::body::ReplyBody;
use super::problem::Problem;
use crate::audit::Written;

/// An answer with a body that must not be kept by anybody on the way.
pub(super) fn reply(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(ReplyBody::Whole(Full::new(body.into())));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            reply(status, "application/json", text)
        }
        Err(error) => {
            tracing::error!(%error, "an answer of the admin listener could not be written");
            Problem::internal().into_reply()
        }
    }
}

/// The member `audit` of an answer: there only where the audit log lacks what was done.
pub(super) fn unwritten(written: Written) -> Option<bool> {
    (written == Written::No).then_some(false)
}

/// Milliseconds, to the microsecond.
pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
