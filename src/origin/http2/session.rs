//! One connection that streams share, and the task that drives it.
//!
//! The task reads whatever the origin sends as soon as it comes, so a connection is never stale
//! unnoticed: an end, a GOAWAY or fewer streams are known before the next request asks. A
//! connection that was silent for a while is sent a PING beside its next request; if nothing comes
//! back it is given up, and with it all of its streams, long before their own deadlines.
//!
//! There are no PINGs in between: servers count them, and some that speak gRPC close a connection
//! that sends more than one in five minutes without a request.

use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use h2::client::{Builder, Connection as Driver, SendRequest};
use h2::{Ping, PingPong};
use rustix::net::RecvFlags;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::piece::Piece;
use super::wire::Wire;
use crate::clock;
use crate::config::Limits;
use crate::origin::SendError;
use crate::origin::connect::{Connection, Open};
use crate::origin::endpoint::Endpoint;

/// Time for what is left to say on a connection that nobody uses any more.
const LINGER: Duration = Duration::from_secs(1);

/// A timer that is not set.
const NEVER: Duration = Duration::from_secs(86400 * 365);

/// Streams that we reset and whose last frames are still waited for.
const RESET_STREAMS: usize = 64;

/// One connection. It closes when nobody holds it any more.
pub(in crate::origin) struct Session {
    send: SendRequest<Piece>,
    /// Where it leads.
    pub(in crate::origin) endpoint: Arc<Endpoint>,
    opened: Duration,
    /// Boot clock in milliseconds when its last stream ended.
    idle_since: AtomicU64,
    active: AtomicUsize,
    begun: AtomicU64,
    most: usize,
    silence: Duration,
    socket: Option<OwnedFd>,
    signals: Arc<Signals>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Session({}, {} streams)", self.endpoint.address, self.active())
    }
}

/// What the connection's task and its users tell one another.
#[derive(Debug)]
pub(super) struct Signals {
    /// Boot clock in milliseconds when the origin was last heard.
    heard: AtomicU64,
    /// Whether the origin's first SETTINGS have come.
    greeted: AtomicBool,
    /// Whether they are in force.
    settled: AtomicBool,
    /// Streams that the origin takes at once.
    streams: AtomicUsize,
    /// Whether it takes no more requests.
    over: AtomicBool,
    /// Told whenever there may be room.
    room: Arc<Notify>,
    ping: Notify,
    closing: Notify,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Signals {
    fn new(room: Arc<Notify>) -> Self {
        Self {
            heard: AtomicU64::new(millis(clock::now().boot)),
            greeted: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            room,
            ping: Notify::new(),
            closing: Notify::new(),
        }
    }

    pub(super) fn heard(&self, now: Duration) {
        self.heard.store(millis(now), Ordering::Relaxed);
    }

    pub(super) fn greet(&self) {
        self.greeted.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.greeted.load(Ordering::Relaxed)
    }

    fn silent_for(&self, now: Duration) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.heard.load(Ordering::Relaxed)))
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Notes how many streams the origin takes; whoever waits looks again.
    fn note_streams(&self, streams: usize) {
        let settles = self.is_greeted() && !self.settled.swap(true, Ordering::Relaxed);
        if self.streams.swap(streams, Ordering::Relaxed) != streams || settles {
            self.room.notify_waiters();
        }
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.room.notify_waiters();
    }
}

impl Session {
    /// Greets the origin over a new connection, and waits for its SETTINGS. `room` is told
    /// whenever the connection may take another stream.
    pub(in crate::origin) async fn open(
        connection: Connection,
        limits: &Limits,
        room: &Arc<Notify>,
    ) -> Result<Arc<Self>, SendError> {
        let endpoint = Arc::clone(&connection.endpoint);
        let opened = connection.opened;
        let socket = connection.duplicate();
        let (io, open) = connection.into_io();
        let signals = Arc::new(Signals::new(Arc::clone(room)));
        let wire = Wire::new(io, Arc::clone(&signals));
        let (send, driver) = builder(limits)
            .handshake(wire)
            .await
            .map_err(|_io| SendError::ConnectionTerminated { reused: false })?;
        let patience = limits.origin_connect;
        tokio::spawn(drive(driver, send.clone(), Arc::clone(&signals), open, patience));
        let session = Arc::new(Self {
            send,
            endpoint,
            opened,
            idle_since: AtomicU64::new(millis(opened)),
            active: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            most: limits.origin_http2_streams,
            silence: limits.origin_http2_silence,
            socket,
            signals,
        });
        let settled = session.settled();
        match tokio::time::timeout(limits.origin_connect, settled).await {
            Ok(true) => Ok(session),
            Ok(false) => Err(SendError::HttpProtocolError("does not speak HTTP/2")),
            Err(_) => Err(SendError::ConnectionTimeout),
        }
    }

    /// Waits for the origin's SETTINGS. False: the connection ended instead.
    async fn settled(&self) -> bool {
        loop {
            let mut told = pin!(self.signals.room.notified());
            told.as_mut().enable();
            if self.signals.settled.load(Ordering::Relaxed) {
                return true;
            }
            if self.signals.is_over() {
                return false;
            }
            told.await;
        }
    }

    /// Counts one more stream, if the origin takes it.
    pub(super) fn join(&self) -> bool {
        let most = self.most.min(self.signals.streams.load(Ordering::Relaxed));
        let join = |active: usize| (active < most).then_some(active + 1);
        !self.signals.is_over()
            && self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, join).is_ok()
    }

    pub(super) fn leave(&self, now: Duration) {
        self.idle_since.store(millis(now), Ordering::Relaxed);
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Takes no more streams: those under way go on.
    pub(super) fn retire(&self) {
        self.signals.end();
    }

    /// Whether new streams may begin on it.
    pub(super) fn may_live(&self, limits: &Limits, now: Duration) -> bool {
        let idle_since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        !self.signals.is_over()
            && !self.endpoint.is_retired()
            && now.saturating_sub(self.opened) < limits.origin_connection_age
            && (self.active() > 0 || now.saturating_sub(idle_since) < limits.origin_idle)
    }

    /// Whether the origin was heard a short while ago.
    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        self.signals.silent_for(now) < self.silence
    }

    /// Whether nothing was heard of the origin since `then`.
    pub(super) fn is_silent_since(&self, then: Duration) -> bool {
        self.signals.heard.load(Ordering::Relaxed) <= millis(then)
    }

    /// What the socket itself knows, which the task may not have been told yet.
    pub(super) fn peek(&self) -> Peek {
        let mut byte = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match self.socket.as_ref().map(|socket| rustix::net::recv(socket, &mut byte, flags)) {
            Some(Err(rustix::io::Errno::AGAIN)) | None => Peek::Quiet,
            Some(Ok((_, read))) if read > 0 => Peek::Unread,
            Some(_) => Peek::Ended,
        }
    }

    /// A way to begin a stream, and whether the connection has carried others. A connection that
    /// was silent for long has to answer a PING meanwhile.
    pub(super) fn begin(&self, now: Duration) -> (SendRequest<Piece>, bool) {
        if !self.is_fresh(now) {
            self.signals.ping.notify_one();
        }
        (self.send.clone(), self.begun.fetch_add(1, Ordering::Relaxed) > 0)
    }
}

/// What lies on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peek {
    Quiet,
    Unread,
    Ended,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.signals.closing.notify_one();
    }
}

/// A stream's window is what may wait of one answer. The connection's has room for all of its
/// streams: a client that does not read must not hold up the others.
fn builder(limits: &Limits) -> Builder {
    const LARGEST_WINDOW: u32 = (1 << 31) - 1;
    let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let window = bytes(limits.body_in_flight_bytes).min(LARGEST_WINDOW);
    let streams = bytes(limits.origin_http2_streams);
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(0)
        .initial_window_size(window)
        .initial_connection_window_size(window.saturating_mul(streams).min(LARGEST_WINDOW))
        .max_header_list_size(bytes(limits.origin_head_bytes))
        .max_send_buffer_size(limits.body_in_flight_bytes / 2)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(LINGER);
    builder
}

/// Drives a connection to its end.
async fn drive(
    mut driver: Driver<Wire, Piece>,
    send: SendRequest<Piece>,
    signals: Arc<Signals>,
    open: Open,
    patience: Duration,
) {
    let mut pings: Option<PingPong> = driver.ping_pong();
    let mut send = Some(send);
    let mut pinged: Option<(Instant, Duration)> = None;
    let mut timer = pin!(tokio::time::sleep(NEVER));
    loop {
        let held = send.is_some();
        let next = poll_fn(|context| {
            let ended = pin!(&mut driver).poll(context);
            // After a GOAWAY no stream can be begun.
            if let Some(send) = &mut send
                && let Poll::Ready(Err(_)) = send.poll_ready(context)
                && !signals.is_over()
            {
                signals.end();
            }
            signals.note_streams(driver.max_concurrent_send_streams());
            ended
        });
        tokio::select! {
            biased;
            _ended = next => break,
            pong = poll_fn(|context| match &mut pings {
                Some(pings) => pings.poll_pong(context),
                None => Poll::Pending,
            }), if pinged.is_some() => {
                if pong.is_err() {
                    break;
                }
                pinged = None;
                timer.as_mut().reset(Instant::now() + NEVER);
            }
            () = signals.ping.notified(), if pinged.is_none() && held => {
                if let Some(pings) = &mut pings && pings.send_ping(Ping::opaque()).is_ok() {
                    let due = Instant::now() + patience;
                    pinged = Some((due, clock::now().boot));
                    timer.as_mut().reset(due);
                }
            }
            () = signals.closing.notified(), if held => {
                send = None;
                pinged = None;
                timer.as_mut().reset(Instant::now() + LINGER);
            }
            () = &mut timer => {
                match pinged.take() {
                    // Whatever came since shows that the origin is there.
                    Some((_, asked)) if signals.heard.load(Ordering::Relaxed) > millis(asked) => {
                        timer.as_mut().reset(Instant::now() + NEVER);
                    }
                    Some(_) => {
                        tracing::debug!("an HTTP/2 connection to an origin is dead");
                        break;
                    }
                    None => break,
                }
            }
        }
    }
    signals.end();
    drop(open);
}
