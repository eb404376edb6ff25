//! A door over loopback with a handler that does what its path says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::clock::Now;
use crate::config::{Limits, Listener};
use crate::message::{Body, BodyError, Refusal, RequestHead, ResponseHead};
use crate::telemetry::Metrics;

/// Bound of every wait in tests.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// Answers by path; knows how many requests it has seen and how many are under way.
#[derive(Default)]
pub(super) struct Script {
    pub(super) seen: AtomicUsize,
    pub(super) working: AtomicUsize,
    pub(super) release: Notify,
}

struct Work<'a>(&'a AtomicUsize);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler for Script {
    async fn serve(&self, request: Request) -> Response {
        self.seen.fetch_add(1, Ordering::SeqCst);
        self.working.fetch_add(1, Ordering::SeqCst);
        let _work = Work(&self.working);
        let path = request.head.target.split('?').next().unwrap_or_default().to_owned();
        match path.as_str() {
            "/big" => Response::new(StatusCode::OK, Body::from(Bytes::from(vec![7; 1 << 20]))),
            "/wait" => {
                self.release.notified().await;
                Response::new(StatusCode::OK, Body::from("waited".to_owned()))
            }
            "/panic" => panic!("told to"),
            "/late-panic" => {
                tokio::task::yield_now().await;
                panic!("told to");
            }
            "/interim" => {
                let mut hints = ResponseHead::new(StatusCode::EARLY_HINTS);
                hints.headers.insert("link", HeaderValue::from_static("</a>"));
                request.interim.send(hints);
                tokio::task::yield_now().await;
                Response::new(StatusCode::OK, Body::from("after".to_owned()))
            }
            "/echo" => match request.body.collect().await {
                Ok(body) => Response::new(StatusCode::OK, Body::from(body.to_bytes())),
                Err(_) => Response::new(StatusCode::REQUEST_TIMEOUT, Body::Empty),
            },
            "/broken" => Response::new(StatusCode::OK, Body::stream(Broken(0))),
            "/empty" => Response::new(StatusCode::NO_CONTENT, Body::Empty),
            "/cookie" => {
                let cookie =
                    request.head.headers.get("cookie").map(|value| value.as_bytes().to_vec());
                Response::new(StatusCode::OK, Body::from(Bytes::from(cookie.unwrap_or_default())))
            }
            "/client" => {
                let client = &request.client;
                let tls = client.tls.as_ref().map(|tls| {
                    let name = tls.server_name.as_deref().unwrap_or_default();
                    format!("{name} {} {}", tls.version, tls.resumed)
                });
                let hop = if client.trusted_hop { "trusted " } else { "" };
                let text = format!("{} {hop}{}", client.address, tls.unwrap_or_default());
                Response::new(StatusCode::OK, Body::from(text))
            }
            _ => Response::new(StatusCode::OK, Body::from("hello".to_owned())),
        }
    }

    fn refuse(
        &self,
        refusal: Refusal,
        _head: Option<&RequestHead>,
        _client: &Client,
        _now: Now,
    ) -> Response {
        Response::new(refusal.status(), Body::from(refusal.label().to_owned()))
    }
}

/// One piece, then an error.
struct Broken(u8);

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _task: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        self.0 += 1;
        std::task::Poll::Ready(Some(match self.0 {
            1 => Ok(http_body::Frame::data(Bytes::from("piece"))),
            _ => Err(BodyError::Incomplete),
        }))
    }
}

/// A running door.
pub(super) struct Edge {
    pub(super) address: SocketAddr,
    pub(super) script: Arc<Script>,
    pub(super) context: Arc<Context>,
    pub(super) drain: watch::Sender<Drain>,
    pub(super) running: JoinHandle<()>,
}

impl Edge {
    /// Limits for tests: as shipped, but no waiting for a drain.
    pub(super) fn limits() -> Limits {
        Limits { drain_notice: Duration::ZERO, ..Limits::default() }
    }

    pub(super) fn start(listener: Listener, limits: Limits, tls: Option<Certificates>) -> Self {
        let mut sockets = bind(&[listener], 1).unwrap();
        let sockets = sockets.pop().unwrap();
        let address = sockets.addresses()[0];
        let (drain, receiver) = watch::channel(Drain::Open);
        let context = Context::new(Arc::new(limits), metrics(), receiver);
        let script = Arc::<Script>::default();
        let tls = tls.map(|tls| TlsAcceptorState::new(Arc::new(tls), None).unwrap());
        let running = tokio::spawn(run(sockets, tls, Arc::clone(&script), Arc::clone(&context)));
        Self { address, script, context, drain, running }
    }

    pub(super) fn plain(limits: Limits) -> Self {
        Self::start(listener(false, true, false), limits, None)
    }
}

pub(super) fn listener(tls: bool, http2: bool, proxy_protocol: bool) -> Listener {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let proxies_write = crate::semantics::ToldBy::default();
    Listener { address, tls, http2, proxy_protocol, trusted_proxies, proxies_write }
}

fn metrics() -> Arc<Metrics> {
    Metrics::new(&config())
}

/// Waits until `met`, in small steps of the runtime, not of the clock.
pub(super) async fn until(met: impl Fn() -> bool) {
    let waiting = async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap();
}

fn config() -> crate::config::Config {
    use crate::config::{Admin, Config, Log, Memory, Node};
    Config {
        node: Node {
            name: "test".to_owned(),
            pop: "test".to_owned(),
            locality: "test".to_owned(),
            workers: 1,
            seed: 1,
            cdn_id: "test".to_owned(),
        },
        memory: Memory { budget_bytes: 1 << 20 },
        listeners: Vec::new(),
        certificates: Vec::new(),
        limits: Limits::default(),
        log: Log {
            access: None,
            access_file: None,
            access_queue: 1,
            json: false,
            level: "off".to_owned(),
        },
        admin: Admin::default(),
        watch: None,
        origins: Vec::new(),
        sites: Vec::new(),
        facades: crate::config::Facades::default(),
        mesh: None,
    }
}
