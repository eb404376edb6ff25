//! An origin that plays a script: what it answers, when, and how it fails.
//!
//! A script is a function from a request's head to a [`Reply`]; it is called when the head is
//! complete. All origins live on one thread of their own, so that a busy story does not slow them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::PATIENCE;
use super::certificate::Certificate;
use super::client::Wire;
use super::reply::{Framing, Piece, Reading, Reply};
use super::websocket::{CLOSE, frame, take_frame};

/// What an origin saw of one request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Which request for its target this is, from 1.
    pub(crate) nth: usize,
    /// Which connection it came over, from 1.
    pub(crate) connection: usize,
    fields: Vec<(String, String)>,
    /// The head as it came.
    pub(crate) raw: Bytes,
    /// The body, once it is complete.
    pub(crate) body: Option<Bytes>,
}

impl Seen {
    /// The only value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} more than once: {all:?}");
        all.first().copied()
    }

    /// Every value of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| &**value).collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.body.as_ref().expect("a complete body")).into_owned()
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A server on a port of its own.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    server: Mutex<Option<Server>>,
}

struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct Shared {
    script: Box<Script>,
    tls: Option<TlsAcceptor>,
    seen: watch::Sender<Vec<Seen>>,
    /// How often each target was asked for.
    counts: Mutex<HashMap<String, usize>>,
    connections: AtomicUsize,
    received: AtomicU64,
}

/// The thread on which all origins live.
pub(super) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("origins")
            .enable_all()
            .build()
            .unwrap()
    })
}

impl Origin {
    /// Starts one that answers as `script` says.
    pub(crate) fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(local(), None, script)
    }

    /// Starts a row of them on 127.0.0.1, 127.0.0.2 and so on, all at one port. The script is told
    /// which one it plays, from 1.
    pub(crate) fn row(
        count: u8,
        script: impl Fn(u8, &Seen) -> Reply + Send + Sync + Clone + 'static,
    ) -> Vec<Self> {
        let mut row: Vec<Self> = Vec::new();
        for last in 1..=count {
            let port = row.first().map_or(0, |first| first.address.port());
            let script = script.clone();
            let address = SocketAddr::from(([127, 0, 0, last], port));
            row.push(Self::start_with(address, None, move |seen| script(last, seen)));
        }
        row
    }

    /// Starts one that speaks TLS with this certificate.
    pub(crate) fn start_tls(
        certificate: &Certificate,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let tls = TlsAcceptor::from(Arc::new(certificate.server()));
        Self::start_with(local(), Some(tls), script)
    }

    fn start_with(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let _entered = runtime().enter();
        let listener = bind(address).unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            tls,
            seen: watch::Sender::new(Vec::new()),
            counts: Mutex::default(),
            connections: AtomicUsize::new(0),
            received: AtomicU64::new(0),
        });
        let address = listener.local_addr().unwrap();
        let server = Server::start(listener, Arc::clone(&shared));
        Self { address, shared, server: Mutex::new(Some(server)) }
    }

    /// Starts one that answers everything alike.
    pub(crate) fn serving(reply: Reply) -> Self {
        Self::start(move |_| reply.clone())
    }

    /// An address where nobody listens.
    pub(crate) async fn dead() -> SocketAddr {
        let origin = Self::serving(Reply::new(204));
        origin.stop().await;
        origin.address
    }

    /// Kills it: its port is closed, its connections are reset.
    pub(crate) async fn stop(&self) {
        let server = self.server.lock().unwrap().take().expect("an origin that runs");
        let _ = server.stop.send(());
        server.task.await.unwrap();
    }

    /// Starts it again on its old port.
    pub(crate) fn start_again(&self) {
        let _entered = runtime().enter();
        let listener = bind(self.address).unwrap();
        let server = Server::start(listener, Arc::clone(&self.shared));
        assert!(self.server.lock().unwrap().replace(server).is_none(), "it runs already");
    }

    /// Requests for a target so far.
    pub(crate) fn count(&self, target: &str) -> usize {
        self.shared.seen.borrow().iter().filter(|seen| seen.target == target).count()
    }

    /// Requests so far, whatever for.
    pub(crate) fn requests(&self) -> usize {
        self.shared.seen.borrow().len()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes of request bodies read so far.
    pub(crate) fn received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }

    /// Waits until the heads of `count` requests for a target are there.
    pub(crate) async fn seen(&self, target: &str, count: usize) -> Vec<Seen> {
        self.wait(target, count, |_| true).await
    }

    /// Waits until `count` requests for a target are there with their bodies.
    pub(crate) async fn seen_whole(&self, target: &str, count: usize) -> Vec<Seen> {
        self.wait(target, count, |seen| seen.body.is_some()).await
    }

    /// The last request for a target, body and all.
    pub(crate) async fn last(&self, target: &str) -> Seen {
        self.seen_whole(target, self.count(target).max(1)).await.pop().unwrap()
    }

    async fn wait(&self, target: &str, count: usize, ready: fn(&Seen) -> bool) -> Vec<Seen> {
        let pick = |all: &[Seen]| -> Vec<Seen> {
            all.iter().filter(|seen| seen.target == target && ready(seen)).cloned().collect()
        };
        let mut seen = self.shared.seen.subscribe();
        let wait = seen.wait_for(|all| pick(all).len() >= count);
        if let Ok(all) = tokio::time::timeout(PATIENCE, wait).await {
            return pick(&all.unwrap());
        }
        let all = self.shared.seen.borrow();
        let lines: Vec<String> =
            all.iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect();
        panic!("waited in vain for {count} requests for {target} at the origin; saw {lines:?}");
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.task.abort();
        }
    }
}

/// Any port of loopback.
fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(2048)
}

impl Server {
    fn start(listener: TcpListener, shared: Arc<Shared>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = runtime().spawn(async move {
            let mut connections = JoinSet::new();
            let accept = async {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let _ = stream.set_nodelay(true);
                    let shared = Arc::clone(&shared);
                    let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                    connections.spawn(async move {
                        // How a connection ends is the edge's or the script's business.
                        let _ = Connection::run(stream, number, shared).await;
                    });
                }
            };
            tokio::select! {
                () = accept => {}
                _ = stopped => {}
            }
            connections.shutdown().await;
        });
        Self { stop, task }
    }
}

struct Connection {
    stream: Box<dyn Wire>,
    /// Whether the system is to reset the connection when it is closed.
    reset: bool,
    buffer: BytesMut,
    number: usize,
    shared: Arc<Shared>,
}

impl Connection {
    async fn run(socket: TcpStream, number: usize, shared: Arc<Shared>) -> io::Result<()> {
        let descriptor = socket.as_fd().try_clone_to_owned()?;
        let stream: Box<dyn Wire> = match &shared.tls {
            None => Box::new(socket),
            Some(tls) => Box::new(tls.accept(socket).await?),
        };
        let mut connection = Self { stream, reset: false, buffer: BytesMut::new(), number, shared };
        let ended = connection.serve().await;
        if connection.reset {
            socket2::SockRef::from(&descriptor).set_linger(Some(Duration::ZERO))?;
        }
        ended
    }

    async fn serve(&mut self) -> io::Result<()> {
        while let Some((index, seen)) = self.head().await? {
            let reply = (self.shared.script)(&seen);
            match &reply.reading {
                Reading::First => self.body(index, &seen).await?,
                Reading::Behind(gate) => {
                    gate.pass().await;
                    self.body(index, &seen).await?;
                }
                Reading::After => {}
            }
            if !self.reply(&seen, &reply).await? {
                return Ok(());
            }
            if matches!(reply.reading, Reading::After) {
                self.stream.shutdown().await?;
                while self.stream.read_buf(&mut self.buffer).await? > 0 {
                    self.buffer.clear();
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads a request head and notes it; `None` where the edge closed in between.
    async fn head(&mut self) -> io::Result<Option<(usize, Seen)>> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        };
        let raw = self.buffer.split_to(end).freeze();
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, target) = (word(), word());
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let (connection, body) = (self.number, None);
        let mut seen = Seen { method, target, nth: 0, connection, fields, raw, body };
        let mut index = 0;
        self.shared.seen.send_modify(|all| {
            let mut counts = self.shared.counts.lock().unwrap();
            let count = counts.entry(seen.target.clone()).or_default();
            *count += 1;
            seen.nth = *count;
            index = all.len();
            all.push(seen.clone());
        });
        Ok(Some((index, seen)))
    }

    async fn body(&mut self, index: usize, seen: &Seen) -> io::Result<()> {
        let mut body = BytesMut::new();
        if seen.field("transfer-encoding").is_some() {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(&line, 16).map_err(io::Error::other)?;
                self.read(size, &mut body).await?;
                if !self.line().await?.is_empty() {
                    return Err(io::Error::other("a chunk is not followed by CRLF"));
                }
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = seen.field("content-length") {
            self.read(length.parse().map_err(io::Error::other)?, &mut body).await?;
        }
        self.shared.seen.send_modify(|all| all[index].body = Some(body.freeze()));
        Ok(())
    }

    async fn read(&mut self, mut count: usize, out: &mut BytesMut) -> io::Result<()> {
        while count > 0 {
            if self.buffer.is_empty() {
                self.more().await?;
            }
            let part = self.buffer.split_to(count.min(self.buffer.len()));
            self.shared.received.fetch_add(part.len() as u64, Ordering::SeqCst);
            count -= part.len();
            out.extend_from_slice(&part);
        }
        Ok(())
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line = self.buffer.split_to(at + 2);
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Plays a reply; `false` where the connection ends with it.
    async fn reply(&mut self, seen: &Seen, reply: &Reply) -> io::Result<bool> {
        for (status, fields) in &reply.interim {
            let head = head(*status, fields);
            self.stream.write_all(head.as_bytes()).await?;
        }
        for piece in &reply.before {
            if !self.play(piece, false).await? {
                return Ok(false);
            }
        }
        if !matches!(reply.framing, Framing::Raw) {
            let mut fields = reply.fields.clone();
            let bodiless = matches!(reply.status, 204 | 304);
            match reply.framing {
                _ if bodiless => {}
                Framing::Length(length) => {
                    fields.push(("Content-Length".to_owned(), length.to_string()));
                }
                Framing::Chunked => {
                    fields.push(("Transfer-Encoding".to_owned(), "chunked".to_owned()));
                }
                Framing::Close => fields.push(("Connection".to_owned(), "close".to_owned())),
                Framing::Raw => {}
            }
            self.stream.write_all(head(reply.status, &fields).as_bytes()).await?;
            if bodiless || seen.method == "HEAD" {
                return Ok(true);
            }
        }
        let chunked = matches!(reply.framing, Framing::Chunked);
        for piece in &reply.pieces {
            if !self.play(piece, chunked).await? {
                return Ok(false);
            }
        }
        if chunked {
            self.stream.write_all(b"0\r\n\r\n").await?;
        }
        let closes = reply.fields.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
        });
        if closes || matches!(reply.framing, Framing::Close) {
            self.stream.shutdown().await?;
            return Ok(false);
        }
        Ok(true)
    }

    async fn play(&mut self, piece: &Piece, chunked: bool) -> io::Result<bool> {
        match piece {
            Piece::Data(bytes) if chunked => {
                let head = format!("{:x}\r\n", bytes.len());
                let all = [head.as_bytes(), bytes, b"\r\n"].concat();
                self.stream.write_all(&all).await?;
            }
            Piece::Data(bytes) => self.stream.write_all(bytes).await?,
            Piece::Gate(gate) => gate.pass().await,
            Piece::Pause(time) => tokio::time::sleep(*time).await,
            Piece::Close => {
                self.stream.shutdown().await?;
                return Ok(false);
            }
            Piece::Reset => {
                self.reset = true;
                return Ok(false);
            }
            Piece::Hang => std::future::pending().await,
            Piece::Echo => {
                while let Some(bytes) = self.whatever().await? {
                    self.stream.write_all(&bytes).await?;
                }
            }
            Piece::EchoFrames => self.echo_frames().await?,
            Piece::ReadAll => while self.whatever().await?.is_some() {},
        }
        Ok(true)
    }

    /// What has come, or comes next; `None` once the other side has ended.
    async fn whatever(&mut self) -> io::Result<Option<BytesMut>> {
        if self.buffer.is_empty() {
            self.buffer.reserve(64 * 1024);
            self.stream.read_buf(&mut self.buffer).await?;
        }
        let bytes = self.buffer.split();
        self.shared.received.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    async fn echo_frames(&mut self) -> io::Result<()> {
        loop {
            if let Some((opcode, payload, masked)) = take_frame(&mut self.buffer) {
                assert!(masked, "a client masks its frames");
                self.stream.write_all(&frame(opcode, &payload, None)).await?;
                if opcode == CLOSE {
                    return Ok(());
                }
            } else {
                self.more().await?;
            }
        }
    }
}

fn head(status: u16, fields: &[(String, String)]) -> String {
    let mut out = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in fields {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out
}
