//! `atoll events`.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::client::{CallError, follow};
use super::remote::{Remote, cell, plain, problem, required_token};
use super::{DONE, LATE, REFUSED, UNREACHABLE, complain, purges};

/// Silence after which the connection counts as gone; the node breaks it every 15 s.
const SILENCE: Duration = Duration::from_secs(40);
/// First pause before the node is asked again; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest event that is taken.
const EVENT_BYTES: usize = 1 << 20;
/// Selectors that are written out in a line.
const WRITTEN_OUT: usize = 8;

const ABOUT: &str = "Tells what happens on the node as it happens: purges, health, draining";

const MORE: &str = "\
A line for each event, until it is interrupted. When the connection breaks, or the node restarts, it
asks again and goes on where it was; \"lost\" says that events are missing in between.

Examples:
  atoll events
  atoll events --json | jq -r 'select(.event == \"purge\") | .data.id'
  atoll events --since 5c0ffee5c0ffee00.42      what came after this one, if it is still kept

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope read)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  nobody reads the output any more
  1  refused
  2  wrong flags
  3  no answer in time, the first time
  4  nobody answers, the first time";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Events {
    /// Begin after the event with this id instead of now.
    #[arg(long, value_name = "ID", value_parser = purges::id)]
    since: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// How listening ended.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// The connection or the stream ended.
    Broken,
    /// The node does not tell anything now, and says so.
    NotNow(String),
    /// It never will.
    Refused(String),
    /// Nobody answers, or not in time.
    Nobody(u8, String),
    /// Nobody reads what is printed.
    Unread,
}

impl Events {
    pub(super) fn run(self) -> u8 {
        let token = match required_token(&self.remote) {
            Ok(token) => token,
            Err(code) => return code,
        };
        let mut reader = Reader { last: self.since.clone(), ..Reader::default() };
        let mut pause = PAUSE;
        loop {
            let before = reader.blocks;
            let heard = self.listen(&token, &mut reader);
            if let Some(code) = ends(&heard, reader.blocks > 0) {
                return code;
            }
            pause = if reader.blocks > before { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            reader.begin();
            std::thread::sleep(pause);
        }
    }

    /// Follows the node until the connection ends, and prints what comes.
    fn listen(&self, token: &str, reader: &mut Reader) -> Heard {
        let last = reader.last.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
        let field = last.map(|id| (HeaderName::from_static("last-event-id"), id));
        let mut unread = false;
        let mut take = |piece: &[u8]| {
            let mut out = std::io::stdout().lock();
            let printed = reader.take(piece, &mut |event| {
                let line = if self.remote.json { event.json() } else { event.line() };
                writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
            });
            unread = !printed;
            printed
        };
        let base = &self.remote.admin;
        match follow(base, "/v1/events", token, field, SILENCE, &mut take) {
            Ok(None) if unread => Heard::Unread,
            Ok(None) => Heard::Broken,
            Ok(Some(answer)) if matches!(answer.status.as_u16(), 429 | 503) => {
                Heard::NotNow(problem(&answer))
            }
            Ok(Some(answer)) => Heard::Refused(problem(&answer)),
            Err(CallError::Unreachable(why)) => {
                Heard::Nobody(UNREACHABLE, format!("{base}: {why}"))
            }
            Err(CallError::Late(why)) => Heard::Nobody(LATE, format!("{base}: {why}")),
        }
    }
}

/// The exit code, where it is of no use to go on. Who has been heard once is asked again.
fn ends(heard: &Heard, heard_before: bool) -> Option<u8> {
    match heard {
        Heard::Unread => Some(DONE),
        Heard::Refused(why) => {
            complain(why);
            Some(REFUSED)
        }
        Heard::NotNow(why) => {
            complain(why);
            (!heard_before).then_some(REFUSED)
        }
        Heard::Nobody(code, why) => {
            complain(why);
            (!heard_before).then_some(*code)
        }
        Heard::Broken => None,
    }
}

/// Reads server-sent events from pieces of any size.
#[derive(Debug, Default)]
struct Reader {
    /// The id to go on from.
    last: Option<String>,
    /// Blocks that have come, signs of life among them.
    blocks: u64,
    line: Vec<u8>,
    name: String,
    data: String,
}

/// One event.
#[derive(Debug, PartialEq, Eq)]
struct Event<'a> {
    name: &'a str,
    id: Option<&'a str>,
    data: Value,
}

impl Reader {
    /// A new connection: what was half read is lost.
    fn begin(&mut self) {
        self.line.clear();
        self.name.clear();
        self.data.clear();
    }

    /// Takes a piece in; `tell` says whether it still wants to be told.
    fn take(&mut self, piece: &[u8], tell: &mut dyn FnMut(&Event<'_>) -> bool) -> bool {
        for byte in piece {
            if *byte != b'\n' {
                if self.line.len() < EVENT_BYTES {
                    self.line.push(*byte);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            if !self.end_of_line(&String::from_utf8_lossy(&line), tell) {
                return false;
            }
        }
        true
    }

    fn end_of_line(&mut self, line: &str, tell: &mut dyn FnMut(&Event<'_>) -> bool) -> bool {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.last = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.name),
            "data" if self.data.len() + value.len() <= EVENT_BYTES => self.data.push_str(value),
            "" if line.is_empty() => return self.end_of_block(tell),
            _ => {}
        }
        true
    }

    fn end_of_block(&mut self, tell: &mut dyn FnMut(&Event<'_>) -> bool) -> bool {
        self.blocks += 1;
        let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if data.is_empty() {
            return true;
        }
        let data = serde_json::from_str(&data).unwrap_or(Value::String(data));
        tell(&Event { name: &name, id: self.last.as_deref(), data })
    }
}

impl Event<'_> {
    /// For scripts: all of it in one line.
    fn json(&self) -> String {
        json!({ "event": self.name, "id": self.id, "data": self.data }).to_string()
    }

    /// A configuration that was read anew.
    fn reload(&self) -> String {
        let number = |name: &str| self.data.get(name).and_then(Value::as_u64).unwrap_or(0);
        let text =
            |name: &str| self.data.get(name).and_then(Value::as_str).map(plain).unwrap_or_default();
        let by = text("by");
        let by = if by.is_empty() { by } else { format!("  by {by}") };
        if text("outcome") == "refused" {
            let why = text("why");
            return format!("refused: {}{by}", if why.is_empty() { "-" } else { &why });
        }
        let changed = super::counted(usize::try_from(number("changes")).unwrap_or(0), "key");
        let waiting = match number("waiting") {
            0 => String::new(),
            waiting => format!(", {waiting} after a restart"),
        };
        format!("configuration {} in force, {changed} changed{waiting}{by}", text("config"))
    }

    /// For people.
    fn line(&self) -> String {
        let text =
            |name: &str| self.data.get(name).and_then(Value::as_str).map(plain).unwrap_or_default();
        let what = match self.name {
            "purge" => {
                let what = purges::selectors(&self.data, WRITTEN_OUT).join(", ");
                let by = self.data.get("token").and_then(Value::as_str).map(plain);
                let by = by.map_or_else(String::new, |by| format!("  by {by}"));
                format!("{}  {}  {what}{by}", text("id"), text("mode"))
            }
            "health" => {
                let why = text("why");
                let why = if why.is_empty() { why } else { format!(": {why}") };
                format!("{} {} {}{why}", text("origin"), text("address"), text("state"))
            }
            "origin" => {
                let why = text("why");
                let why = if why.is_empty() { why } else { format!(": {why}") };
                format!("{} {}{why}", text("origin"), text("state"))
            }
            "reset" => "the store was emptied".to_owned(),
            "warm-up" => {
                let number = |name: &str| self.data.get(name).map_or_else(String::new, cell);
                let (done, total) = (number("done"), number("total"));
                let stored = number("stored");
                format!("{}  {}, {done} of {total}, {stored} stored", text("id"), text("state"))
            }
            "reload" => self.reload(),
            "upgrade" => match text("why") {
                why if why.is_empty() => {
                    format!("another process has taken over  by {}", text("by"))
                }
                why => format!("no upgrade: {why}"),
            },
            "drain" => "the node drains".to_owned(),
            "lost" => format!("events are missing: {}", text("why")),
            _ => plain(&self.data.to_string()),
        };
        let at = text("at");
        let at = if at.is_empty() { "-".to_owned() } else { at };
        format!("{at:<24}  {:<6}  {what}", plain(self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "retry: 1000\nid: 0f.0\n\n\
        event: purge\nid: 0f.1\ndata: {\"at\":\"2026-01-02T03:04:05.678Z\",\"id\":\"n.0f.7\",\
        \"mode\":\"soft\",\"token\":\"deploy\",\"count\":2,\"selectors\":[{\"kind\":\"tag\",\
        \"site\":\"s\",\"value\":\"a\"},{\"kind\":\"all\"}]}\n\n\
        : alive\nid: 0f.4\n\n\
        event: health\r\nid: 0f.5\r\ndata: {\"at\":\"2026-01-02T03:04:06.000Z\",\"origin\":\"web\",\
        \"address\":\"127.0.0.1:80\",\"state\":\"ejected\",\"why\":\"ref\\u001bused\"}\r\n\r\n\
        event: lost\nid: 0f.9\ndata: {\"why\":\"slow\"}\n\nevent: half\ndata: {";

    fn lines(reader: &mut Reader, stream: &str, size: usize, json: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in stream.as_bytes().chunks(size) {
            reader.take(piece, &mut |event| {
                lines.push(if json { event.json() } else { event.line() });
                true
            });
        }
        lines
    }

    #[test]
    fn events_become_lines_in_pieces_of_any_size() {
        let expected = [
            "2026-01-02T03:04:05.678Z  purge   n.0f.7  soft  tag a, all  by deploy",
            "2026-01-02T03:04:06.000Z  health  web 127.0.0.1:80 ejected: ref used",
            "-                         lost    events are missing: slow",
        ];
        for size in [1, 7, 100_000] {
            let mut reader = Reader::default();
            assert_eq!(lines(&mut reader, STREAM, size, false), expected);
            assert_eq!((reader.last.as_deref(), reader.blocks), (Some("0f.9"), 5));
            reader.begin();
            let next = "event: drain\nid: 0f.10\ndata: {}\n\n";
            let told = lines(&mut reader, next, size, true);
            assert_eq!(told, [r#"{"data":{},"event":"drain","id":"0f.10"}"#]);
            let reloads = "event: reload\ndata: {\"outcome\":\"applied\",\"by\":\"SIGHUP\",\
                \"config\":\"0a\",\"changes\":2,\"waiting\":1}\n\n\
                event: reload\ndata: {\"outcome\":\"refused\",\"why\":\"no\"}\n\n";
            let told = lines(&mut reader, reloads, size, false);
            let ends = [
                "configuration 0a in force, 2 keys changed, 1 after a restart  by SIGHUP",
                "refused: no",
            ];
            assert!(told.iter().zip(ends).all(|(told, end)| told.ends_with(end)), "{told:?}");
        }
    }

    #[test]
    fn who_does_not_want_more_is_told_no_more() {
        let mut told = 0;
        let mut reader = Reader::default();
        let more = reader.take(STREAM.as_bytes(), &mut |_| {
            told += 1;
            false
        });
        assert_eq!((more, told), (false, 1));
    }

    #[test]
    fn who_was_heard_once_is_asked_again() {
        let nobody = Heard::Nobody(UNREACHABLE, "nobody".to_owned());
        let not_now = Heard::NotNow("the node drains".to_owned());
        let refused = Heard::Refused("401".to_owned());
        assert_eq!((ends(&nobody, false), ends(&nobody, true)), (Some(UNREACHABLE), None));
        assert_eq!((ends(&not_now, false), ends(&not_now, true)), (Some(REFUSED), None));
        assert_eq!((ends(&refused, true), ends(&Heard::Broken, false)), (Some(REFUSED), None));
        assert_eq!(ends(&Heard::Unread, true), Some(DONE));
    }
}
