//! `floor fill`: asks for each of a number of paths once, as fast as it is answered.

use std::net::SocketAddr;
use std::time::Instant;

use crate::Failure;
use crate::arguments::Arguments;
use crate::crowd::Crowd;

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let to: SocketAddr = arguments.need("to")?;
    let path: String = arguments.need("path")?;
    let from: u64 = arguments.or("from", 0)?;
    let until = from + arguments.need::<u64>("count")?;
    let mut crowd = Crowd::open(to, arguments.or("connections", 32)?)?;
    let (mut next, mut done, mut bad) = (from, 0_u64, 0_u64);
    let began = Instant::now();
    while next < until || !crowd.is_quiet() {
        while next < until && crowd.is_free() {
            crowd.ask(request(&path, next).as_bytes(), Instant::now())?;
            next += 1;
        }
        crowd.turn(None, |outcome| match outcome.status {
            200 => done += 1,
            _ => bad += 1,
        })?;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{{\"done\": {done}, \"bad\": {bad}, \"seconds\": {seconds:.3}}}");
    Ok(())
}

/// A GET for the path with `{}` replaced by the number.
pub fn request(path: &str, number: u64) -> String {
    let path = path.replace("{}", &number.to_string());
    format!("GET {path} HTTP/1.1\r\nHost: bench.test\r\n\r\n")
}
