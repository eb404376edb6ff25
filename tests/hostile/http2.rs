//! Sends the HTTP/2 cases and judges them.
//!
//! ```text
//! CON error     GOAWAY with this error (`any`: whichever), and the end within a second
//! STR error     the last stream is reset with this error, the connection goes on
//! ANSWER n      the last stream is answered n, the connection goes on
//! SILENT        no answer and no work for the last stream
//! END           the end of the connection, whatever is said before
//! ```
//!
//! Several are written with `|` between them. While a case runs, a second client asks over a
//! connection of its own and must get its own answer in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde::Deserialize;

use crate::data;
use crate::edge::Edge;
use crate::frames::{Frames, Piece, Writer};
use crate::origin::{Mark, Origin, Script};
use crate::wire::{self, PATIENCE, Wire};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// One case.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) title: String,
    expect: String,
    /// Each a connection of its own; its steps.
    pub(crate) probes: Vec<Vec<String>>,
    /// Whether nothing is read while there is something to send.
    #[serde(default)]
    deaf: bool,
    /// Whether the client leaves out preface and settings.
    #[serde(default)]
    rude: bool,
    /// Most requests that may reach the origin.
    most: Option<usize>,
    /// What the origin says to `/a{u}`.
    says: Option<String>,
    /// Lines of a configuration of its own.
    config: Option<String>,
    /// Hosts of the site in it.
    hosts: Option<String>,
    /// Longest wait for what is expected, in milliseconds.
    patience: Option<u64>,
    /// Most that the process's memory may grow, in KiB.
    grows: Option<u64>,
    /// Least that the number of glitches must rise.
    glitches: Option<f64>,
    /// What comes instead, without harm; `docs/robustness.md` says why, and counts it apart.
    pub(crate) otherwise: Option<String>,
}

impl Case {
    /// Configuration that it needs, if any.
    pub(crate) fn config(&self) -> Option<(&str, &str)> {
        let config = self.config.as_deref();
        (config.is_some() || self.hosts.is_some())
            .then(|| (config.unwrap_or(""), self.hosts.as_deref().unwrap_or("*")))
    }
}

/// Every HTTP/2 case.
pub(crate) fn load() -> Vec<Case> {
    toml::from_str::<File>(include_str!("cases/http2.toml")).unwrap().case
}

/// An edge, its origin and what has been counted.
pub(crate) struct Bench {
    edge: Edge,
    pub(crate) origin: Origin,
    number: u32,
    tls: Arc<ClientConfig>,
}

impl Bench {
    pub(crate) fn start(config: Option<(&str, &str)>) -> Self {
        let origin = Origin::start();
        let edge = match config {
            None => Edge::start(origin.address),
            Some((keys, hosts)) => Edge::with(origin.address, keys, hosts),
        };
        let tls = wire::config(&[b"h2"], rustls::ALL_VERSIONS);
        Self { edge, origin, number: 500_000, tls }
    }

    /// Status of a good request over a connection with this TLS.
    pub(crate) fn status(&self, tls: Arc<ClientConfig>) -> Option<u16> {
        let mut frames = Frames::connect(self.edge.tls, tls).ok()?;
        frames.send(&Writer::hello(), false);
        for piece in Writer::new(self.number).step("get /b{u}") {
            if let Piece::Bytes(bytes) = piece {
                frames.send(&bytes, false);
            }
        }
        frames.until(PATIENCE, |heard| heard.statuses.contains_key(&1));
        frames.heard.statuses.get(&1).copied()
    }

    /// A connection over TLS on which no protocol was agreed.
    pub(crate) fn without_protocol(&self) -> Wire {
        Wire::with(self.edge.tls, wire::config(&[], rustls::ALL_VERSIONS)).unwrap()
    }
}

/// Runs all probes of a case.
pub(crate) fn judge(bench: &mut Bench, case: &Case) -> Vec<String> {
    let mut failures = Vec::new();
    for steps in &case.probes {
        if let Err(why) = probe(bench, case, steps) {
            let mut text = steps.join(" // ");
            text.truncate(text.floor_char_boundary(160));
            failures.push(format!("{} ({}) {text}\n    {why}", case.id, case.title));
        }
    }
    failures
}

fn probe(bench: &mut Bench, case: &Case, steps: &[String]) -> Result<(), String> {
    bench.number += 1;
    let number = bench.number;
    if let Some(says) = &case.says {
        let says = data::bytes(says, number);
        let script = Script { says, early: false, closes: false };
        bench.origin.script(&format!("/a{number:06}"), script);
    }
    let mark = bench.origin.mark();
    let (busy, resident) = (bench.edge.busy(), bench.edge.resident());
    let glitches = glitches(&bench.edge);
    let over = AtomicBool::new(false);
    let (outcome, control) = std::thread::scope(|scope| {
        let (over, plain) = (&over, bench.edge.plain);
        let control = scope.spawn(move || second_client(plain, number, over));
        let outcome = attack(bench, case, steps, number, &mark);
        over.store(true, Ordering::Relaxed);
        (outcome, control.join().unwrap())
    });
    outcome?;
    control?;
    let busy = bench.edge.busy().saturating_sub(busy);
    if busy > Duration::from_secs(10) {
        return Err(format!("{busy:?} of processor time"));
    }
    let grown = bench.edge.resident().saturating_sub(resident) / 1024;
    if grown > case.grows.unwrap_or(32 * 1024) {
        return Err(format!("memory grew by {grown} KiB"));
    }
    if let Some(least) = case.glitches {
        let deadline = Instant::now() + PATIENCE;
        // They are counted when the connection is looked at next.
        while self::glitches(&bench.edge) - glitches < least {
            if Instant::now() > deadline {
                return Err("too few glitches counted".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    if bench.edge.lives() { Ok(()) } else { Err("the process is gone".to_owned()) }
}

fn glitches(edge: &Edge) -> f64 {
    edge.metrics("atoll_glitches_total").values().sum()
}

/// Asks until the case is over; each answer is its own and comes within a second.
fn second_client(
    address: std::net::SocketAddr,
    number: u32,
    over: &AtomicBool,
) -> Result<(), String> {
    let mut wire = Wire::plain(address).map_err(|error| format!("second client: {error}"))?;
    let mut count = 0;
    loop {
        let last = over.load(Ordering::Relaxed);
        count += 1;
        let target = format!("/c{number:06}-{count}");
        let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\nX-Nonce: {number}\r\n\r\n");
        let begun = Instant::now();
        wire.send(request.as_bytes()).map_err(|error| format!("second client: {error}"))?;
        let answer =
            wire.answer("GET", PATIENCE).map_err(|end| format!("second client: {end:?}"))?;
        if answer.status != 200 || answer.body != format!("{number} GET {target}").into_bytes() {
            return Err(format!("second client: {answer:?}"));
        }
        if begun.elapsed() > wire::tolerance() {
            return Err(format!("second client waited {:?}", begun.elapsed()));
        }
        if last {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn attack(
    bench: &Bench,
    case: &Case,
    steps: &[String],
    number: u32,
    mark: &Mark,
) -> Result<(), String> {
    let mut frames = Frames::connect(bench.edge.tls, Arc::clone(&bench.tls))
        .map_err(|error| error.to_string())?;
    let mut writer = Writer::new(number);
    if !case.rude {
        frames.send(&Writer::hello(), case.deaf);
    }
    for step in steps {
        for piece in writer.step(step) {
            match piece {
                Piece::Bytes(bytes) => frames.send(&bytes, case.deaf),
                Piece::Pause(pause) => drop(frames.until(pause, |heard| heard.goaway.is_some())),
            }
        }
    }
    let outcome = expectation(&mut frames, case, &writer);
    let nonce = number.to_string();
    let since = bench.origin.since(mark);
    let own = since
        .requests
        .iter()
        .filter(|(_, seen)| !seen.values("x-nonce").any(|own| own == nonce.as_bytes()));
    let count = own.count();
    drop(frames);
    outcome?;
    if count > case.most.unwrap_or(usize::MAX) {
        return Err(format!("{count} requests at the origin"));
    }
    let open: Vec<usize> = since.unfinished.iter().map(|(own, ..)| *own).collect();
    if !bench.origin.closed(&open, PATIENCE) {
        return Err(format!("unfinished at the origin: {:?}", since.unfinished));
    }
    match since.faults.first() {
        Some(fault) => Err(format!("the origin cannot read what it got: {fault}")),
        None => Ok(()),
    }
}

/// Whether one of what is expected comes.
fn expectation(frames: &mut Frames, case: &Case, writer: &Writer) -> Result<(), String> {
    let patience = case.patience.map_or(PATIENCE, Duration::from_millis);
    let expected = case.otherwise.as_ref().unwrap_or(&case.expect);
    let wanted: Vec<(&str, &str)> = expected
        .split('|')
        .map(|text| text.trim().split_once(' ').unwrap_or((text.trim(), "")))
        .collect();
    let stream = if case.rude { 0 } else { writer.last_or_zero() };
    let ends_as_expected = |goaway: Option<u32>| {
        let is = |what: &str, code: u32| what == "any" || code == error(what);
        goaway
            .is_some_and(|code| wanted.iter().any(|(kind, what)| *kind == "CON" && is(what, code)))
    };
    let met = |heard: &crate::frames::Heard, ended: bool| {
        wanted.iter().any(|(kind, what)| match *kind {
            "CON" => ended && ends_as_expected(heard.goaway),
            "STR" => heard.resets.get(&stream) == Some(&error(what)),
            "ANSWER" => heard.statuses.get(&stream).copied() == what.parse().ok(),
            "END" => ended,
            "SILENT" => false,
            other => panic!("{other} is not to be expected"),
        })
    };
    let holds = frames.until(patience, |heard| met(heard, false));
    let ended = frames.end.is_some();
    let heard = &frames.heard;
    let describe = |frames: &Frames| {
        let heard = &frames.heard;
        let few: BTreeMap<_, _> = heard.resets.iter().rev().take(3).collect();
        let answers: BTreeMap<_, _> = heard.statuses.iter().rev().take(3).collect();
        format!(
            "expected {}, got GOAWAY {:?}, end {:?} after {:?}, stream {stream}, resets {} {few:?}, answers {} {answers:?}",
            expected,
            heard.goaway,
            frames.end,
            frames.lingered,
            heard.resets.len(),
            heard.statuses.len(),
        )
    };
    if wanted.iter().any(|(kind, _)| *kind == "SILENT") {
        let silent = !heard.statuses.contains_key(&stream);
        return if silent { Ok(()) } else { Err(describe(frames)) };
    }
    if !holds && !met(heard, ended) {
        return Err(describe(frames));
    }
    if ended {
        let late = frames.lingered > wire::tolerance() * 3 / 2;
        return if late { Err(describe(frames)) } else { Ok(()) };
    }
    // The connection goes on.
    let before = frames.heard.pongs;
    frames.send(&crate::frames::frame(6, 0, 0, b"87654321"), false);
    let goes_on = frames.until(PATIENCE, |heard| heard.pongs > before);
    // Many resets may end it after all, where that is expected.
    let may_end = frames.end.is_some() && ends_as_expected(frames.heard.goaway);
    if goes_on || may_end { Ok(()) } else { Err(describe(frames)) }
}

fn error(name: &str) -> u32 {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.iter().position(|own| *own == name).unwrap_or_else(|| panic!("{name}")) as u32
}
