//! The real binary, as a user would start it.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::http2::Http2;
use crate::wire::{Fields, Response, Wire, latin1, response};

/// How the edge is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `config/conformance.toml`.
    Conformance,
    /// The same, asked over TLS and HTTP/2.
    Http2,
    /// Nothing but an origin.
    Default,
}

impl Profile {
    /// Heading of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Conformance => "Conformance",
            Self::Http2 => "Conformance, HTTP/2",
            Self::Default => "Default",
        }
    }
}

/// A running edge; killed when dropped.
pub(crate) struct Edge {
    child: Child,
    profile: Profile,
    plain: SocketAddr,
    tls: SocketAddr,
}

impl Edge {
    pub(crate) fn start(profile: Profile, origin: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command.arg("run");
        if profile != Profile::Default {
            command.args([
                "--config",
                concat!(env!("CARGO_MANIFEST_DIR"), "/config/conformance.toml"),
            ]);
        }
        let mut child = command
            .args(["--origin", &format!("http://{origin}")])
            .args(["--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut listening = |scheme| {
            let mut said = lines.by_ref().map_while(Result::ok);
            said.find_map(|line| address_in(&line, scheme)).expect("atoll says where it listens")
        };
        let (plain, tls) = (listening("http://"), listening("https://"));
        // Somebody must go on reading, or the process log would wait.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, profile, plain, tls }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the tests are sent through.
pub(crate) trait Reach: Sync {
    /// A new connection to it.
    fn connect(&self) -> io::Result<Connection>;
    /// A number that no other one has in this run.
    fn number(&self) -> u8;
}

impl Reach for Edge {
    fn connect(&self) -> io::Result<Connection> {
        Ok(match self.profile {
            Profile::Http2 => Connection::Http2(Http2::connect(self.tls)?),
            Profile::Conformance | Profile::Default => {
                Connection::Http1(Wire::connect(self.plain)?, self.plain)
            }
        })
    }

    fn number(&self) -> u8 {
        self.profile as u8
    }
}

/// Another cache, by its address.
pub(crate) struct Peer(pub(crate) SocketAddr);

impl Reach for Peer {
    fn connect(&self) -> io::Result<Connection> {
        Ok(Connection::Http1(Wire::connect(self.0)?, self.0))
    }

    fn number(&self) -> u8 {
        0
    }
}

/// A client's connection.
pub(crate) enum Connection {
    Http1(Wire, SocketAddr),
    Http2(Http2),
}

impl Connection {
    /// Sends a request and reads the answer to its end. Says whether the connection lives on.
    pub(crate) fn exchange(
        &mut self,
        method: &str,
        target: &str,
        fields: &Fields,
        body: Option<&str>,
    ) -> io::Result<(Response, bool)> {
        match self {
            Self::Http2(connection) => {
                Ok((connection.exchange(method, target, fields, body)?, true))
            }
            Self::Http1(wire, address) => {
                let mut out = latin1(&format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\n"));
                fields.write(&mut out);
                out.extend(b"\r\n");
                out.extend(body.unwrap_or_default().bytes());
                wire.send(&out)?;
                response(wire, method)
            }
        }
    }
}

/// The address of the first URL with this scheme in a line.
fn address_in(line: &str, scheme: &str) -> Option<SocketAddr> {
    let rest = line.split(scheme).nth(1)?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    rest.get(..end.unwrap_or(rest.len()))?.trim_end_matches('.').parse().ok()
}
