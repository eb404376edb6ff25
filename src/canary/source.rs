//! The origin of the canary's object: a small server that any node can fill from.
//!
//! Every answer bears the version that is the newest when it is made, and may be kept for a day. It
//! answers whatever path it is asked for, holds few connections, and has nothing to hide.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::round::Object;

/// Connections at once; more are closed at once.
const CONNECTIONS: usize = 1024;
/// Time for a request's head, and for the next request on a kept connection.
const HEAD: Duration = Duration::from_secs(30);
/// Age at which a connection is closed.
const AGE: Duration = Duration::from_secs(300);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause after the system refused a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What it may be kept for.
const LIFETIME: HeaderValue = HeaderValue::from_static("public, max-age=86400");

/// The object as it is now.
#[derive(Debug)]
pub(super) struct Source {
    run: u64,
    version: AtomicU64,
    answers: AtomicU64,
}

impl Source {
    pub(super) fn new(run: u64) -> Self {
        Self { run, version: AtomicU64::new(1), answers: AtomicU64::new(0) }
    }

    /// From when this returns, every answer is of the next version.
    pub(super) fn renew(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// The version that is answered now.
    pub(super) fn newest(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    fn object(&self) -> Object {
        let answer = self.answers.fetch_add(1, Ordering::SeqCst) + 1;
        Object { run: self.run, version: self.newest(), answer }
    }

    fn answer(&self, method: &Method) -> Response<Full<Bytes>> {
        let mut answer = Response::new(Full::default());
        if !matches!(*method, Method::GET | Method::HEAD) {
            *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            return answer;
        }
        let text = serde_json::to_vec(&self.object()).expect("an object of numbers is JSON");
        let fields = answer.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fields.insert(CACHE_CONTROL, LIFETIME);
        *answer.body_mut() = Full::from(text);
        answer
    }
}

/// Answers until `stop` turns true.
pub(super) async fn serve(
    source: Arc<Source>,
    listener: Arc<TcpListener>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the canary's origin could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stopped(&mut stop) => return,
        };
        if connections.len() < CONNECTIONS {
            connections.spawn(converse(Arc::clone(&source), stream));
        }
    }
}

/// Waits for the end. A sender that is gone has stopped, too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn converse(source: Arc<Source>, stream: TcpStream) {
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        std::future::ready(Ok::<_, Infallible>(source.answer(request.method())))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(2 * HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(AGE, connection).await {
        tracing::debug!(%error, "connection to the canary's origin");
    }
}
