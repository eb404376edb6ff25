//! The way to one node: a request for the object over a connection of its own, as a client makes it.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::round::{Reading, Unread};
use crate::clock::{self, Now};
use crate::config::Server;
use crate::http1::{
    Chunk, ChunkLimits, ChunkedDecoder, HeadLimits, LengthDecoder, RequestFraming, ResponseFraming,
    encode_request, parse_response,
};

/// Longest body that can be the object.
const BODY_BYTES: usize = 4096;

const HEAD_LIMITS: HeadLimits = HeadLimits {
    head_bytes: 32 << 10,
    field_bytes: 8 << 10,
    cookie_bytes: 8 << 10,
    fields: 100,
    target_bytes: 8 << 10,
};

const CHUNK_LIMITS: ChunkLimits =
    ChunkLimits { extension_bytes: 256, trailer_bytes: 4096, trailer_fields: 32 };

/// How one node is asked.
pub(super) struct Way {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    request: BytesMut,
}

impl Way {
    /// To `server`, for a path of a host; over TLS with `tls` and the host's name.
    ///
    /// # Errors
    /// When the host is no name that a certificate or a field may bear.
    pub(super) fn new(
        server: &Server,
        (host, path): (&str, &str),
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, String> {
        let mut fields = HeaderMap::new();
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let value = HeaderValue::try_from(bracketed).map_err(|error| error.to_string())?;
        fields.insert(HOST, value);
        fields.insert(USER_AGENT, HeaderValue::from_static("atoll-canary"));
        fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut request = BytesMut::new();
        encode_request(&Method::GET, path, &fields, RequestFraming::None, &mut request);
        let name = || ServerName::try_from(host.to_owned()).map_err(|error| error.to_string());
        let tls = match tls.filter(|_| server.tls) {
            Some(tls) => Some((TlsConnector::from(Arc::clone(tls)), name()?)),
            None => None,
        };
        Ok(Self { host: server.host.clone(), port: server.port, tls, request })
    }

    /// Reads the object, `patience` at longest. Gives the moment before which no byte of the request was
    /// sent.
    pub(super) async fn read(&self, patience: Duration) -> (Now, Reading) {
        let mut sent = clock::now();
        let read = timeout(patience, self.try_read(&mut sent)).await;
        (sent, read.unwrap_or(Err(Unread::Time)))
    }

    async fn try_read(&self, sent: &mut Now) -> Reading {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|_unreachable| Unread::Connection)?;
        match &self.tls {
            None => self.ask(stream, sent).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                self.ask(stream.map_err(|_refused| Unread::Tls)?, sent).await
            }
        }
    }

    async fn ask(&self, mut io: impl AsyncRead + AsyncWrite + Unpin, sent: &mut Now) -> Reading {
        *sent = clock::now();
        io.write_all(&self.request).await.map_err(|_broken| Unread::Connection)?;
        io.flush().await.map_err(|_broken| Unread::Connection)?;
        let mut buffer = BytesMut::new();
        let framing = head(&mut io, &mut buffer).await?;
        let body = body(&mut io, &mut buffer, framing).await?;
        serde_json::from_slice(&body).map_err(|_other| Unread::Content)
    }
}

/// Reads the final head.
async fn head(
    io: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<ResponseFraming, Unread> {
    loop {
        let parsed = parse_response(buffer, &Method::GET, &HEAD_LIMITS);
        match parsed.map_err(|_rule| Unread::Content)? {
            Some(parsed) if parsed.head.status.is_informational() => {}
            Some(parsed) if parsed.head.status == StatusCode::OK => return Ok(parsed.framing),
            Some(_) => return Err(Unread::Status),
            None => {
                if fill(io, buffer).await? == 0 {
                    return Err(Unread::Connection);
                }
            }
        }
    }
}

async fn fill(io: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Result<usize, Unread> {
    io.read_buf(buffer).await.map_err(|_broken| Unread::Connection)
}

/// Reads the whole body, which must be short.
async fn body(
    io: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    framing: ResponseFraming,
) -> Result<BytesMut, Unread> {
    let mut decoder = Decoder::of(framing);
    let mut body = BytesMut::new();
    loop {
        match decoder.decode(buffer)? {
            Chunk::Data(data) if body.len() + data.len() <= BODY_BYTES => {
                body.extend_from_slice(&data);
            }
            Chunk::Data(_) => return Err(Unread::Content),
            Chunk::End => return Ok(body),
            Chunk::More => {
                if fill(io, buffer).await? == 0 {
                    // Of a body that ends with its connection this is the end; JSON says if it is whole.
                    let whole = matches!(decoder, Decoder::Close);
                    return if whole { Ok(body) } else { Err(Unread::Connection) };
                }
            }
        }
    }
}

/// How the body's end is known.
enum Decoder {
    None,
    Length(LengthDecoder),
    Chunked(ChunkedDecoder),
    Close,
}

impl Decoder {
    fn of(framing: ResponseFraming) -> Self {
        match framing {
            ResponseFraming::None => Self::None,
            ResponseFraming::Length(length) => Self::Length(LengthDecoder::new(length)),
            ResponseFraming::Chunked => Self::Chunked(ChunkedDecoder::new(CHUNK_LIMITS)),
            ResponseFraming::Close => Self::Close,
        }
    }

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Chunk, Unread> {
        match self {
            Self::None => Ok(Chunk::End),
            Self::Length(decoder) => Ok(decoder.decode(buffer)),
            Self::Chunked(decoder) => decoder.decode(buffer).map_err(|_rule| Unread::Content),
            Self::Close if buffer.is_empty() => Ok(Chunk::More),
            Self::Close => Ok(Chunk::Data(buffer.split().freeze())),
        }
    }
}
