//! Asks endpoints whether they are well, where that is configured.
//!
//! Each probe has a connection of its own and no place in the request queue: a busy origin is not
//! a sick one. Per endpoint at least an interval lies between the beginnings of two probes, whatever
//! became of the first, and up to a tenth more so that many nodes do not ask in step. When the next
//! one is due is known with the endpoint's health, so that neither an address that comes and goes nor
//! a new configuration asks more often.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::task::JoinSet;

use crate::clock;
use crate::config::{HttpVersions, Limits, Probe, Server};
use crate::health::{Order, ProbeRules};
use crate::http1::{Chunk, ChunkLimits, ChunkedDecoder, LengthDecoder, ResponseFraming};
use crate::message::Body;

use super::connect::{Connection, Versions, connect_once};
use super::dice::Dice;
use super::endpoint::Endpoint;
use super::http2::ask_once;
use super::roundtrip::Exchange;
use super::set::Origin;
use super::upload::Upload;
use super::{Head, SendError};

/// Longest time before a new endpoint is noticed.
const NOTICE: Duration = Duration::from_secs(1);

/// Bytes of a body in which the expected text must stand.
const BODY_MOST: usize = 64 * 1024;

/// Bytes read at once.
const READ: usize = 8 * 1024;

/// Probes the endpoints of an origin for ever.
pub(super) async fn run(origin: Arc<Origin>, probe: Probe, dice: Arc<Dice>) {
    let mut under_way = JoinSet::new();
    let interval = probe.interval.max(Duration::from_millis(10));
    loop {
        let now = clock::now().boot;
        let mut wait = NOTICE.min(interval);
        for endpoint in origin.endpoints().iter() {
            let Some(due) = due(endpoint, interval, dice.draw(), now) else { continue };
            if due <= now {
                under_way.spawn(probe_once(
                    Arc::clone(&origin),
                    Arc::clone(endpoint),
                    probe.clone(),
                ));
            }
            wait = wait.min(due.saturating_sub(now).max(Duration::from_millis(1)));
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Some(_) = under_way.join_next() => {}
        }
    }
}

/// When the next probe of an endpoint begins; one that begins now sets the time of the one after it.
/// `None`: an operator wants none.
fn due(endpoint: &Endpoint, interval: Duration, draw: f64, now: Duration) -> Option<Duration> {
    let mut view = endpoint.view.lock();
    if view.order == Order::Down {
        return None;
    }
    // The first one comes soon, but not for all endpoints at once.
    let later = interval.mul_f64(draw.clamp(0.0, 1.0) / 10.0);
    let due = *view.probe_due.get_or_insert(now + later);
    if due <= now {
        view.probe_due = Some(now + interval + later);
    }
    Some(due)
}

async fn probe_once(origin: Arc<Origin>, endpoint: Arc<Endpoint>, probe: Probe) {
    let ask = ask(&origin, &endpoint, &probe);
    let outcome = tokio::time::timeout(probe.timeout, ask)
        .await
        .unwrap_or(Err(SendError::HttpResponseTimeout));
    if outcome == Err(SendError::ConnectionLimitReached) {
        // We could not ask: that says nothing about the endpoint.
        return;
    }
    let rules = ProbeRules { rise: probe.rise, fall: probe.fall };
    origin.observe_probe(&endpoint, outcome, rules, clock::now().boot);
}

async fn ask(
    origin: &Arc<Origin>,
    endpoint: &Arc<Endpoint>,
    probe: &Probe,
) -> Result<(), SendError> {
    let server = origin.config.servers.get(endpoint.server);
    let request = request(probe, server).ok_or(SendError::HttpProtocolError("probe's host"))?;
    let mut connection = connect_once(origin, endpoint, Versions::Configured).await?;
    if probe.tcp {
        return Ok(());
    }
    if origin.config.http == HttpVersions::Two || connection.agreed_on_http2() {
        return ask_in_streams(origin, connection, &request, probe).await;
    }
    let mut upload = Upload::new(&request, Body::Empty, 0);
    let (method, mut interim) = (&request.method, |_| {});
    let exchange =
        Exchange::new(&mut connection, &mut upload, method, &origin.limits, &mut interim);
    let response = exchange.run().await.map_err(|(error, _)| error)?;
    if !is_well(&probe.status, response.parsed.head.status) {
        return Err(SendError::HttpProtocolError("probe answered with another status"));
    }
    match &probe.body {
        Some(text) => {
            let reader = BodyReader::new(response.parsed.framing, &origin.limits);
            has_text(&mut connection, reader, text.as_bytes()).await
        }
        None => Ok(()),
    }
}

/// As [`ask`], where the connection speaks HTTP/2.
async fn ask_in_streams(
    origin: &Origin,
    connection: Connection,
    request: &Head,
    probe: &Probe,
) -> Result<(), SendError> {
    let wanted = if probe.body.is_some() { BODY_MOST } else { 0 };
    let now = clock::now().boot;
    let (status, body) = ask_once(connection, request, &origin.limits, now, wanted).await?;
    if !is_well(&probe.status, status) {
        return Err(SendError::HttpProtocolError("probe answered with another status"));
    }
    match &probe.body {
        Some(text) if memchr::memmem::find(&body, text.as_bytes()).is_none() => {
            Err(SendError::HttpProtocolError("probe answered with another body"))
        }
        _ => Ok(()),
    }
}

fn is_well(expected: &[RangeInclusive<u16>], status: StatusCode) -> bool {
    if expected.is_empty() {
        return status.is_success() || status.is_redirection();
    }
    expected.iter().any(|range| range.contains(&status.as_u16()))
}

/// Reads a body until `text` has come, and no further than [`BODY_MOST`].
async fn has_text(
    connection: &mut Connection,
    mut reader: BodyReader,
    text: &[u8],
) -> Result<(), SendError> {
    const MISSING: SendError = SendError::HttpProtocolError("probe answered with another body");
    let mut seen: Vec<u8> = Vec::new();
    loop {
        match reader.decode(connection)? {
            Chunk::Data(bytes) => {
                // What has been looked through need not be again.
                let from = seen.len().saturating_sub(text.len());
                let room = BODY_MOST.saturating_sub(seen.len());
                seen.extend(bytes.iter().take(room));
                let unseen = seen.get(from..).unwrap_or_default();
                if memchr::memmem::find(unseen, text).is_some() {
                    return Ok(());
                }
                if seen.len() >= BODY_MOST {
                    return Err(MISSING);
                }
            }
            Chunk::End => return Err(MISSING),
            Chunk::More => {
                let read =
                    std::future::poll_fn(|context| connection.poll_read(READ, context)).await;
                if !matches!(read, Ok(1..)) {
                    // Of a body without a length this is the end.
                    return Err(MISSING);
                }
            }
        }
    }
}

/// Reads the body of an answer to a probe.
enum BodyReader {
    None,
    Length(LengthDecoder),
    Chunked(ChunkedDecoder),
    Close,
}

impl BodyReader {
    fn new(framing: ResponseFraming, limits: &Limits) -> Self {
        match framing {
            ResponseFraming::None => Self::None,
            ResponseFraming::Length(length) => Self::Length(LengthDecoder::new(length)),
            ResponseFraming::Close => Self::Close,
            ResponseFraming::Chunked => Self::Chunked(ChunkedDecoder::new(ChunkLimits {
                extension_bytes: limits.chunk_extension_bytes,
                trailer_bytes: limits.trailer_bytes,
                trailer_fields: limits.trailer_fields,
            })),
        }
    }

    fn decode(&mut self, connection: &mut Connection) -> Result<Chunk, SendError> {
        let buffer = &mut connection.buffer;
        match self {
            Self::None => Ok(Chunk::End),
            Self::Length(decoder) => Ok(decoder.decode(buffer)),
            Self::Chunked(decoder) => {
                decoder.decode(buffer).map_err(|error| SendError::HttpProtocolError(error.rule()))
            }
            Self::Close if buffer.is_empty() => Ok(Chunk::More),
            Self::Close => Ok(Chunk::Data(buffer.split().freeze())),
        }
    }
}

fn request(probe: &Probe, server: Option<&Server>) -> Option<Head> {
    let host = match (&probe.host, server) {
        (Some(host), _) => host.clone(),
        (None, Some(server)) => authority(server),
        (None, None) => return None,
    };
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::try_from(host).ok()?);
    headers.insert(USER_AGENT, HeaderValue::from_static("atoll-probe"));
    let (target, streams, hop) = (probe.path.clone(), false, None);
    Some(Head { method: Method::GET, target, headers, streams, hop })
}

/// A server's name as `Host` has it: without the port that its scheme implies.
fn authority(server: &Server) -> String {
    let host = server.domain();
    if server.srv {
        return host.to_owned();
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let implied = if server.tls { 443 } else { 80 };
    if server.port == implied { host } else { format!("{host}:{}", server.port) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_is_written_as_host_has_it() {
        let cases = [
            ("a.example", 443, true, "a.example"),
            ("a.example", 80, true, "a.example:80"),
            ("a.example", 80, false, "a.example"),
            ("::1", 8080, false, "[::1]:8080"),
        ];
        for (host, port, tls, expected) in cases {
            let server = Server { tls, host: host.to_owned(), port, ..Server::default() };
            assert_eq!(authority(&server), expected);
        }
    }
}
