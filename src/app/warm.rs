//! Requests of our own, sent the way of a client's: for warm-up.
//!
//! They run on the control runtime with a proxy of its own, so that they take no turn from a
//! worker's clients. Origins see them as coming from the loopback address (`X-Forwarded-For`); the
//! access log and the counts of client requests do not show them, since a warm-up that follows a
//! purge would else look like a bad hit ratio.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;

use crate::admin::Fetched;
use crate::clock;
use crate::listener::{Client, Handler as _, Interim, Request};
use crate::message::{Body, BodyError, RequestHead};
use crate::proxy::{AskedPurge, Proxy, PurgeByMethod, Purged};
use crate::semantics::{Outcome, ToldBy};

/// Nobody purges by the requests that we make ourselves: they are GET and HEAD.
pub(super) struct NoPurges;

impl PurgeByMethod for NoPurges {
    fn purge<'a>(&'a self, _asked: &'a AskedPurge<'a>) -> Purged<'a> {
        let mut answer = http::Response::new(Bytes::new());
        *answer.status_mut() = http::StatusCode::FORBIDDEN;
        Box::pin(std::future::ready(answer))
    }
}

/// Sends a request and reads the answer to its end.
pub(super) async fn fetch(proxy: Proxy, head: RequestHead, keep_bytes: usize) -> Fetched {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let client = Arc::new(Client {
        address: loopback,
        local: loopback,
        tls: None,
        trusted_hop: false,
        told_by: ToldBy::default(),
    });
    let interim = Interim::default();
    let arrived = clock::now();
    let request = Request { head, body: Body::Empty, client, interim, arrived, upgrade: None };
    let mut response = proxy.serve(request).await;
    response.join_fields();
    let record = response.record.take();
    let mut fetched = Fetched {
        status: response.status.as_u16(),
        outcome: record.as_ref().map_or(Outcome::Refused, |record| record.outcome),
        stored: record.as_ref().is_some_and(|record| record.stored),
        bytes: 0,
        error: record.as_ref().and_then(|record| {
            let refused = record.refusal.map(|refusal| refusal.label());
            refused.or(record.origin_error.filter(|_| response.status.is_server_error()))
        }),
        body: None,
    };
    match drain(response.body, keep_bytes, &mut fetched).await {
        Ok(()) => {}
        Err(why) => fetched.error = fetched.error.or(Some(label(&why))),
    }
    fetched
}

/// Reads a body to its end, and keeps it where it is short enough.
async fn drain(body: Body, keep_bytes: usize, fetched: &mut Fetched) -> Result<(), BodyError> {
    let mut body = pin!(body);
    let mut kept = (keep_bytes > 0).then(BytesMut::new);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        fetched.bytes = fetched.bytes.saturating_add(data.len() as u64);
        kept = kept.filter(|kept| kept.len().saturating_add(data.len()) <= keep_bytes);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(&data);
        }
    }
    fetched.body = kept.map(BytesMut::freeze);
    Ok(())
}

fn label(why: &BodyError) -> &'static str {
    match why {
        BodyError::Incomplete => "body-incomplete",
        BodyError::TooSlow => "body-too-slow",
        BodyError::TooLarge => "body-too-large",
        BodyError::Malformed(_) => "body-malformed",
        BodyError::Cancelled => "body-cancelled",
    }
}
