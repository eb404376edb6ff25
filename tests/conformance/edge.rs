//! The real binary, as a user would start it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// How the edge is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `config/conformance.toml`.
    Conformance,
    /// Nothing but an origin.
    Default,
}

/// A running edge; killed when dropped.
pub(crate) struct Edge {
    child: Child,
    address: SocketAddr,
}

impl Edge {
    pub(crate) fn start(profile: Profile, origin: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command.arg("run");
        if profile == Profile::Conformance {
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
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| address_in(&line))
            .expect("atoll says where it listens");
        // Somebody must go on reading, or the process log would wait.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address of the first plain URL in a line.
fn address_in(line: &str) -> Option<SocketAddr> {
    let rest = line.split("http://").nth(1)?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    rest.get(..end.unwrap_or(rest.len()))?.trim_end_matches('.').parse().ok()
}
