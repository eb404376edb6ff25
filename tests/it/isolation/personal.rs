//! The origin of the isolation story: every answer is somebody's and says so, or is everybody's.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Users.
pub(super) const USERS: usize = 100;
/// `Last-Modified` of everything.
pub(super) const MODIFIED: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

/// Whether the origin marks what is personal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Play {
    /// It does.
    Fair,
    /// It calls everything public.
    False,
}

/// Draws from a seed (SplitMix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// A path, one of few, so that users meet.
    pub(super) fn path(&mut self) -> String {
        let folder = ["", "/kept", "/lent", "/asked"][self.below(4)];
        format!("{folder}/{}", self.below(6))
    }
}

/// What marks a user: `N`, sixteen hexadecimal digits, `N`.
pub(super) fn nonce(seed: u64, user: usize) -> String {
    format!("N{:016x}N", Dice(seed ^ user as u64).next())
}

/// All that look like nonces.
pub(super) fn nonces(text: &[u8]) -> Vec<String> {
    let is_nonce = |window: &&[u8]| match window {
        [b'N', digits @ .., b'N'] => digits.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    };
    let found = text.windows(18).filter(is_nonce);
    found.map(|window| String::from_utf8_lossy(window).into_owned()).collect()
}

/// Starts it on a thread that all of them share.
pub(super) fn start(seed: u64, play: Play) -> SocketAddr {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("personal").enable_all().build().unwrap()
    });
    let _entered = runtime.enter();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let _ = serve(stream, &count, seed, play).await;
            });
        }
    });
    address
}

async fn serve(
    mut stream: TcpStream,
    count: &AtomicU64,
    seed: u64,
    play: Play,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let number = count.fetch_add(1, Ordering::Relaxed);
        let mut dice = Dice(seed.rotate_left(17) ^ number);
        if dice.one_in(4) {
            tokio::time::sleep(Duration::from_micros(200 + 100 * dice.below(20) as u64)).await;
        }
        let (answer, whole) = answer(&head, &mut dice, seed, play);
        stream.write_all(&answer).await?;
        if !whole {
            return stream.shutdown().await;
        }
    }
}

/// What is asked, as far as the origin cares.
struct Question<'a> {
    method: &'a str,
    own: String,
    none_match: &'a str,
    range: Option<(usize, usize)>,
    authorized: bool,
}

impl<'a> Question<'a> {
    fn read(head: &'a str, seed: u64) -> Self {
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .find_map(|(own, value)| own.eq_ignore_ascii_case(name).then_some(value))
        };
        let user = field("x-user").and_then(|user| user.parse().ok()).expect("a user");
        let range = field("range").and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        Self {
            method: head.split(' ').next().unwrap_or_default(),
            own: nonce(seed, user),
            none_match: field("if-none-match").unwrap_or_default(),
            // What has a condition, an If-Range too, gets the whole from this origin.
            range: range.filter(|_| field("if-range").is_none()),
            authorized: field("authorization").is_some(),
        }
    }
}

/// One answer: status, fields, and whether body and validators are the user's own.
struct Answer {
    status: u16,
    fields: String,
    personal: bool,
    /// The user's nonce is in a field of its own.
    nonce_field: bool,
}

/// The ways to say that an answer is one user's.
///
/// Silence and `no-cache` say so only of an answer that has a validator of its own: a 304 without a
/// word, or with `no-cache`, allows to keep its fields beside the body that it confirms.
fn personal_fields(question: &Question<'_>, confirms: bool, dice: &mut Dice) -> String {
    let own = &question.own;
    let age = dice.below(100);
    let lines: &[String] = &[
        "X-Silence: about freshness".to_owned(),
        "Cache-Control: no-cache".to_owned(),
        "Cache-Control: private, max-age=60".to_owned(),
        "Cache-Control: max-age=60, PRIVATE".to_owned(),
        "Cache-Control: public, max-age=60\r\nCache-Control: private".to_owned(),
        "Cache-Control: no-store".to_owned(),
        "Cache-Control: s-maxage=60, no-store".to_owned(),
        "Cache-Control: no-store, max-age=60; foo".to_owned(),
        format!("Cache-Control: max-age=60\r\nSet-Cookie: s={own}"),
        format!("Cache-Control: public, s-maxage=60\r\nAge: {age}\r\nSet-Cookie: s={own}"),
        "Cache-Control: max-age=60\r\nVary: X-User".to_owned(),
        format!(
            "Cache-Control: max-age=60, stale-while-revalidate=60\r\nAge: {age}\r\nVary: x-user"
        ),
        "Cache-Control: public, max-age=60\r\nVary: Accept-Encoding, X-User".to_owned(),
        "Cache-Control: public, max-age=60\r\nVary: Accept-Encoding\r\nVary: *".to_owned(),
        "Cache-Control: public, max-age=60\r\nCDN-Cache-Control: private".to_owned(),
        "Cache-Control: public, max-age=60\r\nCDN-Cache-Control: max-age=60, no-store".to_owned(),
        "Cache-Control: max-age=60\r\nAtoll-Cache-Control: private".to_owned(),
        "Cache-Control: max-age=60".to_owned(),
    ];
    let first = if confirms { 2 } else { 0 };
    // The last speaks only where the request has `Authorization` (RFC 9111 section 3.5).
    let end = lines.len() - usize::from(!question.authorized);
    lines[first + dice.below(end - first)].clone()
}

/// The ways to say that an answer is everybody's; a nonce may stand in a field that is withheld.
fn shared_fields(dice: &mut Dice) -> (&'static str, bool) {
    const LINES: [(&str, bool); 9] = [
        ("Cache-Control: public, max-age=60", false),
        ("Cache-Control: s-maxage=60\r\nSurrogate-Key: t1", false),
        ("Cache-Control: public, max-age=60\r\nAge: 60", false),
        ("Cache-Control: public, max-age=60, stale-while-revalidate=60\r\nAge: 70", false),
        ("Cache-Control: public, max-age=60, stale-if-error=60\r\nAge: 70", false),
        ("Cache-Control: public, max-age=60\r\nVary: Accept-Encoding", false),
        ("Cache-Control: public, max-age=60, no-cache=\"X-Nonce\"", true),
        ("Cache-Control: public, max-age=60, private=\"foo, x-nonce\"", true),
        ("Cache-Control: public, max-age=60\r\nConnection: x-nonce", true),
    ];
    LINES[dice.below(LINES.len())]
}

fn draw(question: &Question<'_>, dice: &mut Dice, play: Play) -> Answer {
    if dice.one_in(40) {
        let fields = "Cache-Control: no-store".to_owned();
        return Answer { status: 503, fields, personal: true, nonce_field: true };
    }
    if question.method == "POST" || dice.one_in(2) {
        // A confirmation may bring something personal beside it, if it says so.
        let confirms = question.none_match.contains("\"shared\"") && dice.one_in(2)
            || question.none_match.contains(&question.own);
        let mut fields = personal_fields(question, confirms, dice);
        if play == Play::False {
            fields = "Cache-Control: public, max-age=60".to_owned();
        }
        let status = if confirms { 304 } else { 200 };
        return Answer { status, fields, personal: true, nonce_field: true };
    }
    let (fields, nonce_field) = shared_fields(dice);
    let status = if question.none_match.contains("\"shared\"") { 304 } else { 200 };
    Answer { status, fields: fields.to_owned(), personal: false, nonce_field }
}

/// The bytes of an answer, and whether the connection goes on after them.
fn answer(head: &str, dice: &mut Dice, seed: u64, play: Play) -> (Vec<u8>, bool) {
    let question = Question::read(head, seed);
    let own = &question.own;
    let mut answer = draw(&question, dice, play);
    let word = if answer.personal { own.as_str() } else { "for-everybody-----" };
    let body: String = (0..12).map(|line| format!("{line:02} {word}\n")).collect();
    let mut out = String::new();
    if answer.personal && dice.one_in(10) {
        let _ = write!(out, "HTTP/1.1 103 Early\r\nLink: </{own}>; rel=preload\r\n\r\n");
    }
    let mut part = body.as_str();
    let mut content_range = String::new();
    if let (200, "GET", Some((first, last))) = (answer.status, question.method, question.range)
        && first <= last
        && first < body.len()
    {
        let last = last.min(body.len() - 1);
        answer.status = 206;
        part = &body[first..=last];
        content_range = format!("Content-Range: bytes {first}-{last}/{}\r\n", body.len());
    }
    let named = answer.status != 304 || question.none_match.contains(own);
    let tag = if answer.personal && named { own.as_str() } else { "shared" };
    let _ =
        write!(out, "HTTP/1.1 {} Played\r\n{}\r\n{content_range}", answer.status, answer.fields);
    if answer.status != 200 || !dice.one_in(3) {
        let _ = write!(out, "ETag: \"{tag}\"\r\nLast-Modified: {MODIFIED}\r\n");
    }
    if answer.nonce_field {
        let _ = write!(out, "X-Nonce: {own}\r\n");
    }
    let bodiless = answer.status == 304 || question.method == "HEAD";
    let chunked = dice.one_in(3);
    let broken = !bodiless && dice.one_in(60);
    if answer.status == 304 {
        out.push_str("\r\n");
    } else if chunked {
        out.push_str("Transfer-Encoding: chunked\r\n\r\n");
    } else {
        let _ = write!(out, "Content-Length: {}\r\n\r\n", part.len());
    }
    if !bodiless && chunked {
        let _ = write!(out, "{:x}\r\n{part}\r\n", part.len());
        out.push_str(if broken { "" } else { "0\r\n\r\n" });
    } else if !bodiless {
        out.push_str(if broken { &part[..part.len() / 2] } else { part });
    }
    (out.into_bytes(), !broken)
}
