//! Requests for another protocol, where policy grants it (`upgrade`).
//!
//! The client's handshake is judged before an origin sees it, the origin's before the client does.
//! Between two WebSocket ends of different HTTP versions the fields of the handshake are translated
//! (RFC 8441 section 5): who asks by extended CONNECT has no key, so the origin gets one of ours.
//!
//! Nothing of it is looked up or stored. An answer other than 101 is handed back as it is, and the
//! client's connection ends with it.

use std::sync::Arc;

use aws_lc_rs::{digest, rand};
use http::header::{
    HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TE,
};
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Ask, Worker};
use crate::clock;
use crate::config::Limits;
use crate::guard::base64;
use crate::listener::{Far, Pressure, Response, Tunnel, Upgrade, most_connections};
use crate::message::{Body, Refusal};
use crate::origin::{OriginStream, Switched, Upgraded, Wanted};
use crate::semantics::{CacheStatus, Forward, Outcome, Part, Policy, Shape, is_unsafe};
use crate::telemetry::Record;

/// What a WebSocket server appends to the key before it hashes it (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The version of RFC 6455.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// Places for tunnels, those that are being asked for among them.
#[derive(Debug)]
pub(super) struct Tunnels {
    places: Arc<Semaphore>,
    most: usize,
}

impl Tunnels {
    /// As many as the limits say; the same places as before where they say the same.
    pub(super) fn new(limits: &Limits, former: Option<&Self>) -> Self {
        let most = match limits.tunnels {
            0 => most_connections(limits).div_ceil(4),
            most => most,
        };
        let most = most.min(Semaphore::MAX_PERMITS);
        let kept = former.filter(|former| former.most == most);
        let places = kept.map(|kept| Arc::clone(&kept.places));
        Self { places: places.unwrap_or_else(|| Arc::new(Semaphore::new(most))), most }
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }
}

/// What a request's wish for another protocol comes to: it is granted, or passed over as HTTP
/// allows (RFC 9110 section 7.8).
pub(super) fn granted(
    asked: Option<Box<Upgrade>>,
    policy: &Policy,
) -> Result<Option<Box<Upgrade>>, Refusal> {
    match asked {
        Some(asked) if policy.upgrades(&asked.protocol) => Ok(Some(asked)),
        Some(asked) if asked.required => Err(Refusal::Protocol),
        Some(_) | None => Ok(None),
    }
}

impl Worker {
    /// Asks the origin for the protocol that `upgrade` names.
    pub(super) async fn tunnel(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        upgrade: Upgrade,
        mut record: Box<Record>,
    ) -> Response {
        let now = clock::now();
        record.forward = Some(Forward::Bypass);
        let short = upgrade.leaving || self.edge.pressure.step() >= Pressure::Shed;
        let Some(place) = self.edge.tunnels.take().filter(|_| !short) else {
            return self.refusal(Refusal::Overload, record, now);
        };
        let mut headers = ask.request.headers.clone();
        let wanted = match handshake(&upgrade, &ask.request.method, &mut headers) {
            Ok(wanted) => wanted,
            Err(Wrong::Version) => return self.wrong_version(record),
            Err(Wrong::Handshake) => return self.refusal(Refusal::Upgrade, record, now),
        };
        headers.remove(TE);
        let outgoing = self.outgoing(ask, headers, Body::Empty);
        let origin = self.edge.origin_of(ask.site, &ask.policy);
        let site = self.edge.number_of(ask.site);
        let interim = ask.interim.clone();
        let sent = self.origins.upgrade(origin, site, outgoing, &wanted, move |head| {
            interim.send(head);
        });
        match Box::pin(sent).await {
            Ok(Upgraded::Switched(switched)) => {
                let mut response =
                    self.switching(ask, switched.head.headers.clone(), &switched, record);
                let far = Box::new(switched.stream);
                response.tunnel = Some(Box::new(Tunnel::new(upgrade.protocol, far, place)));
                response
            }
            // Where the protocol is asked for by CONNECT, any 2xx would say that it is spoken now.
            Ok(Upgraded::Refused(answer))
                if upgrade.required && answer.head.status.is_success() =>
            {
                tracing::debug!(origin, "origin did not switch protocols");
                let (code, word) = (StatusCode::BAD_GATEWAY, "http_protocol_error");
                self.origin_failed(code, word, Forward::Bypass, record, clock::now())
            }
            Ok(Upgraded::Refused(answer)) => {
                if is_unsafe(&ask.request.method) {
                    let _ = self.invalidate(ask, &answer.head);
                }
                let status = CacheStatus::forward(Forward::Bypass);
                let mut response = self.relay(ask, answer, status, Outcome::Pass, record);
                // The client may have sent more in the hope of another protocol.
                response.close = true;
                response
            }
            Err(error) => {
                tracing::debug!(%error, origin, "origin did not upgrade");
                let (code, word) = super::error::status_of(&error);
                self.origin_failed(code, word, Forward::Bypass, record, clock::now())
            }
        }
    }

    /// 101 with the fields of the origin's.
    fn switching(
        &self,
        ask: &Ask,
        headers: HeaderMap,
        switched: &Switched,
        mut record: Box<Record>,
    ) -> Response {
        record.origin = Some(switched.endpoint);
        let status = CacheStatus::forward(Forward::Bypass);
        let headers = self.end_to_end(ask, headers);
        let shape = Shape {
            status: StatusCode::SWITCHING_PROTOCOLS,
            headers,
            part: Part::None,
            head_length: None,
        };
        self.finish(ask, shape, Body::Empty, &status, Outcome::Pass, clock::now(), record)
    }

    /// 400 with the version that is spoken (RFC 6455 section 4.2.2). 426 would have to name the
    /// protocol in `Upgrade`, which HTTP/2 cannot.
    fn wrong_version(&self, record: Box<Record>) -> Response {
        let mut response = self.refusal(Refusal::Upgrade, record, clock::now());
        response.headers.insert(SEC_WEBSOCKET_VERSION, VERSION);
        response
    }
}

impl Far for OriginStream {
    fn reset(&self) {
        Self::reset(self);
    }
}

/// What is wrong with a client's handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// Another version of WebSocket, or none.
    Version,
    /// The rest of it.
    Handshake,
}

/// Judges the client's handshake and completes `headers` into the one for the origin.
fn handshake(upgrade: &Upgrade, method: &Method, headers: &mut HeaderMap) -> Result<Wanted, Wrong> {
    let protocol = upgrade.protocol.clone();
    if !protocol.eq_ignore_ascii_case("websocket") {
        // What other protocols ask of their handshakes is between the two ends.
        let known = if upgrade.required { Err(Wrong::Handshake) } else { Ok(()) };
        return known.map(|()| Wanted { protocol, accept: None });
    }
    if *method != Method::GET {
        return Err(Wrong::Handshake);
    }
    if only(headers, &SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(Wrong::Version);
    }
    headers.remove(SEC_WEBSOCKET_ACCEPT);
    if upgrade.required {
        headers.insert(SEC_WEBSOCKET_KEY, own_key().ok_or(Wrong::Handshake)?);
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes()));
    let accept = key.and_then(|key| accept(key.as_bytes())).ok_or(Wrong::Handshake)?;
    Ok(Wanted { protocol, accept: Some(accept) })
}

/// The only value of a field.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether a key is 16 bytes in base64, written in the only way there is (RFC 4648 section 3.5).
fn is_key(key: &[u8]) -> bool {
    let of_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(key, [digits @ .., b'A' | b'Q' | b'g' | b'w', b'=', b'=']
        if digits.len() == 21 && digits.iter().all(of_alphabet))
}

fn own_key() -> Option<HeaderValue> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).ok()?;
    HeaderValue::try_from(base64(&bytes)).ok()
}

/// What proves that a server has read `key` (RFC 6455 section 4.2.2).
fn accept(key: &[u8]) -> Option<HeaderValue> {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(GUID);
    HeaderValue::try_from(base64(hash.finish().as_ref())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[test]
    fn the_key_of_the_rfc_is_accepted_as_there() {
        let accepted = accept(KEY.as_bytes()).unwrap();
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_sixteen_bytes_in_canonical_base64() {
        assert!(is_key(KEY.as_bytes()));
        for _ in 0..100 {
            assert!(is_key(own_key().unwrap().as_bytes()));
        }
        assert_ne!(own_key(), own_key());
        let wrong = [
            "",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZR==",
            "dGhlIHNhbXBsZSBub25jZ===",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub2-jZQ==",
            "dGhlIHNhbXBsZSBub25jZGFh",
            "dGhlIHNhbXBsZSBub25j ZQ==",
        ];
        for key in wrong {
            assert!(!is_key(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn a_handshake_is_judged_before_it_goes_on() {
        let sound = [("sec-websocket-version", "13"), ("sec-websocket-key", KEY)];
        let with = |more: &[(&'static str, &'static str)]| [&sound[..], more].concat();
        type Row = (&'static str, &'static str, bool, Vec<(&'static str, &'static str)>);
        let rows: Vec<(Row, Result<bool, Wrong>)> = vec![
            (("websocket", "GET", false, sound.to_vec()), Ok(true)),
            (("WebSocket", "GET", false, sound.to_vec()), Ok(true)),
            (("websocket", "POST", false, sound.to_vec()), Err(Wrong::Handshake)),
            (
                ("websocket", "GET", false, with(&[("sec-websocket-key", KEY)])),
                Err(Wrong::Handshake),
            ),
            (("websocket", "GET", false, sound[..1].to_vec()), Err(Wrong::Handshake)),
            (("websocket", "GET", false, sound[1..].to_vec()), Err(Wrong::Version)),
            (
                ("websocket", "GET", false, with(&[("sec-websocket-version", "8")])),
                Err(Wrong::Version),
            ),
            (("websocket", "GET", false, with(&[("sec-websocket-accept", "x")])), Ok(true)),
            (("websocket", "GET", true, sound[..1].to_vec()), Ok(true)),
            (("websocket", "GET", true, vec![]), Err(Wrong::Version)),
            (("tcp", "POST", false, vec![]), Ok(false)),
            (("tcp", "GET", true, vec![]), Err(Wrong::Handshake)),
        ];
        for ((protocol, method, required, fields), expected) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let upgrade = Upgrade { protocol: protocol.to_owned(), required, leaving: false };
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let wanted = handshake(&upgrade, &method, &mut headers);
            let case = format!("{protocol} {method} {fields:?}");
            assert_eq!(
                wanted.as_ref().map(|wanted| wanted.accept.is_some()).map_err(|w| *w),
                expected,
                "{case}"
            );
            assert!(wanted.is_err() || !headers.contains_key(SEC_WEBSOCKET_ACCEPT), "{case}");
        }
    }

    #[test]
    fn a_key_of_a_client_without_one_is_ours() {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_VERSION, VERSION);
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static(KEY));
        let upgrade = Upgrade { protocol: "websocket".to_owned(), required: true, leaving: false };
        let wanted = handshake(&upgrade, &Method::GET, &mut headers).unwrap();
        let key = only(&headers, &SEC_WEBSOCKET_KEY).unwrap();
        assert_ne!(key, KEY);
        assert_eq!(wanted.accept, accept(key.as_bytes()));
    }
}
