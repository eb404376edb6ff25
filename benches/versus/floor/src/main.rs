//! The floor under a cache: how little each kind of work can cost when nothing is done but that work.
//!
//! ```text
//! floor serve --plain A --canned A --tls A --origin A --chain FILE --key FILE
//! floor handshakes --to A --seconds N --connections N --path /1k
//! floor paced --to A --path /1k --rate N --seconds N --connections N [--aside-...]
//! floor fill --to A --path /key/{} --from N --count N --connections N
//! ```
//!
//! `serve` answers on one thread from a map: it knows no freshness, no purge, no log, no limit and no
//! metric. It is what is left when all of that is taken away, not something to run. The other three
//! are load generators, and each prints one line of JSON.

mod arguments;
mod crowd;
mod fill;
mod handshakes;
mod paced;
mod serve;
mod stored;

use std::error::Error;
use std::process::ExitCode;

use arguments::Arguments;

/// The allocator of atoll, so that it makes no difference.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Anything that ends the program; it has no caller to match on it.
pub type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    match Arguments::read(words).and_then(|arguments| run(&command, &arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("floor: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, arguments: &Arguments) -> Result<(), Failure> {
    match command {
        "serve" => serve::run(arguments),
        "handshakes" => handshakes::run(arguments),
        "paced" => paced::run(arguments),
        "fill" => fill::run(arguments),
        other => Err(format!("{other:?} is none of serve, handshakes, paced, fill").into()),
    }
}
