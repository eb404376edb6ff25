//! An origin that speaks HTTP/2, on the `h2` crate: over TLS by ALPN, or in plain by prior knowledge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::client::Wire;
use super::origin::runtime;

/// A server on a port of its own.
pub(crate) struct H2Origin {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// One request as the origin has it.
pub(crate) struct Call {
    pub(crate) request: http::request::Parts,
    pub(crate) body: RecvStream,
    respond: SendResponse<Bytes>,
    /// Which connection it came over, from 1.
    pub(crate) connection: usize,
}

impl H2Origin {
    /// Starts one that plays `play` for each request.
    pub(crate) fn start<F, P>(tls: Option<ServerConfig>, play: F) -> Self
    where
        F: Fn(Call) -> P + Send + Sync + Clone + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let acceptor = tls.map(|mut config| {
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let task = runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let (acceptor, play) = (acceptor.clone(), play.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, number, play).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, number, play).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, connections, task }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<F, P>(wire: impl Wire, number: usize, play: F)
where
    F: Fn(Call) -> P + Send + Sync + Clone + 'static,
    P: Future<Output = ()> + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
    let Ok(mut connection) = builder.handshake(wire).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (request, body) = Request::into_parts(request);
        tokio::spawn(play(Call { request, body, respond, connection: number }));
    }
}

impl Call {
    pub(crate) fn path(&self) -> &str {
        self.request.uri.path()
    }

    /// Begins an answer of 200 with these fields; the body and the stream of the answer's.
    pub(crate) fn begin(
        mut self,
        fields: &[(&'static str, &str)],
    ) -> (RecvStream, SendStream<Bytes>) {
        let stream = self.respond.send_response(head(fields), false).unwrap();
        (self.body, stream)
    }

    /// An answer without a body.
    pub(crate) fn end(mut self, fields: &[(&'static str, &str)]) {
        let _ = self.respond.send_response(head(fields), true);
    }

    /// Resets the stream instead of an answer.
    pub(crate) fn refuse(mut self, reason: h2::Reason) {
        self.respond.send_reset(reason);
    }

    /// An answer of a line of text.
    pub(crate) fn text(self, text: &str) {
        let (_, mut stream) = self.begin(&[]);
        let _ = stream.send_data(Bytes::from(text.to_owned()), true);
    }
}

fn head(fields: &[(&'static str, &str)]) -> Response<()> {
    let mut head = Response::new(());
    for (name, value) in fields {
        head.headers_mut().insert(*name, value.parse().unwrap());
    }
    head
}

/// The next piece of a body, its window given back.
pub(crate) async fn take(body: &mut RecvStream) -> Option<Bytes> {
    let piece = body.data().await?.ok()?;
    let _ = body.flow_control().release_capacity(piece.len());
    Some(piece)
}

/// Sends `bytes` as windows allow. False: the other side wants no more.
pub(crate) async fn give(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> bool {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = match stream.capacity() {
            0 => match std::future::poll_fn(|context| stream.poll_capacity(context)).await {
                Some(Ok(room)) => room,
                _ => return false,
            },
            room => room,
        };
        if stream.send_data(bytes.split_to(room.min(bytes.len())), false).is_err() {
            return false;
        }
    }
    true
}

/// Trailers of these fields.
pub(crate) fn trailers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
}
