//! Binds the listening sockets and accepts: one socket per worker and address, side by side by
//! SO_REUSEPORT, so that the system spreads connections and workers share nothing here.
//!
//! Draining goes in steps, so that nobody who was told that we are here is turned away:
//!
//! ```text
//! told to drain     drain_notice over           all ended, or `drain` over
//!      |-- accepting ----|-- queue emptied, closed --|-- the rest cut off
//! ```

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::connection::{self, Door};
use super::context::{Context, Drain, Pressure};
use super::inherited::{self, Inherited, OpenSocket, Purpose};
use super::request::Handler;
use super::tls::TlsAcceptorState;
use crate::config::{Limits, Listener};

/// Connections that the system may hold ready for us, per socket.
const BACKLOG: i32 = 4096;
/// Shortest and longest pause after an accept that failed for lack of descriptors or memory.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A socket that could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub error: io::Error,
}

/// The listening sockets of one worker.
#[derive(Debug)]
pub struct WorkerSockets {
    sockets: Vec<Bound>,
}

#[derive(Debug)]
struct Bound {
    socket: StdListener,
    listener: Listener,
    /// Its position in the configuration.
    place: usize,
}

impl WorkerSockets {
    /// Addresses that are listened on, in the order of the configuration, ports as the system
    /// chose them.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut bound: Vec<&Bound> = self.sockets.iter().collect();
        bound.dedup_by_key(|bound| bound.place);
        bound.iter().map(|bound| bound.listener.address).collect()
    }
}

/// Binds every listener once per worker. For port 0 the first socket decides on the port and the
/// others take the same one.
///
/// # Errors
///
/// When one address cannot be bound; nothing stays bound then.
pub fn bind(listeners: &[Listener], workers: usize) -> Result<Vec<WorkerSockets>, BindError> {
    bind_beside(listeners, workers, &mut Inherited::default()).map(|(sockets, _kept)| sockets)
}

/// The same where sockets are open already: they are taken up, and what is lacking is bound. Gives
/// every socket a second time, for a process that takes over.
///
/// # Errors
///
/// When one address cannot be bound; nothing that was bound here stays bound then.
pub fn bind_beside(
    listeners: &[Listener],
    workers: usize,
    inherited: &mut Inherited,
) -> Result<(Vec<WorkerSockets>, Vec<OpenSocket>), BindError> {
    let workers = workers.max(1);
    let mut all: Vec<WorkerSockets> =
        std::iter::repeat_with(|| WorkerSockets { sockets: Vec::new() }).take(workers).collect();
    let mut kept = Vec::new();
    for (place, listener) in listeners.iter().enumerate() {
        let address = listener.address;
        let fail = |error| BindError { address, error };
        let given = inherited.take(Purpose::Clients, address);
        let bind = |beside: Option<SocketAddr>| bind_one(beside.unwrap_or(address));
        let spread = inherited::spread(given, workers, bind).map_err(fail)?;
        for (worker, socket) in spread {
            let mut listener = listener.clone();
            listener.address = socket.local_addr().map_err(fail)?;
            let again = OpenSocket::of(Purpose::Clients, address, &socket).map_err(fail)?;
            if let Some(worker) = all.get_mut(worker) {
                worker.sockets.push(Bound { socket, listener, place });
            }
            kept.push(again);
        }
    }
    Ok((all, kept))
}

/// Binds a socket that no other may stand beside.
///
/// # Errors
///
/// When the address cannot be bound.
pub fn bind_alone(address: SocketAddr) -> io::Result<StdListener> {
    let socket = StdListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

pub(super) fn bind_one(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // `[::]` takes IPv4, too, whatever the system's default; where there is a listener for
        // 0.0.0.0 on the same port, that one is nearer to IPv4 clients and gets them.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts on the sockets of one worker and serves what comes, until drained. Runs on the worker's
/// current-thread runtime and keeps its connections there.
///
/// `tls` may be `None` only where no listener wants TLS; such a listener would close every
/// connection.
pub async fn run<H: Handler>(
    sockets: WorkerSockets,
    tls: Option<Arc<TlsAcceptorState>>,
    handler: Arc<H>,
    context: Arc<Context>,
) {
    let mut loops = JoinSet::new();
    for bound in sockets.sockets {
        let door = Arc::new(Door {
            tls: tls.clone().filter(|_| bound.listener.tls),
            listener: bound.listener,
            handler: Arc::clone(&handler),
            context: Arc::clone(&context),
            place: bound.place,
        });
        loops.spawn(accept_loop(bound.socket, door));
    }
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "an accept loop ended by a panic");
            context.metrics.doors.panics.inc();
        }
    }
}

/// Serves one listening socket until its connections have ended or were cut off.
async fn accept_loop<H: Handler>(socket: StdListener, mut door: Arc<Door<H>>) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(address = %door.listener.address, %error, "cannot accept");
            return;
        }
    };
    let mut connections = JoinSet::new();
    while !unless_panic(accept_until_drained(&socket, &mut door, &mut connections)).await {
        // The door must not stay shut for a fault in one connection's welcome.
        tracing::error!(address = %door.listener.address, "accepting panicked and goes on");
        door.context.metrics.strain.panicked("accept");
        tokio::time::sleep(PAUSE.1).await;
    }
    // Whoever connects from now on is to be turned away by the system.
    door.context.let_sockets_go();
    match socket.into_std() {
        Ok(socket) => empty_queue(&socket, &door, &mut connections),
        Err(error) => tracing::warn!(%error, "cannot empty the queue of connections"),
    }
    let metrics = Arc::clone(&door.context.metrics);
    tokio::select! {
        () = async { while let Some(ended) = connections.join_next().await { note(&metrics, ended) } } => {}
        () = drain_over(&door.context) => {
            let cut = connections.len();
            if cut > 0 {
                tracing::warn!(connections = cut, "drain time is over, connections are cut off");
            }
            connections.shutdown().await;
        }
    }
}

/// Whether `work` came to its end, and not to a panic.
async fn unless_panic(work: impl Future<Output = ()>) -> bool {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|task| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(task)));
        match polled {
            Ok(polled) => polled.map(|()| true),
            Err(_panic) => Poll::Ready(false),
        }
    })
    .await
}

async fn accept_until_drained<H: Handler>(
    socket: &TcpListener,
    door: &mut Arc<Door<H>>,
    connections: &mut JoinSet<()>,
) {
    let context = Arc::clone(&door.context);
    let mut notice_over = std::pin::pin!(notice_over(&context));
    let mut pause = PAUSE.0;
    loop {
        tokio::select! {
            biased;
            () = &mut notice_over => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) if door.context.descriptors.are_short(&stream) => {
                    connection::reset(&stream);
                    drop(stream);
                    door.context.metrics.doors.connections_refused.inc();
                    if !rest(door, &mut pause, &"descriptors run short", notice_over.as_mut()).await {
                        break;
                    }
                }
                Ok((stream, peer)) => {
                    pause = PAUSE.0;
                    if let Some(renewed) = door.renewed() {
                        *door = renewed;
                    }
                    welcome(stream, peer, door, connections);
                }
                Err(error) if of_one_connection(&error) => {}
                Err(error) => {
                    if !rest(door, &mut pause, &error, notice_over.as_mut()).await {
                        break;
                    }
                }
            },
            Some(ended) = connections.join_next() => note(&door.context.metrics, ended),
        }
    }
}

/// Lets the queue wait for a while: asking again at once would only spin. Idle connections are to
/// make room meanwhile. `false`: accepting has to end.
async fn rest<H>(
    door: &Door<H>,
    pause: &mut Duration,
    why: &(dyn fmt::Display + Sync),
    end: Pin<&mut impl Future<Output = ()>>,
) -> bool {
    door.context.thinning.want();
    door.context.metrics.strain.descriptors_short.inc();
    if *pause == PAUSE.0 {
        tracing::warn!(address = %door.listener.address, %why, "cannot accept, pausing");
    }
    let over = tokio::time::sleep(*pause);
    *pause = (*pause * 2).min(PAUSE.1);
    tokio::select! {
        () = end => false,
        () = over => true,
    }
}

/// Takes in what the system has already accepted for us: it has been promised an answer. The
/// system itself is asked whether there is more. The runtime would say no, too, when it has not
/// yet heard of a connection or when this task has had its share of the time.
fn empty_queue<H: Handler>(
    socket: &StdListener,
    door: &Arc<Door<H>>,
    connections: &mut JoinSet<()>,
) {
    loop {
        let accepted = socket.accept().and_then(|(stream, peer)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, peer))
        });
        match accepted {
            // There is no later for those who wait here: better no answer than no admin listener.
            Ok((stream, _)) if door.context.descriptors.are_short(&stream) => {
                connection::reset(&stream);
                door.context.metrics.doors.connections_refused.inc();
            }
            Ok((stream, peer)) => welcome(stream, peer, door, connections),
            Err(error) if of_one_connection(&error) => {}
            Err(_) => break,
        }
    }
}

/// Takes a connection in, or turns it away if there are too many or memory is short.
fn welcome<H: Handler>(
    stream: TcpStream,
    peer: SocketAddr,
    door: &Arc<Door<H>>,
    connections: &mut JoinSet<()>,
) {
    let doors = &door.context.metrics.doors;
    doors.connections.inc();
    let short = door.context.pressure.step() >= Pressure::Refuse;
    let slot = if short { None } else { door.context.clients.slot().ok() };
    // Whoever is not a balancer of ours might claim any address in a PROXY header, and without
    // one it would pass for the balancer: it is turned away.
    if door.listener.proxy_protocol && !door.listener.trusts(peer.ip()) {
        doors.connections_refused.inc();
        connection::reset(&stream);
        return;
    }
    // Behind a balancer the client is known only after the PROXY header.
    let seat = if door.listener.proxy_protocol {
        Ok(None)
    } else {
        door.context.clients.seat(peer.ip(), crate::clock::now()).map(Some)
    };
    let (Some(slot), Ok(seat)) = (slot, seat) else {
        doors.connections_refused.inc();
        connection::reset(&stream);
        return;
    };
    let _ = stream.set_nodelay(true);
    connections.spawn(connection::serve(stream, peer, slot, seat, Arc::clone(door)));
}

/// Whether an error of accept speaks of the one connection only (accept(2), "Error handling").
fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkDown, NetworkUnreachable, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | TimedOut
    )
}

fn note(metrics: &crate::telemetry::Metrics, ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        metrics.doors.panics.inc();
        tracing::error!("a connection ended by a panic");
    }
}

/// Resolves when accepting should end.
async fn notice_over(context: &Context) {
    let handed_over = || context.is_handed_over();
    after_drain(context, |limits| match handed_over() {
        // Another process accepts on the same sockets.
        true => Duration::ZERO,
        false => limits.drain_notice,
    })
    .await;
}

/// Resolves when the connections that are left should be cut off.
async fn drain_over(context: &Context) {
    after_drain(context, |limits| limits.drain).await;
}

/// Resolves `after` the draining began, or at an abort.
async fn after_drain(context: &Context, after: impl Fn(&Limits) -> Duration) {
    let mut drain = context.drain.clone();
    loop {
        let left = match *drain.borrow_and_update() {
            Drain::Open => None,
            Drain::Draining { since } => {
                let after = after(&context.newest().limits);
                Some(after.saturating_sub(crate::clock::now().since(since)))
            }
            Drain::Abort => return,
        };
        let changed = async {
            if drain.changed().await.is_err() {
                // Nobody is left who could change it.
                std::future::pending::<()>().await;
            }
        };
        match left {
            None => changed.await,
            Some(left) => tokio::select! {
                () = tokio::time::sleep(left) => return,
                () = changed => {}
            },
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot listen on {}: {}", self.address, self.error)?;
        let remedy = match self.error.kind() {
            io::ErrorKind::AddrInUse => "; stop what listens there, or choose another port",
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
            }
            io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
            _ => "",
        };
        out.write_str(remedy)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
