//! A client's connection: bytes out as they are given, answers in, and how it ended.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait of a second client for its answer: a second, or as much longer as more is running
/// on this machine than it has processors.
pub(crate) fn tolerance() -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load = load.and_then(|text| text.split(' ').next()?.parse::<f64>().ok()).unwrap_or(1.0);
    let processors = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    Duration::from_secs(1).mul_f64((load / processors).max(1.0)).min(PATIENCE)
}

/// One connection.
pub(crate) struct Wire {
    stream: Stream,
    buffer: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN, after `close_notify` over TLS.
    Fin,
    /// FIN without `close_notify`.
    Cut,
    Reset,
    /// It has not.
    Open,
    /// It has not, but nobody can say where the answer's body ends.
    Garbled,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Statuses before it.
    pub(crate) interim: Vec<u16>,
    /// Whether only the end of the connection ended it.
    pub(crate) until_close: bool,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

impl Wire {
    pub(crate) fn plain(address: SocketAddr) -> io::Result<Self> {
        Self::on(TcpStream::connect(address)?)
    }

    /// Over this socket.
    pub(crate) fn on(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Stream::Plain(stream), buffer: Vec::new() })
    }

    /// Over TLS with `http/1.1` as its protocol.
    pub(crate) fn tls(address: SocketAddr) -> io::Result<Self> {
        static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        let config = CONFIG.get_or_init(|| config(&[b"http/1.1"], rustls::ALL_VERSIONS));
        Self::with(address, Arc::clone(config))
    }

    /// Over TLS with this configuration.
    pub(crate) fn with(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        Self::tls_on(TcpStream::connect(address)?, config)
    }

    /// Over TLS with this configuration over this socket.
    pub(crate) fn tls_on(stream: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        let Stream::Plain(stream) = Self::on(stream)?.stream else { unreachable!() };
        let stream = handshake(config, stream)?;
        Ok(Self { stream: Stream::Tls(Box::new(stream)), buffer: Vec::new() })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    /// Says that nothing more will come.
    pub(crate) fn finish(&mut self) {
        match &mut self.stream {
            Stream::Plain(stream) => drop(stream.shutdown(Shutdown::Write)),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.flush();
                let _ = stream.sock.shutdown(Shutdown::Write);
            }
        }
    }

    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &stream.sock,
        }
    }

    /// Reads some bytes; an error says how the connection ended.
    fn read(&mut self, deadline: Instant) -> Result<(), End> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(End::Open);
        }
        let _ = self.socket().set_read_timeout(Some(left));
        let mut space = [0; 16 * 1024];
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut space),
            Stream::Tls(stream) => stream.read(&mut space),
        };
        match read {
            Ok(0) => Err(End::Fin),
            Ok(read) => {
                self.buffer.extend_from_slice(&space[..read]);
                Ok(())
            }
            Err(error) => Err(match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => End::Open,
                ErrorKind::UnexpectedEof => End::Cut,
                _ => End::Reset,
            }),
        }
    }

    /// The next final answer to a request with this method.
    pub(crate) fn answer(&mut self, method: &str, patience: Duration) -> Result<Answer, End> {
        let deadline = Instant::now() + patience;
        let mut interim = Vec::new();
        loop {
            let head = self.until(b"\r\n\r\n", deadline)?;
            let (status, fields) = head_of(&head);
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            let mut answer =
                Answer { status, fields, body: Vec::new(), interim, until_close: false };
            if method != "HEAD" && !matches!(status, 101 | 204 | 304) {
                self.body(&mut answer, deadline)?;
            }
            return Ok(answer);
        }
    }

    fn body(&mut self, answer: &mut Answer, deadline: Instant) -> Result<(), End> {
        if answer.field("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.until(b"\r\n", deadline)?;
                let size = str::from_utf8(&size[..size.len() - 2]).ok();
                let size = size.and_then(|text| usize::from_str_radix(text, 16).ok());
                let size = size.ok_or(End::Garbled)?;
                let data = self.exactly(size.saturating_add(2), deadline)?;
                if size == 0 {
                    return Ok(());
                }
                answer.body.extend_from_slice(&data[..size]);
            }
        }
        if let Some(length) = answer.field("content-length") {
            let length = length.parse().map_err(|_no_number| End::Garbled)?;
            answer.body = self.exactly(length, deadline)?;
            return Ok(());
        }
        answer.until_close = true;
        loop {
            match self.read(deadline) {
                Ok(()) => {}
                Err(End::Fin) => break,
                Err(end) => return Err(end),
            }
        }
        answer.body = std::mem::take(&mut self.buffer);
        Ok(())
    }

    fn until(&mut self, mark: &[u8], deadline: Instant) -> Result<Vec<u8>, End> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|part| part == mark) {
                return Ok(self.buffer.drain(..at + mark.len()).collect());
            }
            self.read(deadline)?;
        }
    }

    fn exactly(&mut self, bytes: usize, deadline: Instant) -> Result<Vec<u8>, End> {
        while self.buffer.len() < bytes {
            self.read(deadline)?;
        }
        Ok(self.buffer.drain(..bytes).collect())
    }

    /// Reads to the end; what came before it, and how it ended.
    pub(crate) fn end(&mut self, patience: Duration) -> (Vec<u8>, End) {
        let deadline = Instant::now() + patience;
        loop {
            if let Err(end) = self.read(deadline) {
                return (std::mem::take(&mut self.buffer), end);
            }
        }
    }
}

fn head_of(head: &[u8]) -> (u16, Vec<(String, String)>) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok()).unwrap_or(0);
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    (status, lines.filter_map(field).collect())
}

/// TLS with this configuration over a socket.
pub(crate) fn handshake(
    config: Arc<ClientConfig>,
    stream: TcpStream,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("h").unwrap();
    let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// TLS that takes any certificate: what is tried here is what comes within.
pub(crate) fn config(
    protocols: &[&[u8]],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
