//! HTTP/2 from clients, driven directly through h2: it can send interim responses and close with a
//! reason, and the frames beneath it are counted (see `frames`).
//!
//! One task owns the connection. A request whose handler answers at once, as hits do, is served
//! within that task; the others get a task each.

mod body;
mod check;
mod cork;
mod frames;
mod head;
mod stream;
mod tunnel;
mod wire;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

pub(super) use self::check::{frames_are_judged, limited};
use self::cork::Cork;
use self::frames::{Breach, Kinds};
use self::stream::{Shared, Working};
use self::wire::{Wire, WireState};
use super::clients::Seat;
use super::context::{Context, Drain, Pressure};
use super::limits::Pace;
use super::request::{Client, Handler};
use super::socket::{Progress, Taken};
use crate::clock;
use crate::config::Limits;
use crate::message::Scheme;
use crate::telemetry::Glitch;

/// What a client sends first (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often a connection with something to watch is looked at.
const TICK: Duration = Duration::from_secs(2);

/// Serves one connection until it ends. `seat` is the client's account, `None` where the
/// connection has no cap of its own. `taken` counts what the client's socket takes of `io`.
pub(super) async fn serve_http2<IO, H>(
    io: IO,
    taken: Taken,
    first: BytesMut,
    client: Arc<Client>,
    seat: Option<&Seat>,
    handler: Arc<H>,
    context: Arc<Context>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    H: Handler,
{
    let limits = Arc::clone(&context.limits);
    let state = WireState::new(&limits);
    let cork = Cork::new(io);
    let wire = Wire::new(cork.clone(), first, state.clone(), limits.linger);
    let begun = clock::now().boot;
    let mut builder = builder(&limits);
    if handler.offers_tunnels() {
        builder.enable_connect_protocol();
    }
    let handshake = builder.handshake::<_, Bytes>(wire);
    let Ok(Ok(connection)) = tokio::time::timeout(limits.handshake, handshake).await else {
        return;
    };
    cork.hold();
    taken.in_bursts();
    let scheme = if client.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let salt = u64::from(client.address.port()) ^ u64::from(begun.subsec_nanos());
    let age = context.connection_age(salt);
    let working = AtomicUsize::new(0);
    let shared =
        Arc::new(Shared { handler, client, context, scheme, wire: state.clone(), working });
    let pace = Pace::of_answer(&limits);
    let loop_ = Loop {
        connection,
        cork,
        wire: state,
        shared,
        seat,
        limits,
        begun,
        age,
        active: begun,
        requests: 0,
        leaving: None,
        closing: false,
        pace,
        progress: Progress::of(taken),
        counted: Counted::default(),
    };
    loop_.run().await;
}

fn builder(limits: &Limits) -> h2::server::Builder {
    const LARGEST_WINDOW: u32 = (1 << 31) - 1;
    let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(limits.http2_stream_window_bytes.min(LARGEST_WINDOW))
        .initial_connection_window_size(limits.http2_connection_window_bytes.min(LARGEST_WINDOW))
        .max_frame_size(limits.http2_frame_bytes.clamp(16_384, 16_777_215))
        .max_header_list_size(bytes(limits.head_bytes))
        .header_table_size(limits.http2_table_bytes)
        .max_concurrent_streams(limits.http2_streams)
        .max_send_buffer_size(limits.http2_send_buffer_bytes)
        .max_local_error_reset_streams(Some(count(limits.http2_server_resets)))
        .max_pending_accept_reset_streams(count(limits.http2_resets_before_answer));
    builder
}

/// One connection and what is known of it.
struct Loop<'a, IO, H> {
    connection: Connection<Wire<Cork<IO>>, Bytes>,
    cork: Cork<IO>,
    wire: WireState,
    shared: Arc<Shared<H>>,
    seat: Option<&'a Seat>,
    limits: Arc<Limits>,
    /// Boot clock at its beginning.
    begun: Duration,
    /// Age at which the client is asked to leave.
    age: Duration,
    /// Boot clock when it last had a stream.
    active: Duration,
    requests: u64,
    /// Boot clock since when the client has been asked to leave.
    leaving: Option<Duration>,
    /// Whether it is being closed regardless of its streams.
    closing: bool,
    pace: Pace,
    progress: Progress,
    counted: Counted,
}

/// What of the wire's counts the metrics already know.
#[derive(Default)]
struct Counted {
    received: u64,
    sent: u64,
    glitches: Kinds,
    resets: u32,
}

type Accepted = Option<Result<(http::Request<RecvStream>, SendResponse<Bytes>), h2::Error>>;

#[expect(clippy::large_enum_variant, reason = "the large one is the usual one and moves at once")]
enum Event {
    Accepted(Accepted),
    Breach(Breach),
    /// A field block has begun to arrive in an idle connection.
    Wake,
    /// The client has been odd so often that it is better asked to leave.
    Tired,
    Tick,
    Drain(Drain),
}

impl<IO, H> Loop<'_, IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    H: Handler,
{
    async fn run(mut self) {
        let mut drain = self.shared.context.drain.clone();
        let mut draining = pin!(async move {
            let state = drain.wait_for(|state| *state != Drain::Open).await.map(|state| *state);
            match state {
                Ok(state) => state,
                Err(_nobody_left) => std::future::pending().await,
            }
        });
        let mut drained = false;
        let mut timer = pin!(tokio::time::sleep(self.first_tick()));
        let mut dozing = false;
        let context = Arc::clone(&self.shared.context);
        let mut moved = pin!(context.thinning.moved(context.thinning.moment()));
        loop {
            let event = std::future::poll_fn(|task| {
                if let Poll::Ready(accepted) = pin!(self.connection.accept()).poll(task) {
                    return Poll::Ready(Event::Accepted(accepted));
                }
                // Nothing more to do but to wait: now what has been gathered goes out.
                match self.cork.poll_out(task) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => {
                        tracing::debug!(%error, "HTTP/2 connection cannot be written to");
                        return Poll::Ready(Event::Accepted(None));
                    }
                    Poll::Pending => self.wire.lock().stalled = true,
                }
                if !self.closing
                    && let Some(event) = self.wire_event(dozing)
                {
                    return Poll::Ready(event);
                }
                if timer.as_mut().poll(task).is_ready() {
                    return Poll::Ready(Event::Tick);
                }
                if dozing && moved.as_mut().poll(task).is_ready() {
                    moved.set(context.thinning.moved(context.thinning.moment()));
                    return Poll::Ready(Event::Tick);
                }
                if !drained && let Poll::Ready(state) = draining.as_mut().poll(task) {
                    return Poll::Ready(Event::Drain(state));
                }
                Poll::Pending
            })
            .await;
            match event {
                Event::Accepted(Some(Ok((request, respond)))) => {
                    self.start(request, respond).await;
                    if dozing {
                        dozing = false;
                        rearm(timer.as_mut(), TICK);
                    }
                }
                Event::Accepted(Some(Err(error))) => {
                    tracing::debug!(client = %self.shared.client.address, %error, "HTTP/2 connection failed");
                    break;
                }
                Event::Accepted(None) => break,
                Event::Breach(breach) => {
                    self.close(breach);
                    rearm(timer.as_mut(), self.limits.linger);
                }
                Event::Wake | Event::Tired => {
                    if matches!(event, Event::Tired) {
                        self.leave(clock::now().boot);
                    }
                    dozing = false;
                    rearm(timer.as_mut(), TICK);
                }
                Event::Tick if self.closing => break,
                Event::Tick => {
                    let next = self.tick();
                    dozing = next > TICK;
                    rearm(timer.as_mut(), next);
                }
                Event::Drain(Drain::Abort) => break,
                Event::Drain(_) => {
                    drained = true;
                    self.leave(clock::now().boot);
                    rearm(timer.as_mut(), TICK);
                    dozing = false;
                }
            }
        }
        self.count();
    }

    /// What the wire has noticed, if anything.
    fn wire_event(&self, dozing: bool) -> Option<Event> {
        let wire = self.wire.lock();
        if let Some(breach) = wire.breach {
            return Some(Event::Breach(breach));
        }
        if self.leaving.is_none() && wire.frames.tired() {
            return Some(Event::Tired);
        }
        (dozing && wire.frames.block_since().is_some()).then_some(Event::Wake)
    }

    /// Serves a request: here if that needs no waiting, else in a task of its own.
    async fn start(
        &mut self,
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        self.requests += 1;
        let most = usize::try_from(self.limits.http2_streams).unwrap_or(usize::MAX);
        let full = self.shared.working.load(Ordering::Relaxed) >= most;
        let seat = match self.seat {
            Some(seat) => seat.stream().ok(),
            None => Some(super::clients::StreamSeat::free()),
        };
        let (false, false, Some(seat)) = (full, self.overstays(), seat) else {
            return respond.send_reset(Reason::REFUSED_STREAM);
        };
        let working = Working::new(&self.shared, seat);
        let mut served: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(stream::serve(working, request, respond));
        let context = &self.shared.context;
        let polled = std::future::poll_fn(|task| {
            Poll::Ready(catch_unwind(AssertUnwindSafe(|| served.as_mut().poll(task))))
        });
        match polled.await {
            Ok(Poll::Ready(())) => {}
            Ok(Poll::Pending) => drop(tokio::spawn(go_on(served, Arc::clone(context)))),
            Err(_panic) => context.metrics.doors.panics.inc(),
        }
        if self.requests == self.limits.connection_requests {
            self.leave(clock::now().boot);
        }
    }

    /// Whether the client opens streams although it was asked to leave some time ago.
    fn overstays(&self) -> bool {
        self.leaving
            .is_some_and(|since| clock::now().boot.saturating_sub(since) > self.limits.handshake)
    }

    fn first_tick(&self) -> Duration {
        TICK.min(self.limits.handshake)
    }

    /// Judges the connection. Returns when to do so again.
    fn tick(&mut self) -> Duration {
        self.count();
        let now = clock::now();
        let passed = |since: Duration| now.boot.saturating_sub(since);
        let (settings_seen, block_since, stalled) = {
            let wire = self.wire.lock();
            let frames = &wire.frames;
            (frames.settings_seen(), frames.block_since(), wire.stalled)
        };
        if !settings_seen {
            let left = self.limits.handshake.saturating_sub(passed(self.begun));
            if left.is_zero() {
                return self.time_out("no SETTINGS from the client");
            }
            return left.min(TICK);
        }
        if block_since.is_some_and(|since| passed(since) >= self.limits.head) {
            return self.time_out("a field block did not end in time");
        }
        let moved = self.progress.look();
        if moved > 0 {
            self.pace.moved(moved, now);
        }
        if stalled && self.pace.wait(now).is_err() {
            return self.time_out("the client takes too little");
        }
        let busy = self.shared.working.load(Ordering::Relaxed) > 0 || self.connection.has_streams();
        if busy {
            self.active = now.boot;
        }
        if let Some(since) = self.leaving {
            if !busy && passed(since) >= self.limits.handshake {
                self.close(Breach { reason: Reason::NO_ERROR, rule: "did not leave when asked" });
                return self.limits.linger;
            }
            return TICK;
        }
        let in_the_way = !busy && self.shared.context.thinning.ends(self.active);
        if in_the_way {
            self.shared.context.metrics.strain.idle_closed.inc();
        }
        let idle = in_the_way || passed(self.active) >= self.limits.http2_idle;
        let old = passed(self.begun) >= self.age;
        let short = self.shared.context.pressure.step() >= Pressure::Shed;
        if idle || old || short {
            self.leave(now.boot);
            return TICK;
        }
        if busy || stalled || block_since.is_some() {
            return TICK;
        }
        let idle_left = self.limits.http2_idle.saturating_sub(passed(self.active));
        let age_left = self.age.saturating_sub(passed(self.begun));
        idle_left.min(age_left).max(TICK)
    }

    /// Asks the client to take its next requests elsewhere; what was asked is answered.
    fn leave(&mut self, boot: Duration) {
        if self.leaving.is_none() {
            self.leaving = Some(boot);
            self.connection.graceful_shutdown();
        }
    }

    fn time_out(&mut self, rule: &'static str) -> Duration {
        self.shared.context.metrics.doors.timeouts.inc();
        self.close(Breach { reason: Reason::NO_ERROR, rule });
        self.limits.linger
    }

    /// Says why and closes, whatever the streams do.
    fn close(&mut self, breach: Breach) {
        let client = self.shared.client.address;
        tracing::debug!(%client, rule = breach.rule, reason = %breach.reason, "HTTP/2 connection closed");
        if breach.reason == Reason::ENHANCE_YOUR_CALM {
            self.shared.context.metrics.strain.glitch_closes.inc();
        }
        self.closing = true;
        self.connection.abrupt_shutdown(breach.reason);
    }

    /// Brings the metrics up to date.
    fn count(&mut self) {
        let wire = self.wire.lock();
        let doors = &self.shared.context.metrics.doors;
        doors.bytes_received.inc_by(wire.received - self.counted.received);
        doors.bytes_sent.inc_by(wire.sent - self.counted.sent);
        let (glitches, resets) = (*wire.frames.kinds(), wire.frames.resets());
        if glitches != self.counted.glitches {
            let strain = &self.shared.context.metrics.strain;
            for (kind, (new, old)) in
                Glitch::ALL.into_iter().zip(glitches.into_iter().zip(self.counted.glitches))
            {
                strain.glitched(kind, u64::from(new - old));
            }
        }
        doors.streams_reset.inc_by(u64::from(resets - self.counted.resets));
        self.counted.received = wire.received;
        self.counted.sent = wire.sent;
        self.counted.glitches = glitches;
        self.counted.resets = resets;
    }
}

fn rearm(timer: Pin<&mut Sleep>, after: Duration) {
    timer.reset(Instant::now() + after);
}

/// The rest of a stream that could not be served at once.
async fn go_on(mut served: Pin<Box<dyn Future<Output = ()> + Send>>, context: Arc<Context>) {
    let doors = &context.metrics.doors;
    doors.streams_open.inc();
    let panicked = std::future::poll_fn(|task| {
        match catch_unwind(AssertUnwindSafe(|| served.as_mut().poll(task))) {
            Ok(polled) => polled.map(|()| false),
            Err(_panic) => Poll::Ready(true),
        }
    })
    .await;
    doors.streams_open.dec();
    if panicked {
        doors.panics.inc();
    }
}

#[cfg(test)]
mod tests;
