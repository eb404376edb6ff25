//! An edge with an origin of its own, in one process, to try things with.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;

use super::{Ended, Listening, StartError, run};
use crate::config::{Config, Limits, Listener};
use crate::listener::{self, Context, Drain, Handler};
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
    let door = Listener {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        tls: false,
        http2: false,
        proxy_protocol: false,
        trusted_proxies: Vec::new(),
    };
    let sockets = listener::bind(&[door], 1)
        .map_err(|error| format!("no address for the origin: {}", error.error))?;
    let Some(sockets) = sockets.into_iter().next() else {
        return Err("no address for the origin".to_owned());
    };
    let address = sockets.addresses().first().copied();
    let address = address.ok_or_else(|| "no address for the origin".to_owned())?;
    let config = configure(address)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    // The origin stays up until the edge has drained; then the process ends.
    let (stop, state) = watch::channel(Drain::Open);
    let context = Context::new(Arc::new(Limits::default()), Metrics::new(&config), state);
    let thread = std::thread::Builder::new()
        .name("origin".into())
        .spawn(move || runtime.block_on(listener::run(sockets, None, origin, context)))
        .map_err(|error| error.to_string())?;
    let ended = run(config, |listening| greet(listening, address));
    stop.send_replace(Drain::Abort);
    if thread.join().is_err() {
        tracing::error!("the demo's origin ended by a panic");
    }
    Ok(ended)
}
