//! One question over a connection of its own, which ends with it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::sync::Notify;

use super::head;
use super::session::Session;
use crate::config::Limits;
use crate::origin::connect::Connection;
use crate::origin::{Head, SendError};

/// Asks without a body; the final status, and the first `most` bytes of the answer.
pub(in crate::origin) async fn ask_once(
    connection: Connection,
    request: &Head,
    limits: &Limits,
    now: std::time::Duration,
    most: usize,
) -> Result<(StatusCode, Bytes), SendError> {
    let secure = connection.endpoint.tls.is_some();
    let session = Session::open(connection, limits, &Arc::new(Notify::new())).await?;
    if !session.join() {
        return Err(SendError::ConnectionLimitReached);
    }
    let written = head::request(request, secure, Some(0))?;
    let (mut send, _) = session.begin(now);
    let (response, _stream) = send.send_request(written, true).map_err(|error| failed(&error))?;
    let (parts, mut body) = response.await.map_err(|error| failed(&error))?.into_parts();
    let ends = body.is_end_stream();
    let (found, _) = head::response(parts, &request.method, ends, limits)
        .map_err(SendError::HttpProtocolError)?;
    let mut first = BytesMut::new();
    while first.len() < most
        && let Some(piece) = body.data().await
    {
        let piece = piece.map_err(|error| failed(&error))?;
        let _ = body.flow_control().release_capacity(piece.len());
        first.extend_from_slice(&piece);
    }
    first.truncate(most);
    Ok((found.status, first.freeze()))
}

fn failed(error: &h2::Error) -> SendError {
    if error.is_library() {
        SendError::HttpProtocolError("HTTP/2 protocol error")
    } else {
        SendError::ConnectionTerminated { reused: false }
    }
}
