//! A small HTTP client for the admin listener: one request on one connection, with one deadline
//! for all of it. It speaks plain HTTP and to loopback only, since it carries a token.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::BytesMut;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::clock;
use crate::http1::{
    Chunk, ChunkLimits, ChunkedDecoder, HeadLimits, LengthDecoder, RequestFraming, ResponseFraming,
    encode_request, parse_response,
};

/// Time for connecting to one address.
const CONNECT: Duration = Duration::from_secs(3);

/// Largest answer that is read.
const LARGEST_BODY: usize = 16 << 20;

const HEAD_LIMITS: HeadLimits = HeadLimits {
    head_bytes: 32 << 10,
    field_bytes: 8 << 10,
    cookie_bytes: 8 << 10,
    fields: 100,
    target_bytes: 8 << 10,
};

/// Where the admin listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    host: String,
    port: u16,
}

/// What it answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// Nobody there, or nobody who speaks HTTP.
    Unreachable(String),
    /// The request went out and the answer did not come in time.
    Late(String),
}

impl Base {
    /// Reads `http://127.0.0.1:9080`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let server = crate::config::parse_server(text)?;
        if server.tls {
            return Err(
                "the admin listener speaks plain HTTP on loopback: \"http://127.0.0.1:9080\""
                    .to_owned(),
            );
        }
        let loopback = server.host == "localhost"
            || server
                .host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback());
        if !loopback {
            return Err(
                "the token would cross the network readable; reach another machine through a \
                 tunnel: ssh -L 9080:127.0.0.1:9080 MACHINE"
                    .to_owned(),
            );
        }
        Ok(Self { host: server.host, port: server.port })
    }

    /// Host and port as they stand in `Host`.
    fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority())
    }
}

/// Sends one request and reads its answer, all within `most`.
pub(super) fn call(
    base: &Base,
    method: &Method,
    path: &str,
    token: Option<&str>,
    body: Option<&[u8]>,
    most: Duration,
) -> Result<Answer, CallError> {
    call_with(base, method, path, token, None, body, most)
}

/// The same with a further field.
pub(super) fn call_with(
    base: &Base,
    method: &Method,
    path: &str,
    token: Option<&str>,
    field: Option<(HeaderName, HeaderValue)>,
    body: Option<&[u8]>,
    most: Duration,
) -> Result<Answer, CallError> {
    let deadline = clock::now().boot + most;
    let mut connection = Connection { stream: connect(base)?, buffer: BytesMut::new(), deadline };
    connection.send(&encode(base, method, path, token, field, body)?)?;
    let (status, framing) = connection.head(method)?;
    let body = connection.body(framing)?;
    Ok(Answer { status, body })
}

/// Reads an answer that does not end by itself: each piece goes to `take` as it comes, until that says
/// no, or nothing comes for `silence`. `Ok(None)`: the answer ended, or `take` said no. An answer that is not a
/// success comes as a whole.
pub(super) fn follow(
    base: &Base,
    path: &str,
    token: &str,
    field: Option<(HeaderName, HeaderValue)>,
    silence: Duration,
    take: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Option<Answer>, CallError> {
    let deadline = clock::now().boot + silence;
    let mut connection = Connection { stream: connect(base)?, buffer: BytesMut::new(), deadline };
    connection.send(&encode(base, &Method::GET, path, Some(token), field, None)?)?;
    let (status, framing) = connection.head(&Method::GET)?;
    if !status.is_success() {
        let body = connection.body(framing)?;
        return Ok(Some(Answer { status, body }));
    }
    let Some(mut decoder) = Decoder::of(framing) else { return Ok(None) };
    loop {
        connection.deadline = clock::now().boot + silence;
        match decoder.decode(&mut connection.buffer)? {
            Chunk::Data(data) => {
                if !take(&data) {
                    return Ok(None);
                }
            }
            Chunk::End => return Ok(None),
            Chunk::More => {
                if connection.fill()? == 0 {
                    return Ok(None);
                }
            }
        }
    }
}

fn encode(
    base: &Base,
    method: &Method,
    path: &str,
    token: Option<&str>,
    field: Option<(HeaderName, HeaderValue)>,
    body: Option<&[u8]>,
) -> Result<BytesMut, CallError> {
    let mut headers = HeaderMap::new();
    headers.extend(field);
    let unusable = |_: http::header::InvalidHeaderValue| {
        CallError::Unreachable(
            "the token cannot be sent: it has characters that no token has".to_owned(),
        )
    };
    headers.insert(HOST, HeaderValue::from_str(&base.authority()).map_err(unusable)?);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/problem+json"));
    headers
        .insert(USER_AGENT, HeaderValue::from_static(concat!("atoll/", env!("CARGO_PKG_VERSION"))));
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(unusable)?;
        headers.insert(AUTHORIZATION, value);
    }
    let framing = match body {
        Some(body) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            RequestFraming::Length(body.len() as u64)
        }
        None => RequestFraming::None,
    };
    let mut out = BytesMut::new();
    encode_request(method, path, &headers, framing, &mut out);
    out.extend_from_slice(body.unwrap_or_default());
    Ok(out)
}

fn connect(base: &Base) -> Result<TcpStream, CallError> {
    let addresses = (base.host.as_str(), base.port).to_socket_addrs();
    let addresses: Vec<SocketAddr> =
        addresses.map_err(|error| CallError::Unreachable(error.to_string()))?.collect();
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                last = "nobody listens there (is the node running?)".to_owned();
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(CallError::Unreachable(last))
}

fn garbled(rule: &str) -> CallError {
    CallError::Unreachable(format!("it does not answer in proper HTTP: {rule}"))
}

struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    deadline: Duration,
}

impl Connection {
    /// Time that is left.
    fn left(&self) -> Result<Duration, CallError> {
        let left = self.deadline.saturating_sub(clock::now().boot);
        if left.is_zero() { Err(late()) } else { Ok(left) }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), CallError> {
        let left = self.left()?;
        self.stream.set_write_timeout(Some(left)).map_err(|error| broken(&error))?;
        self.stream.write_all(bytes).map_err(|error| broken(&error))
    }

    /// Reads what there is; 0 at the end.
    fn fill(&mut self) -> Result<usize, CallError> {
        let left = self.left()?;
        self.stream.set_read_timeout(Some(left)).map_err(|error| broken(&error))?;
        let mut piece = [0_u8; 8192];
        let count = self.stream.read(&mut piece).map_err(|error| broken(&error))?;
        self.buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// Reads up to the end of the final head.
    fn head(&mut self, method: &Method) -> Result<(StatusCode, ResponseFraming), CallError> {
        loop {
            match parse_response(&mut self.buffer, method, &HEAD_LIMITS).map_err(garbled)? {
                Some(response) if response.head.status.is_informational() => {}
                Some(response) => return Ok((response.head.status, response.framing)),
                None if self.fill()? == 0 => {
                    return Err(CallError::Unreachable("it closed without an answer".to_owned()));
                }
                None => {}
            }
        }
    }

    fn body(&mut self, framing: ResponseFraming) -> Result<Vec<u8>, CallError> {
        let mut body = Vec::new();
        let Some(mut decoder) = Decoder::of(framing) else { return Ok(body) };
        loop {
            match decoder.decode(&mut self.buffer)? {
                Chunk::Data(data) if body.len() + data.len() > LARGEST_BODY => {
                    return Err(garbled("its answer is too long"));
                }
                Chunk::Data(data) => body.extend_from_slice(&data),
                Chunk::End => return Ok(body),
                Chunk::More => {
                    if self.fill()? > 0 {
                        continue;
                    }
                    return match decoder {
                        Decoder::Close => Ok(body),
                        _ => Err(garbled("its answer is cut off")),
                    };
                }
            }
        }
    }
}

enum Decoder {
    Length(LengthDecoder),
    Chunked(ChunkedDecoder),
    Close,
}

impl Decoder {
    /// What reads a body in this framing; `None` where there is no body.
    fn of(framing: ResponseFraming) -> Option<Self> {
        match framing {
            ResponseFraming::None => None,
            ResponseFraming::Length(length) => Some(Self::Length(LengthDecoder::new(length))),
            ResponseFraming::Chunked => {
                let limits =
                    ChunkLimits { extension_bytes: 4096, trailer_bytes: 8192, trailer_fields: 32 };
                Some(Self::Chunked(ChunkedDecoder::new(limits)))
            }
            ResponseFraming::Close => Some(Self::Close),
        }
    }

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Chunk, CallError> {
        match self {
            Self::Length(decoder) => Ok(decoder.decode(buffer)),
            Self::Chunked(decoder) => decoder.decode(buffer).map_err(|error| garbled(error.rule())),
            Self::Close if buffer.is_empty() => Ok(Chunk::More),
            Self::Close => Ok(Chunk::Data(buffer.split().freeze())),
        }
    }
}

fn late() -> CallError {
    CallError::Late("no answer in time".to_owned())
}

fn broken(error: &std::io::Error) -> CallError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => late(),
        _ => CallError::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// Answers one connection with `answer` once the whole request is there, and tells the request.
    fn serve_once(answer: &'static str) -> (Base, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut seen = Vec::new();
            let mut piece = [0; 1024];
            while !(seen.ends_with(b"\r\n\r\n") || seen.ends_with(b"}")) {
                let count = stream.read(&mut piece).expect("a request");
                assert_ne!(count, 0, "the request is cut off");
                seen.extend_from_slice(&piece[..count]);
            }
            stream.write_all(answer.as_bytes()).expect("a listener");
            String::from_utf8(seen).expect("text")
        });
        (Base { host: "127.0.0.1".to_owned(), port }, server)
    }

    #[test]
    fn answers_are_read_in_every_framing() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ] {
            let (base, server) = serve_once(answer);
            let got = call(&base, &Method::GET, "/x", None, None, SOON).expect(answer);
            assert_eq!(
                (got.status.as_u16(), got.body.as_slice()),
                (200, &b"hello"[..]),
                "{answer}"
            );
            let request = server.join().expect("no panic");
            assert!(request.starts_with("GET /x HTTP/1.1\r\n"), "{request}");
        }
    }

    #[test]
    fn a_body_and_a_token_are_sent() {
        let (base, server) = serve_once("HTTP/1.1 204 No Content\r\n\r\n");
        call(&base, &Method::POST, "/v1/purge", Some("t"), Some(b"{\"all\":true}"), SOON)
            .expect("fine");
        let request = server.join().expect("no panic").to_ascii_lowercase();
        for part in
            ["authorization: bearer t\r\n", "content-length: 12\r\n", "\r\n\r\n{\"all\":true}"]
        {
            assert!(request.contains(part), "{part} in {request}");
        }
    }

    #[test]
    fn no_answer_is_told_apart_from_a_late_one() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let base = Base { host: "127.0.0.1".to_owned(), port };
        let silent = call(&base, &Method::GET, "/", None, None, Duration::from_millis(50));
        assert!(matches!(silent, Err(CallError::Late(_))), "{silent:?}");
        drop(listener);
        let gone = call(&base, &Method::GET, "/", None, None, SOON);
        assert!(matches!(gone, Err(CallError::Unreachable(_))), "{gone:?}");
        for answer in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", ""]
        {
            let (base, server) = serve_once(answer);
            let got = call(&base, &Method::GET, "/", None, None, SOON);
            assert!(matches!(got, Err(CallError::Unreachable(_))), "{answer}: {got:?}");
            server.join().expect("no panic");
        }
    }

    #[test]
    fn only_loopback_is_asked() {
        for (text, expected) in [
            ("http://127.0.0.1:9080", None),
            ("http://localhost", None),
            ("http://[::1]:9080", None),
            ("https://127.0.0.1:9080", Some("plain HTTP")),
            ("http://192.0.2.1:9080", Some("ssh -L")),
            ("http://admin.example:9080", Some("ssh -L")),
        ] {
            match (Base::parse(text), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => assert!(error.contains(expected), "{error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }
}
