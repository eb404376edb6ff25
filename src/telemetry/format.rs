//! How a record becomes a line. No stranger's byte reaches a line without being judged: control
//! characters are escaped, so that one record is one line in any viewer.

use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::Version;

use super::record::{Part, Record};
use crate::config::AccessFormat;
use crate::message::Refusal;
use crate::semantics::Forward;

/// Turns records into lines; remembers the last second's text.
pub(super) struct Formatter {
    format: AccessFormat,
    second: u64,
    time: String,
}

/// A moment in UTC as RFC 3339 writes it, to the millisecond.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:03}Z", Civil::of(time.as_secs()).rfc3339(), time.subsec_millis())
}

impl Formatter {
    pub(super) fn new(format: AccessFormat) -> Self {
        Self { format, second: u64::MAX, time: String::new() }
    }

    /// Appends the line of one record.
    pub(super) fn line(&mut self, record: &Record, site: &str, out: &mut Vec<u8>) {
        let wall = record.started.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.second != wall.as_secs() {
            self.second = wall.as_secs();
            let time = Civil::of(wall.as_secs());
            self.time = match self.format {
                AccessFormat::Json => time.rfc3339(),
                AccessFormat::Combined => time.common_log(),
            };
        }
        match self.format {
            AccessFormat::Json => self.json(record, wall, site, out),
            AccessFormat::Combined => self.combined(record, out),
        }
    }

    /// One object; what a request does not have is left out.
    fn json(&self, record: &Record, wall: Duration, site: &str, out: &mut Vec<u8>) {
        let mut line = Json { out, first: true };
        line.name("time");
        line.moment(&self.time, wall.subsec_millis());
        line.word("id", record.request_id.as_str());
        line.address("client", record.client.ip(), None);
        line.number("port", record.client.port().into());
        line.some_text("site", Some(site).filter(|site| !site.is_empty()));
        line.word("method", record.method.as_str());
        line.word("scheme", record.scheme.as_str());
        line.text("host", record.text.part(Part::Host));
        line.text("target", record.text.part(Part::Target));
        line.word("http", version(record.version));
        line.some_text("tls", record.tls);
        line.number("status", record.status.into());
        line.number("bytes", record.bytes_sent);
        if let Some(received) = record.bytes_received {
            line.number("bytes_received", received);
        }
        line.number("duration_us", micros(record.took));
        if let Some(first_byte) = record.first_byte {
            line.number("first_byte_us", micros(first_byte));
        }
        line.word("cache", record.outcome.label());
        line.some_text("fwd", record.forward.map(Forward::as_str));
        if let Some(ttl) = record.ttl {
            line.shown_bare("ttl", ttl);
        }
        line.flag("stored", record.stored);
        line.some_text("detail", record.detail);
        if let Some(origin) = record.origin {
            line.address("origin", origin.ip(), Some(origin.port()));
        }
        line.some_text("origin_error", record.origin_error);
        line.some_text("refusal", record.refusal.map(Refusal::label));
        for (name, part) in [("user_agent", Part::UserAgent), ("referer", Part::Referer)] {
            let value = record.text.part(part);
            if !value.is_empty() {
                line.text(name, value);
            }
        }
        line.some_text("trace", record.trace.as_ref().map(|trace| trace.trace_id()));
        line.flag("incomplete", !record.complete);
        out.extend_from_slice(b"}\n");
    }

    /// The combined log format that every web log tool reads.
    fn combined(&self, record: &Record, out: &mut Vec<u8>) {
        display(out, format_args!("{} - - [{}] \"", record.client.ip(), self.time));
        quoted(record.method.as_str().as_bytes(), out);
        out.push(b' ');
        quoted(record.text.part(Part::Target), out);
        display(out, format_args!(" HTTP/{}\" {:03} ", version(record.version), record.status));
        out.extend_from_slice(itoa::Buffer::new().format(record.bytes_sent).as_bytes());
        for part in [Part::Referer, Part::UserAgent] {
            out.extend_from_slice(b" \"");
            match record.text.part(part) {
                b"" => out.push(b'-'),
                value => quoted(value, out),
            }
            out.push(b'"');
        }
        out.push(b'\n');
    }
}

/// A JSON object under construction.
struct Json<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Json<'_> {
    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(if self.first { b"{\"" } else { b",\"" });
        self.first = false;
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        json_escaped(value, self.out);
        self.out.push(b'"');
    }

    fn some_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value.as_bytes());
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Text that holds nothing to escape: ours, or a token (RFC 9110 section 5.6.2).
    fn word(&mut self, name: &str, value: &str) {
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    /// The moment `millis` after `second`, which is the value of the last name.
    fn moment(&mut self, second: &str, millis: u32) {
        let digit = |value: u32| b'0' + u8::try_from(value % 10).unwrap_or(0);
        let [hundreds, tens, ones] = [millis / 100, millis / 10, millis].map(digit);
        self.out.push(b'"');
        self.out.extend_from_slice(second.as_bytes());
        self.out.extend_from_slice(&[b'.', hundreds, tens, ones, b'Z', b'"']);
    }

    /// An address as it is usually written; the formatting of the library takes ten times as long.
    fn address(&mut self, name: &str, address: IpAddr, port: Option<u16>) {
        self.name(name);
        self.out.push(b'"');
        match (address, port) {
            (IpAddr::V4(address), _) => {
                for (index, octet) in address.octets().into_iter().enumerate() {
                    if index > 0 {
                        self.out.push(b'.');
                    }
                    self.out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
                }
            }
            (IpAddr::V6(address), None) => display(self.out, format_args!("{address}")),
            (IpAddr::V6(address), Some(_)) => display(self.out, format_args!("[{address}]")),
        }
        if let Some(port) = port {
            self.out.push(b':');
            self.out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
        self.out.push(b'"');
    }

    fn shown_bare(&mut self, name: &str, value: i64) {
        self.name(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// `true`, or nothing at all.
    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.name(name);
            self.out.extend_from_slice(b"true");
        }
    }
}

fn display(out: &mut Vec<u8>, arguments: fmt::Arguments<'_>) {
    // Writing into memory does not fail.
    let _ = out.write_fmt(arguments);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// Whether a byte may stand in either format as it is.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

/// Text within a JSON string. Bytes that are no UTF-8 are shown as the Latin-1 characters that
/// older senders mean by them.
fn json_escaped(value: &[u8], out: &mut Vec<u8>) {
    if value.iter().all(|byte| is_plain(*byte)) {
        out.extend_from_slice(value);
        return;
    }
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                _ if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
                    display(out, format_args!("\\u{:04x}", u32::from(character)));
                }
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            display(out, format_args!("\\u{byte:04x}"));
        }
    }
}

/// Text between quotes of the combined format, escaped as Apache does: quotes and backslashes by
/// a backslash, everything that is not printable ASCII as `\xHH`.
fn quoted(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            _ if is_plain(*byte) => out.push(*byte),
            _ => display(out, format_args!("\\x{byte:02x}")),
        }
    }
}

/// A second of the wall clock in the proleptic Gregorian calendar, UTC.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    second: u64,
}

impl Civil {
    /// From seconds since 1970. Counts in eras of 400 years that begin on 1 March, so that the
    /// leap day is the last of its year (Howard Hinnant, "chrono-compatible low-level date
    /// algorithms").
    fn of(seconds: u64) -> Self {
        let days = seconds / 86_400 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            second: seconds % 86_400,
        }
    }

    fn clock(&self) -> String {
        format!("{:02}:{:02}:{:02}", self.second / 3600, self.second / 60 % 60, self.second % 60)
    }

    /// `2026-11-21T21:42:00`, to which the fraction and the zone are added.
    fn rfc3339(&self) -> String {
        format!("{:04}-{:02}-{:02}T{}", self.year, self.month, self.day, self.clock())
    }

    /// `21/Nov/2026:21:42:00 +0000`
    fn common_log(&self) -> String {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = usize::try_from(self.month).ok().and_then(|month| MONTHS.get(month - 1));
        let month = month.copied().unwrap_or("---");
        format!("{:02}/{month}/{:04}:{} +0000", self.day, self.year, self.clock())
    }
}

#[cfg(test)]
mod tests;
