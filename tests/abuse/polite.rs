//! Visitors who mean well: they ask at a steady pace, over HTTP/1.1 and HTTP/2, in plain and over TLS, over
//! connections that they keep and over new ones, and look at every byte of what they get.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;

use crate::dice::Dice;
use crate::pages::{self, FILMS, HOST, HOT, NEWS, NOBODY};
use crate::wire::{self, Answer, Wire};
use crate::{Abuse, Phase};

/// Longest wait for an answer; whoever waits longer is counted as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the visitors got.
#[derive(Default)]
pub(crate) struct Tally {
    times: Mutex<Times>,
    /// Answers that were looked at.
    pub(crate) answers: AtomicUsize,
    /// Of those, what was somebody else's, too old, or changed; the first few in words.
    wrong: Mutex<Vec<String>>,
    /// Answers that say that there is no answer now.
    refused: Mutex<Vec<String>>,
    /// Requests that were not answered.
    failed: Mutex<Vec<String>>,
    /// Requests that were sent again, since a kept connection had ended before them.
    pub(crate) again: AtomicUsize,
    /// Pages that were changed and purged.
    pub(crate) purged: AtomicUsize,
}

#[derive(Default)]
struct Times {
    good: Vec<Duration>,
    abuse: Vec<Duration>,
}

impl Tally {
    /// The time within which ninety-nine of a hundred answers came in phases of this kind, and how many
    /// there were.
    pub(crate) fn p99(&self, phase: Phase) -> (Duration, usize) {
        let times = self.times.lock().unwrap();
        let mut times = match phase {
            Phase::Good => times.good.clone(),
            _ => times.abuse.clone(),
        };
        times.sort_unstable();
        let place = (times.len() * 99).div_ceil(100).saturating_sub(1);
        (times.get(place).copied().unwrap_or_default(), times.len())
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }

    pub(crate) fn failed(&self) -> Vec<String> {
        self.failed.lock().unwrap().clone()
    }

    pub(crate) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }

    fn note(&self, took: Duration, before: Phase, after: Phase) {
        if before == after {
            let mut times = self.times.lock().unwrap();
            match before {
                Phase::Good => times.good.push(took),
                Phase::Abuse => times.abuse.push(took),
                Phase::Rest | Phase::Over => {}
            }
        }
    }
}

/// What a visitor asks for.
struct Ask {
    target: String,
    user: Option<String>,
    /// Bytes of a range, if it is one.
    range: Option<(usize, usize)>,
    by_token: bool,
    /// The oldest version that may be shown.
    least: u64,
}

impl Ask {
    fn draw(dice: &mut Dice, number: usize, abuse: &Abuse) -> Self {
        let mut ask =
            Self { target: String::new(), user: None, range: None, by_token: false, least: 0 };
        match dice.below(20) {
            0..=9 => ask.target = format!("/hot/{}", dice.below(HOT)),
            10..=12 => {
                ask.target = format!("/me/{}", dice.below(40));
                ask.user = Some(format!("visitor-{number}"));
                ask.by_token = dice.below(3) == 0;
            }
            13..=15 => ask.target = format!("/news/{}", dice.below(NEWS)),
            16 => {
                ask.target = format!("/film/{}", dice.below(FILMS));
                let first = dice.below(pages::length(&ask.target) - 40_000);
                ask.range = Some((first, first + dice.below(32_000)));
            }
            _ => ask.target = format!("/fresh/{:016x}", dice.roll()),
        }
        ask.least = abuse.versions.least(&ask.target);
        ask
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let user = self.user.as_ref().map(|user| match self.by_token {
            true => ("authorization", format!("Bearer {user}")),
            false => ("cookie", format!("user={user}")),
        });
        let range = self.range.map(|(first, last)| ("range", format!("bytes={first}-{last}")));
        user.into_iter().chain(range).collect()
    }

    fn head(&self, keeps: bool) -> String {
        let mut head = format!("GET {} HTTP/1.1\r\nHost: {HOST}\r\n", self.target);
        for (name, value) in self.fields() {
            head += &format!("{name}: {value}\r\n");
        }
        head + if keeps { "\r\n" } else { "Connection: close\r\n\r\n" }
    }

    /// Looks at an answer.
    fn judge(&self, status: u16, body: &[u8], tally: &Tally) {
        tally.answers.fetch_add(1, Ordering::SeqCst);
        if matches!(status, 429 | 503 | 504) {
            let told = String::from_utf8_lossy(body).into_owned();
            tally.refused.lock().unwrap().push(format!("{}: {status} {told}", self.target));
            return;
        }
        if let Err(why) = self.right(status, body) {
            let mut wrong = tally.wrong.lock().unwrap();
            let beginning = body.get(..200.min(body.len())).unwrap_or_default();
            let told = beginning.escape_ascii();
            wrong.push(format!("{} of {:?}: {why}: {status} {told}", self.target, self.user));
        }
    }

    fn right(&self, status: u16, body: &[u8]) -> Result<(), String> {
        // Who asks for a part may be given the whole.
        let range = self.range.filter(|_| status == 206);
        if status != 200 && range.is_none() {
            return Err("no such answer was to come".to_owned());
        }
        let version = match range {
            Some(_) => 0,
            None => pages::version(body).ok_or("no page")?,
        };
        if version < self.least {
            return Err(format!("version {} had been purged for {}", version, self.least));
        }
        let user = self.user.as_deref().unwrap_or(NOBODY);
        let whole = pages::body(HOST, &self.target, user, version, false);
        let own = match range {
            Some((first, last)) => &whole[first..=last],
            None => &whole[..],
        };
        if own == body { Ok(()) } else { Err("another page".to_owned()) }
    }
}

/// Waits for the next of its turns.
struct Pace {
    next: Instant,
    period: Duration,
}

impl Pace {
    fn new(period: Duration, dice: &mut Dice) -> Self {
        let offset = period.mul_f64(dice.below(1000) as f64 / 1000.0);
        Self { next: Instant::now() + offset, period }
    }

    /// When the next turn is; those that were missed are left out.
    fn turn(&mut self) -> Instant {
        let now = Instant::now();
        self.next = if self.next + self.period < now { now } else { self.next + self.period };
        self.next
    }
}

/// How a visitor of HTTP/1.1 connects.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    pub(crate) tls: bool,
    pub(crate) keeps: bool,
}

/// A visitor of HTTP/1.1.
pub(crate) fn http1(number: usize, way: Way, period: Duration, abuse: &Abuse) {
    let mut dice = Dice(abuse.seed ^ (number as u64) << 32);
    let mut pace = Pace::new(period, &mut dice);
    let mut kept = None;
    while !abuse.over() {
        let turn = pace.turn();
        std::thread::sleep(turn.saturating_duration_since(Instant::now()));
        let ask = Ask::draw(&mut dice, number, abuse);
        let (before, begun) = (abuse.phase(), Instant::now());
        let answer = exchange(&mut kept, &ask, way, abuse);
        let took = begun.elapsed();
        match answer {
            Ok(answer) => {
                abuse.tally.note(took, before, abuse.phase());
                ask.judge(answer.status, &answer.body, &abuse.tally);
            }
            Err(why) => fail(&ask, &why, took, abuse),
        }
    }
}

fn fail(ask: &Ask, why: &str, took: Duration, abuse: &Abuse) {
    let mut failed = abuse.tally.failed.lock().unwrap();
    failed.push(format!("{} after {took:.1?}: {why}", ask.target));
}

/// Asks over the connection that was kept, if there is one: where it has ended by itself, over a new one.
fn exchange(kept: &mut Option<Wire>, ask: &Ask, way: Way, abuse: &Abuse) -> Result<Answer, String> {
    if let Some(mut wire) = kept.take() {
        if let Ok(answer) = once(&mut wire, ask, true) {
            return Ok(keep(kept, wire, answer, way));
        }
        abuse.tally.again.fetch_add(1, Ordering::SeqCst);
    }
    let mut wire = open(way, abuse).map_err(|error| format!("connecting: {error}"))?;
    let answer = once(&mut wire, ask, way.keeps)?;
    Ok(keep(kept, wire, answer, way))
}

fn open(way: Way, abuse: &Abuse) -> std::io::Result<Wire> {
    match way.tls {
        true => Wire::tls(abuse.edge.tls),
        false => Wire::plain(abuse.edge.plain),
    }
}

fn once(wire: &mut Wire, ask: &Ask, keeps: bool) -> Result<Answer, String> {
    wire.send(ask.head(keeps).as_bytes()).map_err(|error| format!("sending: {error}"))?;
    wire.answer("GET", PATIENCE).map_err(|end| format!("reading: {end:?}"))
}

fn keep(kept: &mut Option<Wire>, wire: Wire, answer: Answer, way: Way) -> Answer {
    if way.keeps && !answer.until_close && answer.field("connection") != Some("close") {
        *kept = Some(wire);
    }
    answer
}

/// A visitor of HTTP/2 over TLS, with a connection that is kept.
pub(crate) fn http2(number: usize, period: Duration, abuse: &Abuse) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut dice = Dice(abuse.seed ^ (number as u64) << 32);
        let mut pace = Pace::new(period, &mut dice);
        let mut kept: Option<SendRequest<Bytes>> = None;
        while !abuse.over() {
            tokio::time::sleep_until(pace.turn().into()).await;
            let ask = Ask::draw(&mut dice, number, abuse);
            let (before, begun) = (abuse.phase(), Instant::now());
            let answer = stream(&mut kept, &ask, abuse);
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            let took = begun.elapsed();
            match answer.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned())) {
                Ok((status, body)) => {
                    abuse.tally.note(took, before, abuse.phase());
                    ask.judge(status, &body, &abuse.tally);
                }
                Err(why) => fail(&ask, &why, took, abuse),
            }
        }
    });
}

/// As [`exchange`].
async fn stream(
    kept: &mut Option<SendRequest<Bytes>>,
    ask: &Ask,
    abuse: &Abuse,
) -> Result<(u16, Vec<u8>), String> {
    if let Some(send) = kept.take() {
        if let Ok(answer) = over(send.clone(), ask).await {
            *kept = Some(send);
            return Ok(answer);
        }
        abuse.tally.again.fetch_add(1, Ordering::SeqCst);
    }
    let send = connect(abuse).await.map_err(|error| format!("connecting: {error}"))?;
    let answer = over(send.clone(), ask).await.map_err(|error| error.to_string())?;
    *kept = Some(send);
    Ok(answer)
}

async fn connect(abuse: &Abuse) -> std::io::Result<SendRequest<Bytes>> {
    let stream = tokio::net::TcpStream::connect(abuse.edge.tls).await?;
    stream.set_nodelay(true)?;
    let config = wire::config(&[b"h2"], rustls::ALL_VERSIONS);
    let name = rustls::pki_types::ServerName::try_from(HOST).unwrap();
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20);
    let (send, connection) = builder.handshake(stream).await.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    Ok(send)
}

async fn over(send: SendRequest<Bytes>, ask: &Ask) -> Result<(u16, Vec<u8>), h2::Error> {
    let mut request = http::Request::get(format!("https://{HOST}{}", ask.target));
    for (name, value) in ask.fields() {
        request = request.header(name, value);
    }
    let (response, _) = send.ready().await?.send_request(request.body(()).unwrap(), true)?;
    let response = response.await?;
    let status = response.status().as_u16();
    let (mut body, mut whole) = (response.into_body(), Vec::new());
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        whole.extend_from_slice(&data);
    }
    Ok((status, whole))
}

/// Who changes pages, purges them, and from then on demands what is new.
pub(crate) fn publisher(abuse: &Abuse) {
    let mut dice = Dice(abuse.seed ^ 0xabcd);
    while !abuse.over() {
        let page = dice.below(NEWS);
        let version = abuse.versions.publish(page);
        let body = format!("{{\"urls\":[\"http://{HOST}/news/{page}\"]}}");
        if abuse.edge.manage("POST", "/v1/purge", &body).is_some_and(|answer| answer.status == 200)
        {
            abuse.versions.purged(page, version);
            abuse.tally.purged.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
