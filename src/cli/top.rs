//! `atoll top`.

mod frame;
mod metrics;
mod screen;

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::client::Answer;
use super::remote::{Remote, required_token};
use super::{DONE, REFUSED, USAGE, complain};
use crate::clock;
use frame::{Look, figures, frame};
use metrics::Metrics;
use screen::Screen;

/// Time for one exchange.
const MOST: Duration = Duration::from_secs(3);
/// Time between two pictures.
const REFRESH: Duration = Duration::from_secs(1);
/// Width and height of a picture that no terminal bounds.
const UNBOUNDED: (usize, usize) = (160, 60);
/// Ctrl-C, as a key.
const INTERRUPT: u8 = 3;

const ABOUT: &str = "Shows what a node is doing, live: requests, hits, latency, origins, hottest URLs and tags, purges";

const MORE: &str = "\
Refreshes every second; `q` or Ctrl-C ends it, `b` sorts the hottest URLs and tags by bytes
and `r` by requests. Latencies are estimated from the buckets of the last second.

Examples:
  atoll top
  atoll top --once              one picture of one second
  atoll top --json              the same for programs

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope read)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  ended by you
  1  refused
  2  wrong flags, or no terminal
  3  no answer in time
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Top {
    /// Print one picture and end.
    #[arg(long)]
    once: bool,
    /// What the hottest URLs and tags are chosen by.
    #[arg(long, value_enum, default_value_t = By::Requests)]
    by: By,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Requests,
    Bytes,
}

/// What comes first while a picture stands.
enum Next {
    Refresh,
    Sort(By),
    End,
}

impl Top {
    pub(super) fn run(self) -> u8 {
        self.ask().unwrap_or_else(|code| code)
    }

    fn ask(&self) -> Result<u8, u8> {
        let token = required_token(&self.remote)?;
        let live = !self.once && !self.remote.json;
        if live && !(std::io::stdout().is_terminal() && std::io::stdin().is_terminal()) {
            complain("this is no terminal: --once prints one picture");
            return Err(USAGE);
        }
        let first = self.look(&token, self.by)?;
        if live {
            return self.live(first, &token);
        }
        std::thread::sleep(REFRESH);
        let second = self.look(&token, self.by)?;
        if self.remote.json {
            println!("{}", figures(&first, &second));
        } else {
            let (width, height) = UNBOUNDED;
            for line in frame(&first, &second, width, height) {
                println!("{line}");
            }
        }
        Ok(DONE)
    }

    /// Shows one picture after the other, until somebody ends it.
    fn live(&self, mut old: Look, token: &str) -> Result<u8, u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| {
            complain(&error.to_string());
            REFUSED
        })?;
        let mut by = self.by;
        let screen = Screen::open();
        let mut keys = screen::keys();
        loop {
            let wait = async {
                let mut term = signal(SignalKind::terminate()).ok();
                let mut interrupt = signal(SignalKind::interrupt()).ok();
                tokio::select! {
                    () = tokio::time::sleep(REFRESH) => Next::Refresh,
                    key = keys.recv() => match key {
                        Some(b'q' | b'Q' | INTERRUPT) | None => Next::End,
                        Some(b'b') => Next::Sort(By::Bytes),
                        Some(b'r') => Next::Sort(By::Requests),
                        Some(_) => Next::Refresh,
                    },
                    Some(Some(())) = told(&mut term) => Next::End,
                    Some(Some(())) = told(&mut interrupt) => Next::End,
                }
            };
            match runtime.block_on(wait) {
                Next::End => return Ok(DONE),
                Next::Sort(other) => by = other,
                Next::Refresh => {}
            }
            // The message of a failure is for the screen that is left.
            let new = match self.look(token, by) {
                Ok(new) => new,
                Err(code) => {
                    drop(screen);
                    return Err(code);
                }
            };
            let (width, height) = Screen::size();
            screen.draw(&frame(&old, &new, width, height));
            old = new;
        }
    }

    fn look(&self, token: &str, by: By) -> Result<Look, u8> {
        let (keys, tags) = match by {
            By::Requests => ("/v1/cache/top?limit=100", "/v1/cache/top?of=tags"),
            By::Bytes => ("/v1/cache/top?limit=100&by=bytes", "/v1/cache/top?of=tags&by=bytes"),
        };
        let metrics = self.get("/metrics", None)?;
        let read = |path: &str| -> Result<Value, u8> {
            let answer = self.get(path, Some(token))?;
            Ok(serde_json::from_slice(&answer.body).unwrap_or_default())
        };
        Ok(Look {
            at: clock::now().boot,
            metrics: Metrics::parse(&String::from_utf8_lossy(&metrics.body)),
            status: read("/v1/status")?,
            origins: read("/v1/origins")?,
            purges: read("/v1/purges?limit=10")?,
            keys: read(keys)?,
            tags: read(tags)?,
        })
    }

    fn get(&self, path: &str, token: Option<&str>) -> Result<Answer, u8> {
        let answer = self.remote.ask(&Method::GET, path, token, None, MOST)?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(self.remote.refused(&answer)),
        }
    }
}

/// The next of a signal; never, where it cannot be heard.
async fn told(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<Option<()>> {
    match signal {
        Some(signal) => Some(signal.recv().await),
        None => std::future::pending().await,
    }
}
