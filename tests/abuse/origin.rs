//! The servers behind the edge: one that answers, and one whose every answer is broken in its own way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::data;
use crate::pages::{self, EVIL, NOBODY, Versions};

/// How long a hanging server hangs.
const HANGS: Duration = Duration::from_secs(4);

/// Fields that a site may take for its own address or its user's: those of strangers must not come here.
const REFLECTED: [&str; 14] = [
    "host",
    "x-forwarded-host",
    "x-forwarded-server",
    "x-forwarded-scheme",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method-override",
    "x-host",
    "x-real-ip",
    "true-client-ip",
    "forwarded",
];

/// A running origin.
pub(crate) struct Origin {
    /// Of the server that answers.
    pub(crate) well: SocketAddr,
    /// Of the broken one.
    pub(crate) broken: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    versions: Arc<Versions>,
    /// What broken servers say, in the words of the cases.
    says: Vec<Vec<u8>>,
    requests: AtomicUsize,
    unreadable: AtomicUsize,
}

impl Origin {
    pub(crate) fn start(versions: Arc<Versions>) -> Self {
        let says = data::load().into_iter().filter_map(|case| case.says);
        let shared = Arc::new(Shared {
            versions,
            says: says.map(|says| data::bytes(&says, 0)).collect(),
            requests: AtomicUsize::new(0),
            unreadable: AtomicUsize::new(0),
        });
        let well = listen(&shared, well);
        let broken = listen(&shared, broken);
        Self { well, broken, shared }
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Times that something else came than one request after the other.
    pub(crate) fn unreadable(&self) -> usize {
        self.shared.unreadable.load(Ordering::Relaxed)
    }
}

type Answer = fn(&mut TcpStream, &Request, &Shared) -> std::io::Result<bool>;

fn listen(shared: &Arc<Shared>, answer: Answer) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            let shared = Arc::clone(&shared);
            let serving = move || serve(stream, &shared, answer);
            // Two cores and many connections: none of them needs much of a stack.
            let _ = std::thread::Builder::new().stack_size(256 << 10).spawn(serving);
        }
    });
    address
}

fn serve(mut stream: TcpStream, shared: &Shared, answer: Answer) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(60)));
    let mut buffer = Vec::new();
    loop {
        match Request::read(&mut stream, &mut buffer) {
            Ok(Some(request)) => {
                shared.requests.fetch_add(1, Ordering::Relaxed);
                if !answer(&mut stream, &request, shared).unwrap_or(false) {
                    return;
                }
            }
            Ok(None) => return,
            Err(_) => {
                shared.unreadable.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// What came.
struct Request {
    method: String,
    target: String,
    /// Names in lower case.
    fields: Vec<(String, String)>,
    /// Whether a stranger's word was in its body.
    evil_body: bool,
}

/// It is no request.
struct Unreadable;

impl Request {
    /// The next one; `None` where the connection ends.
    fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Self>, Unreadable> {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break buffer.drain(..end + 4).collect::<Vec<u8>>();
            }
            if !more(stream, buffer) {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some("HTTP/1.1"), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Unreadable);
        };
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let mut request = Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: lines.filter_map(field).collect(),
            evil_body: false,
        };
        match request.body(stream, buffer)? {
            Some(evil) => request.evil_body = evil,
            None => return Ok(None),
        }
        Ok(Some(request))
    }

    /// Passes over the body; `None` where the connection ends within it.
    fn body(
        &self,
        stream: &mut TcpStream,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<bool>, Unreadable> {
        let mut evil = false;
        if self.field("transfer-encoding").is_some() {
            loop {
                let Some(line) = line(stream, buffer) else { return Ok(None) };
                let size = usize::from_str_radix(&line, 16).map_err(|_not_hex| Unreadable)?;
                let Some(found) = pass(stream, buffer, size + 2) else { return Ok(None) };
                evil |= found;
                if size == 0 {
                    return Ok(Some(evil));
                }
            }
        }
        let length = self.field("content-length").map_or(Ok(0), str::parse);
        Ok(pass(stream, buffer, length.map_err(|_no_number| Unreadable)?))
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Who asks, by cookie or token.
    fn user(&self) -> &str {
        let cookie = self.field("cookie").and_then(|text| text.strip_prefix("user="));
        let token = self.field("authorization").and_then(|text| text.strip_prefix("Bearer "));
        cookie.or(token).unwrap_or(NOBODY)
    }

    /// First and last byte of the one range that is asked for of a film.
    fn range(&self, length: usize) -> Option<(usize, usize)> {
        let film = self.method == "GET" && self.target.starts_with("/film/");
        let range = self.field("range")?.strip_prefix("bytes=")?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (film && first <= last && last < length).then_some((first, last))
    }

    /// Whether a site would be misled.
    fn evil(&self) -> bool {
        let reflected = |name: &str| REFLECTED.contains(&name);
        self.evil_body
            || self.fields.iter().any(|(name, value)| reflected(name) && value.contains(EVIL))
    }
}

fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    let mut space = [0; 16 * 1024];
    let read = stream.read(&mut space).unwrap_or(0);
    buffer.extend_from_slice(&space[..read]);
    read > 0
}

fn line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(2).position(|two| two == b"\r\n") {
            let line: Vec<u8> = buffer.drain(..end + 2).collect();
            return Some(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        if !more(stream, buffer) {
            return None;
        }
    }
}

/// Drops so many bytes, and says whether a stranger's word was among them.
fn pass(stream: &mut TcpStream, buffer: &mut Vec<u8>, mut bytes: usize) -> Option<bool> {
    let mut evil = false;
    while bytes > 0 {
        if buffer.is_empty() && !more(stream, buffer) {
            return None;
        }
        let part = bytes.min(buffer.len());
        let word = EVIL.as_bytes();
        evil |= buffer[..part].windows(word.len()).any(|some| some == word);
        drop(buffer.drain(..part));
        bytes -= part;
    }
    Some(evil)
}

/// Writes an answer; whether the connection goes on.
fn send(
    stream: &mut TcpStream,
    request: &Request,
    fields: &str,
    body: &[u8],
) -> std::io::Result<bool> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    let mut out = head.into_bytes();
    if request.method != "HEAD" {
        out.extend_from_slice(body);
    }
    stream.write_all(&out)?;
    Ok(true)
}

/// What may be done with a page of one's own, by its number: each forbids in another way that others see it.
fn personal(number: usize) -> &'static str {
    match number % 4 {
        0 => "Cache-Control: private, max-age=60\r\n",
        1 => "Cache-Control: no-store\r\n",
        2 => "Cache-Control: max-age=60\r\nVary: Cookie, Authorization\r\n",
        _ => "Cache-Control: max-age=60\r\nSet-Cookie: session=1\r\n",
    }
}

/// Pieces in which a huge page comes, and the time between two of them.
const PIECE: usize = 256 << 10;
const PAUSE: Duration = Duration::from_millis(50);

/// A page that takes its time.
fn huge(stream: &mut TcpStream, target: &str) -> std::io::Result<bool> {
    let length = pages::length(target);
    let fields = shared_fields(target, 0);
    stream.write_all(
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n").as_bytes(),
    )?;
    let piece = vec![b'x'; PIECE];
    for _ in 0..length / PIECE {
        stream.write_all(&piece)?;
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}

fn well(stream: &mut TcpStream, request: &Request, shared: &Shared) -> std::io::Result<bool> {
    let target = request.target.as_str();
    if target.starts_with("/huge/") && request.method == "GET" {
        return huge(stream, target);
    }
    let own = target.strip_prefix("/me/").map(|text| text.parse().unwrap_or(0));
    let user = if own.is_some() { request.user() } else { NOBODY };
    let host = request.field("host").unwrap_or_default();
    let version = shared.versions.of(target);
    let body = pages::body(host, target, user, version, request.evil());
    if own.is_none()
        && let Some((first, last)) = request.range(body.len())
    {
        return part(stream, request, &body, first, last);
    }
    let fields = match (own, target) {
        (Some(number), _) => personal(number).to_owned(),
        (None, target) if target.starts_with("/once/") => "Cache-Control: no-store\r\n".to_owned(),
        (None, target) => shared_fields(target, version),
    };
    send(stream, request, &fields, &body)
}

/// Of a page that may be shared.
fn shared_fields(target: &str, version: u64) -> String {
    let tag = target.split('/').nth(1).filter(|kind| !kind.is_empty()).unwrap_or("top");
    format!("Cache-Control: max-age=3600\r\nETag: \"{version}\"\r\nSurrogate-Key: {tag}\r\n")
}

/// A part of one: there are servers who send it, and servers who do not.
fn part(
    stream: &mut TcpStream,
    request: &Request,
    body: &[u8],
    first: usize,
    last: usize,
) -> std::io::Result<bool> {
    let (length, own) = (body.len(), &body[first..=last]);
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\n\
         Content-Range: bytes {first}-{last}/{length}\r\n{}\r\n",
        own.len(),
        shared_fields(&request.target, 0),
    );
    let mut out = head.into_bytes();
    if request.method != "HEAD" {
        out.extend_from_slice(own);
    }
    stream.write_all(&out)?;
    Ok(true)
}

/// Ends a connection by RST.
pub(crate) fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn broken(stream: &mut TcpStream, request: &Request, shared: &Shared) -> std::io::Result<bool> {
    let mut parts = request.target.split('/').skip(2);
    let kind = parts.next().unwrap_or_default();
    let number: usize = parts.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    const KEPT: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
    let say = |stream: &mut TcpStream, text: &str| stream.write_all(text.as_bytes());
    match kind {
        "hold" => hang(stream, HANGS),
        "late" => {
            hang(stream, HANGS / 4);
            return send(stream, request, "Cache-Control: max-age=60\r\n", b"late");
        }
        "cut" => say(stream, &format!("{KEPT}Content-Length: 100000\r\n\r\n{}", "x".repeat(5000)))?,
        "chunks" => {
            say(stream, &format!("{KEPT}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe"))?
        }
        "reset" => {
            say(stream, &format!("{KEPT}\r\n{}", "x".repeat(5000)))?;
            reset(stream);
        }
        "error" => say(stream, "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno")?,
        "head" => say(stream, &format!("{KEPT}X: {}\r\n\r\n", "x".repeat(1 << 20)))?,
        "fields" => say(stream, &format!("{KEPT}{}\r\n", "X: y\r\n".repeat(10_000)))?,
        "interim" => say(stream, &"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000))?,
        "drip" => {
            say(stream, &format!("{KEPT}Content-Length: 1000000\r\n\r\n"))?;
            let begun = Instant::now();
            while begun.elapsed() < HANGS {
                say(stream, "x")?;
                hang(stream, Duration::from_millis(200));
            }
        }
        "endless" => {
            say(stream, &format!("{KEPT}Transfer-Encoding: chunked\r\n\r\n"))?;
            for _ in 0..32 {
                say(stream, &format!("20000\r\n{}\r\n", "x".repeat(0x20000)))?;
            }
        }
        "says" => {
            if let Some(says) = shared.says.get(number % shared.says.len().max(1)) {
                stream.write_all(says)?;
            }
        }
        _ => return send(stream, request, "Cache-Control: max-age=60\r\n", b"well for once"),
    }
    Ok(false)
}

/// Says nothing for a while, or until the other side is gone.
fn hang(stream: &mut TcpStream, time: Duration) {
    let _ = stream.set_read_timeout(Some(time));
    let mut byte = [0; 1];
    let _ = stream.read(&mut byte);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
}
