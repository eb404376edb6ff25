//! Which address of a server is connected to first (happy eyeballs, RFC 8305).
//!
//! ```text
//! chosen ------------------------------------.
//!        250 ms, or it fails: other family ---+---> the first that stands wins,
//!                250 ms, or one fails: third -'     the others are given up
//! ```
//!
//! An attempt that fails is held against its endpoint; one that is given up is not, though the
//! endpoint is remembered as slow. Which endpoint comes first is the balancer's choice, never ours.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::clock;

use super::SendError;
use super::endpoint::Endpoint;

/// Head start of each attempt before the next one (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses that may be tried beside the chosen one.
pub(super) const RIVALS: usize = 3;

/// Endpoints to try after the first, in this order.
pub(super) type Rivals = SmallVec<[Arc<Endpoint>; RIVALS]>;

/// Orders endpoints for the attempts after the first: the other address family, then each in turn
/// (RFC 8305 section 4), as many as may be tried.
pub(super) fn alternate(first: &Endpoint, others: impl Iterator<Item = Arc<Endpoint>>) -> Rivals {
    let (mut other, mut same) = (Rivals::new(), Rivals::new());
    for endpoint in others {
        let unlike = endpoint.address.is_ipv6() != first.address.is_ipv6();
        let family = if unlike { &mut other } else { &mut same };
        if family.len() < RIVALS {
            family.push(endpoint);
        }
    }
    let (mut other, mut same) = (other.into_iter(), same.into_iter());
    let mut rivals = Rivals::new();
    while rivals.len() < RIVALS {
        let before = rivals.len();
        rivals.extend(other.next());
        rivals.extend(same.next());
        if rivals.len() == before {
            break;
        }
    }
    rivals.truncate(RIVALS);
    rivals
}

/// A socket that is being connected.
type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Attempts at one connection.
pub(super) struct Race {
    waiting: std::collections::VecDeque<Arc<Endpoint>>,
    running: SmallVec<[Attempt; 1 + RIVALS]>,
}

struct Attempt {
    endpoint: Arc<Endpoint>,
    since: Instant,
    connecting: Connecting,
}

impl Race {
    /// Between `first` and those that come after it.
    pub(super) fn new(first: &Arc<Endpoint>, rivals: Rivals) -> Self {
        let waiting = std::iter::once(Arc::clone(first)).chain(rivals).collect();
        Self { waiting, running: SmallVec::new() }
    }

    /// The connection that stands first; each failure is told to `failed`.
    ///
    /// # Errors
    /// The last failure, when every attempt failed.
    pub(super) async fn run(
        &mut self,
        mut failed: impl FnMut(&Endpoint, &SendError),
    ) -> Result<(TcpStream, Arc<Endpoint>), SendError> {
        loop {
            self.start();
            let last = self.waiting.is_empty();
            let next = poll_fn(|context| self.poll(context));
            let (endpoint, outcome) = if last {
                next.await
            } else {
                match tokio::time::timeout(HEAD_START, next).await {
                    Ok(ended) => ended,
                    Err(_elapsed) => continue,
                }
            };
            match outcome {
                Ok(tcp) => {
                    self.remember_slow(&endpoint);
                    return Ok((tcp, endpoint));
                }
                Err(error) => {
                    let error = tcp_error(&error);
                    failed(&endpoint, &error);
                    if self.running.is_empty() && self.waiting.is_empty() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Starts the next attempt. An address that DNS has taken away meanwhile is passed over.
    fn start(&mut self) {
        while let Some(endpoint) = self.waiting.pop_front() {
            let chosen = self.running.is_empty() && self.waiting.is_empty();
            if endpoint.is_retired() && !chosen {
                continue;
            }
            let connecting = Box::pin(TcpStream::connect(endpoint.address));
            self.running.push(Attempt { endpoint, since: Instant::now(), connecting });
            return;
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(Arc<Endpoint>, io::Result<TcpStream>)> {
        for index in 0..self.running.len() {
            let Some(attempt) = self.running.get_mut(index) else { break };
            if let Poll::Ready(outcome) = attempt.connecting.as_mut().poll(context) {
                return Poll::Ready((self.running.remove(index).endpoint, outcome));
            }
        }
        Poll::Pending
    }

    /// Those that were given up had their head start: whoever chooses by latency is to know.
    fn remember_slow(&self, winner: &Endpoint) {
        let now = clock::now().boot;
        for attempt in &self.running {
            if attempt.endpoint.id != winner.id && attempt.since.elapsed() >= HEAD_START {
                attempt.endpoint.view.lock().latency.observe(attempt.since.elapsed(), now);
            }
        }
    }

    /// Those that have had at least `time` in vain.
    pub(super) fn silent(&self, time: Duration) -> impl Iterator<Item = &Arc<Endpoint>> {
        let long = move |attempt: &&Attempt| attempt.since.elapsed() >= time;
        self.running.iter().filter(long).map(|attempt| &attempt.endpoint)
    }
}

/// What a failed connection attempt means.
pub(super) fn tcp_error(error: &io::Error) -> SendError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => SendError::ConnectionRefused,
        io::ErrorKind::TimedOut => SendError::ConnectionTimeout,
        _ if is_ours(error) => SendError::ConnectionLimitReached,
        _ => SendError::ConnectionFailed(error.to_string()),
    }
}

/// Whether it is our own want of descriptors, ports or memory that failed the attempt.
fn is_ours(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    ours.iter().any(|own| error.raw_os_error() == Some(own.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::{Target, View};
    use super::*;

    fn endpoint(address: &str) -> Arc<Endpoint> {
        let address = address.parse().unwrap();
        Arc::new(Endpoint::new(0, Target { address, tier: 0, weight: 1 }, None, View::new(None)))
    }

    #[test]
    fn families_take_turns() {
        let first = endpoint("192.0.2.1:80");
        let cases: [(&[&str], &[&str]); 5] = [
            (&[], &[]),
            (&["192.0.2.2:80"], &["192.0.2.2:80"]),
            (&["192.0.2.2:80", "[2001:db8::1]:80"], &["[2001:db8::1]:80", "192.0.2.2:80"]),
            (
                &["192.0.2.2:80", "192.0.2.3:80", "[2001:db8::1]:80", "[2001:db8::2]:80"],
                &["[2001:db8::1]:80", "192.0.2.2:80", "[2001:db8::2]:80"],
            ),
            (
                &["192.0.2.2:80", "192.0.2.3:80", "192.0.2.4:80", "192.0.2.5:80"],
                &["192.0.2.2:80", "192.0.2.3:80", "192.0.2.4:80"],
            ),
        ];
        for (others, expected) in cases {
            let rivals = alternate(&first, others.iter().map(|address| endpoint(address)));
            let rivals: Vec<_> = rivals.iter().map(|rival| rival.address.to_string()).collect();
            assert_eq!(rivals, expected, "{others:?}");
        }
    }
}
