//! One connection to a peer, from its greeting to its end.
//!
//! Two halves run side by side in one task. The writer takes from the peer's queue while this connection
//! is the peer's link; then it says goodbye and closes its direction. The reader goes on until the other
//! side has closed its own. So a connection that another takes the place of loses nothing: each
//! side has written frames to their end, and reads the other's to theirs.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsStream;

use super::frame::{self, Frame, FrameReader, HEAD_BYTES, Kind, Parts, SMALL_BYTES};
use super::links::Heard;
use super::peers::Peer;
use super::shared::{Phase, Shared, Word};
use super::tls::Shown;
use super::traffic;
use crate::clock;
use crate::replication::{WireError, decode};
use crate::telemetry::{LinkClosed, Traffic};

/// Bytes that are written at once.
const WRITE_BYTES: usize = 64 << 10;

/// Time for a connection that is not the link any more to be read to its end.
const READ_ON: Duration = Duration::from_secs(5);

/// Time for the writer to say goodbye to who has closed, and for all when the node closes.
const GOODBYE: Duration = Duration::from_secs(1);

/// Pauses before the frames that follow what is urgent.
const NUDGES: [Duration; 2] = [Duration::from_millis(6), Duration::from_millis(24)];

/// A connection whose peer has shown who it is.
pub(super) struct Connection {
    /// The stream.
    pub(super) stream: TlsStream<TcpStream>,
    /// What has been read of it.
    pub(super) reader: FrameReader,
    /// Who is at the other end.
    pub(super) peer: Arc<Peer>,
    /// Its number here.
    pub(super) id: u64,
    /// Told when there is something to write.
    pub(super) wake: Arc<Notify>,
    /// What is written first.
    pub(super) first: BytesMut,
    /// What the peer has shown of itself.
    pub(super) shown: Shown,
}

/// Numbers that came and want to go back; the newest counts. 0 is none.
type Pong = AtomicU64;

/// Carries messages until the connection ends.
pub(super) async fn run(shared: &Shared, connection: Connection) {
    let (peer, id) = (Arc::clone(&connection.peer), connection.id);
    let over = async {
        shared.reached(Phase::Closed).await;
        tokio::time::sleep(GOODBYE).await;
    };
    let ended = tokio::select! {
        ended = carry(shared, connection) => ended,
        () = over => LinkClosed::Closing,
    };
    let was_link = peer.detach(id).is_some();
    if was_link {
        shared.metrics().up.dec();
    }
    shared.metrics().closed(ended);
    tracing::info!(peer = %peer.name, why = ended.label(), "a link has ended");
}

/// Gives up being the link.
fn detach(shared: &Shared, peer: &Peer, id: u64) {
    if peer.detach(id).is_some() {
        shared.metrics().up.dec();
    }
}

async fn carry(shared: &Shared, connection: Connection) -> LinkClosed {
    let Connection { stream, reader, peer, id, wake, first, shown } = connection;
    let (from, to) = tokio::io::split(stream);
    let pong = Pong::new(0);
    let writer = Writer { shared, peer: &peer, id, wake: &wake, pong: &pong };
    let incoming = Incoming { shared, peer: &peer, id, wake: &wake, pong: &pong };
    let mut writing = pin!(writer.run(to, first));
    let mut reading = pin!(incoming.run(from, reader));
    let outlived = shared.identity.outlives(&shown);
    tokio::select! {
        why = outlived => {
            tracing::warn!(peer = %peer.name, ?why, "the certificate that a peer has shown is not good any more");
            LinkClosed::Certificate
        }
        ended = &mut reading => {
            detach(shared, &peer, id);
            let _ = timeout(GOODBYE, writing).await;
            ended
        }
        written = &mut writing => {
            detach(shared, &peer, id);
            match written {
                Err(ended) => ended,
                // Both ends may have closed for the same reason; what this one did is what counts.
                Ok(ended) => timeout(READ_ON, reading).await.map_or(ended, |_read| ended),
            }
        }
    }
}

/// The half that writes.
struct Writer<'a> {
    shared: &'a Shared,
    peer: &'a Peer,
    id: u64,
    wake: &'a Notify,
    pong: &'a Pong,
}

/// When the writer writes of its own accord.
struct Pace {
    ping_every: Duration,
    ping_at: Instant,
    /// What is left of the frames that follow something urgent.
    nudges: std::slice::Iter<'static, Duration>,
    nudge_at: Option<Instant>,
}

impl Pace {
    fn new(idle: Duration) -> Self {
        let ping_every = idle / 4;
        Self { ping_every, ping_at: Instant::now(), nudges: [].iter(), nudge_at: None }
    }

    /// Something was written; nudges follow if it is urgent, and what was due is replaced by it.
    fn wrote(&mut self, eager: bool) {
        if eager {
            self.nudges = NUDGES.iter();
        }
        self.nudge_at = self.nudges.next().map(|pause| Instant::now() + *pause);
    }

    /// Adds what is due.
    fn due(&mut self, out: &mut BytesMut) -> bool {
        let now = Instant::now();
        if self.nudge_at.is_some_and(|at| at <= now) && out.is_empty() {
            frame::write(Kind::Nudge, &[], out);
        }
        if self.ping_at > now {
            return false;
        }
        self.ping_at = now + self.ping_every;
        true
    }

    fn next(&self) -> Instant {
        self.nudge_at.map_or(self.ping_at, |at| at.min(self.ping_at))
    }
}

impl Writer<'_> {
    async fn run(
        &self,
        mut to: WriteHalf<TlsStream<TcpStream>>,
        mut out: BytesMut,
    ) -> Result<LinkClosed, LinkClosed> {
        let mut pace = Pace::new(self.shared.limits.idle);
        let ended = loop {
            let closing = *self.shared.phase.borrow() == Phase::Closed;
            let Some(taken) = self.peer.take(self.id, &mut out, WRITE_BYTES) else {
                break LinkClosed::Replaced;
            };
            self.add_numbers(&mut pace, &mut out);
            if !out.is_empty() {
                self.write(&mut to, &mut out).await?;
                pace.wrote(taken.eager);
                continue;
            }
            if closing {
                break LinkClosed::Closing;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(pace.next()) => {}
                () = self.shared.reached(Phase::Closed) => {}
            }
        };
        frame::write(Kind::Bye, &[], &mut out);
        self.write(&mut to, &mut out).await?;
        let _ = timeout(GOODBYE, to.shutdown()).await;
        Ok(ended)
    }

    fn add_numbers(&self, pace: &mut Pace, out: &mut BytesMut) {
        let pong = self.pong.swap(0, Ordering::Relaxed);
        if pong != 0 {
            frame::write(Kind::Pong, &pong.to_be_bytes(), out);
        }
        if pace.due(out) {
            frame::write(Kind::Ping, &boot_micros().to_be_bytes(), out);
        }
    }

    /// Writes all of it. A peer that takes nothing for too long is given up.
    async fn write(
        &self,
        to: &mut WriteHalf<TlsStream<TcpStream>>,
        out: &mut BytesMut,
    ) -> Result<(), LinkClosed> {
        let patience = self.shared.limits.idle;
        while out.has_remaining() {
            let written = timeout(patience, to.write_buf(out)).await;
            progress(written)?;
        }
        progress(timeout(patience, to.flush()).await)
    }
}

fn progress<T>(
    written: Result<io::Result<T>, tokio::time::error::Elapsed>,
) -> Result<(), LinkClosed> {
    match written {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_broken)) => Err(LinkClosed::Network),
        Err(_elapsed) => Err(LinkClosed::Stalled),
    }
}

/// The half that reads.
struct Incoming<'a> {
    shared: &'a Shared,
    peer: &'a Peer,
    id: u64,
    wake: &'a Notify,
    pong: &'a Pong,
}

impl Incoming<'_> {
    async fn run(
        &self,
        mut from: ReadHalf<TlsStream<TcpStream>>,
        mut reader: FrameReader,
    ) -> LinkClosed {
        let most = self.shared.limits.frame_bytes;
        reader.limit(most);
        let mut parts = Parts::new(most);
        loop {
            loop {
                match reader.next() {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        if let Err(ended) = self.take(frame, &mut parts).await {
                            return ended;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(peer = %self.peer.name, ?error, "a peer sends no frames");
                        return LinkClosed::Malformed;
                    }
                }
            }
            match timeout(self.shared.limits.idle, from.read_buf(reader.room())).await {
                Err(_elapsed) => return LinkClosed::Idle,
                Ok(Err(_broken)) => return LinkClosed::Network,
                Ok(Ok(0)) => return LinkClosed::Peer,
                Ok(Ok(_)) => {}
            }
        }
    }

    async fn take(&self, frame: Frame, parts: &mut Parts) -> Result<(), LinkClosed> {
        let Frame { kind, body } = frame;
        let bytes = HEAD_BYTES + body.len();
        match kind {
            Some(Kind::Message) => self.message(&body, bytes).await,
            Some(part @ (Kind::Part | Kind::LastPart)) => {
                let message = parts.take(&body, part == Kind::LastPart);
                match message.map_err(|_long| LinkClosed::Malformed)? {
                    Some(message) => self.message(&message, message.len()).await,
                    None => Ok(()),
                }
            }
            Some(Kind::Hello) => Err(LinkClosed::Malformed),
            None => {
                self.shared.metrics().unknown.inc();
                Ok(())
            }
            Some(_) if body.len() > SMALL_BYTES => Err(LinkClosed::Malformed),
            Some(Kind::Datagram) => {
                self.datagram(body, bytes);
                Ok(())
            }
            Some(Kind::Keys) => {
                self.shared.metrics().received(Traffic::Keys, bytes);
                self.shared.me.tickets.take(&body, clock::now());
                Ok(())
            }
            Some(small @ (Kind::Ping | Kind::Pong | Kind::Bye | Kind::Nudge)) => {
                self.shared.metrics().received(Traffic::Link, bytes);
                self.small(small, &body)
            }
        }
    }

    /// Hands a message on. While nobody takes it, this peer is not read from.
    async fn message(&self, body: &[u8], bytes: usize) -> Result<(), LinkClosed> {
        let message = match decode(body) {
            Ok(message) => message,
            Err(WireError::UnknownKind(_)) => {
                self.shared.metrics().unknown.inc();
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(peer = %self.peer.name, ?error, "a peer sends no messages");
                return Err(LinkClosed::Malformed);
            }
        };
        self.shared.metrics().received(traffic::of(&message).0, bytes);
        let heard = Heard { from: self.peer.name.clone(), message };
        self.shared.heard.send(heard).await.map_err(|_nobody| LinkClosed::Closing)
    }

    /// Hands a datagram on, or drops it: they may get lost.
    fn datagram(&self, body: Bytes, bytes: usize) {
        self.shared.metrics().received(Traffic::Membership, bytes);
        let _ = self.shared.words.try_send(Word::Datagram(self.peer.name.clone(), body));
    }

    fn small(&self, kind: Kind, body: &[u8]) -> Result<(), LinkClosed> {
        match kind {
            Kind::Ping => {
                self.pong.store(number(body)?, Ordering::Relaxed);
                self.wake.notify_one();
            }
            Kind::Pong => {
                let micros = boot_micros().saturating_sub(number(body)?);
                self.peer.measured(self.id, Duration::from_micros(micros));
            }
            // Nothing more is to be written here; its own end follows.
            Kind::Bye => detach(self.shared, self.peer, self.id),
            Kind::Nudge | Kind::Hello | Kind::Message => {}
            Kind::Part | Kind::LastPart | Kind::Datagram | Kind::Keys => {}
        }
        Ok(())
    }
}

fn number(body: &[u8]) -> Result<u64, LinkClosed> {
    body.try_into().map(u64::from_be_bytes).map_err(|_length| LinkClosed::Malformed)
}

fn boot_micros() -> u64 {
    u64::try_from(clock::now().boot.as_micros()).unwrap_or(u64::MAX)
}
