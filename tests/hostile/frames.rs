//! HTTP/2 frames written by hand, and as much reading of them as it takes to see what came of it.
//!
//! A step is one or more of these, `;` between them, with `COUNT x` before to repeat it:
//!
//! ```text
//! get PATH, open PATH      a request on the next stream, ended or not
//! more FLAGS NAME=VALUE    the same with these fields behind; `|` between them
//! fields FLAGS NAME=VALUE  HEADERS on the next stream with exactly these fields
//! last FLAGS NAME=VALUE    HEADERS on the last stream
//! next FLAGS NAME=VALUE    CONTINUATION on the last stream
//! block FLAGS BYTES        HEADERS on the next stream with these bytes for a field block
//! frame TYPE FLAGS STREAM BYTES
//! data FLAGS BYTES         DATA on the last stream
//! reset, window STREAM N, ping, settings KEY=VALUE, selfish
//! bytes BYTES              as they are
//! pause MILLISECONDS
//! ```
//!
//! FLAGS are `s` (END_STREAM), `h` (END_HEADERS), `p` (PADDED) or `-`; STREAM may be `last`.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection};

use crate::data;
use crate::wire::{self, End};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a step puts on the wire.
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    Pause(Duration),
}

/// Writes frames, and knows which stream comes next.
pub(crate) struct Writer {
    stream: u32,
    number: u32,
}

impl Writer {
    pub(crate) fn new(number: u32) -> Self {
        Self { stream: 0, number }
    }

    /// The last stream that was opened.
    pub(crate) fn last(&self) -> u32 {
        self.stream * 2 - 1
    }

    /// The same, or 0.
    pub(crate) fn last_or_zero(&self) -> u32 {
        (self.stream * 2).saturating_sub(1)
    }

    /// What comes first: the preface, and settings by which answers are written without memory.
    pub(crate) fn hello() -> Vec<u8> {
        let mut out = PREFACE.to_vec();
        out.extend(frame(4, 0, 0, &[0, 1, 0, 0, 0, 0]));
        out
    }

    /// The pieces of one step, made as they are asked for.
    pub(crate) fn step(&mut self, text: &str) -> Vec<Piece> {
        let (count, frames) = match text.split_once(" x ") {
            Some((count, frames)) if count.bytes().all(|byte| byte.is_ascii_digit()) => {
                (count.parse().unwrap(), frames)
            }
            _ => (1_usize, text),
        };
        let mut pieces = Vec::new();
        let mut bytes = Vec::new();
        for _ in 0..count {
            for word in frames.split(" ; ") {
                if let Some(pause) = word.strip_prefix("pause ") {
                    pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                    pieces.push(Piece::Pause(Duration::from_millis(pause.parse().unwrap())));
                } else {
                    bytes.extend(self.frame(word));
                }
            }
        }
        pieces.push(Piece::Bytes(bytes));
        pieces
    }

    fn frame(&mut self, text: &str) -> Vec<u8> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (first, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "get" => self.request(5, &usual("GET", rest)),
            "open" => self.request(4, &usual("POST", rest)),
            "more" => self.request(flags(first), &format!("{}|{tail}", usual("GET", "/a{u}"))),
            "fields" => self.request(flags(first), tail),
            "last" => frame(1, flags(first), self.last(), &self.block(tail)),
            "next" => frame(9, flags(first), self.last(), &self.block(tail)),
            "block" => {
                self.stream += 1;
                frame(1, flags(first), self.last(), &data::bytes(tail, self.number))
            }
            "frame" => {
                let words: Vec<&str> = rest.splitn(4, ' ').collect();
                let stream =
                    if words[2] == "last" { self.last() } else { words[2].parse().unwrap() };
                let payload = data::bytes(words.get(3).unwrap_or(&""), self.number);
                frame(words[0].parse().unwrap(), words[1].parse().unwrap(), stream, &payload)
            }
            "data" => frame(0, flags(first), self.last(), &data::bytes(tail, self.number)),
            "reset" => frame(3, 0, self.last(), &8_u32.to_be_bytes()),
            "window" => {
                let stream = if first == "last" { self.last() } else { first.parse().unwrap() };
                frame(8, 0, stream, &tail.parse::<u32>().unwrap().to_be_bytes())
            }
            "ping" => frame(6, 0, 0, b"12345678"),
            "settings" => {
                let (key, value) = rest.split_once('=').unwrap();
                let mut payload = key.parse::<u16>().unwrap().to_be_bytes().to_vec();
                payload.extend(value.parse::<u32>().unwrap().to_be_bytes());
                frame(4, 0, 0, &payload)
            }
            "selfish" => {
                let mut payload = self.last().to_be_bytes().to_vec();
                payload.push(0);
                frame(2, 0, self.last(), &payload)
            }
            "bytes" => data::bytes(rest, self.number),
            other => panic!("{other} is no step"),
        }
    }

    fn request(&mut self, flags: u8, fields: &str) -> Vec<u8> {
        self.stream += 1;
        frame(1, flags, self.last(), &self.block(fields))
    }

    /// A field block of literals that nobody remembers.
    fn block(&self, fields: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for field in fields.split('|').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap();
            out.push(0);
            for text in [name, value] {
                let bytes = data::bytes(text, self.number);
                length(bytes.len(), &mut out);
                out.extend(bytes);
            }
        }
        out
    }
}

fn usual(method: &str, path: &str) -> String {
    format!(":method={method}|:scheme=https|:authority=h|:path={path}")
}

fn flags(text: &str) -> u8 {
    let bit = |letter| match letter {
        's' => 1,
        'h' => 4,
        'p' => 8,
        '-' => 0,
        other => panic!("{other} is no flag"),
    };
    text.chars().map(bit).sum()
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1), without Huffman coding.
fn length(mut number: usize, out: &mut Vec<u8>) {
    if number < 127 {
        return out.push(number as u8);
    }
    out.push(127);
    number -= 127;
    while number >= 128 {
        out.push((number % 128) as u8 | 128);
        number /= 128;
    }
    out.push(number as u8);
}

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// What the other side has said.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) goaway: Option<u32>,
    pub(crate) resets: BTreeMap<u32, u32>,
    pub(crate) statuses: BTreeMap<u32, u16>,
    pub(crate) pongs: u32,
}

/// A connection over TLS that is written to and read from in turns.
pub(crate) struct Frames {
    tls: ClientConnection,
    socket: TcpStream,
    read: Vec<u8>,
    pub(crate) heard: Heard,
    pub(crate) end: Option<End>,
    /// When the word of leaving came, and when the end.
    told: Option<Instant>,
    pub(crate) lingered: Duration,
}

impl Frames {
    pub(crate) fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        Self::on(TcpStream::connect(address)?, config)
    }

    /// Over this socket.
    pub(crate) fn on(socket: TcpStream, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(wire::PATIENCE))?;
        let stream = wire::handshake(config, socket)?;
        let (tls, socket) = (stream.conn, stream.sock);
        socket.set_nonblocking(true)?;
        Ok(Self {
            tls,
            socket,
            read: Vec::new(),
            heard: Heard::default(),
            end: None,
            told: None,
            lingered: Duration::ZERO,
        })
    }

    /// Sends all of it unless the connection ends first or nothing moves for two seconds. A deaf
    /// one reads nothing meanwhile.
    pub(crate) fn send(&mut self, mut bytes: &[u8], deaf: bool) {
        let mut moved = Instant::now();
        while !bytes.is_empty() || self.tls.wants_write() {
            let taken = self.tls.writer().write(bytes).unwrap_or(0);
            bytes = &bytes[taken..];
            let progress = self.write() | (!deaf && self.take());
            if self.end.is_some() || moved.elapsed() > Duration::from_secs(2) {
                return;
            } else if taken > 0 || progress {
                moved = Instant::now();
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Reads until that holds or the connection has ended; whether it does.
    pub(crate) fn until(&mut self, patience: Duration, holds: impl Fn(&Heard) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !holds(&self.heard) && self.end.is_none() && Instant::now() < deadline {
            if !(self.write() | self.take()) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        holds(&self.heard)
    }

    fn write(&mut self) -> bool {
        let mut moved = false;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // What was said before is still there to be read.
                Err(_) => {
                    self.take();
                    self.ended(End::Reset);
                    break;
                }
            }
        }
        moved
    }

    fn take(&mut self) -> bool {
        if self.end == Some(End::Fin) {
            return false;
        }
        match self.tls.read_tls(&mut self.socket) {
            Ok(0) => self.ended(End::Fin),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(_) => self.ended(End::Reset),
        }
        if self.tls.process_new_packets().is_err() {
            self.ended(End::Reset);
        }
        let mut space = [0; 16 * 1024];
        while let Ok(read @ 1..) = self.tls.reader().read(&mut space) {
            self.read.extend_from_slice(&space[..read]);
        }
        self.hear();
        true
    }

    fn ended(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            self.lingered = self.told.map_or(Duration::ZERO, |told| told.elapsed());
        }
    }

    fn hear(&mut self) {
        while let Some(head) = self.read.get(..9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            if self.read.len() < 9 + length {
                return;
            }
            let payload: Vec<u8> = self.read.drain(..9 + length).skip(9).collect();
            let word = |at: usize| {
                payload
                    .get(at..at + 4)
                    .map_or(0, |four| u32::from_be_bytes(four.try_into().unwrap()))
            };
            match kind {
                1 => drop(self.heard.statuses.insert(stream, status(&payload))),
                3 => drop(self.heard.resets.insert(stream, word(0))),
                6 if flags & 1 != 0 => self.heard.pongs += 1,
                // The first of a graceful end says nothing yet.
                7 if word(4) != 0 || word(0) != 0x7fff_ffff => {
                    self.heard.goaway = Some(word(4));
                    self.told.get_or_insert_with(Instant::now);
                }
                _ => {}
            }
        }
    }
}

/// The status at the start of a field block: an index, or a literal with the name's.
fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [first @ 0x88..=0x8e, ..] => INDEXED[usize::from(first - 0x88)],
        [0x08 | 0x18 | 0x48, 3, digits @ ..] => {
            str::from_utf8(&digits[..3]).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
        }
        [0x08 | 0x18 | 0x48, length, coded @ ..] if *length > 0x80 => {
            digits(&coded[..usize::from(length & 0x7f)])
        }
        // A change of the table's size comes before.
        [0x3f, rest @ ..] => {
            let bytes = rest.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
            status(&rest[bytes..])
        }
        [size, rest @ ..] if size & 0xe0 == 0x20 => status(rest),
        _ => 0,
    }
}

/// Three digits in the Huffman code: `0` to `2` have five bits, the others six.
fn digits(coded: &[u8]) -> u16 {
    let bits: Vec<u8> =
        coded.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let mut at = 0;
    let mut number = 0;
    for _ in 0..3 {
        let value = |count: usize| {
            bits.get(at..at + count)
                .map_or(0, |bits| bits.iter().fold(0, |sum, bit| sum * 2 + u16::from(*bit)))
        };
        let (digit, count) = if value(5) < 3 { (value(5), 5) } else { (value(6) - 22, 6) };
        number = number * 10 + digit;
        at += count;
    }
    number
}

#[test]
fn statuses_are_read() {
    let rows: [(&[u8], u16); 5] = [
        (&[0x20, 0x3f, 0xe1, 0xff, 0x03, 0x88], 200),
        (&[0x88], 200),
        (&[0x48, 3, b'4', b'2', b'1'], 421),
        // 431: 011010 011001 00001
        (&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111], 431),
        (&[0x20, 0x8c], 400),
    ];
    for (block, expected) in rows {
        assert_eq!(status(block), expected, "{block:?}");
    }
}
