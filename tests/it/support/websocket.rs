//! WebSocket by hand (RFC 6455): handshakes and frames, over HTTP/1.1 and as a stream of HTTP/2.

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request};

use super::client::request;
use super::edge::HOST;
use super::origin::Seen;
use super::{H2, Piece, Reply, until, within};

/// The key of RFC 6455 section 1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Fields of a handshake over HTTP/1.1.
pub(crate) const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", KEY),
];

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;

/// A handshake with further fields.
pub(crate) fn handshake(target: &str, more: &[(&str, &str)]) -> String {
    request("GET", HOST, target, &[&HANDSHAKE[..], more].concat())
}

/// What proves that a server has read `key`.
pub(crate) fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    atoll::guard::base64(hash.as_ref())
}

/// Head of an origin that accepts.
pub(crate) fn switching(seen: &Seen) -> String {
    let accept = accept(seen.field("sec-websocket-key").unwrap_or_default());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nX-Own: origin\r\n\r\n"
    )
}

/// Accepts, and goes on as told.
pub(crate) fn accepting(seen: &Seen, then: Vec<Piece>) -> Reply {
    Reply::script([vec![Piece::data(switching(seen))], then].concat())
}

/// One whole frame; a client masks it.
pub(crate) fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        length @ ..=125 => out.push(masked | u8::try_from(length).unwrap()),
        length @ ..=65_535 => {
            out.push(masked | 126);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            out.push(masked | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    let mask = mask.inspect(|mask| out.extend(mask)).unwrap_or_default();
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// Takes the first frame out of `buffer`, once it is whole: opcode, payload, and whether it was
/// masked.
pub(crate) fn take_frame(buffer: &mut BytesMut) -> Option<(u8, Vec<u8>, bool)> {
    let (first, second) = (*buffer.first()?, *buffer.get(1)?);
    assert_eq!(first & 0xf0, 0x80, "one frame for each message, no extensions");
    let (length, at) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().unwrap())), 4),
        127 => {
            let length = u64::from_be_bytes(buffer.get(2..10)?.try_into().unwrap());
            (usize::try_from(length).unwrap(), 10)
        }
        short => (usize::from(short), 2),
    };
    let masked = second & 0x80 != 0;
    let start = at + if masked { 4 } else { 0 };
    if buffer.len() < start + length {
        return None;
    }
    let mut whole = buffer.split_to(start + length);
    let mask = if masked { whole[at..start].to_vec() } else { vec![0] };
    let payload = whole.split_off(start);
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some((first & 15, payload, masked))
}

/// A stream of HTTP/2 that carries another protocol.
pub(crate) struct Stream {
    pub(crate) send: SendStream<Bytes>,
    pub(crate) receive: RecvStream,
    pub(crate) head: http::response::Parts,
    buffer: BytesMut,
}

/// Asks for a protocol by extended CONNECT (RFC 8441).
pub(crate) async fn connect(
    client: &mut H2,
    protocol: &'static str,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<Stream, h2::Error> {
    let sender = client.sender();
    until("the edge to offer extended CONNECT", || async {
        sender.is_extended_connect_protocol_enabled()
    })
    .await;
    let mut head: Request<()> = client.head("GET", path, fields);
    *head.method_mut() = Method::CONNECT;
    head.extensions_mut().insert(Protocol::from_static(protocol));
    let mut ready = within("room for a stream", client.sender().ready()).await?;
    let (response, send) = ready.send_request(head, false)?;
    let (head, receive) = within("an answer to CONNECT", response).await?.into_parts();
    Ok(Stream { send, receive, head, buffer: BytesMut::new() })
}

/// Asks for WebSocket with all that belongs to it.
pub(crate) async fn connect_websocket(client: &mut H2, path: &str) -> Stream {
    let fields = [("sec-websocket-version", "13"), ("origin", "https://site.test")];
    connect(client, "websocket", path, &fields).await.unwrap()
}

impl Stream {
    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Sends bytes as the window allows.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let mut left = Bytes::copy_from_slice(bytes);
        while !left.is_empty() {
            self.send.reserve_capacity(left.len());
            let room = std::future::poll_fn(|context| self.send.poll_capacity(context));
            let room = within("a window", room).await.expect("an open stream").unwrap();
            self.send.send_data(left.split_to(room.min(left.len())), false).unwrap();
        }
    }

    pub(crate) fn finish(&mut self) {
        self.send.send_data(Bytes::new(), true).unwrap();
    }

    /// Reads exactly so many bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> BytesMut {
        while self.buffer.len() < count {
            assert!(self.fill().await.unwrap(), "ended after {}", self.buffer.len());
        }
        self.buffer.split_to(count)
    }

    /// Reads a frame.
    pub(crate) async fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some((opcode, payload, _)) = take_frame(&mut self.buffer) {
                return (opcode, payload);
            }
            assert!(self.fill().await.unwrap(), "ended within a frame");
        }
    }

    /// Reads to the end: what came, or the reason of the reset.
    pub(crate) async fn rest(&mut self) -> Result<Bytes, Option<Reason>> {
        while self.fill().await.map_err(|error| error.reason())? {}
        Ok(self.buffer.split().freeze())
    }

    async fn fill(&mut self) -> Result<bool, h2::Error> {
        let Some(data) = within("DATA", self.receive.data()).await.transpose()? else {
            return Ok(false);
        };
        self.receive.flow_control().release_capacity(data.len()).unwrap();
        self.buffer.extend_from_slice(&data);
        Ok(true)
    }
}
