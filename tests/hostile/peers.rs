//! What other servers make of the HTTP/1 cases, judged by harm alone; the command `peers` beside this file
//! starts them and writes the table into `docs/robustness.md`.
//!
//! Whether a server refuses, and with which status, is its own affair. Harm is what others bear:
//!
//! ```text
//! client   a second client gets no answer, a late one or another's
//! origin   readers at the origin differ about what they got
//! hidden   of a message that ought to be refused a part was executed that others read as its body or
//!          as one of its fields
//! relayed  an answer that readers understand in several ways went on to the client
//! ```

use crate::data::{self, Case};
use crate::dice::Dice;
use crate::http1::{self, Bench, Cut, Observed, Over, Probe};
use crate::wire::{Answer, tolerance};

/// Tries of a probe; only what is harmful in all of them is counted as harm.
const TRIES: usize = 2;

/// Sends the HTTP/1 cases through the server that `PEER` names, each in one write and with a good request
/// behind it, and prints a line of fields for each probe: group, number, title, verdict, how, message. `SKIP` of
/// them have been tried before: a server that answers nobody any more is to be started anew.
#[test]
fn peers() {
    if std::env::var_os("PEER").is_none() {
        return;
    }
    let cases = data::load();
    let mut bench = Bench::start();
    sane(&mut bench);
    let mut dice = Dice(1);
    let only = std::env::var("ONLY").unwrap_or_default();
    let skip = std::env::var("SKIP").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let chosen = cases.iter().filter(|case| case.over.is_none() && case.id.starts_with(&only));
    let simple = |probe: &Probe<'_>| {
        probe.over == Over::Plain && matches!(probe.cut, Cut::Whole | Cut::Coalesced)
    };
    for probe in chosen.flat_map(http1::probes).filter(simple).skip(skip) {
        let verdict = verdict(&mut bench, &probe, &mut dice);
        let Probe { case, message, cut, .. } = &probe;
        let mut message = message.replace(['\t', '\n'], " ");
        message.truncate(message.floor_char_boundary(300));
        let fields = ["peer:", case.file, &case.id, &case.title, &verdict, cut.name(), &message];
        println!("{}", fields.join("\t"));
        if verdict.starts_with("client: no answer") && bench.control("/lives", 1).0.is_err() {
            println!("peer: gone");
            return;
        }
    }
    println!("peer: all");
}

/// A plain request is answered by the origin, and the next one for the same from the store.
fn sane(bench: &mut Bench) {
    for _ in 0..2 {
        let (answer, _) = bench.control("/sane", 1);
        let answer = answer.expect("a plain request is answered");
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!((answer.status, &*body), (200, "1 GET /sane"));
    }
    let (again, _) = bench.control("/sane", 2);
    let again = again.expect("a plain request is answered again").body;
    assert_eq!(again, b"1 GET /sane", "what may be stored is");
}

/// What a server does with a probe: the kind of harm, `forwarded` where that was to be refused, or `sound`.
fn verdict(bench: &mut Bench, probe: &Probe<'_>, dice: &mut Dice) -> String {
    let mut found = String::new();
    for _ in 0..TRIES {
        let observed = bench.observe(probe, dice);
        if std::env::var_os("VERBOSE").is_some() {
            println!("{}: {observed:?}", probe.name());
        }
        let Some(harm) = harm(bench, probe.case, &observed) else {
            let forwarded = refused(probe.case) && is_forwarded(probe.case, &observed);
            return if forwarded { "forwarded" } else { "sound" }.to_owned();
        };
        found = harm;
    }
    found
}

/// Whether a case is one that is to be refused.
fn refused(case: &Case) -> bool {
    case.expect.starts_with("REJ") || case.expect.starts_with("BODY")
}

/// Whether what was to be refused came to the origin whole, rather than good requests around it.
fn is_forwarded(case: &Case, observed: &Observed) -> bool {
    let good = format!("GET /g{:06}", observed.number);
    let sound = case.origin.iter().flatten();
    let sound: Vec<Vec<u8>> = sound.map(|text| data::bytes(text, observed.number)).collect();
    http1::own(observed)
        .iter()
        .any(|line| *line != good && !sound.iter().any(|own| own == line.as_bytes()))
}

fn harm(bench: &Bench, case: &Case, observed: &Observed) -> Option<String> {
    let told = |kind: &str, what: String| Some(format!("{kind}: {what}"));
    match &observed.control {
        Err(end) => return told("client", format!("no answer ({end:?})")),
        Ok(answer) if answer.status != 200 => return told("client", answer.status.to_string()),
        Ok(answer) if !is_own(answer, observed) => {
            return told("client", String::from_utf8_lossy(&answer.body).into_owned());
        }
        Ok(_) if observed.control_time > tolerance() => {
            return told("client", format!("waited {:?}", observed.control_time));
        }
        Ok(_) => {}
    }
    if let Err(why) = bench.origin.agree_since(&observed.mark) {
        return told("origin", why.replace(['\t', '\n'], " "));
    }
    let hidden = http1::own(observed).into_iter().find(|line| line.contains(" /evil"));
    if let Some(line) = hidden.filter(|_| refused(case)) {
        return told("hidden", line);
    }
    let ambiguous = |answer: &&Answer| case.says.is_some() && is_ambiguous(answer);
    if let Some(answer) = observed.answers.iter().find(ambiguous) {
        return told("relayed", format!("{:?}", answer.fields));
    }
    None
}

/// Whether the second client's answer is its own, or what the origin says to anybody who asks this host for
/// this target.
fn is_own(answer: &Answer, observed: &Observed) -> bool {
    let number = observed.number;
    let body = String::from_utf8_lossy(&answer.body);
    let own = [format!("{number} GET /a{number:06}"), format!("{number} GET /c{number:06}")];
    let target = format!("/a{number:06}");
    let mut same = observed.since.requests.iter().filter(|(_, seen)| seen.target == target);
    let stored = body == format!("- GET {target}")
        && same.all(|(_, seen)| seen.values("host").eq([b"h".as_slice()]));
    stored || own.iter().any(|own| *own == body)
}

/// Whether readers may differ about where an answer ends, or about its fields.
fn is_ambiguous(answer: &Answer) -> bool {
    let values = |name: &str| {
        let fields = answer.fields.iter().filter(move |(own, _)| own.trim() == name);
        fields.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    lengths.len() + codings.len() > 1
        || !lengths.iter().all(number)
        || codings.iter().any(|coding| !coding.eq_ignore_ascii_case("chunked"))
        || answer.fields.iter().any(|(name, value)| {
            name.contains(char::is_whitespace) || value.contains(['\0', '\r', '\n'])
        })
}
