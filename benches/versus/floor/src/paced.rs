//! `floor paced`: requests at fixed moments, however long the answers take.
//!
//! The latency of a request counts from the moment at which it was due, not from when a connection
//! was free for it: a server that stands still for 100 ms makes all of that time's requests late, and
//! a generator that waited for it would report one of them. The loop never sleeps, since a timer of a
//! millisecond is coarser than what is measured, so it needs a core of its own.
//!
//! With `--aside-to` further requests go to another address (or to the same) at a rate of their own:
//! they disturb, and are counted apart.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::arguments::Arguments;
use crate::crowd::{Crowd, Outcome};
use crate::fill;

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let seconds: f64 = arguments.need("seconds")?;
    let path: String = arguments.need("path")?;
    let keys: u64 = arguments.or("keys", 1)?;
    let mut main = Stream::open(
        arguments.need("to")?,
        arguments.or("connections", 64)?,
        arguments.need("rate")?,
        move |number| fill::request(&path, spread(number, keys)),
    )?;
    let mut aside =
        arguments.find::<SocketAddr>("aside-to")?.map(|to| beside(arguments, to)).transpose()?;
    let began = Instant::now();
    main.run_with(aside.as_mut(), began, Duration::from_secs_f64(seconds))?;
    println!("{{{}, \"aside\": {{{}}}}}", main.told(), aside.map_or(String::new(), |a| a.told()));
    Ok(())
}

/// Requests that disturb: a GET of `--aside-path`, or with `--aside-body` a POST with a token. `{}`
/// is a number that is never used twice.
fn beside(arguments: &Arguments, to: SocketAddr) -> Result<Stream, Failure> {
    let path: String = arguments.need("aside-path")?;
    let token: String = arguments.or("aside-token", String::new())?;
    let body: Option<String> = arguments.find("aside-body")?;
    let first: u64 = arguments.or("aside-from", 0)?;
    Stream::open(
        to,
        arguments.or("aside-connections", 16)?,
        arguments.need("aside-rate")?,
        move |number| match &body {
            None => fill::request(&path, first + number),
            Some(body) => post(&path, &token, &body.replace("{}", &(first + number).to_string())),
        },
    )
}

fn post(path: &str, token: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// The keys in an order that has no pattern (Knuth's multiplicative hash), each as often.
fn spread(number: u64, keys: u64) -> u64 {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % keys.max(1)
}

/// Requests at one rate.
struct Stream {
    crowd: Crowd,
    request: Box<dyn Fn(u64) -> String>,
    every: Duration,
    asked: u32,
    late: Vec<u64>,
    bad: u64,
}

impl Stream {
    fn open(
        to: SocketAddr,
        connections: usize,
        rate: f64,
        request: impl Fn(u64) -> String + 'static,
    ) -> Result<Self, Failure> {
        let crowd = Crowd::open(to, connections)?;
        let every = Duration::from_secs_f64(1.0 / rate);
        Ok(Self { crowd, request: Box::new(request), every, asked: 0, late: Vec::new(), bad: 0 })
    }

    /// Runs both until all that was due within `time` is answered, or 5 s longer: what is owed then
    /// counts as bad.
    fn run_with(
        &mut self,
        mut aside: Option<&mut Self>,
        began: Instant,
        time: Duration,
    ) -> Result<(), Failure> {
        loop {
            let busy = self.step(began, time)?;
            let busy_beside = match &mut aside {
                Some(aside) => aside.step(began, time)?,
                None => false,
            };
            if !busy && !busy_beside {
                return Ok(());
            }
            if began.elapsed() > time + Duration::from_secs(5) {
                self.give_up(time);
                if let Some(aside) = &mut aside {
                    aside.give_up(time);
                }
                return Ok(());
            }
        }
    }

    /// Sends what is due and takes what is there; whether anything is left.
    fn step(&mut self, began: Instant, time: Duration) -> Result<bool, Failure> {
        let mut due = self.every * self.asked;
        while due < time && due <= began.elapsed() && self.crowd.is_free() {
            let request = (self.request)(self.asked.into());
            self.crowd.ask(request.as_bytes(), began + due)?;
            self.asked += 1;
            due = self.every * self.asked;
        }
        let (late, bad) = (&mut self.late, &mut self.bad);
        self.crowd.turn(Some(Duration::ZERO), |Outcome { due, status }| match status {
            200 => late.push(due.elapsed().as_nanos().try_into().unwrap_or(u64::MAX)),
            _ => *bad += 1,
        })?;
        Ok(due < time || !self.crowd.is_quiet())
    }

    /// Counts what is still owed.
    fn give_up(&mut self, time: Duration) {
        let due = (time.as_secs_f64() / self.every.as_secs_f64()) as u64;
        self.bad = due.saturating_sub(self.late.len() as u64).max(self.bad);
    }

    /// Fields of JSON: how many, and latencies in microseconds.
    fn told(mut self) -> String {
        self.late.sort_unstable();
        let at = |share: f64| {
            let place = (self.late.len() as f64 * share) as usize;
            self.late.get(place).or(self.late.last()).copied().unwrap_or(0) as f64 / 1000.0
        };
        format!(
            "\"done\": {}, \"bad\": {}, \"p50\": {:.1}, \"p99\": {:.1}, \"p999\": {:.1}, \"most\": {:.1}",
            self.late.len(),
            self.bad,
            at(0.50),
            at(0.99),
            at(0.999),
            at(1.0),
        )
    }
}
