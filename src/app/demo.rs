//! An edge with an origin of its own, in one process, to try things with.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::{Ended, Listening, StartError, run};
use crate::config::{Config, Limits, Listener};
use crate::listener::{self, Context, Drain, Handler, WorkerSockets};
use crate::semantics::ToldBy;
use crate::telemetry::Metrics;

/// Like [`run`], with an origin of its own: `origin` answers on a loopback port that the system
/// chooses, and `configure` makes the configuration once that address is known.
///
/// # Errors
/// Like [`run`]; the inner error is what `configure` says.
pub fn run_with_origin<H: Handler>(
    origin: Arc<H>,
    configure: impl FnOnce(SocketAddr) -> Result<Config, String>,
    greet: impl FnOnce(&Listening, SocketAddr),
) -> Result<Result<Ended, StartError>, String> {
    let (sockets, address) = door()?;
    let config = configure(address)?;
    let origin = start(origin, sockets, &config)?;
    let ended = run(config, |listening| greet(listening, address));
    origin.end();
    Ok(ended)
}

/// An origin of its own without an edge: `configure` makes a configuration that its metrics are
/// named after, `meanwhile` runs as long as it is up.
///
/// # Errors
/// Where no address or thread is to be had, and what `configure` says.
pub fn with_origin<H: Handler, T>(
    origin: Arc<H>,
    configure: impl FnOnce(SocketAddr) -> Result<Config, String>,
    meanwhile: impl FnOnce(SocketAddr) -> T,
) -> Result<T, String> {
    let (sockets, address) = door()?;
    let origin = start(origin, sockets, &configure(address)?)?;
    let outcome = meanwhile(address);
    origin.end();
    Ok(outcome)
}

/// A loopback port that the system chooses.
fn door() -> Result<(WorkerSockets, SocketAddr), String> {
    let door = Listener {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        tls: false,
        http2: false,
        proxy_protocol: false,
        trusted_proxies: Vec::new(),
        proxies_write: ToldBy::default(),
    };
    let sockets = listener::bind(&[door], 1)
        .map_err(|error| format!("no address for the origin: {}", error.error))?;
    let Some(sockets) = sockets.into_iter().next() else {
        return Err("no address for the origin".to_owned());
    };
    let address = sockets.addresses().first().copied();
    let address = address.ok_or_else(|| "no address for the origin".to_owned())?;
    Ok((sockets, address))
}

/// An origin that answers. It stays up until the edge has drained; then the process ends.
struct Origin {
    stop: watch::Sender<Drain>,
    thread: JoinHandle<()>,
}

impl Origin {
    fn end(self) {
        self.stop.send_replace(Drain::Abort);
        if self.thread.join().is_err() {
            tracing::error!("the demo's origin ended by a panic");
        }
    }
}

fn start<H: Handler>(
    origin: Arc<H>,
    sockets: WorkerSockets,
    config: &Config,
) -> Result<Origin, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let (stop, state) = watch::channel(Drain::Open);
    let context = Context::new(Arc::new(Limits::default()), Metrics::new(config), state);
    let thread = std::thread::Builder::new()
        .name("origin".into())
        .spawn(move || runtime.block_on(listener::run(sockets, None, origin, context)))
        .map_err(|error| error.to_string())?;
    Ok(Origin { stop, thread })
}
