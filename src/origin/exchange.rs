//! One request to an origin and its answer.

use std::net::SocketAddr;

use http::{HeaderMap, Method};

use crate::message::{Body, ResponseHead};
use crate::semantics::RetryOn;

/// A request as it goes to an origin. The door adds framing and connection fields.
#[derive(Debug)]
pub struct Outgoing {
    /// Method.
    pub method: Method,
    /// Origin-form target.
    pub target: String,
    /// End-to-end fields, `Host` among them.
    pub headers: HeaderMap,
    /// Body; sent with `Content-Length` where its exact size is known, else chunked. An empty
    /// body with a method that usually has one (POST, PUT, PATCH) sends `Content-Length: 0`.
    pub body: Body,
    /// A call that streams both ways, as gRPC does: it goes out at once, its body may be silent,
    /// and trailers go on in both directions. HTTP/1.1 carries it as any other request.
    pub streams: bool,
    /// How it is to be sent.
    pub manner: Manner,
    /// Whose request it is, for origins that are told by the PROXY protocol.
    pub hop: Option<Hop>,
}

/// How a request is to be sent, as far as its site and its origin decide it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Hash of what requests for the same endpoint have in common; `None` where nothing hashes.
    pub affinity: Option<u64>,
    /// Statuses after which it is sent again where that is safe, to another endpoint.
    pub retry_on: RetryOn,
    /// Send it a second time, to another endpoint, when the first takes unusually long.
    pub hedge: bool,
}

/// A client's connection to us: where it comes from and where it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Address of the client.
    pub from: SocketAddr,
    /// Our address.
    pub to: SocketAddr,
}

impl Outgoing {
    /// The head, which every attempt at the request shares, the body, and how they are sent.
    pub(super) fn split(self) -> (Head, Body, Manner) {
        let Self { method, target, headers, body, streams, manner, hop } = self;
        (Head { method, target, headers, streams, hop }, body, manner)
    }
}

/// Head of a request as it goes to an origin.
#[derive(Debug)]
pub(super) struct Head {
    /// Method.
    pub(super) method: Method,
    /// Origin-form target.
    pub(super) target: String,
    /// End-to-end fields, `Host` among them.
    pub(super) headers: HeaderMap,
    /// Whether it is a call that streams.
    pub(super) streams: bool,
    /// Whose request it is.
    pub(super) hop: Option<Hop>,
}

/// How the end of an answer's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body (HEAD, 204, 304).
    None,
    /// `Content-Length`.
    Length(u64),
    /// Chunked coding.
    Chunked,
    /// The connection's end: no proof of completeness.
    Close,
}

/// The final response of an origin, its body still arriving.
#[derive(Debug)]
pub struct Answer {
    /// Status and fields; hop-by-hop fields are removed.
    pub head: ResponseHead,
    /// Body. Dropping it before its end closes the connection.
    pub body: Body,
    /// How the body ends.
    pub framing: Framing,
    /// Who answered.
    pub endpoint: SocketAddr,
}
