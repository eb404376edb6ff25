//! A raw HTTP/1.1 client that reads answers strictly and tells a clean end from a cut-off one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::websocket::take_frame;
use super::{certificate, within};

/// What carries a connection.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// One keep-alive connection.
pub(crate) struct Connection {
    wire: Box<dyn Wire>,
    buffer: BytesMut,
    body: Framing,
    local: Option<SocketAddr>,
}

/// A response head, interim or final.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As its framing says.
    Clean,
    /// Before that.
    CutOff,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) interim: Vec<Head>,
    pub(crate) body: Bytes,
    pub(crate) ended: Ended,
}

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked { left: u64 },
    Close,
}

impl Connection {
    /// Connects in plain.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.unwrap()
    }

    /// Connects in plain, or is turned away.
    pub(crate) async fn try_open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = within("a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        Ok(Self { local: Some(local), ..Self::over(stream) })
    }

    /// Address from which a plain connection was opened.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local.expect("a plain connection")
    }

    /// Connects in plain as a client with another address.
    pub(crate) async fn open_from(source: IpAddr, address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0))?;
        Ok(Self::over(within("a connection", socket.connect(address)).await?))
    }

    /// Connects in plain with a receive buffer of a few KiB, for a client that takes little.
    pub(crate) async fn open_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::over(within("a connection", socket.connect(address)).await.unwrap())
    }

    /// Connects over TLS; says what went wrong with the handshake.
    pub(crate) async fn open_tls(
        address: SocketAddr,
        name: Option<&str>,
        alpn: &[&str],
    ) -> std::io::Result<(Self, Negotiated)> {
        let stream = tls(address, name, alpn).await?;
        let (_, session) = stream.get_ref();
        let negotiated = Negotiated {
            protocol: session
                .alpn_protocol()
                .map(|name| String::from_utf8_lossy(name).into_owned()),
            certificate: session.peer_certificates().unwrap()[0].to_vec(),
            version: session.protocol_version().unwrap(),
        };
        Ok((Self::over(stream), negotiated))
    }

    fn over(wire: impl Wire + 'static) -> Self {
        Self {
            wire: Box::new(wire),
            buffer: BytesMut::with_capacity(16 * 1024),
            body: Framing::None,
            local: None,
        }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends bytes as they are; fails where the other side has closed.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let all = async {
            self.wire.write_all(bytes.as_ref()).await?;
            self.wire.flush().await
        };
        within("the edge to take bytes", all).await
    }

    /// Sends a GET.
    pub(crate) async fn ask(&mut self, host: &str, target: &str, fields: &[(&str, &str)]) {
        self.send(request("GET", host, target, fields)).await;
    }

    /// Sends a GET and reads the whole answer.
    pub(crate) async fn get(
        &mut self,
        host: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Response {
        self.ask(host, target, fields).await;
        self.response("GET").await
    }

    /// Reads a whole answer to a request with that method.
    pub(crate) async fn response(&mut self, method: &str) -> Response {
        let mut interim = Vec::new();
        let head = loop {
            let head = self.head(method).await;
            if head.status >= 200 {
                break head;
            }
            interim.push(head);
        };
        let (body, ended) = self.rest().await;
        Response { head, interim, body, ended }
    }

    /// Reads the next head, interim or final. What follows is read as its body.
    pub(crate) async fn head(&mut self, method: &str) -> Head {
        self.try_head(method).await.expect("the connection ended before a response head")
    }

    /// Reads the next head; `None` where the connection ends before its first byte.
    pub(crate) async fn try_head(&mut self, method: &str) -> Option<Head> {
        assert_eq!(self.body, Framing::None, "the body before has not been read");
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if !self.fill("a response head").await {
                assert!(self.buffer.is_empty(), "half a head: {:?}", self.buffer);
                return None;
            }
        };
        let bytes = self.buffer.split_to(end + 4);
        let head = Head::parse(std::str::from_utf8(&bytes[..end]).expect("ASCII in the head"));
        self.body = framing(&head, method);
        Some(head)
    }

    /// The next piece of the body: `Ok(None)` at its clean end, `Err` where it was cut off.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, ()> {
        match self.body {
            Framing::None => Ok(None),
            Framing::Length(0) => {
                self.body = Framing::None;
                Ok(None)
            }
            Framing::Length(left) => {
                if self.buffer.is_empty() && !self.fill("body bytes").await {
                    return Err(());
                }
                let bytes = self.take(left);
                self.body = Framing::Length(left - bytes.len() as u64);
                Ok(Some(bytes))
            }
            Framing::Chunked { left: 0 } => self.chunk_head().await,
            Framing::Chunked { left } => {
                if self.buffer.is_empty() && !self.fill("chunk bytes").await {
                    return Err(());
                }
                let bytes = self.take(left);
                let left = left - bytes.len() as u64;
                self.body = Framing::Chunked { left };
                if left == 0 {
                    let line = self.line().await?;
                    assert!(line.is_empty(), "chunk data must be followed by CRLF: {line:?}");
                }
                Ok(Some(bytes))
            }
            Framing::Close => {
                if self.buffer.is_empty() && !self.fill("body bytes").await {
                    self.body = Framing::None;
                    return Ok(None);
                }
                let all = self.buffer.len() as u64;
                Ok(Some(self.take(all)))
            }
        }
    }

    async fn chunk_head(&mut self) -> Result<Option<Bytes>, ()> {
        let line = self.line().await?;
        let left = u64::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
        if left > 0 {
            self.body = Framing::Chunked { left };
            return Ok(Some(Bytes::new()));
        }
        let line = self.line().await?;
        assert!(line.is_empty(), "no trailers are sent: {line:?}");
        self.body = Framing::None;
        Ok(None)
    }

    /// Reads exactly `count` bytes of the body.
    pub(crate) async fn body_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < count {
            match self.piece().await {
                Ok(Some(bytes)) => out.extend_from_slice(&bytes),
                other => panic!("body over after {} of {count} bytes: {other:?}", out.len()),
            }
        }
        assert_eq!(
            out.len(),
            count,
            "more body than expected: {:?}",
            String::from_utf8_lossy(&out)
        );
        out
    }

    /// Reads the body to its end.
    pub(crate) async fn rest(&mut self) -> (Bytes, Ended) {
        let mut out = BytesMut::new();
        loop {
            match self.piece().await {
                Ok(Some(bytes)) => out.extend_from_slice(&bytes),
                Ok(None) => return (out.freeze(), Ended::Clean),
                Err(()) => {
                    self.body = Framing::None;
                    return (out.freeze(), Ended::CutOff);
                }
            }
        }
    }

    /// Reads exactly so many bytes of another protocol.
    pub(crate) async fn bytes(&mut self, count: usize) -> BytesMut {
        while self.buffer.len() < count {
            assert!(self.fill("bytes").await, "ended after {} of {count}", self.buffer.len());
        }
        self.buffer.split_to(count)
    }

    /// Reads a WebSocket frame.
    pub(crate) async fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some((opcode, payload, masked)) = take_frame(&mut self.buffer) {
                assert!(!masked, "a server does not mask its frames");
                return (opcode, payload);
            }
            assert!(self.fill("a frame").await, "ended within a frame");
        }
    }

    /// Sends bytes and reads as many at the same time.
    pub(crate) async fn swap(&mut self, bytes: &[u8]) -> BytesMut {
        let (mut read, mut write) = tokio::io::split(&mut self.wire);
        let mut back = self.buffer.split();
        let send = async { write.write_all(bytes).await.unwrap() };
        let receive = async {
            while back.len() < bytes.len() {
                back.reserve(64 * 1024);
                let read = within("bytes", read.read_buf(&mut back)).await.unwrap();
                assert!(read > 0, "ended after {}", back.len());
            }
        };
        tokio::join!(send, receive);
        self.buffer = back.split_off(bytes.len());
        back
    }

    /// Waits for the other side to end; whether it did so in order and without another byte.
    pub(crate) async fn ends_in_order(&mut self) -> bool {
        let read = within("the end", self.wire.read_buf(&mut self.buffer)).await;
        matches!(read, Ok(0)) && self.buffer.is_empty()
    }

    /// Waits for the other side to close and fails if it says anything more.
    pub(crate) async fn closed(&mut self) {
        while self.fill("the edge to close the connection").await {}
        assert!(
            self.buffer.is_empty(),
            "bytes before the close: {:?}",
            String::from_utf8_lossy(&self.buffer)
        );
    }

    /// Waits for the other side to close, whatever it says before.
    pub(crate) async fn any_end(&mut self) {
        while self.fill("the edge to close the connection").await {}
    }

    /// Ends the own side and keeps reading.
    pub(crate) async fn finish(&mut self) {
        self.wire.shutdown().await.unwrap();
    }

    fn take(&mut self, most: u64) -> Bytes {
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.split_to(count).freeze()
    }

    async fn line(&mut self) -> Result<String, ()> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = self.buffer.split_to(at + 2);
                return Ok(String::from_utf8(line[..at].to_vec()).expect("ASCII in a chunk line"));
            }
            if !self.fill("a chunk line").await {
                return Err(());
            }
        }
    }

    /// Reads more; `false` at the end, a reset included.
    async fn fill(&mut self, what: &str) -> bool {
        matches!(within(what, self.wire.read_buf(&mut self.buffer)).await, Ok(1..))
    }
}

/// What a TLS handshake came to.
#[derive(Debug)]
pub(crate) struct Negotiated {
    pub(crate) protocol: Option<String>,
    pub(crate) certificate: Vec<u8>,
    pub(crate) version: rustls::ProtocolVersion,
}

/// A TLS connection that takes any certificate.
pub(crate) async fn tls(
    address: SocketAddr,
    name: Option<&str>,
    alpn: &[&str],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = within("a connection", TcpStream::connect(address)).await?;
    stream.set_nodelay(true)?;
    let mut config = certificate::trusting_client();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    // Without a name the client sends no SNI: an address is none.
    let name = match name {
        Some(name) => ServerName::try_from(name.to_owned()).unwrap(),
        None => ServerName::from(address.ip()),
    };
    within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// Bytes of a request without a body.
pub(crate) fn request(method: &str, host: &str, target: &str, fields: &[(&str, &str)]) -> String {
    let mut out = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in fields {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out
}

impl Head {
    fn parse(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        let status = lines.next().unwrap();
        let (version, rest) = status.split_once(' ').expect("a status line");
        assert!(matches!(version, "HTTP/1.1" | "HTTP/1.0"), "{status:?}");
        assert!(rest.as_bytes().get(3) == Some(&b' '), "{status:?}");
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("field {line:?}"));
            assert!(!line.contains(['\r', '\n']), "{line:?}");
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Self {
            version: version.to_owned(),
            status: rest[..3].parse().expect("a status of three digits"),
            fields: fields.collect(),
        }
    }

    /// The only value of a field; `None` where there is none.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} is there more than once: {all:?}");
        all.first().copied()
    }

    /// Every value of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| &**value).collect()
    }
}

/// The framing that a strict reader takes a response for; both fields at once fail.
fn framing(head: &Head, method: &str) -> Framing {
    let length = head.field("content-length");
    let coding = head.field("transfer-encoding");
    assert!(length.is_none() || coding.is_none(), "two framings: {head:?}");
    if method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304) {
        return Framing::None;
    }
    match (length, coding) {
        (Some(length), _) => Framing::Length(length.parse().expect("a length")),
        (_, Some(coding)) => {
            assert_eq!(coding, "chunked");
            Framing::Chunked { left: 0 }
        }
        _ => Framing::Close,
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    /// The only value of a field; `None` where there is none.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// What the edge says of itself in `Cache-Status`: its own member, the last one.
    pub(crate) fn cache(&self) -> &str {
        let all = self.head.all("cache-status");
        let last = all.last().unwrap_or_else(|| panic!("no Cache-Status: {self:?}"));
        let own = last.rsplit(", ").next().unwrap();
        assert!(own.starts_with("atoll"), "{own}");
        own
    }

    /// Whether `Cache-Status` has the parameter, with value where there is one: `hit`,
    /// `fwd=stale`.
    pub(crate) fn says(&self, parameter: &str) -> bool {
        self.cache().split("; ").any(|own| own == parameter)
    }

    /// The whole answer is there and says this.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16, body: &str, cache: &str) -> &Self {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.ended, Ended::Clean, "{self:?}");
        assert_eq!(self.text(), body, "{self:?}");
        assert!(self.says(cache), "{cache:?} is not in {:?}", self.cache());
        self
    }

    /// Remaining freshness by `Cache-Status`.
    pub(crate) fn ttl(&self) -> i64 {
        let member = self.cache().split("; ").find_map(|own| own.strip_prefix("ttl="));
        member.unwrap_or_else(|| panic!("no ttl in {}", self.cache())).parse().unwrap()
    }
}
