//! Many visitors at a steady pace, and an origin that counts what they bring down on it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::Connection;
use super::edge::HOST;

/// What an origin does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers.
    Well,
    /// Hangs up when it has read a request.
    HangsUp,
    /// Reads and says nothing.
    Silent,
}

/// An origin that counts: requests by their kind, how many were under way at most, and when they came.
pub(crate) struct Counting {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mood: Mutex<Mood>,
    /// A change of mood ends what hangs.
    changed: tokio::sync::Notify,
    takes: Duration,
    now: AtomicUsize,
    most: AtomicUsize,
    probes: AtomicUsize,
    came: Mutex<Vec<Instant>>,
}

impl Counting {
    /// One that takes so long for an answer. `/stale...` is stale when it comes and may stand in for
    /// an hour, `/hit...` is fresh for an hour, the rest is not stored.
    pub(crate) async fn start(takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mood: Mutex::new(Mood::Well),
            changed: tokio::sync::Notify::new(),
            takes,
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            came: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let shared = Arc::clone(&serving);
                tokio::spawn(async move { shared.serve(stream).await });
            }
        });
        Self { address, shared }
    }

    pub(crate) fn be(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
        self.shared.changed.notify_waiters();
    }

    /// Requests since the last call, probes aside, and when each came.
    pub(crate) fn came(&self) -> Vec<Instant> {
        std::mem::take(&mut self.shared.came.lock().unwrap())
    }

    /// Most requests under way at once since the last call.
    pub(crate) fn most(&self) -> usize {
        self.shared.most.swap(0, Ordering::SeqCst)
    }

    /// Probes since the last call.
    pub(crate) fn probes(&self) -> usize {
        self.shared.probes.swap(0, Ordering::SeqCst)
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) {
        while let Some(target) = target(&mut stream).await {
            let probe = target == "/health";
            if probe {
                self.probes.fetch_add(1, Ordering::SeqCst);
            } else {
                self.came.lock().unwrap().push(Instant::now());
                let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
            }
            let answers = self.answer(&mut stream, &target, probe).await;
            if !answers {
                return;
            }
        }
    }

    /// Answers as the mood is; false where the connection ends.
    async fn answer(&self, stream: &mut TcpStream, target: &str, probe: bool) -> bool {
        let changed = self.changed.notified();
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well => tokio::time::sleep(self.takes).await,
            Mood::HangsUp => {}
            // Until the edge has had enough.
            Mood::Silent => {
                let mut byte = [0_u8; 1];
                tokio::select! {
                    () = changed => {}
                    _ = stream.read(&mut byte) => {}
                }
            }
        }
        if !probe {
            // Before the answer: when it is there the next request may be, too.
            self.now.fetch_sub(1, Ordering::SeqCst);
        }
        if mood != Mood::Well {
            return false;
        }
        let caching = match target {
            _ if target.starts_with("/hit") => "Cache-Control: max-age=3600\r\n",
            _ if target.starts_with("/stale") => {
                "Cache-Control: max-age=60, stale-if-error=3600\r\nAge: 100\r\nETag: \"1\"\r\n"
            }
            _ => "Cache-Control: no-store\r\n",
        };
        let head = format!("HTTP/1.1 200 OK\r\n{caching}Content-Length: 2\r\n\r\nok");
        stream.write_all(head.as_bytes()).await.is_ok()
    }
}

/// Target of the next request; `None` at the end of the connection.
async fn target(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    String::from_utf8_lossy(&head).split(' ').nth(1).map(str::to_owned)
}

/// What a visitor wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// What is stored and fresh.
    Hit,
    /// What is stored and stale.
    Stale,
    /// What is not stored.
    Miss,
}

/// What a visitor got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Got {
    pub(crate) wish: Wish,
    pub(crate) status: u16,
    pub(crate) at: Instant,
    pub(crate) took: Duration,
}

/// A crowd that goes on until it is told to stop.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    visitors: Vec<tokio::task::JoinHandle<Vec<Got>>>,
}

impl Crowd {
    /// So many visitors who ask `rate` times a second together: six of ten for what is fresh, two for
    /// what is stale, two for what is not stored.
    pub(crate) fn start(edge: SocketAddr, visitors: u32, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let period = Duration::from_secs(1) * visitors / rate;
        let visit = |number| tokio::spawn(visit(edge, number, period, Arc::clone(&stop)));
        Self { visitors: (0..visitors).map(visit).collect(), stop }
    }

    /// Ends it, and gives all that was got.
    pub(crate) async fn stop(self) -> Vec<Got> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for visitor in self.visitors {
            all.extend(super::within("a visitor to end", visitor).await.unwrap());
        }
        all
    }
}

/// Names that the crowd asks for, by kind.
pub(crate) const HITS: u32 = 50;
pub(crate) const STALES: u32 = 20;

async fn visit(edge: SocketAddr, number: u32, period: Duration, stop: Arc<AtomicBool>) -> Vec<Got> {
    let mut got = Vec::new();
    let mut connection = Connection::open(edge).await;
    let mut pace = tokio::time::interval(period);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0_u32.. {
        pace.tick().await;
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (wish, target) = match (number + round) % 10 {
            0..=5 => (Wish::Hit, format!("/hit/{}", (number * 7 + round) % HITS)),
            6 | 7 => (Wish::Stale, format!("/stale/{}", (number * 3 + round) % STALES)),
            _ => (Wish::Miss, format!("/miss/{number}/{round}")),
        };
        let at = Instant::now();
        let answer = connection.get(HOST, &target, &[]).await;
        let took = at.elapsed();
        got.push(Got { wish, status: answer.status(), at, took });
        if answer.field("connection") == Some("close") {
            connection = Connection::open(edge).await;
        }
    }
    got
}

/// The time within which so many of a thousand answers came.
pub(crate) fn within_share(got: &[&Got], permille: usize) -> Duration {
    let mut times: Vec<Duration> = got.iter().map(|got| got.took).collect();
    times.sort_unstable();
    let place = (times.len() * permille).div_ceil(1000);
    times.get(place.saturating_sub(1)).copied().unwrap_or_default()
}
