//! A vocabulary for tests: origins that play a script, an edge's side to talk to them.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{self, Limits};
use crate::message::{Body, BodyError, ResponseHead};
use crate::origin::{Answer, Manner, Origins, Outgoing, SendError, WorkerOrigins};
use crate::store::Events;
use crate::telemetry::{Metrics, OriginMetrics};

/// No test waits longer than this.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `what`, but not for ever.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// Waits until `condition` holds.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// An origin on loopback that counts its connections and the requests that `next` read.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
}

impl Script {
    /// One that plays `play` on each connection; the number says which one it is.
    pub(super) async fn new<F, P>(play: F) -> Self
    where
        F: Fn(usize, TcpStream) -> P + Send + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, play)
    }

    pub(super) fn on<F, P>(listener: TcpListener, play: F) -> Self
    where
        F: Fn(usize, TcpStream) -> P + Send + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(play(count.fetch_add(1, Ordering::SeqCst), stream));
            }
        });
        Self { address, connections }
    }

    /// One that answers every request of every connection with the same bytes.
    pub(super) async fn always(answer: &'static [u8]) -> Self {
        Self::new(move |_, mut stream| async move {
            while read_head(&mut stream).await.is_some() {
                stream.write_all(answer).await.unwrap();
            }
        })
        .await
    }

    /// One that sends bytes after the first request and closes.
    pub(super) async fn once(answer: &'static [u8]) -> Self {
        Self::new(move |_, mut stream| async move {
            if read_head(&mut stream).await.is_some() {
                let _ = stream.write_all(answer).await;
            }
        })
        .await
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn seen(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// An address where nobody listens.
pub(super) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Reads one request head; `None` at the end of the connection.
pub(super) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// Writes a plain 200 answer.
pub(super) async fn answer(stream: &mut (impl AsyncWrite + Unpin), body: &str) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.flush().await;
}

/// Origins as configured, with everything a test asks about.
pub(super) struct Side {
    pub(super) origins: Arc<Origins>,
    pub(super) worker: WorkerOrigins,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Arc<Events>,
}

/// One origin with these servers.
pub(super) fn side(servers: &[String]) -> Side {
    tuned(servers, |_, _| {})
}

/// One origin with these servers, limits and settings tuned.
pub(super) fn tuned(
    servers: &[String],
    tune: impl FnOnce(&mut Limits, &mut config::Origin),
) -> Side {
    let text = format!(
        "[[origin]]\nname = \"o\"\nservers = {servers:?}\n\
         [[site]]\nname = \"s\"\nhosts = [\"*\"]\norigin = \"o\"\n"
    );
    let mut config = match config::load(&text, Path::new("test.toml")) {
        Ok(config) => config,
        Err(problems) => panic!("{}", problems.render(false)),
    };
    tune(&mut config.limits, &mut config.origins[0]);
    let metrics = Metrics::new(&config);
    let limits = Arc::new(config.limits.clone());
    let events = Events::new(1000);
    let origins = Origins::new(&config.origins, limits, &metrics, &events).unwrap();
    Side { worker: origins.worker(), origins, metrics, events }
}

impl Side {
    /// What is counted of the origin.
    pub(super) fn measured(&self) -> OriginMetrics {
        let places = self.origins.limits().origin_connections;
        self.metrics.origin("o", places)
    }

    pub(super) async fn get(&self) -> Result<Answer, SendError> {
        self.send(get("/")).await
    }

    pub(super) async fn send(&self, request: Outgoing) -> Result<Answer, SendError> {
        soon(self.worker.send(0, 0, request, |_| {})).await
    }

    /// Status, framing and body of a GET.
    pub(super) async fn text(&self) -> Result<String, SendError> {
        let answer = self.get().await?;
        Ok(String::from_utf8(collect(answer.body).await.unwrap()).unwrap())
    }

    pub(super) async fn with_interims(
        &self,
        request: Outgoing,
    ) -> (Result<Answer, SendError>, Vec<ResponseHead>) {
        let mut interims = Vec::new();
        let outcome = soon(self.worker.send(0, 0, request, |head| interims.push(head))).await;
        (outcome, interims)
    }

    /// Runs names and probes in the background.
    pub(super) fn in_background(self) -> Self {
        tokio::spawn(Arc::clone(&self.origins).run_background(std::future::pending()));
        self
    }

    pub(super) fn states(&self) -> Vec<&'static str> {
        self.origins.status()[0].endpoints.iter().map(|endpoint| endpoint.state).collect()
    }
}

pub(super) fn get(target: &str) -> Outgoing {
    request(Method::GET, target, Body::Empty)
}

pub(super) fn request(method: Method, target: &str, body: Body) -> Outgoing {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("site.example"));
    Outgoing {
        method,
        target: target.to_owned(),
        headers,
        body,
        streams: false,
        manner: Manner::default(),
        hop: None,
    }
}

/// The whole body.
pub(super) async fn collect(mut body: Body) -> Result<Vec<u8>, BodyError> {
    soon(async {
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            all.extend_from_slice(&frame?.into_data().unwrap_or_default());
        }
        Ok(all)
    })
    .await
}

/// A body whose pieces the test hands over one by one.
pub(super) fn by_hand() -> (tokio::sync::mpsc::Sender<Result<Bytes, BodyError>>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    (sender, Body::stream(ByHand(receiver)))
}

struct ByHand(tokio::sync::mpsc::Receiver<Result<Bytes, BodyError>>);

impl http_body::Body for ByHand {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(http_body::Frame::data)))
    }
}

/// A certificate in PEM.
pub(super) fn certificate_pem(der: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, three) in der.chunks(3).enumerate() {
        let bits = three.iter().fold(0_usize, |bits, &byte| bits << 8 | usize::from(byte));
        let bits = bits << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[bits >> (18 - 6 * place) & 63];
            text.push(if place <= three.len() { char::from(letter) } else { '=' });
        }
        if index % 16 == 15 {
            text.push('\n');
        }
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    text
}

/// A status that answers are expected to have.
pub(super) fn status(outcome: &Result<Answer, SendError>) -> Option<StatusCode> {
    outcome.as_ref().ok().map(|answer| answer.head.status)
}
