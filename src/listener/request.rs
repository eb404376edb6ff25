//! What passes between a door and its handler.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::clock::Now;
use crate::message::{Body, Refusal, RequestHead, ResponseHead};
use crate::telemetry::Record;

/// Answers requests. One value serves all connections of a worker at once.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. The future may be dropped when the client goes away.
    fn serve(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// Answer for a message that was refused before it became a request; `head` is there as far
    /// as it could be read. The door sends the answer and closes.
    fn refuse(
        &self,
        refusal: Refusal,
        head: Option<&RequestHead>,
        client: &Client,
        now: Now,
    ) -> Response;
}

/// One request with its connection.
#[derive(Debug)]
pub struct Request {
    /// Method, target and fields, syntax and framing already judged.
    pub head: RequestHead,
    /// Body; its exact size is known where the client announced one.
    pub body: Body,
    /// Who asks.
    pub client: Arc<Client>,
    /// Way to send interim responses before the answer.
    pub interim: Interim,
    /// When the head was complete.
    pub arrived: Now,
}

/// One client connection, as every request on it sees it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Address of the client: the socket's, or what a trusted PROXY header says.
    pub address: SocketAddr,
    /// Address it connected to.
    pub local: SocketAddr,
    /// What TLS found out; `None` in plain.
    pub tls: Option<TlsInfo>,
}

/// What a TLS handshake found out.
#[derive(Clone, Debug)]
pub struct TlsInfo {
    /// Server name that the client asked for, in lower case.
    pub server_name: Option<String>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// Sends interim responses (1xx, RFC 9110 section 15.2) of one request; does nothing where the
/// client could not read them (HTTP/1.0) or once the answer has begun.
#[derive(Clone, Debug, Default)]
pub struct Interim {
    sender: Option<tokio::sync::mpsc::Sender<ResponseHead>>,
}

impl Interim {
    /// One that leads to a door, which forwards what it receives at once.
    #[must_use]
    pub fn new(sender: tokio::sync::mpsc::Sender<ResponseHead>) -> Self {
        Self { sender: Some(sender) }
    }

    /// Sends `head` on. Never waits: where the client does not keep up it is dropped, as interim
    /// responses may be.
    pub fn send(&self, head: ResponseHead) {
        if let Some(sender) = &self.sender {
            let _ = sender.try_send(head);
        }
    }
}

/// The answer to one request.
#[derive(Debug)]
pub struct Response {
    /// Status code, never 1xx.
    pub status: StatusCode,
    /// End-to-end fields only: the door adds framing and connection fields of its own.
    pub headers: HeaderMap,
    /// Body; the door derives the framing from its size and sends none where the request or the
    /// status allows none (HEAD, 204, 304).
    pub body: Body,
    /// Length to announce where no body is sent (HEAD), if it is known.
    pub head_length: Option<u64>,
    /// Close the connection after this answer.
    pub close: bool,
    /// Line of the access log; the door completes it when the last byte is sent or lost.
    pub record: Option<Box<Record>>,
}

impl Response {
    /// An answer with a body and nothing else.
    #[must_use]
    pub fn new(status: StatusCode, body: Body) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body,
            head_length: None,
            close: false,
            record: None,
        }
    }
}
