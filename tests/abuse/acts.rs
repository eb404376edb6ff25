//! What strangers do: each act in its abusive form, and as somebody does it who means well.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde::Deserialize;

use crate::data;
use crate::dice::Dice;
use crate::edge::{CUSTOMER, managing};
use crate::frames::{Frames, Piece, Writer};
use crate::mutate::mutate;
use crate::origin::reset;
use crate::pages::{EVIL, FILMS, HOST, HOT};
use crate::strangers::{Habit, Stranger};
use crate::wire::{self, Wire};

/// How long an answer is waited for that may never come.
const GLANCE: Duration = Duration::from_millis(300);

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    /// Messages of the catalogue's HTTP/1 cases: malformed, ambiguous, too large.
    Malformed,
    /// The same with random damage.
    Mutant,
    /// Frames of the HTTP/2 cases: resets, floods, bombs, windows that stay shut.
    Frames,
    /// Heads that come byte by byte.
    SlowHead,
    /// Heads that are as large as may be, and never end.
    LargeHead,
    /// Bodies that come byte by byte.
    SlowBody,
    /// Large answers of which hardly anything is read.
    SlowReader,
    /// Streams of HTTP/2 whose windows stay shut, and large answers to all of them.
    ShutWindows,
    /// Huge pages that come slowly, several at once, each asked for once.
    Hoard,
    /// Connections that say nothing, a crowd of them.
    Idle,
    /// Handshakes that stall, are garbage, or are cut.
    Handshake,
    /// Ranges: very many, overlapping, odd.
    Ranges,
    /// Large pages that nobody will ask for again, some of them left half way.
    Scan,
    /// Many at once for what is not to be stored.
    Storm,
    /// Pages of a server whose answers are broken.
    Broken,
    /// Purges without end, without a right, or in no form.
    Purge,
    /// Fields that want to have a page made for everybody from a stranger's words.
    Poison,
    /// Those who leave at any moment.
    Leave,
}

/// All of them; the more often one stands here, the more often it is done.
const ACTS: [Act; 22] = [
    Act::Malformed,
    Act::Malformed,
    Act::Mutant,
    Act::Mutant,
    Act::Frames,
    Act::Frames,
    Act::SlowHead,
    Act::LargeHead,
    Act::SlowBody,
    Act::SlowReader,
    Act::ShutWindows,
    Act::Hoard,
    Act::Idle,
    Act::Handshake,
    Act::Ranges,
    Act::Scan,
    Act::Scan,
    Act::Storm,
    Act::Broken,
    Act::Purge,
    Act::Poison,
    Act::Leave,
];

/// How many kinds there are.
pub(crate) const KINDS: usize = Act::Leave as usize + 1;

impl Act {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        ACTS[dice.below(ACTS.len())]
    }
}

/// What the cases of the catalogue send.
pub(crate) struct Cases {
    /// Whole messages of HTTP/1.
    messages: Vec<String>,
    /// Steps of HTTP/2.
    probes: Vec<Probe>,
    h2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

struct Probe {
    steps: Vec<String>,
    deaf: bool,
    rude: bool,
}

/// The HTTP/2 cases, as far as they matter here.
#[derive(Deserialize)]
struct File {
    case: Vec<Http2>,
}

#[derive(Deserialize)]
struct Http2 {
    probes: Vec<Vec<String>>,
    #[serde(default)]
    deaf: bool,
    #[serde(default)]
    rude: bool,
}

impl Cases {
    pub(crate) fn load() -> Self {
        let messages = data::load().into_iter().flat_map(|case| case.messages());
        let text = include_str!("../hostile/cases/http2.toml");
        let cases = toml::from_str::<File>(text).unwrap().case;
        let probe = |case: &Http2, steps: &Vec<String>| Probe {
            steps: steps.iter().map(|step| bounded(&elsewhere(step))).collect(),
            deaf: case.deaf,
            rude: case.rude,
        };
        let probes =
            cases.iter().flat_map(|case| case.probes.iter().map(move |steps| probe(case, steps)));
        Self {
            messages: messages.map(|message| elsewhere(&message)).collect(),
            probes: probes.collect(),
            h2: wire::config(&[b"h2"], rustls::ALL_VERSIONS),
            http1: wire::config(&[b"http/1.1"], rustls::ALL_VERSIONS),
        }
    }
}

/// What hangs is asked of the broken server.
fn elsewhere(text: &str) -> String {
    text.replace("/hold{u}", "/broken/hold/{u}")
}

/// A flood without end floods for a bounded time here, since many of them follow.
fn bounded(step: &str) -> String {
    let most = if step.contains('{') { 100 } else { 3000 };
    match step.split_once(" x ") {
        Some((count, frames)) => match count.parse::<usize>() {
            Ok(count) => format!("{} x {frames}", count.min(most)),
            Err(_no_number) => step.to_owned(),
        },
        None => step.to_owned(),
    }
}

/// Does it as it is not meant to be done.
pub(crate) fn abuse(act: Act, stranger: &mut Stranger<'_>) {
    // Whoever is refused has nothing to do.
    let _ = match act {
        Act::Malformed => message(stranger, false),
        Act::Mutant => message(stranger, true),
        Act::Frames => frames(stranger),
        Act::SlowHead => slow_head(stranger),
        Act::LargeHead => large_head(stranger),
        Act::SlowBody => slow_body(stranger),
        Act::SlowReader => slow_reader(stranger),
        Act::ShutWindows => shut_windows(stranger),
        Act::Hoard => hoard(stranger),
        Act::Idle => idle(stranger),
        Act::Handshake => handshake(stranger),
        Act::Ranges => ranges(stranger),
        Act::Scan => scan(stranger),
        Act::Storm => storm(stranger),
        Act::Broken => broken(stranger),
        Act::Purge => purge(stranger),
        Act::Poison => poison(stranger),
        Act::Leave => leave(stranger),
    };
}

/// Does the same as somebody who means well: as many connections, and a page over each.
pub(crate) fn behave(act: Act, stranger: &mut Stranger<'_>) {
    let hot = format!("/hot/{}", stranger.dice.below(HOT));
    let _ = match act {
        Act::Malformed | Act::Mutant | Act::Poison if stranger.dice.below(4) == 0 => {
            secured(stranger, &hot)
        }
        Act::Malformed | Act::Mutant | Act::Poison | Act::Leave => whole(stranger, &hot),
        Act::Frames | Act::ShutWindows => streams(stranger, &hot),
        Act::Handshake => secured(stranger, &hot),
        Act::SlowHead | Act::LargeHead | Act::SlowBody => kept(stranger, &hot, 1),
        Act::Idle => kept(stranger, &hot, CROWD),
        Act::Storm => (0..STORM).try_for_each(|_| whole(stranger, &hot)),
        Act::SlowReader | Act::Ranges | Act::Scan | Act::Hoard => {
            let film = format!("/film/{}", stranger.dice.below(FILMS));
            whole(stranger, &film)
        }
        Act::Broken => {
            let fresh = format!("/fresh/{:016x}", stranger.dice.roll());
            whole(stranger, &fresh)
        }
        Act::Purge => purges(stranger, "{\"urls\":[\"http://h/hot/1\"]}"),
    };
}

/// Connections of a crowd, and of a storm.
const CROWD: usize = 60;
const STORM: usize = 6;

fn get(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n")
}

/// A page over a connection of its own, to the end.
fn whole(stranger: &mut Stranger<'_>, target: &str) -> Option<()> {
    let stream = stranger.connect(stranger.abuse.edge.plain)?;
    let mut wire = Wire::on(stream).ok()?;
    wire.send(get(target, "Connection: close\r\n").as_bytes()).ok()?;
    wire.answer("GET", wire::PATIENCE).ok().map(drop)
}

/// The same over TLS.
fn secured(stranger: &mut Stranger<'_>, target: &str) -> Option<()> {
    let stream = stranger.connect(stranger.abuse.edge.tls)?;
    let config = Arc::clone(&stranger.abuse.cases.http1);
    let mut wire = Wire::tls_on(stream, config).ok()?;
    wire.send(get(target, "Connection: close\r\n").as_bytes()).ok()?;
    wire.answer("GET", wire::PATIENCE).ok().map(drop)
}

/// Connections that are kept after a page.
fn kept(stranger: &mut Stranger<'_>, target: &str, count: usize) -> Option<()> {
    for mut stream in stranger.crowd(stranger.abuse.edge.plain, count) {
        stream.write_all(get(target, "").as_bytes()).ok()?;
        glance(&mut stream);
        stranger.hold(stream, Habit::Still);
    }
    Some(())
}

/// Ten pages over one connection of HTTP/2.
fn streams(stranger: &mut Stranger<'_>, target: &str) -> Option<()> {
    let stream = stranger.connect(stranger.abuse.edge.tls)?;
    let config = Arc::clone(&stranger.abuse.cases.h2);
    let mut frames = Frames::on(stream, config).ok()?;
    frames.send(&Writer::hello(), false);
    for piece in Writer::new(0).step(&format!("10 x get {target}")) {
        if let Piece::Bytes(bytes) = piece {
            frames.send(&bytes, false);
        }
    }
    frames.until(wire::PATIENCE, |heard| heard.statuses.len() >= 10);
    Some(())
}

/// Reads what comes within a moment; whether anything did.
fn glance(stream: &mut TcpStream) -> bool {
    let mut space = [0; 16 * 1024];
    matches!(stream.read(&mut space), Ok(1..))
}

fn message(stranger: &mut Stranger<'_>, damaged: bool) -> Option<()> {
    let messages = &stranger.abuse.cases.messages;
    let text = &messages[stranger.dice.below(messages.len())];
    let number = stranger.dice.below(1_000_000) as u32;
    let mut bytes = data::bytes(text, number);
    if damaged {
        bytes.truncate(6000);
        for _ in 0..=stranger.dice.below(3) {
            mutate(&mut bytes, &mut stranger.dice);
        }
    }
    if stranger.dice.below(4) == 0 {
        let stream = stranger.connect(stranger.abuse.edge.tls)?;
        let mut wire = Wire::tls_on(stream, Arc::clone(&stranger.abuse.cases.http1)).ok()?;
        wire.send(&bytes).ok()?;
        wire.end(GLANCE);
        return Some(());
    }
    let mut stream = stranger.connect(stranger.abuse.edge.plain)?;
    let cut = stranger.dice.below(bytes.len().max(1));
    let (first, second) = bytes.split_at(cut);
    stream.write_all(first).ok()?;
    stream.write_all(second).ok()?;
    match stranger.dice.below(4) {
        0 => reset(&stream),
        1 => stranger.hold(stream, Habit::Still),
        _ => drop(glance(&mut stream)),
    }
    Some(())
}

fn frames(stranger: &mut Stranger<'_>) -> Option<()> {
    const MOST: usize = 1 << 20;
    let stream = stranger.connect(stranger.abuse.edge.tls)?;
    let cases = &stranger.abuse.cases;
    let probe = &cases.probes[stranger.dice.below(cases.probes.len())];
    let mut frames = Frames::on(stream, Arc::clone(&cases.h2)).ok()?;
    let mut writer = Writer::new(stranger.dice.below(1_000_000) as u32);
    if !probe.rude {
        frames.send(&Writer::hello(), probe.deaf);
    }
    for step in &probe.steps {
        for piece in writer.step(step) {
            match piece {
                Piece::Bytes(bytes) => frames.send(&bytes[..bytes.len().min(MOST)], probe.deaf),
                Piece::Pause(pause) => {
                    frames.until(pause.min(GLANCE / 10), |heard| heard.goaway.is_some());
                }
            }
            if frames.end.is_some() {
                return Some(());
            }
        }
    }
    if !probe.deaf {
        frames.until(GLANCE, |heard| heard.goaway.is_some());
    }
    Some(())
}

fn slow_head(stranger: &mut Stranger<'_>) -> Option<()> {
    for mut stream in stranger.crowd(stranger.abuse.edge.plain, 5) {
        stream.write_all(format!("GET /hot/1 HTTP/1.1\r\nHost: {HOST}\r\nX: ").as_bytes()).ok()?;
        stranger.hold(stream, Habit::Drips(b'x'));
    }
    Some(())
}

fn large_head(stranger: &mut Stranger<'_>) -> Option<()> {
    for mut stream in stranger.crowd(stranger.abuse.edge.plain, 5) {
        let fields: String =
            (0..98).map(|number| format!("X-{number}: {}\r\n", "x".repeat(260))).collect();
        stream.write_all(get("/hot/1", &fields).trim_end().as_bytes()).ok()?;
        stranger.hold(stream, Habit::Drips(b'x'));
    }
    Some(())
}

fn slow_body(stranger: &mut Stranger<'_>) -> Option<()> {
    for mut stream in stranger.crowd(stranger.abuse.edge.plain, 3) {
        let framing = match stranger.dice.below(2) {
            0 => "Content-Length: 1000000\r\n\r\nx",
            _ => "Transfer-Encoding: chunked\r\n\r\nfffff\r\nx",
        };
        let number = stranger.dice.below(1_000_000);
        let head = format!("POST /once/{number} HTTP/1.1\r\nHost: {HOST}\r\n{framing}");
        stream.write_all(head.as_bytes()).ok()?;
        stranger.hold(stream, Habit::Drips(b'x'));
    }
    Some(())
}

fn slow_reader(stranger: &mut Stranger<'_>) -> Option<()> {
    for _ in 0..2 {
        let mut stream = stranger.connect_narrow(stranger.abuse.edge.plain)?;
        let target = match stranger.dice.below(3) {
            0 => format!("/scan/{:016x}", stranger.dice.roll()),
            _ => format!("/film/{}", stranger.dice.below(FILMS)),
        };
        stream.write_all(get(&target, "").as_bytes()).ok()?;
        stranger.hold(stream, Habit::Sips);
    }
    Some(())
}

fn shut_windows(stranger: &mut Stranger<'_>) -> Option<()> {
    let stream = stranger.connect(stranger.abuse.edge.tls)?;
    let kept = stream.try_clone().ok()?;
    let mut frames = Frames::on(stream, Arc::clone(&stranger.abuse.cases.h2)).ok()?;
    let mut writer = Writer::new(0);
    frames.send(&Writer::hello(), false);
    // A window of nothing, or of a byte.
    let window = stranger.dice.below(2);
    let film = stranger.dice.below(FILMS);
    let once = stranger.dice.roll();
    for step in [
        format!("settings 4={window}"),
        format!("40 x get /film/{film}"),
        format!("40 x get /scan/{once:016x}"),
        format!("20 x get /once/{film}"),
    ] {
        for piece in writer.step(&step) {
            if let Piece::Bytes(bytes) = piece {
                frames.send(&bytes, false);
            }
        }
    }
    stranger.hold(kept, Habit::Still);
    Some(())
}

fn hoard(stranger: &mut Stranger<'_>) -> Option<()> {
    if stranger.dice.below(3) > 0 {
        return Some(());
    }
    // What is not optimised has forty megabytes of its own in memory, and no room for as many.
    for _ in 0..if cfg!(debug_assertions) { 1 } else { 3 } {
        let mut stream = stranger.connect_narrow(stranger.abuse.edge.plain)?;
        let target = format!("/huge/{:016x}", stranger.dice.roll());
        stream.write_all(get(&target, "").as_bytes()).ok()?;
        stranger.hold(stream, Habit::Sips);
    }
    Some(())
}

fn idle(stranger: &mut Stranger<'_>) -> Option<()> {
    let edge = &stranger.abuse.edge;
    let to = if stranger.dice.below(4) == 0 { edge.tls } else { edge.plain };
    for stream in stranger.crowd(to, CROWD) {
        stranger.hold(stream, Habit::Still);
    }
    Some(())
}

fn handshake(stranger: &mut Stranger<'_>) -> Option<()> {
    let mut stream = stranger.connect(stranger.abuse.edge.tls)?;
    let name = rustls::pki_types::ServerName::try_from(HOST).unwrap();
    let config = Arc::clone(&stranger.abuse.cases.http1);
    let mut client = rustls::ClientConnection::new(config, name).ok()?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello).ok()?;
    match stranger.dice.below(5) {
        0 => mutate(&mut hello, &mut stranger.dice),
        1 => hello.truncate(stranger.dice.below(hello.len())),
        2 => hello = vec![0x16; 1 + stranger.dice.below(5000)],
        _ => {}
    }
    stream.write_all(&hello).ok()?;
    match stranger.dice.below(4) {
        // The server's flight is there, and the client's never comes.
        0 => drop(glance(&mut stream)),
        1 => reset(&stream),
        2 => stranger.hold(stream, Habit::Drips(0x16)),
        _ => stranger.hold(stream, Habit::Still),
    }
    Some(())
}

fn ranges(stranger: &mut Stranger<'_>) -> Option<()> {
    let mut stream = stranger.connect(stranger.abuse.edge.plain)?;
    let value = match stranger.dice.below(5) {
        0 => (0..900).map(|n| format!("{n}-")).collect::<Vec<_>>().join(","),
        1 => (0..16).map(|n| format!("{n}-200000")).collect::<Vec<_>>().join(","),
        2 => (0..16).map(|_| "0-".to_owned()).collect::<Vec<_>>().join(","),
        3 => format!("-{}", stranger.dice.below(300_000)),
        _ => format!("{}-99999999999999999999", stranger.dice.below(300_000)),
    };
    let kind = if stranger.dice.below(2) == 0 { "film" } else { "scan" };
    let target = format!("/{kind}/{}", stranger.dice.below(FILMS));
    stream.write_all(get(&target, &format!("Range: bytes={value}\r\n")).as_bytes()).ok()?;
    for _ in 0..stranger.dice.below(20) {
        if !glance(&mut stream) {
            break;
        }
    }
    Some(())
}

fn scan(stranger: &mut Stranger<'_>) -> Option<()> {
    let target = format!("/scan/{:016x}", stranger.dice.roll());
    if stranger.dice.below(4) > 0 {
        return whole(stranger, &target);
    }
    let mut stream = stranger.connect(stranger.abuse.edge.plain)?;
    stream.write_all(get(&target, "").as_bytes()).ok()?;
    glance(&mut stream);
    Some(())
}

fn storm(stranger: &mut Stranger<'_>) -> Option<()> {
    let target = format!("/once/{}", stranger.dice.below(4));
    let mut all = stranger.crowd(stranger.abuse.edge.plain, STORM);
    for stream in &mut all {
        stream.write_all(get(&target, "").as_bytes()).ok()?;
    }
    for stream in &mut all {
        glance(stream);
    }
    Some(())
}

fn broken(stranger: &mut Stranger<'_>) -> Option<()> {
    const KINDS: [&str; 14] = [
        "hold", "late", "cut", "chunks", "reset", "error", "head", "fields", "interim", "drip",
        "endless", "says", "says", "well",
    ];
    let kind = KINDS[stranger.dice.below(KINDS.len())];
    let target = format!("/broken/{kind}/{}", stranger.dice.below(500));
    let mut stream = stranger.connect(stranger.abuse.edge.plain)?;
    stream.write_all(get(&target, "").as_bytes()).ok()?;
    if glance(&mut stream) {
        glance(&mut stream);
    } else {
        stranger.hold(stream, Habit::Still);
    }
    Some(())
}

/// One purge by a customer.
fn purges(stranger: &mut Stranger<'_>, body: &str) -> Option<()> {
    let mut stream = stranger.connect(stranger.abuse.edge.admin)?;
    stream.write_all(managing("POST", "/v1/purge", CUSTOMER, body).as_bytes()).ok()?;
    glance(&mut stream);
    Some(())
}

fn purge(stranger: &mut Stranger<'_>) -> Option<()> {
    let (one, other) = (stranger.dice.below(HOT), stranger.dice.below(FILMS));
    let many: Vec<String> =
        (0..100).map(|turn| format!("\"http://{HOST}/scan/{one}-{turn}\"")).collect();
    let body = match stranger.dice.below(9) {
        0 => format!("{{\"urls\":[\"http://{HOST}/hot/{one}\"]}}"),
        1 => format!("{{\"urls\":[\"http://{HOST}/film/{other}\"]}}"),
        2 => format!("{{\"urls\":[{}]}}", many.join(",")),
        3 => "{\"tags\":[\"film\"]}".to_owned(),
        4 => format!("{{\"prefixes\":[\"{HOST}/once/\"]}}"),
        5 => format!("{{\"globs\":[\"{HOST}/*a*b*c*d*{one}\"]}}"),
        // In no form, or without the right to it.
        6 => "{\"all\":true}".to_owned(),
        7 => "[".repeat(5000),
        _ => format!("{{\"urls\":[\"http://{}/\"]}}", "x".repeat(20_000)),
    };
    if stranger.dice.below(3) > 0 {
        return purges(stranger, &body);
    }
    let mut stream = stranger.connect(stranger.abuse.edge.admin)?;
    let token = format!("guess-{:016x}", stranger.dice.roll());
    let text = managing("POST", "/v1/purge", &token, &body);
    let end = stranger.dice.below(text.len());
    stream.write_all(&text.as_bytes()[..if one % 2 == 0 { end } else { text.len() }]).ok()?;
    glance(&mut stream);
    Some(())
}

fn poison(stranger: &mut Stranger<'_>) -> Option<()> {
    const FIELDS: [&str; 10] = [
        "X-Forwarded-Host",
        "X-Forwarded-Server",
        "X-Forwarded-Scheme",
        "X-Forwarded-Proto",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Host",
        "X-HTTP-Method-Override",
        "X-Forwarded-Prefix",
        "Forwarded",
    ];
    let field = FIELDS[stranger.dice.below(FIELDS.len())];
    // Whoever comes first makes the page: just after a purge, or one that nobody has asked for yet.
    let target = match stranger.dice.below(3) {
        0 => format!("/hot/{}", stranger.dice.below(HOT)),
        1 => format!("/news/{}", stranger.dice.below(crate::pages::NEWS)),
        _ => format!("/me/{}", stranger.dice.below(40)),
    };
    let text = match stranger.dice.below(6) {
        0 => get(&target, &format!("{field}: {EVIL}\r\n")),
        1 => get(&target, &format!("Content-Length: {}\r\n", EVIL.len())) + EVIL,
        2 => get(&target, &format!("Cookie: user={EVIL}\r\n")),
        3 => get(&target, &format!("Authorization: Bearer {EVIL}\r\n{field}: {EVIL}\r\n")),
        4 => get(&format!("{target}?{EVIL}#x"), ""),
        _ => get(&format!("http://{EVIL}{target}"), &format!("{field}: {EVIL}\r\n")),
    };
    let mut stream = stranger.connect(stranger.abuse.edge.plain)?;
    stream.write_all(text.as_bytes()).ok()?;
    glance(&mut stream);
    Some(())
}

fn leave(stranger: &mut Stranger<'_>) -> Option<()> {
    let mut stream = stranger.connect(stranger.abuse.edge.plain)?;
    let text = match stranger.dice.below(4) {
        0 => get(&format!("/hot/{}", stranger.dice.below(HOT)), ""),
        1 => get(&format!("/scan/{:016x}", stranger.dice.roll()), ""),
        2 => get(&format!("/broken/late/{}", stranger.dice.below(500)), ""),
        _ => {
            let body = "x".repeat(20_000);
            format!("POST /once/1 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 40000\r\n\r\n{body}")
        }
    };
    let end = stranger.dice.below(text.len()) + 1;
    let end = if stranger.dice.below(2) == 0 { end } else { text.len() };
    stream.write_all(&text.as_bytes()[..end]).ok()?;
    std::thread::sleep(Duration::from_millis(stranger.dice.below(20) as u64));
    match stranger.dice.below(3) {
        0 => reset(&stream),
        1 => {
            let _ = stream.shutdown(Shutdown::Write);
            glance(&mut stream);
        }
        _ => {}
    }
    Some(())
}
