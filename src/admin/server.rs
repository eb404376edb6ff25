//! The listener of the admin API: a small accept loop of its own, with a cap on connections and a
//! deadline for everything that a client may take its time for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::events::Cut;
use super::{Access, Admin, Route};

/// Connections at once; more are closed at once.
const CONNECTIONS: usize = 256;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Time for a request's head, and for the next request on a kept connection.
const HEAD: Duration = Duration::from_secs(30);

/// Age at which a connection is closed after its current request; a stream may go on.
const AGE: Duration = Duration::from_secs(300);

/// Time that a connection has for its last answer.
const GRACE: Duration = Duration::from_secs(2);

/// Pause after the system refused a new connection for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;

/// Which routes a listener shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// All.
    Full,
    /// Only the open ones, for a listener that the whole container network may reach.
    Watch,
}

impl Surface {
    pub(super) fn shows(self, route: &Route) -> bool {
        self == Self::Full || matches!(route.access, Access::Open(_))
    }
}

/// The API that is in force: each request is answered by the one that is when it comes.
pub type Desk = Arc<ArcSwap<Admin>>;

/// Answers on `listener` until `stop` turns true, then gives the requests under way a moment.
pub async fn serve(
    listener: Arc<TcpListener>,
    tls: Option<TlsAcceptor>,
    admin: Desk,
    surface: Surface,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, client) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the admin listener could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stopped(&mut stop) => break,
        };
        if connections.len() < CONNECTIONS {
            let task =
                connect(stream, client, tls.clone(), Arc::clone(&admin), surface, stop.clone());
            connections.spawn(task);
        }
    }
    drop(listener);
    // What is left after the grace period is cut off when the set is dropped.
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

/// Waits for the end. A sender that is gone has stopped, too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits until a stream of this connection is found to be stuck.
async fn cut(stream: &mut watch::Receiver<Option<Arc<Notify>>>) {
    let found = stream.wait_for(Option::is_some).await.ok().and_then(|cut| cut.clone());
    match found {
        Some(cut) => cut.notified().await,
        None => std::future::pending().await,
    }
}

async fn connect(
    stream: TcpStream,
    client: SocketAddr,
    tls: Option<TlsAcceptor>,
    admin: Desk,
    surface: Surface,
    stop: watch::Receiver<bool>,
) {
    // Answers are small and nobody waits for more to send with them.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = tls else {
        return converse(stream, client, admin, surface, stop).await;
    };
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, client, admin, surface, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, %client, "TLS handshake with the admin listener"),
        Err(_) => tracing::debug!(%client, "TLS handshake with the admin listener took too long"),
    }
}

/// Serves one connection until its end, its age, or the end of the listener.
async fn converse<IO>(
    io: IO,
    client: SocketAddr,
    admin: Desk,
    surface: Surface,
    mut stop: watch::Receiver<bool>,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (streaming, mut stream) = watch::channel(None);
    let streaming = Arc::new(streaming);
    let service = service_fn(move |request| {
        let (admin, streaming) = (Arc::clone(&admin), Arc::clone(&streaming));
        async move {
            let admin = admin.load_full();
            let reply = admin.answer(request, client, surface).await;
            if let Some(Cut(cut)) = reply.extensions().get() {
                streaming.send_replace(Some(Arc::clone(cut)));
            }
            Ok::<_, Infallible>(reply)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(2 * HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, %client, "connection to the admin listener");
            }
            return;
        }
        () = cut(&mut stream) => return,
        () = sleep(AGE) => {}
        () = stopped(&mut stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    if stream.borrow().is_some() {
        tokio::select! {
            _ended = &mut connection => return,
            () = cut(&mut stream) => return,
            () = stopped(&mut stop) => {}
        }
    }
    let _ = timeout(GRACE, connection).await;
}
