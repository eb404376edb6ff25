//! The program itself as a process of its own, with its defaults.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// A running program; killed when dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) plain: SocketAddr,
}

impl Program {
    /// Starts it before one origin.
    pub(crate) fn start(origin: SocketAddr) -> Self {
        Self::start_with(origin, &[])
    }

    /// The same with more flags.
    pub(crate) fn start_with(origin: SocketAddr, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_atoll"))
            .args(["run", "--origin", &format!("http://{origin}")])
            .args(["--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = lines.by_ref().map_while(Result::ok);
        let plain = said.find_map(|line| {
            line.trim().strip_prefix("plain")?.trim().strip_prefix("http://")?.parse().ok()
        });
        // Somebody must go on reading, or the process log would wait.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, plain: plain.expect("it says where it listens") }
    }

    /// Bytes of memory that it has now.
    pub(crate) fn resident(&self) -> usize {
        self.status("VmRSS:")
    }

    /// Bytes of memory that it had at most.
    pub(crate) fn most_resident(&self) -> usize {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
