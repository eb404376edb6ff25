//! An edge of one connection, its handler and its client.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::super::serve_http1;
use crate::clock::Now;
use crate::config::{Admin, Config, Limits, Log, Memory, Node};
use crate::listener::socket::Taken;
use crate::listener::{Client, Context, Drain, Handler, Request, Response};
use crate::message::{Body, BodyError, Refusal, RequestHead, ResponseHead};
use crate::telemetry::Metrics;

/// Longest that any test waits for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Answers by path.
pub(super) struct Player {
    pub(super) served: AtomicUsize,
    /// Permits that `/wait` and `/gated` take.
    pub(super) gate: Arc<Semaphore>,
}

impl Player {
    pub(super) fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

impl Handler for Player {
    async fn serve(&self, request: Request) -> Response {
        self.served.fetch_add(1, Ordering::SeqCst);
        let ok = |body: Body| Response::new(StatusCode::OK, body);
        match request.head.target.as_str() {
            "/echo" => echo(request.body).await,
            "/stream-echo" => ok(request.body),
            "/chunks" => ok(pieces([Ok("ab"), Ok(""), Ok("cd")], None)),
            "/known" => ok(pieces([Ok("ab"), Ok("cd")], Some(4))),
            "/broken" => ok(pieces([Ok("ab"), Err(BodyError::Incomplete)], None)),
            "/short" => ok(pieces([Ok("ab")], Some(4))),
            "/long" => ok(pieces([Ok("abc"), Ok("de")], Some(4))),
            "/panic" => panic!("a panic that this test asks for"),
            "/panic-body" => ok(Body::stream(Pieces(VecDeque::new(), None, true))),
            "/empty" => Response::new(StatusCode::NO_CONTENT, Body::Empty),
            "/length" => Response { head_length: Some(12), ..ok(Body::Empty) },
            "/close" => Response { close: true, ..ok("bye".to_owned().into()) },
            "/big" => ok(Body::Full(Bytes::from(vec![b'x'; 4 << 20]))),
            // Never waits for its origin.
            "/flood" => ok(Body::stream(Pieces(
                vec![Ok(Bytes::from("0123456789")); 60].into(),
                None,
                false,
            ))),
            "/events" => {
                let mut response = ok(Body::Full(Bytes::from(vec![b'x'; 4000])));
                let kind = HeaderValue::from_static("text/event-stream;charset=utf-8");
                response.headers.insert("content-type", kind);
                response
            }
            "/quiet-events" => {
                let gate = Arc::clone(&self.gate);
                let mut response = ok(Body::stream(Quiet(
                    Box::pin(async move {
                        gate.acquire().await.unwrap().forget();
                    }),
                    0,
                )));
                let kind = HeaderValue::from_static("text/event-stream");
                response.headers.insert("content-type", kind);
                response
            }
            "/hints" => {
                let mut hint = ResponseHead::new(StatusCode::from_u16(103).unwrap());
                hint.headers.insert("link", HeaderValue::from_static("</a>"));
                request.interim.send(hint);
                request.interim.send(ResponseHead::new(StatusCode::SWITCHING_PROTOCOLS));
                ok("hinted".to_owned().into())
            }
            "/gated" => {
                request.interim.send(ResponseHead::new(StatusCode::from_u16(103).unwrap()));
                self.gate.acquire().await.unwrap().forget();
                ok("opened".to_owned().into())
            }
            "/fields" => {
                let names: Vec<_> = request.head.headers.keys().map(ToString::to_string).collect();
                ok(names.join(",").into())
            }
            path => ok(path.to_owned().into()),
        }
    }

    fn refuse(&self, refusal: Refusal, _: Option<&RequestHead>, _: &Client, _: Now) -> Response {
        Response::new(refusal.status(), refusal.label().to_owned().into())
    }
}

async fn echo(mut body: Body) -> Response {
    let mut all = BytesMut::new();
    loop {
        let frame = std::future::poll_fn(|context| {
            http_body::Body::poll_frame(Pin::new(&mut body), context)
        });
        match frame.await {
            None => return Response::new(StatusCode::OK, all.freeze().into()),
            Some(Ok(frame)) => all.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(error)) => {
                let status = match error {
                    BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
                    _ => StatusCode::BAD_REQUEST,
                };
                return Response::new(status, error.to_string().into());
            }
        }
    }
}

fn pieces<const N: usize>(
    pieces: [Result<&'static str, BodyError>; N],
    length: Option<u64>,
) -> Body {
    let pieces = pieces.map(|piece| piece.map(Bytes::from)).into();
    Body::stream(Pieces(pieces, length, false))
}

struct Pieces(VecDeque<Result<Bytes, BodyError>>, Option<u64>, bool);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        assert!(!self.2, "a panic that this test asks for");
        Poll::Ready(self.0.pop_front().map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.1.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// A piece, another when the gate opens, the end.
struct Quiet(Pin<Box<dyn Future<Output = ()> + Send>>, u8);

impl http_body::Body for Quiet {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.1 == 1 {
            std::task::ready!(self.0.as_mut().poll(context));
        }
        self.1 += 1;
        Poll::Ready((self.1 < 3).then(|| Ok(Frame::data(Bytes::from("event")))))
    }
}

pub(super) fn quick() -> Limits {
    Limits { linger: Duration::from_millis(50), ..Limits::default() }
}

/// A pipe that counts what it takes, as a client's socket does.
#[derive(Debug)]
pub(super) struct Counted {
    io: DuplexStream,
    taken: Taken,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(context, bytes);
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.taken.add(bytes);
        }
        outcome
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// One connection.
pub(super) struct Edge<IO = Counted> {
    pub(super) client: DuplexStream,
    pub(super) player: Arc<Player>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: watch::Sender<Drain>,
    pub(super) task: JoinHandle<Option<IO>>,
}

impl Edge {
    pub(super) fn new(limits: Limits) -> Self {
        Self::with_pipe(limits, 64 * 1024)
    }

    pub(super) fn with_pipe(limits: Limits, pipe_bytes: usize) -> Self {
        let (client, server) = tokio::io::duplex(pipe_bytes);
        let taken = Taken::default();
        let server = Counted { io: server, taken: taken.clone() };
        Self::over(limits, client, server, taken)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Edge<IO> {
    /// Serves `server`, whose other end is `client`.
    pub(super) fn over(limits: Limits, client: DuplexStream, server: IO, taken: Taken) -> Self {
        let (context, drain) = context(limits);
        let metrics = Arc::clone(&context.metrics);
        let player =
            Arc::new(Player { gate: Arc::new(Semaphore::new(0)), served: AtomicUsize::new(0) });
        let from = somebody();
        let serving =
            serve_http1(server, taken, BytesMut::new(), from, Arc::clone(&player), context);
        Self { client, player, metrics, drain, task: tokio::spawn(serving) }
    }

    /// Says that draining began so long ago that idle connections should have ended.
    pub(super) fn drain_is_over(&self) {
        let since = Now { boot: Duration::ZERO, ..crate::clock::now() };
        self.drain.send_replace(Drain::Draining { since });
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let written = self.client.write_all(bytes.as_ref());
        tokio::time::timeout(PATIENCE, written).await.expect("the edge reads").unwrap();
    }

    /// Reads until `end` has come.
    pub(super) async fn until(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).ends_with(end) {
            let read = tokio::time::timeout(PATIENCE, self.client.read_buf(&mut all));
            let read = read.await.expect("an answer").unwrap_or(0);
            assert!(read > 0, "ended after {:?}", String::from_utf8_lossy(&all));
        }
        String::from_utf8(all).unwrap()
    }

    /// Reads the first bytes of an answer and no more.
    pub(super) async fn first(&mut self) -> String {
        let mut some = [0; 8];
        let read = tokio::time::timeout(PATIENCE, self.client.read_exact(&mut some));
        read.await.expect("an answer").unwrap();
        String::from_utf8_lossy(&some).into_owned()
    }

    /// Reads until the edge closes.
    pub(super) async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.client.read_to_end(&mut all));
        read.await.expect("the edge closes").unwrap();
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Sends `bytes` in pieces of `size`, says goodbye, and reads everything.
    pub(super) async fn talk(mut self, bytes: &[u8], size: usize) -> (String, Arc<Player>) {
        for piece in bytes.chunks(size) {
            if self.client.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = self.client.shutdown().await;
        let answers = self.rest().await;
        let _ = tokio::time::timeout(PATIENCE, &mut self.task).await.expect("the edge ends");
        (answers, self.player)
    }

    /// How often a refusal was counted, by its label.
    pub(super) fn refusals(&self, label: &str) -> u64 {
        let row = format!("atoll_refusals_total{{reason=\"{label}\"}} ");
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&row)).unwrap_or("0");
        line.parse().unwrap()
    }
}

/// What one client gets for `bytes`, whole or in pieces.
pub(super) async fn answers_to(bytes: &str) -> String {
    let (whole, player) = Edge::new(quick()).talk(bytes.as_bytes(), bytes.len()).await;
    for size in [1, 7] {
        let (pieces, other) = Edge::new(quick()).talk(bytes.as_bytes(), size).await;
        assert_eq!(whole, pieces, "cut by {size}: {bytes:?}");
        assert_eq!(player.served(), other.served());
    }
    whole
}

/// Status and body of each answer in `text`, which must all have a length.
pub(super) fn bodies(text: &str) -> Vec<(u16, &str)> {
    let mut rest = text;
    let mut all = Vec::new();
    while let Some((head, after)) = rest.split_once("\r\n\r\n") {
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let (body, next) = after.split_at(length.map_or(0, |length| length.parse().unwrap()));
        all.push((status, body));
        rest = next;
    }
    assert_eq!(rest, "", "of {text:?}");
    all
}

pub(super) fn somebody() -> Arc<Client> {
    let address = ([127, 0, 0, 1], 1).into();
    let told_by = crate::semantics::ToldBy::default();
    Arc::new(Client { address, local: address, tls: None, trusted_hop: false, told_by })
}

pub(super) fn context(limits: Limits) -> (Arc<Context>, watch::Sender<Drain>) {
    let (drain, receiver) = watch::channel(Drain::Open);
    let metrics = Metrics::new(&config(limits.clone()));
    (Context::new(Arc::new(limits), metrics, receiver), drain)
}

fn config(limits: Limits) -> Config {
    let name = String::from("n1");
    Config {
        node: Node {
            pop: name.clone(),
            locality: name.clone(),
            cdn_id: name.clone(),
            name,
            workers: 1,
            seed: 1,
        },
        memory: Memory { budget_bytes: 1 << 20 },
        listeners: Vec::new(),
        certificates: Vec::new(),
        limits,
        log: Log {
            access: None,
            access_file: None,
            access_queue: 1,
            json: false,
            level: String::new(),
        },
        admin: Admin::default(),
        watch: None,
        origins: Vec::new(),
        sites: Vec::new(),
        facades: crate::config::Facades::default(),
        mesh: None,
    }
}
