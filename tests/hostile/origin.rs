//! An origin that records every byte and answers each request with what it understood of it; those
//! for `/hold` and what follows never.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::reader::{self, BY_THE_BOOK, Habits, STRICT, Seen};

/// A running origin. Its threads end with their connections.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    connections: Vec<Recorded>,
    scripts: HashMap<String, Script>,
    /// Requests understood on all connections, in the order of their ends.
    requests: Vec<(usize, Seen)>,
}

/// What to say to one target instead of the usual.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) says: Vec<u8>,
    /// As soon as the head is there.
    pub(crate) early: bool,
    /// FIN behind it.
    pub(crate) closes: bool,
}

#[derive(Default)]
struct Recorded {
    bytes: Vec<u8>,
    understood: usize,
    fault: Option<&'static str>,
    closed: bool,
}

/// A moment in the record.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    requests: usize,
    /// Unfinished bytes per connection.
    open: Vec<usize>,
    /// Understood bytes per connection, and all of them.
    understood: Vec<(usize, usize)>,
}

/// What has come since a mark.
#[derive(Debug)]
pub(crate) struct Since {
    pub(crate) requests: Vec<(usize, Seen)>,
    /// Bytes that are no whole request: connection, bytes, whether it has been closed.
    pub(crate) unfinished: Vec<(usize, String, bool)>,
    pub(crate) faults: Vec<&'static str>,
}

impl Origin {
    /// One on a free port, or on the one that `ORIGIN` names.
    pub(crate) fn start() -> Self {
        let place = std::env::var("ORIGIN").ok().and_then(|text| text.parse().ok());
        let place = place.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let listener = TcpListener::bind(place).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = {
                    let mut state = shared.0.lock().unwrap();
                    state.connections.push(Recorded::default());
                    state.connections.len() - 1
                };
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, number, &shared));
            }
        });
        Self { address, state }
    }

    /// Says something else to a target.
    pub(crate) fn script(&self, target: &str, script: Script) {
        self.state.0.lock().unwrap().scripts.insert(target.to_owned(), script);
    }

    pub(crate) fn mark(&self) -> Mark {
        let state = self.state.0.lock().unwrap();
        let open = state.connections.iter().map(|own| own.bytes.len() - own.understood).collect();
        let understood =
            state.connections.iter().map(|own| (own.understood, own.bytes.len())).collect();
        Mark { requests: state.requests.len(), open, understood }
    }

    pub(crate) fn since(&self, mark: &Mark) -> Since {
        let state = self.state.0.lock().unwrap();
        let requests = state.requests.get(mark.requests..).unwrap_or_default().to_vec();
        let mut unfinished = Vec::new();
        let mut faults = Vec::new();
        for (number, own) in state.connections.iter().enumerate() {
            let open = &own.bytes[own.understood..];
            if open.len() > mark.open.get(number).copied().unwrap_or(0) {
                unfinished.push((number, open.escape_ascii().to_string(), own.closed));
                faults.extend(own.fault);
            }
        }
        Since { requests, unfinished, faults }
    }

    /// Whether all readers understand all that came since a mark in the same way, what has no end or none
    /// of them can read included.
    pub(crate) fn agree_since(&self, mark: &Mark) -> Result<(), String> {
        let state = self.state.0.lock().unwrap();
        state.connections.iter().enumerate().try_for_each(|(number, own)| {
            let (from, all) = mark.understood.get(number).copied().unwrap_or_default();
            let new = own.bytes.len() > all;
            if new { reader::agree_as(&own.bytes[from..], habits()) } else { Ok(()) }
        })
    }

    /// Waits until these connections have been closed by the other side.
    pub(crate) fn closed(&self, connections: &[usize], patience: Duration) -> bool {
        let (lock, changed) = &*self.state;
        let open =
            |state: &mut State| !connections.iter().all(|own| state.connections[*own].closed);
        let state = lock.lock().unwrap();
        !changed.wait_timeout_while(state, patience, open).unwrap().1.timed_out()
    }

    /// Whether all readers understand all that ever came in the same way.
    pub(crate) fn agree(&self) -> Result<(), String> {
        let state = self.state.0.lock().unwrap();
        state.connections.iter().try_for_each(|own| reader::agree(&own.bytes[..own.understood]))
    }
}

fn serve(mut stream: TcpStream, number: usize, shared: &(Mutex<State>, Condvar)) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; 64 * 1024];
    // Answers that went out before the end of their requests.
    let mut early = 0;
    loop {
        let read = stream.read(&mut buffer).unwrap_or(0);
        let mut out = Vec::new();
        let mut closes = false;
        {
            let mut state = shared.0.lock().unwrap();
            if read == 0 {
                state.connections[number].closed = true;
                shared.1.notify_all();
                return;
            }
            let own = &mut state.connections[number];
            own.bytes.extend_from_slice(&buffer[..read]);
            let open = &own.bytes[own.understood..];
            let reading = reader::read(open, habits());
            let target = target_of(&open[reading.bytes..]);
            own.understood += reading.bytes;
            own.fault = reading.fault;
            let fault = reading.fault.is_some();
            for seen in reading.requests {
                if early > 0 {
                    early -= 1;
                } else if !seen.target.starts_with("/hold") {
                    closes |= answer(&seen, &state.scripts, &mut out);
                }
                state.requests.push((number, seen));
            }
            let script = target.and_then(|target| state.scripts.get(&target));
            if let Some(script) = script.filter(|script| script.early && early == 0) {
                out.extend(&script.says);
                closes |= script.closes;
                early += 1;
            }
            if fault {
                out.extend(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                );
                closes = true;
            }
            shared.1.notify_all();
        }
        if stream.write_all(&out).is_ok() && closes {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }
}

/// What is read here: other servers may hand on what atoll would not.
fn habits() -> Habits {
    if std::env::var_os("PEER").is_some() { BY_THE_BOOK } else { STRICT }
}

/// Target of a request whose head is whole and whose body is not.
fn target_of(open: &[u8]) -> Option<String> {
    let head = open.get(..reader::head_bytes(open)?)?;
    head.split(|byte| *byte == b' ').nth(1).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// Writes the answer to a request; whether the connection ends behind it.
fn answer(seen: &Seen, scripts: &HashMap<String, Script>, out: &mut Vec<u8>) -> bool {
    if let Some(script) = scripts.get(&seen.target) {
        out.extend(&script.says);
        return script.closes;
    }
    let body = echo(seen);
    let length = body.len();
    let _ = write!(
        out,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: max-age=600\r\n\r\n"
    );
    if seen.method != "HEAD" {
        out.extend(body.bytes());
    }
    false
}

/// Body of the answer to a request.
fn echo(seen: &Seen) -> String {
    let nonce = seen.values("x-nonce").next().unwrap_or(b"-");
    format!("{} {}", String::from_utf8_lossy(nonce), seen.line())
}
