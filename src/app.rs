//! Wires the rooms together.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::listener::Handler;

/// Where a node listens, once it does: ports that the system chose are filled in.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// Plain listeners.
    pub plain: Vec<SocketAddr>,
    /// TLS listeners.
    pub tls: Vec<SocketAddr>,
    /// Admin listener.
    pub admin: Option<SocketAddr>,
    /// Watch listener.
    pub watch: Option<SocketAddr>,
    /// Whether TLS uses a certificate made by this process.
    pub self_made: bool,
}

/// Runs a node until it is told to stop and has drained. Calls `greet` once it listens.
///
/// # Errors
/// Says why it could not start, or what ended it.
pub fn run(config: Config, greet: impl FnOnce(&Listening)) -> Result<(), String> {
    let _ = (config, greet);
    Err("under construction".to_owned())
}

/// Like [`run`], with an origin of its own: `origin` answers on a loopback port that the system
/// chooses, and `configure` makes the configuration once that address is known.
///
/// # Errors
/// Like [`run`].
pub fn run_with_origin<H: Handler>(
    origin: Arc<H>,
    configure: impl FnOnce(SocketAddr) -> Result<Config, String>,
    greet: impl FnOnce(&Listening, SocketAddr),
) -> Result<(), String> {
    let _ = (origin, configure, greet);
    Err("under construction".to_owned())
}
