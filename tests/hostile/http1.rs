//! Sends the HTTP/1 cases and judges them by what they do to others.
//!
//! After each probe a control request goes over a connection of its own: it must be answered in
//! time, with its own nonce, and (where the probe was refused) from the origin, since nothing may
//! have been stored. What the origin got is read there by a strict parser, byte by byte.
//!
//! What a case expects:
//!
//! ```text
//! REJ n     answered n and closed; the origin saw nothing; one reason counter moved
//! BODY n    the same for a body that breaks the rules when it has been begun: the origin may have
//!           seen a request without an end, on a connection that is then closed
//! OK        answered 200 (or as `answers` says), with what `origin` says at the origin
//! LOCAL n   answered n without the origin; the connection goes on
//! EITHER n  REJ n or OK
//! CLOSE     closed within its time, whatever is said before; the origin saw nothing
//! ```

use std::time::{Duration, Instant};

use crate::data::{self, Case};
use crate::dice::Dice;
use crate::edge::Edge;
use crate::origin::{Mark, Origin, Script, Since};
use crate::wire::{Answer, End, PATIENCE, Wire, tolerance};

/// Ways to cut the same bytes up.
pub(crate) const CUTS: [Cut; 5] = [Cut::Whole, Cut::Bytes, Cut::Lines, Cut::Random, Cut::Coalesced];

/// How bytes are cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// One write.
    Whole,
    /// One byte per write; of long messages, the ends so and the middle in small pieces.
    Bytes,
    /// Within each CRLF.
    Lines,
    /// At random.
    Random,
    /// One write, with a good request behind.
    Coalesced,
}

impl Cut {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Bytes => "bytes",
            Self::Lines => "lines",
            Self::Random => "random",
            Self::Coalesced => "coalesced",
        }
    }

    fn pieces(self, bytes: &[u8], dice: &mut Dice) -> Vec<Vec<u8>> {
        const ENDS: usize = 300;
        let mut pieces = Vec::new();
        let mut piece = Vec::new();
        let long = bytes.len() > 3 * ENDS;
        for (at, byte) in bytes.iter().enumerate() {
            piece.push(*byte);
            let last = at + 1 == bytes.len();
            let border = match self {
                Self::Whole | Self::Coalesced => false,
                Self::Bytes if long && (ENDS..bytes.len() - ENDS).contains(&at) => at % 997 == 0,
                Self::Bytes => true,
                Self::Lines => *byte == b'\r' && bytes.len() < 20_000,
                Self::Random => dice.below(if long { 400 } else { 9 }) == 0,
            };
            if border || last {
                pieces.push(std::mem::take(&mut piece));
            }
        }
        pieces
    }
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Plain,
    Tls,
    /// Plain bytes to the port for TLS.
    Raw,
}

/// One thing to try.
#[derive(Clone)]
pub(crate) struct Probe<'a> {
    pub(crate) case: &'a Case,
    pub(crate) message: String,
    pub(crate) cut: Cut,
    pub(crate) over: Over,
}

impl Probe<'_> {
    pub(crate) fn name(&self) -> String {
        let mut message = self.message.clone();
        message.truncate(message.floor_char_boundary(200));
        format!("{} ({}) {:?} {:?} {message}", self.case.id, self.case.title, self.cut, self.over)
    }
}

/// All probes of a case.
pub(crate) fn probes(case: &Case) -> Vec<Probe<'_>> {
    let overs = match case.over.as_deref() {
        None => vec![Over::Plain, Over::Tls],
        Some("plain") => vec![Over::Plain],
        Some("tls") => vec![Over::Tls],
        Some("raw") => vec![Over::Raw],
        Some(other) => panic!("{other} is no transport"),
    };
    let left_out = |cut: Cut| case.without.iter().any(|text| text.starts_with(cut.name()));
    let mut probes = Vec::new();
    for message in case.messages() {
        for over in &overs {
            for cut in CUTS.into_iter().filter(|cut| !left_out(*cut)) {
                probes.push(Probe { case, message: message.clone(), cut, over: *over });
            }
        }
    }
    probes
}

/// How long a sender may take without being too late for its answer, with something to spare.
const LINGER: Duration = Duration::from_millis(700);

/// What was seen of a probe.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) answers: Vec<Answer>,
    /// What came behind the answers.
    pub(crate) behind: Vec<u8>,
    pub(crate) end: End,
    /// Until all was sent, or could not be.
    sending: Duration,
    /// From the last answer to the end.
    pub(crate) lingered: Duration,
    pub(crate) since: Since,
    pub(crate) control: Result<Answer, End>,
    pub(crate) control_time: Duration,
    /// Moves of reason counters.
    pub(crate) refusals: f64,
    pub(crate) number: u32,
    /// The origin's record before the probe.
    pub(crate) mark: Mark,
}

impl Observed {
    fn brief(&self) -> String {
        let statuses: Vec<u16> = self.answers.iter().map(|answer| answer.status).collect();
        let last = self.answers.last().and_then(|answer| answer.field("connection"));
        format!(
            "answers {statuses:?} ({last:?}), end {:?} after {:?}, {} reasons, origin {:?} {:?}, behind {:?}",
            self.end,
            self.lingered,
            self.refusals,
            own(self),
            self.since.unfinished,
            String::from_utf8_lossy(&self.behind),
        )
    }
}

/// What must be seen.
#[derive(Debug)]
struct Expected {
    statuses: Vec<u16>,
    origin: Vec<String>,
    closes: bool,
    refusals: f64,
    unfinished: bool,
}

/// What is tried, its origin and a second client.
pub(crate) struct Bench {
    pub(crate) target: Target,
    pub(crate) origin: Origin,
    control: Option<Wire>,
    number: u32,
    refusals: f64,
    pub(crate) slowest: Duration,
}

/// The edge or another server.
pub(crate) enum Target {
    Edge(Box<Edge>),
    Peer(std::net::SocketAddr),
}

impl Bench {
    pub(crate) fn start() -> Self {
        let origin = Origin::start();
        let target = match std::env::var("PEER").ok().and_then(|peer| peer.parse().ok()) {
            Some(peer) => Target::Peer(peer),
            None => Target::Edge(Box::new(Edge::start(origin.address))),
        };
        Self {
            target,
            origin,
            control: None,
            number: 100_000,
            refusals: 0.0,
            slowest: Duration::ZERO,
        }
    }

    pub(crate) fn next_number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    pub(crate) fn connect(&self, over: Over) -> std::io::Result<Wire> {
        match (&self.target, over) {
            (Target::Edge(edge), Over::Plain) => Wire::plain(edge.plain),
            (Target::Edge(edge), Over::Tls) => Wire::tls(edge.tls),
            (Target::Edge(edge), Over::Raw) => Wire::plain(edge.tls),
            (Target::Peer(peer), _) => Wire::plain(*peer),
        }
    }

    /// What reason counters have moved since the last look.
    fn refused(&mut self) -> f64 {
        let Target::Edge(edge) = &self.target else { return 0.0 };
        let all: f64 = edge.metrics("atoll_refusals_total{").values().sum();
        let moved = all - self.refusals;
        self.refusals = all;
        moved
    }

    /// A second client's request; what it got and how long that took.
    pub(crate) fn control(&mut self, target: &str, nonce: u32) -> (Result<Answer, End>, Duration) {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: h\r\nX-Nonce: {nonce}\r\n\r\n").into_bytes();
        let begun = Instant::now();
        let kept = self.control.take();
        let was_kept = kept.is_some();
        let mut wire = match kept.map_or_else(|| self.connect(Over::Plain), Ok) {
            Ok(wire) => wire,
            Err(_) => return (Err(End::Reset), begun.elapsed()),
        };
        let sent = wire.send(&request);
        let answer = sent.map_err(|_gone| End::Reset).and_then(|()| wire.answer("GET", PATIENCE));
        // Others may end a connection that is kept whenever they like: clients ask once more then.
        let peer = matches!(self.target, Target::Peer(_));
        if peer && was_kept && matches!(answer, Err(End::Fin | End::Reset)) {
            return self.control(target, nonce);
        }
        let keeps = answer
            .as_ref()
            .is_ok_and(|answer| !answer.until_close && answer.field("connection") != Some("close"));
        if keeps {
            self.control = Some(wire);
        }
        (answer, begun.elapsed())
    }

    /// Sends a probe and gathers what comes of it.
    pub(crate) fn observe(&mut self, probe: &Probe<'_>, dice: &mut Dice) -> Observed {
        let case = probe.case;
        let number = self.next_number();
        if case.primed {
            let (answer, _) = self.control(&format!("/a{number:06}"), number);
            assert!(answer.is_ok(), "what is primed can be had");
        }
        if let Some(says) = &case.says {
            let script =
                Script { says: data::bytes(says, number), early: case.early, closes: case.closes };
            self.origin.script(&format!("/a{number:06}"), script);
        }
        let mark = self.origin.mark();
        let mut bytes = data::bytes(&probe.message, number);
        let methods = methods(case, &bytes);
        if probe.cut == Cut::Coalesced {
            bytes.extend(good(number));
        }
        let expected = expected(case, probe.cut, &bytes, number);
        let mut answers = Vec::new();
        let (mut behind, mut end) = (Vec::new(), End::Reset);
        let mut answered = Instant::now();
        let mut sending = Duration::ZERO;
        // Others may wait for more where they should refuse; that is not what is counted.
        let patience = match &self.target {
            Target::Edge(_) => PATIENCE,
            Target::Peer(_) => Duration::from_millis(400),
        };
        if let Ok(mut wire) = self.connect(probe.over) {
            for piece in probe.cut.pieces(&bytes, dice) {
                if wire.send(&piece).is_err() {
                    break;
                }
                match probe.cut {
                    Cut::Lines | Cut::Random => std::thread::sleep(Duration::from_micros(100)),
                    _ => std::thread::yield_now(),
                }
            }
            if case.fin {
                wire.finish();
            }
            sending = answered.elapsed();
            end = End::Open;
            for at in 0..expected.statuses.len() {
                let method = methods.get(at).map_or("GET", String::as_str);
                match wire.answer(method, patience) {
                    Ok(answer) => answers.push(answer),
                    Err(other) => {
                        end = other;
                        break;
                    }
                }
            }
            answered = Instant::now();
            let over = answers.last().is_some_and(|answer| answer.until_close);
            if over {
                end = End::Fin;
            }
            if end == End::Open {
                if !expected.closes {
                    wire.finish();
                }
                let patience = if case.expect == "CLOSE" { patience * 2 } else { patience };
                (behind, end) = wire.end(patience);
            }
        }
        let lingered = answered.elapsed();
        let fresh = case.primed
            || case.says.is_some()
            || expected.origin.iter().any(|line| line.starts_with("GET /a"));
        let target = if fresh { format!("/c{number:06}") } else { format!("/a{number:06}") };
        let (control, control_time) = self.control(&target, number);
        self.slowest = self.slowest.max(control_time);
        let waits: Vec<usize> = self.open_at(&mark);
        if !waits.is_empty() {
            self.origin.closed(&waits, Duration::from_secs(2));
        }
        let since = self.origin.since(&mark);
        let refusals = self.refused();
        Observed {
            answers,
            behind,
            end,
            sending,
            lingered,
            since,
            control,
            control_time,
            refusals,
            number,
            mark,
        }
    }

    fn open_at(&self, mark: &crate::origin::Mark) -> Vec<usize> {
        self.origin.since(mark).unfinished.iter().map(|(own, ..)| *own).collect()
    }
}

/// The request that comes behind a probe.
fn good(number: u32) -> Vec<u8> {
    format!("GET /g{number:06} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.trim_start_matches("\r\n").splitn(3, ' ');
    format!("{} {}", words.next().unwrap_or(""), words.next().unwrap_or(""))
}

/// Methods by which the answers are read.
fn methods(case: &Case, bytes: &[u8]) -> Vec<String> {
    match &case.origin {
        Some(lines) if case.answers.len() == lines.len() => {
            lines.iter().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
        }
        _ => vec![first_line(bytes).split(' ').next().unwrap_or("GET").to_owned()],
    }
}

fn expected(case: &Case, cut: Cut, bytes: &[u8], number: u32) -> Expected {
    let (kind, status) = case.expect.split_once(' ').unwrap_or((&case.expect, "200"));
    let status = status.parse().unwrap();
    let own = |text: &String| String::from_utf8_lossy(&data::bytes(text, number)).into_owned();
    let listed = case.origin.as_ref().map(|lines| lines.iter().map(own).collect::<Vec<_>>());
    let mut expected = Expected {
        statuses: if case.answers.is_empty() { vec![status] } else { case.answers.clone() },
        origin: listed.clone().unwrap_or_default(),
        closes: true,
        refusals: 1.0,
        unfinished: false,
    };
    match kind {
        "REJ" | "CLOSE" => {}
        "BODY" => expected.unfinished = true,
        "OK" | "EITHER" => {
            if kind == "EITHER" {
                expected.statuses = vec![200];
            }
            expected.origin = listed.unwrap_or_else(|| vec![first_line(bytes)]);
            expected.closes = case.closes;
            expected.refusals = 0.0;
        }
        "LOCAL" => {
            expected.closes = case.closes;
            expected.refusals = 0.0;
        }
        other => panic!("{other} is not to be expected"),
    }
    if cut == Cut::Coalesced && !expected.closes && !case.fin {
        expected.statuses.push(200);
        expected.origin.push(format!("GET /g{number:06}"));
    }
    expected
}

/// Tries a probe and judges it.
pub(crate) fn judge(bench: &mut Bench, probe: &Probe<'_>, dice: &mut Dice) -> Result<(), String> {
    let case = probe.case;
    let mut observed = bench.observe(probe, dice);
    // Whoever goes on sending for longer than the edge lingers has lost the answer: on a busy
    // machine a message of many pieces deserves another try.
    for _ in 0..3 {
        if observed.end != End::Reset || observed.sending < LINGER {
            break;
        }
        observed = bench.observe(probe, dice);
    }
    let mut bytes = data::bytes(&probe.message, observed.number);
    if probe.cut == Cut::Coalesced {
        bytes.extend(good(observed.number));
    }
    let expected = expected(case, probe.cut, &bytes, observed.number);
    harmless(&observed)?;
    if case.expect == "CLOSE" {
        return if observed.end == End::Open || !own(&observed).is_empty() {
            Err(format!("{observed:?}"))
        } else {
            Ok(())
        };
    }
    let held = hold(case, &expected, &observed);
    match case.expect.split_once(' ') {
        Some(("EITHER", status)) if held.is_err() => {
            let refusal = Case { expect: format!("REJ {status}"), ..case.clone() };
            hold(&refusal, &self::expected(&refusal, probe.cut, &bytes, observed.number), &observed)
        }
        _ => held,
    }
}

/// Requests of the probe at the origin.
pub(crate) fn own(observed: &Observed) -> Vec<String> {
    let nonce = observed.number.to_string();
    let control =
        |seen: &crate::reader::Seen| seen.values("x-nonce").any(|own| own == nonce.as_bytes());
    let requests = observed.since.requests.iter().filter(|(_, seen)| !control(seen));
    requests.map(|(_, seen)| seen.line()).collect()
}

/// What holds for every probe, whatever it is.
pub(crate) fn harmless(observed: &Observed) -> Result<(), String> {
    let number = observed.number;
    let Ok(control) = &observed.control else {
        return Err(format!("the control request got {:?}", observed.control));
    };
    let wanted = [format!("{number} GET /a{number:06}"), format!("{number} GET /c{number:06}")];
    let text = String::from_utf8_lossy(&control.body);
    if control.status != 200 || !wanted.contains(&text.clone().into_owned()) {
        return Err(format!("the control request got {} {text:?}", control.status));
    }
    if observed.control_time > tolerance() {
        return Err(format!("the control request took {:?}", observed.control_time));
    }
    if let Some(fault) = observed.since.faults.first() {
        return Err(format!("the origin cannot read what it got: {fault} {:?}", observed.since));
    }
    Ok(())
}

fn hold(case: &Case, expected: &Expected, observed: &Observed) -> Result<(), String> {
    let statuses: Vec<u16> = observed.answers.iter().map(|answer| answer.status).collect();
    let same = |what: &str, right: bool| {
        if right {
            Ok(())
        } else {
            Err(format!("{what}: {}; expected {expected:?}", observed.brief()))
        }
    };
    same("the answers", statuses == expected.statuses)?;
    same("what the origin got", own(observed) == expected.origin)?;
    same("reason counters", (observed.refusals - expected.refusals).abs() < 0.5)?;
    let interims = observed.answers.iter().map(|answer| answer.interim.len()).max().unwrap_or(0);
    same("at most one 100", interims <= 1)?;
    same("bytes behind the answers", observed.behind.is_empty())?;
    let last = observed.answers.last();
    if expected.closes && expected.refusals > 0.5 {
        let said = last.and_then(|answer| answer.field("connection"));
        same("Connection: close", said == Some("close"))?;
    }
    same("the end", observed.end == End::Fin)?;
    same("the end in time", observed.lingered < tolerance() * 3 / 2)?;
    if !expected.unfinished && !case.kills {
        same("whole requests only", observed.since.unfinished.is_empty())?;
    }
    same(
        "an unfinished request is cut off",
        observed.since.unfinished.iter().all(|(.., closed)| *closed),
    )?;
    at_the_origin(case, expected, observed)
}

/// Fields and bodies of what went to the origin, and that the answers are its own.
fn at_the_origin(case: &Case, expected: &Expected, observed: &Observed) -> Result<(), String> {
    let number = observed.number;
    let nonce = number.to_string();
    let own = observed
        .since
        .requests
        .iter()
        .filter(|(_, seen)| !seen.values("x-nonce").any(|own| own == nonce.as_bytes()));
    let own: Vec<_> = own.collect();
    let Some((_, first)) = own.first() else { return Ok(()) };
    for line in &case.sees {
        let (name, value) = line.split_once(": ").unwrap();
        let value = data::bytes(value, number);
        if first.values(name).collect::<Vec<_>>() != [&value[..]] {
            return Err(format!("{line} at the origin: {first:?}"));
        }
    }
    for name in &case.lacks {
        if first.values(name).next().is_some() {
            return Err(format!("{name} at the origin: {first:?}"));
        }
    }
    if let Some(body) = &case.body
        && first.body != data::bytes(body, number)
    {
        return Err(format!("the body at the origin: {first:?}"));
    }
    if case.says.is_none() && !case.primed && expected.statuses.iter().all(|status| *status == 200)
    {
        let said = observed.answers.iter().zip(&own).all(|(answer, (_, seen))| {
            seen.method == "HEAD" || answer.body == format!("- {}", seen.line()).into_bytes()
        });
        if !said {
            return Err(format!("each its own answer: {}", observed.brief()));
        }
    }
    if case.kills {
        let used = own.first().map_or(usize::MAX, |(connection, _)| *connection);
        let times = observed.since.requests.iter().filter(|(connection, _)| *connection == used);
        if times.count() > 1 {
            return Err(format!("the origin's connection was used again: {}", observed.brief()));
        }
    }
    Ok(())
}
