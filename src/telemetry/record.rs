//! What the access log says of one request, gathered on the way and written by another thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, Method, Version};

use super::access_log::Recorder;
use super::trace::{RequestId, TraceParent};
use crate::clock::Now;
use crate::message::{Refusal, RequestHead, Scheme};
use crate::semantics::{Forward, Outcome};

/// What a client was answered with, as far as the log's thread asks about it.
pub trait Tagged: std::fmt::Debug + Send + Sync {
    /// Its first tags, few and short ones.
    fn first_tags(&self) -> Vec<Box<str>>;
}

/// One line of the access log in the making; also counts the request under its site.
///
/// Everybody on the request's way writes into it and nobody reads it. [`Record::finish`] hands it
/// to the log; one that is dropped unfinished is logged as incomplete.
#[derive(Debug)]
pub struct Record {
    /// When the request's head was complete.
    pub started: Now,
    /// Id of the request.
    pub request_id: RequestId,
    /// Address of the client.
    pub client: SocketAddr,
    /// Position of the site among those of the recorder; `None` where none answers for the host.
    pub site: Option<usize>,
    /// Method.
    pub method: Method,
    /// Scheme of the connection.
    pub scheme: Scheme,
    /// HTTP version of the request.
    pub version: Version,
    /// Version of TLS.
    pub tls: Option<&'static str>,
    /// Status sent; 0 while there is none.
    pub status: u16,
    /// Time from the request's head to the head of the answer.
    pub first_byte: Option<Duration>,
    /// How the cache came to the answer.
    pub outcome: Outcome,
    /// Why the request went to the origin.
    pub forward: Option<Forward>,
    /// Remaining freshness in seconds.
    pub ttl: Option<i64>,
    /// The answer was stored.
    pub stored: bool,
    /// A word more on caching, such as `no-freshness`.
    pub detail: Option<&'static str>,
    /// Endpoint that answered.
    pub origin: Option<SocketAddr>,
    /// Why the origin gave no usable answer (RFC 9209 error type).
    pub origin_error: Option<&'static str>,
    /// Why the request was refused.
    pub refusal: Option<Refusal>,
    /// Trace that the request belongs to.
    pub trace: Option<TraceParent>,
    /// Bytes of the answer that were sent.
    pub bytes_sent: u64,
    /// Bytes that came from the client through a tunnel; `None` where there was none.
    pub bytes_received: Option<u64>,
    /// Time from the request's head to the last byte.
    pub took: Duration,
    /// The answer was sent to its end.
    pub complete: bool,
    /// The stored response that was sent, where it has tags.
    pub tagged: Option<Arc<dyn Tagged>>,
    pub(super) text: Text,
    pub(super) recorder: Option<Arc<Recorder>>,
}

/// The strings of a record in one buffer that is used again for later records.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    /// Ends of host, target, user agent and referer in `bytes`.
    ends: [usize; 4],
}

/// One of the strings of a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Host,
    Target,
    UserAgent,
    Referer,
}

impl Text {
    /// Takes the strings in the order of [`Part`].
    fn fill(&mut self, parts: [&[u8]; 4]) {
        self.bytes.clear();
        for (end, part) in self.ends.iter_mut().zip(parts) {
            self.bytes.extend_from_slice(part);
            *end = self.bytes.len();
        }
    }

    pub(super) fn part(&self, part: Part) -> &[u8] {
        let index = part as usize;
        let start = index.checked_sub(1).and_then(|i| self.ends.get(i)).copied().unwrap_or(0);
        let end = self.ends.get(index).copied().unwrap_or(0);
        self.bytes.get(start..end).unwrap_or_default()
    }
}

impl Record {
    /// A record that nobody has written to; `recorder` will take it.
    pub(super) fn blank(recorder: Option<Arc<Recorder>>) -> Self {
        Self {
            started: Now { wall: std::time::SystemTime::UNIX_EPOCH, boot: Duration::ZERO },
            request_id: RequestId::default(),
            client: SocketAddr::from(([0, 0, 0, 0], 0)),
            site: None,
            method: Method::GET,
            scheme: Scheme::Http,
            version: Version::HTTP_11,
            tls: None,
            status: 0,
            first_byte: None,
            outcome: Outcome::default(),
            forward: None,
            ttl: None,
            stored: false,
            detail: None,
            origin: None,
            origin_error: None,
            refusal: None,
            trace: None,
            bytes_sent: 0,
            bytes_received: None,
            took: Duration::ZERO,
            complete: false,
            tagged: None,
            text: Text::default(),
            recorder,
        }
    }

    /// Forgets the former request but keeps the memory.
    pub(super) fn reset(&mut self, recorder: Arc<Recorder>) {
        let mut text = std::mem::take(&mut self.text);
        text.fill([b""; 4]);
        *self = Self::blank(Some(recorder));
        self.text = text;
    }

    /// Takes method, target, version, scheme and the logged fields from a request's head. `host`
    /// is what the log shows as the host.
    pub fn set_head(&mut self, head: &RequestHead, host: &str) {
        self.set_request(&head.method, host, &head.target, &head.headers);
        self.scheme = head.scheme;
        self.version = head.version;
    }

    /// Takes method, host, target and the logged fields.
    pub fn set_request(&mut self, method: &Method, host: &str, target: &str, headers: &HeaderMap) {
        let field = |name| headers.get(name).map(http::HeaderValue::as_bytes).unwrap_or_default();
        self.method = method.clone();
        self.text.fill([host.as_bytes(), target.as_bytes(), field(USER_AGENT), field(REFERER)]);
    }

    /// Hands the record over: the answer ended at `now` after `bytes_sent` bytes, `complete` or
    /// cut off.
    pub fn finish(mut self: Box<Self>, bytes_sent: u64, complete: bool, now: Now) {
        if let Some(recorder) = self.recorder.take() {
            self.end(bytes_sent, complete, now);
            recorder.take(self);
        }
    }

    fn end(&mut self, bytes_sent: u64, complete: bool, now: Now) {
        self.bytes_sent = bytes_sent;
        self.complete = complete;
        self.took = now.since(self.started);
    }
}

impl Drop for Record {
    /// The request ended without anybody finishing its record: its client went away, or its
    /// handler panicked.
    fn drop(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            let mut record = Box::new(Self::blank(None));
            std::mem::swap(&mut *record, self);
            record.end(record.bytes_sent, false, crate::clock::now());
            recorder.take(record);
        }
    }
}
