//! Readers of HTTP/1 requests with different habits. What one of them takes for a boundary the
//! others must take for one too: whatever goes to an origin is read by a parser that nobody here
//! has chosen.

/// A request as a reader understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// `METHOD target`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// The values of a field.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_slice())
    }

    fn matters(&self) -> (&str, &str, Vec<&[u8]>, &[u8]) {
        (&self.method, &self.target, self.values("host").collect(), &self.body)
    }
}

/// What a reader lets pass, and what it prefers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    /// LF ends a line.
    bare_lf: bool,
    /// So does CR.
    bare_cr: bool,
    /// A line that begins with a blank goes on with the one before.
    folds: bool,
    /// White space of any kind is cut from names and values.
    trims: bool,
    /// Content-Length counts, not Transfer-Encoding.
    length_wins: bool,
    /// The last of several lengths counts.
    last_length: bool,
    /// Numbers end where no digit stands; a sign is passed over.
    sloppy_numbers: bool,
    /// `chunked` anywhere in the value counts.
    sloppy_codings: bool,
    /// GET and its like have no body, whatever they say.
    no_body_for_get: bool,
    /// All that RFC 9112 allows is taken: HTTP/1.0, zeros before a number, blanks before an extension.
    by_the_book: bool,
}

/// Refuses whatever is not as it should be.
pub(crate) const STRICT: Habits = Habits {
    bare_lf: false,
    bare_cr: false,
    folds: false,
    trims: false,
    length_wins: false,
    last_length: false,
    sloppy_numbers: false,
    sloppy_codings: false,
    no_body_for_get: false,
    by_the_book: false,
};

/// Refuses only what breaks a rule: other servers may hand on whatever keeps them.
pub(crate) const BY_THE_BOOK: Habits = Habits { by_the_book: true, ..STRICT };

/// How much of a stream of bytes was understood.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) requests: Vec<Seen>,
    /// Bytes of those.
    pub(crate) bytes: usize,
    /// What is wrong after them; `None` where only more bytes are needed.
    pub(crate) fault: Option<&'static str>,
}

type Step<T> = Result<Option<T>, &'static str>;

/// Reads requests from the start of `bytes`.
pub(crate) fn read(bytes: &[u8], habits: Habits) -> Reading {
    let mut reading = Reading { requests: Vec::new(), bytes: 0, fault: None };
    while reading.bytes < bytes.len() {
        match request(&bytes[reading.bytes..], habits) {
            Ok(Some((seen, length))) => {
                reading.requests.push(seen);
                reading.bytes += length;
            }
            Ok(None) => break,
            Err(fault) => {
                reading.fault = Some(fault);
                break;
            }
        }
    }
    reading
}

/// Length of the head at the start of `bytes`, if it is whole, as a strict reader sees it.
pub(crate) fn head_bytes(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Whether all readers take `bytes` for the same requests.
pub(crate) fn agree(bytes: &[u8]) -> Result<(), String> {
    agree_as(bytes, STRICT)
}

/// The same, where the strictest of them is this one.
pub(crate) fn agree_as(bytes: &[u8], all: Habits) -> Result<(), String> {
    let others = [
        Habits { bare_lf: true, ..all },
        Habits { bare_lf: true, bare_cr: true, ..all },
        Habits { folds: true, trims: true, ..all },
        Habits { length_wins: true, sloppy_numbers: true, ..all },
        Habits { last_length: true, sloppy_codings: true, ..all },
        Habits { bare_lf: true, trims: true, sloppy_numbers: true, sloppy_codings: true, ..all },
    ];
    let strict = read(bytes, all);
    for habits in others {
        let other = read(bytes, habits);
        let same = strict.bytes == other.bytes
            && strict
                .requests
                .iter()
                .map(Seen::matters)
                .eq(other.requests.iter().map(Seen::matters));
        if !same {
            return Err(format!(
                "readers disagree: {strict:?} and, with {habits:?}, {other:?} of {}",
                bytes.escape_ascii()
            ));
        }
    }
    Ok(())
}

fn request(bytes: &[u8], habits: Habits) -> Step<(Seen, usize)> {
    let Some((first, mut at)) = line(bytes, 0, habits)? else { return Ok(None) };
    let text = String::from_utf8_lossy(first).into_owned();
    let parts: Vec<&str> =
        if habits.trims { text.split_whitespace().collect() } else { text.split(' ').collect() };
    let [method, target, version] = parts[..] else { return Err("request line") };
    if version != "HTTP/1.1" && !(habits.by_the_book && version == "HTTP/1.0") {
        return Err("version");
    }
    let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
    loop {
        let Some((text, next)) = line(bytes, at, habits)? else { return Ok(None) };
        at = next;
        if text.is_empty() {
            break;
        }
        if matches!(text[0], b' ' | b'\t') {
            let Some(last) = fields.last_mut().filter(|_| habits.folds) else {
                return Err("folded line");
            };
            last.1.extend(text);
            continue;
        }
        let colon = text.iter().position(|byte| *byte == b':').ok_or("no colon")?;
        fields.push(field(&text[..colon], &text[colon + 1..], habits)?);
    }
    let mut seen =
        Seen { method: method.to_owned(), target: target.to_owned(), fields, body: Vec::new() };
    let Some(length) = body(&bytes[at..], &mut seen, habits)? else { return Ok(None) };
    Ok(Some((seen, at + length)))
}

fn field(name: &[u8], value: &[u8], habits: Habits) -> Result<(String, Vec<u8>), &'static str> {
    let blank = |byte: &u8| {
        matches!(byte, b' ' | b'\t')
            || (habits.trims && (byte.is_ascii_whitespace() || matches!(byte, 0xb | 0xa0 | 0x85)))
    };
    let trim = |mut text: &[u8]| {
        while let Some((_, rest)) = text.split_first().filter(|(first, _)| blank(first)) {
            text = rest;
        }
        while let Some((_, rest)) = text.split_last().filter(|(last, _)| blank(last)) {
            text = rest;
        }
        text.to_vec()
    };
    let name = if habits.trims { trim(name) } else { name.to_vec() };
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(token) {
        return Err("field name");
    }
    if value.contains(&0) {
        return Err("NUL in a value");
    }
    Ok((String::from_utf8_lossy(&name).to_ascii_lowercase(), trim(value)))
}

/// The line at `at`, and where the next one begins.
fn line(bytes: &[u8], at: usize, habits: Habits) -> Step<(&[u8], usize)> {
    for (place, byte) in bytes.iter().enumerate().skip(at) {
        let text = &bytes[at..place];
        match (byte, bytes.get(place + 1)) {
            (b'\r', Some(b'\n')) => return Ok(Some((text, place + 2))),
            (b'\r', None) => return Ok(None),
            (b'\r', Some(_)) if habits.bare_cr => return Ok(Some((text, place + 1))),
            (b'\n', _) if habits.bare_lf => return Ok(Some((text, place + 1))),
            (b'\r' | b'\n', _) => return Err("bare CR or LF"),
            _ => {}
        }
    }
    Ok(None)
}

/// Fills in the body and gives its length on the wire.
fn body(bytes: &[u8], seen: &mut Seen, habits: Habits) -> Step<usize> {
    if habits.no_body_for_get && seen.method == "GET" {
        return Ok(Some(0));
    }
    let lengths: Vec<Vec<u8>> = seen.values("content-length").map(<[u8]>::to_vec).collect();
    let codings: Vec<Vec<u8>> = seen.values("transfer-encoding").map(<[u8]>::to_vec).collect();
    if habits.sloppy_numbers || habits.last_length || habits.length_wins || habits.sloppy_codings {
        // Such a reader takes whatever it finds.
    } else if lengths.len() + codings.len() > 1 {
        return Err("framing in two ways");
    }
    let chunked = codings.iter().any(|coding| {
        let coding = coding.to_ascii_lowercase();
        coding == b"chunked"
            || (habits.sloppy_codings && coding.windows(7).any(|seven| seven == b"chunked"))
    });
    if !codings.is_empty() && !chunked {
        return Err("unknown coding");
    }
    let length = if habits.last_length { lengths.last() } else { lengths.first() };
    match length {
        Some(length) if !chunked || habits.length_wins => {
            let length = number(length, 10, habits).ok_or("length")?;
            let Some(body) = bytes.get(..length) else { return Ok(None) };
            seen.body = body.to_vec();
            Ok(Some(length))
        }
        _ if chunked => chunks(bytes, seen, habits),
        _ => Ok(Some(0)),
    }
}

fn chunks(bytes: &[u8], seen: &mut Seen, habits: Habits) -> Step<usize> {
    let mut at = 0;
    loop {
        let Some((text, next)) = line(bytes, at, habits)? else { return Ok(None) };
        let mut digits = text.split(|byte| *byte == b';').next().unwrap_or_default();
        if habits.by_the_book && digits.len() < text.len() {
            digits = digits.trim_ascii_end();
        }
        let size = number(digits, 16, habits).ok_or("chunk size")?;
        at = next;
        if size == 0 {
            break;
        }
        let Some(data) = bytes.get(at..at.saturating_add(size)) else { return Ok(None) };
        seen.body.extend(data);
        let Some((after, next)) = line(bytes, at + size, habits)? else { return Ok(None) };
        if !after.is_empty() {
            return Err("no CRLF after a chunk");
        }
        at = next;
    }
    loop {
        let Some((text, next)) = line(bytes, at, habits)? else { return Ok(None) };
        at = next;
        if text.is_empty() {
            return Ok(Some(at));
        }
    }
}

fn number(text: &[u8], radix: u32, habits: Habits) -> Option<usize> {
    let mut text = str::from_utf8(text).ok()?;
    let more = text.len().saturating_sub(16);
    let zeros = |text: &str| text.bytes().all(|byte| byte == b'0');
    if habits.by_the_book && text.get(..more).is_some_and(zeros) {
        text = &text[more..];
    }
    if habits.sloppy_numbers {
        let text = text.trim().trim_start_matches('+');
        let end = text.find(|c: char| !c.is_digit(radix)).unwrap_or(text.len());
        return usize::from_str_radix(&text[..end], radix).ok();
    }
    let sound = !text.is_empty() && text.len() <= 16 && text.chars().all(|c| c.is_digit(radix));
    sound.then(|| usize::from_str_radix(text, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_allows_what_atoll_does_not_send() {
        let post = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let rows = [
            ("GET /a HTTP/1.0\r\n\r\n".to_owned(), true),
            (format!("{post}{}1\r\nx\r\n0\r\n\r\n", "0".repeat(99)), true),
            (format!("{post}1 ; a\r\nx\r\n0\r\n\r\n"), true),
            (format!("{post}1 \r\nx\r\n0\r\n\r\n"), false),
            (format!("{post}10000000000000001\r\nx\r\n0\r\n\r\n"), false),
            (format!("{post}1\nx\r\n0\r\n\r\n"), false),
        ];
        for (text, sound) in rows {
            let bytes = text.as_bytes();
            assert!(read(bytes, STRICT).requests.is_empty(), "{text}");
            assert_eq!(read(bytes, BY_THE_BOOK).requests.len() == 1, sound, "{text}");
            assert_eq!(
                agree_as(bytes, BY_THE_BOOK).is_ok(),
                sound || text.contains("1000"),
                "{text}"
            );
        }
    }

    #[test]
    fn readers_disagree_about_what_smuggles_and_agree_about_what_does_not() {
        let rows: [(&[u8], bool); 6] = [
            (b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", true),
            (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nxy", true),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", true),
            (b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", false),
            (b"GET / HTTP/1.1\r\nA: b\n\nGET /b HTTP/1.1\r\n\r\n", false),
            (b"POST / HTTP/1.1\r\nContent-Length: 010\r\n\r\n0123456789GET /b HTTP/1.1\r\n", true),
        ];
        for (bytes, same) in rows {
            assert_eq!(agree(bytes).is_ok(), same, "{}", bytes.escape_ascii());
        }
    }
}
