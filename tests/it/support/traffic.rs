//! Clients of every kind at a steady pace, none of whom may notice what becomes of the edge: an edge
//! that is reconfigured, replaced or ended must not fail one request.
//!
//! What counts as failed:
//!
//! - Over HTTP/1.1: a request that was sent and has no whole answer of 200 with the right bytes. A client
//!   leaves a connection when an answer says `Connection: close`, and not before.
//! - Over HTTP/2: the same, unless the edge says by GOAWAY that it never took the stream. That one is
//!   asked for again over another connection, as RFC 9113 has it, and told as `again`.
//! - A connection that is refused or reset, and a handshake that fails.
//!
//! A client panics at its first failed request, and with it the story.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::client::request;
use super::edge::HOST;
use super::{Connection, Ended, H2, Origin, Piece, Reply, pattern, until, within};

/// Length of a long download, in bytes.
const LONG: usize = 64 * 1024;
/// Pieces in which its origin sends it, and the time between two of them.
const PIECES: usize = 16;
const PAUSE: Duration = Duration::from_millis(100);

/// Clients who ask at the pace; those of HTTP/1.1 and of HTTP/2 have half of it each.
const KEPT: u32 = 12;
/// Clients with a connection for each request, and how many of those they make in a second.
const SHORT: u32 = 2;
const SHORT_RATE: u32 = 10;

/// An origin with something to store, something else for each question, and downloads that take a
/// second and a half.
pub(crate) fn origin() -> Origin {
    Origin::start(|seen| match seen.target.as_str() {
        "/stored" => Reply::fresh("hello"),
        "/long" => {
            let whole = pattern(LONG);
            let pieces = whole
                .chunks(LONG / PIECES)
                .flat_map(|part| [Piece::data(part), Piece::Pause(PAUSE)]);
            Reply::new(200).field("Cache-Control", "no-store").sized(LONG, pieces.collect())
        }
        _ => Reply::new(200).field("Cache-Control", "no-store").body("hello"),
    })
}

/// Where the edge is: HTTP/2 is spoken over TLS where there is TLS, else in plain.
#[derive(Clone, Copy, Debug)]
struct Doors {
    plain: SocketAddr,
    tls: Option<SocketAddr>,
}

/// What has come of it so far.
#[derive(Debug, Default)]
struct Counts {
    http1: AtomicUsize,
    http2: AtomicUsize,
    long: AtomicUsize,
    again: AtomicUsize,
}

/// The clients, until they are told to stop.
pub(crate) struct Traffic {
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<()>>,
    began: Instant,
}

#[derive(Clone)]
struct Client {
    doors: Doors,
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Traffic {
    /// So many requests a second in all, with two long downloads of each kind at any time.
    pub(crate) fn start(plain: SocketAddr, tls: Option<SocketAddr>, rate: u32) -> Self {
        let client =
            Client { doors: Doors { plain, tls }, over: Arc::default(), counts: Arc::default() };
        let mut clients = Vec::new();
        for number in 0..KEPT {
            let (one, two) = (client.clone(), client.clone());
            let first = number as usize * 7;
            clients.push(tokio::spawn(one.http1(pace(rate / 2, KEPT), first)));
            clients.push(tokio::spawn(two.http2(pace(rate / 2, KEPT), first)));
        }
        for _ in 0..SHORT {
            let (one, two) = (client.clone(), client.clone());
            clients.push(tokio::spawn(one.short(pace(SHORT_RATE, SHORT), false)));
            clients.push(tokio::spawn(two.short(pace(SHORT_RATE, SHORT), true)));
            clients.push(tokio::spawn(client.clone().long_http1()));
            clients.push(tokio::spawn(client.clone().long_http2()));
        }
        let Client { over, counts, .. } = client;
        Self { over, counts, clients, began: Instant::now() }
    }

    /// Waits until each kind has had some more answers.
    pub(crate) async fn flows(&self) {
        let now = || {
            let Counts { http1, http2, long, .. } = &*self.counts;
            [http1, http2, long].map(|count| count.load(Ordering::SeqCst))
        };
        let before = now();
        let more = [20, 20, 1];
        until("traffic of each kind", || async {
            let all = now().into_iter().zip(before).zip(more);
            all.into_iter().all(|((now, before), more)| now >= before + more)
        })
        .await;
    }

    /// Ends it; panics where one of its requests has failed. Tells what there was.
    pub(crate) async fn stop(self, what: &str) {
        self.flows().await;
        let took = self.began.elapsed();
        self.over.store(true, Ordering::SeqCst);
        for client in self.clients {
            within("a client to end", client).await.expect("no failed request");
        }
        let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        let Counts { http1, http2, long, again } = &*self.counts;
        let (http1, http2, long, again) = (count(http1), count(http2), count(long), count(again));
        let rate = (http1 + http2) as f64 / took.as_secs_f64();
        println!(
            "{what}: {took:.1?}, {http1} answers of HTTP/1.1 and {http2} of HTTP/2 ({rate:.0} a second), \
             {long} long downloads, {again} streams asked for again, none failed"
        );
    }
}

/// The pace of one of `clients` who ask `rate` times a second together. Whoever was kept waiting
/// catches up.
fn pace(rate: u32, clients: u32) -> Interval {
    let mut pace = interval(Duration::from_secs(1) * clients / rate.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    pace
}

/// One in ten is not stored.
fn target(turn: usize) -> String {
    if turn.is_multiple_of(10) { format!("/pass/{turn}") } else { "/stored".to_owned() }
}

/// What came is whole, whatever was asked for.
fn check(target: &str, body: &[u8]) {
    match target {
        "/long" => assert!(body == pattern(LONG), "a long download of {} bytes", body.len()),
        _ => assert_eq!(body, b"hello", "{target}"),
    }
}

impl Client {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    /// One connection, and another one where the edge says so.
    async fn http1(self, mut pace: Interval, first: usize) {
        let mut connection = None;
        for turn in first.. {
            pace.tick().await;
            if !self.goes_on() {
                return;
            }
            connection = self.ask_http1(connection, &target(turn)).await;
            self.counts.http1.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn long_http1(self) {
        let mut connection = None;
        while self.goes_on() {
            connection = self.ask_http1(connection, "/long").await;
            self.counts.long.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Gives the connection back while the edge keeps it.
    async fn ask_http1(&self, kept: Option<Connection>, target: &str) -> Option<Connection> {
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(self.doors.plain).await,
        };
        connection.send(request("GET", HOST, target, &[])).await;
        let head = connection.head("GET").await;
        assert_eq!(head.status, 200, "{target}");
        let (body, ended) = connection.rest().await;
        assert_eq!(ended, Ended::Clean, "{target}");
        check(target, &body);
        (head.field("connection") != Some("close")).then_some(connection)
    }

    async fn http2(self, mut pace: Interval, first: usize) {
        let mut connection = None;
        for turn in first.. {
            pace.tick().await;
            if !self.goes_on() {
                return;
            }
            connection = Some(self.ask_http2(connection, &target(turn)).await);
            self.counts.http2.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn long_http2(self) {
        let mut connection = None;
        while self.goes_on() {
            connection = Some(self.ask_http2(connection, "/long").await);
            self.counts.long.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn open_http2(&self) -> H2 {
        match self.doors.tls {
            Some(tls) => H2::tls(tls, HOST).await,
            None => H2::plain(self.doors.plain, HOST).await,
        }
    }

    /// Gives the connection that the answer came over.
    async fn ask_http2(&self, kept: Option<H2>, target: &str) -> H2 {
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.open_http2().await,
        };
        loop {
            if let Some(body) = answer(&connection, target).await {
                check(target, &body);
                return connection;
            }
            self.counts.again.fetch_add(1, Ordering::SeqCst);
            connection = self.open_http2().await;
        }
    }

    /// A connection for each request.
    async fn short(self, mut pace: Interval, http2: bool) {
        for turn in 0.. {
            pace.tick().await;
            if !self.goes_on() {
                return;
            }
            if http2 {
                self.ask_http2(None, &target(turn)).await;
                self.counts.http2.fetch_add(1, Ordering::SeqCst);
            } else {
                self.ask_http1(None, &target(turn)).await;
                self.counts.http1.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// The whole body; `None` where the edge takes no more streams on this connection.
async fn answer(connection: &H2, target: &str) -> Option<Vec<u8>> {
    let request = connection.head("GET", target, &[]);
    let ready = within("room for a stream", connection.sender().ready()).await;
    let asked = ready.and_then(|mut ready| ready.send_request(request, true));
    // Nothing has been sent: the connection had said its GOAWAY before.
    let (response, _) = asked.ok()?;
    let response = match within("an answer", response).await {
        Ok(response) => response,
        Err(error) => {
            let no_offence = error.reason() == Some(h2::Reason::NO_ERROR);
            assert!(error.is_go_away() && error.is_remote() && no_offence, "{target}: {error}");
            return None;
        }
    };
    assert_eq!(response.status(), 200, "{target}");
    let (mut body, mut whole) = (response.into_body(), Vec::new());
    while let Some(data) = within("a body", body.data()).await {
        let data = data.unwrap_or_else(|error| panic!("{target}: {error}"));
        let _ = body.flow_control().release_capacity(data.len());
        whole.extend_from_slice(&data);
    }
    Some(whole)
}
