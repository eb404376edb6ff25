//! Connections that ask one thing at a time, HTTP/1.1 in plain, without a thread or timer of their own.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::Failure;

/// What came of a request.
pub struct Outcome {
    /// When it should have been sent.
    pub due: Instant,
    /// 0 where the connection ended instead.
    pub status: u16,
}

/// A number of connections to one address.
pub struct Crowd {
    to: SocketAddr,
    poll: Poll,
    events: Events,
    wires: Vec<Wire>,
    idle: Vec<usize>,
}

impl Crowd {
    pub fn open(to: SocketAddr, connections: usize) -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let wires = (0..connections)
            .map(|place| Wire::open(to, &poll, place))
            .collect::<Result<Vec<_>, _>>()?;
        let idle = (0..connections).collect();
        Ok(Self { to, poll, events: Events::with_capacity(256), wires, idle })
    }

    /// Whether a connection is free.
    pub fn is_free(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Whether all answers are there.
    pub fn is_quiet(&self) -> bool {
        self.idle.len() == self.wires.len()
    }

    /// Sends a request over a free connection.
    pub fn ask(&mut self, request: &[u8], due: Instant) -> Result<(), Failure> {
        let place = self.idle.pop().ok_or("no connection is free")?;
        let wire = self.wires.get_mut(place).ok_or("no such connection")?;
        wire.due = Some(due);
        // A request that a fresh socket does not take whole is lost with its connection, and told.
        if wire.stream.write(request).ok() != Some(request.len()) {
            wire.stream.shutdown(std::net::Shutdown::Both)?;
        }
        Ok(())
    }

    /// Takes what has arrived; waits for it up to `timeout`, or for as long as it takes.
    pub fn turn(
        &mut self,
        timeout: Option<Duration>,
        mut heard: impl FnMut(Outcome),
    ) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            let Token(place) = event.token();
            let Some(wire) = self.wires.get_mut(place) else { continue };
            let status = match wire.read() {
                Progress::Owed => continue,
                Progress::Answered(status) => status,
                Progress::Ended => {
                    let due = wire.due.take();
                    *wire = Wire::open(self.to, &self.poll, place)?;
                    wire.due = due;
                    0
                }
            };
            // An idle connection that the server ended has only been opened anew.
            if let Some(due) = wire.due.take() {
                self.idle.push(place);
                heard(Outcome { due, status });
            }
        }
        Ok(())
    }
}

enum Progress {
    Owed,
    Answered(u16),
    Ended,
}

struct Wire {
    stream: TcpStream,
    /// When the request under way should have been sent.
    due: Option<Instant>,
    head: Vec<u8>,
    /// Status, and bytes of the body that have not come.
    body: Option<(u16, usize)>,
}

impl Wire {
    fn open(to: SocketAddr, poll: &Poll, place: usize) -> Result<Self, Failure> {
        let stream = std::net::TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(place), Interest::READABLE)?;
        Ok(Self { stream, due: None, head: Vec::new(), body: None })
    }

    fn read(&mut self) -> Progress {
        let mut bytes = [0; 65536];
        let mut answered = None;
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return answered.map_or(Progress::Ended, Progress::Answered),
                Ok(read) => match self.take(bytes.get(..read).unwrap_or_default()) {
                    Ok(None) => {}
                    Ok(Some(status)) => answered = Some(status),
                    Err(_) => return Progress::Ended,
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return answered.map_or(Progress::Owed, Progress::Answered);
                }
                Err(_) => return Progress::Ended,
            }
        }
    }

    /// Takes bytes of an answer; its status once it is whole.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<u16>, Failure> {
        let (status, owed) = match self.body {
            Some((status, owed)) => (status, owed.checked_sub(bytes.len()).ok_or("too long")?),
            None => {
                self.head.extend_from_slice(bytes);
                let Some((status, head, body)) = measure(&self.head)? else {
                    return Ok(None);
                };
                (status, (head + body).checked_sub(self.head.len()).ok_or("too long")?)
            }
        };
        self.body = (owed > 0).then_some((status, owed));
        if owed > 0 {
            return Ok(None);
        }
        self.head.clear();
        Ok(Some(status))
    }
}

/// Status, length of the head and of the body, once the head is whole.
fn measure(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>, Failure> {
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut lines);
    let httparse::Status::Complete(head) = response.parse(bytes)? else {
        return Ok(None);
    };
    let length = response
        .headers
        .iter()
        .find(|line| line.name.eq_ignore_ascii_case("content-length"))
        .ok_or("an answer without Content-Length")?;
    let length = std::str::from_utf8(length.value)?.trim().parse()?;
    Ok(Some((response.code.ok_or("an answer without a status")?, head, length)))
}
