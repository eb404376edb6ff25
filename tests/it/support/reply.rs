//! What an origin answers: a head, a body in pieces, and what happens between them.

use std::time::Duration;

use bytes::Bytes;

use super::Gate;

/// A step while a body is sent.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// Bytes, one chunk where the body is chunked.
    Data(Bytes),
    /// Wait at a gate.
    Gate(Gate),
    /// Let time pass.
    Pause(Duration),
    /// Close the connection in order.
    Close,
    /// Reset the connection.
    Reset,
    /// Keep the connection and say nothing more.
    Hang,
    /// Send back whatever comes until the other side ends.
    Echo,
    /// Send the payload of each WebSocket frame back in a frame of its own until the close frame.
    EchoFrames,
    /// Read whatever comes until the other side ends; it counts as received.
    ReadAll,
}

impl Piece {
    pub(crate) fn data(bytes: impl AsRef<[u8]>) -> Self {
        Self::Data(Bytes::copy_from_slice(bytes.as_ref()))
    }

    pub(crate) fn gate(gate: &Gate) -> Self {
        Self::Gate(gate.clone())
    }
}

#[derive(Clone, Debug)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
    Close,
    /// The pieces are all there is, head included.
    Raw,
}

#[derive(Clone, Debug)]
pub(super) enum Reading {
    /// The request body first, then the answer.
    First,
    /// The same, once a gate is open.
    Behind(Gate),
    /// The answer first; what comes is thrown away after it.
    After,
}

/// What an origin answers.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) interim: Vec<(u16, Vec<(String, String)>)>,
    pub(super) before: Vec<Piece>,
    pub(super) framing: Framing,
    pub(super) pieces: Vec<Piece>,
    pub(super) reading: Reading,
}

impl Reply {
    /// An empty answer.
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            interim: Vec::new(),
            before: Vec::new(),
            framing: Framing::Length(0),
            pieces: Vec::new(),
            reading: Reading::First,
        }
    }

    /// 200 with a body, and not a word about caching.
    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new(200).body(body)
    }

    /// 200 with a body that is fresh for a minute.
    pub(crate) fn fresh(body: impl AsRef<[u8]>) -> Self {
        Self::ok(body).field("Cache-Control", "max-age=60")
    }

    /// 200 with a body that was stale when it left, and a validator to ask with.
    pub(crate) fn stale(body: impl AsRef<[u8]>, etag: &str) -> Self {
        Self::fresh(body).field("Age", "100").field("ETag", etag)
    }

    /// 304 that makes what it confirms fresh for a minute.
    pub(crate) fn not_modified() -> Self {
        Self::new(304).field("Cache-Control", "max-age=60")
    }

    /// Bytes as they are, instead of a head and a body; then the connection is closed.
    pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::script(vec![Piece::data(bytes), Piece::Close])
    }

    /// Steps instead of a head and a body.
    pub(crate) fn script(pieces: Vec<Piece>) -> Self {
        Self { framing: Framing::Raw, pieces, ..Self::new(0) }
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a field away that a constructor gave.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(own, _)| own != name);
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.framing = Framing::Length(body.as_ref().len());
        self.pieces = vec![Piece::data(body)];
        self
    }

    /// A body of announced length, in pieces.
    pub(crate) fn sized(mut self, length: usize, pieces: Vec<Piece>) -> Self {
        self.framing = Framing::Length(length);
        self.pieces = pieces;
        self
    }

    /// A chunked body.
    pub(crate) fn chunked(mut self, pieces: Vec<Piece>) -> Self {
        self.framing = Framing::Chunked;
        self.pieces = pieces;
        self
    }

    /// A body that ends with its connection.
    pub(crate) fn until_close(mut self, pieces: Vec<Piece>) -> Self {
        self.framing = Framing::Close;
        self.pieces = pieces;
        self
    }

    /// Breaks off after the first bytes of its body, whose length stays announced.
    pub(crate) fn broken_after(mut self, count: usize) -> Self {
        if let [Piece::Data(bytes)] = &*self.pieces {
            self.pieces = vec![Piece::Data(bytes.slice(..count)), Piece::Reset];
        }
        self
    }

    /// Bytes of its body.
    pub(crate) fn body_bytes(&self) -> u64 {
        let size = |piece: &Piece| match piece {
            Piece::Data(bytes) => bytes.len() as u64,
            _ => 0,
        };
        self.pieces.iter().map(size).sum()
    }

    /// Waits at a gate before the head.
    pub(crate) fn gate(self, gate: &Gate) -> Self {
        self.before(Piece::gate(gate))
    }

    /// Does something before the head.
    pub(crate) fn before(mut self, piece: Piece) -> Self {
        self.before.push(piece);
        self
    }

    /// Sends an interim response first.
    pub(crate) fn interim(mut self, status: u16, fields: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.interim.push((status, fields.iter().map(own).collect()));
        self
    }

    /// Answers without reading the request body.
    pub(crate) fn early(mut self) -> Self {
        self.reading = Reading::After;
        self
    }

    /// Reads the request body only when the gate is open.
    pub(crate) fn read_behind(mut self, gate: &Gate) -> Self {
        self.reading = Reading::Behind(gate.clone());
        self
    }
}
