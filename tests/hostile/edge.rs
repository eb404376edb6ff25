//! The real binary, as a user would start it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::wire::Wire;

/// A running edge; killed when dropped.
pub(crate) struct Edge {
    child: Child,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    admin: SocketAddr,
    config: Option<PathBuf>,
}

impl Edge {
    /// One with nothing but flags. A single worker: all clients share its connections to the
    /// origin, so that what is smuggled over one of them meets somebody.
    pub(crate) fn start(origin: SocketAddr) -> Self {
        Self::run(&["--origin".to_owned(), format!("http://{origin}")], None)
    }

    /// One with these lines in its configuration.
    pub(crate) fn with(origin: SocketAddr, keys: &str, hosts: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("atoll-hostile-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        let text = format!(
            "{keys}\n[[origin]]\nname = \"origin\"\nservers = [\"http://{origin}\"]\n\
             [[site]]\nname = \"default\"\nhosts = [\"{hosts}\"]\norigin = \"origin\"\n"
        );
        std::fs::write(&path, text).unwrap();
        Self::run(&["--config".to_owned(), path.display().to_string()], Some(path))
    }

    fn run(flags: &[String], config: Option<PathBuf>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_atoll"))
            .arg("run")
            .args(flags)
            .args(["--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0", "--workers", "1", "--memory", "512MiB"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let mut listening = |word: &str| {
            let line = lines.by_ref().map_while(Result::ok).find(|line| {
                said.push_str(line);
                said.push('\n');
                line.trim_start().starts_with(word)
            });
            let line = line.unwrap_or_else(|| panic!("atoll says where it listens, not: {said}"));
            address_in(&line).unwrap()
        };
        let (plain, tls, admin) = (listening("plain"), listening("TLS"), listening("admin"));
        // Somebody must go on reading, or the process log would wait.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, plain, tls, admin, config }
    }

    /// Numbers of `/metrics` whose lines begin so.
    pub(crate) fn metrics(&self, start: &str) -> BTreeMap<String, f64> {
        let mut wire = Wire::plain(self.admin).unwrap();
        wire.send(b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let answer = wire.answer("GET", Duration::from_secs(5)).unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
            .collect()
    }

    /// Processor time that the process has used.
    pub(crate) fn busy(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    /// Whether the process is still there.
    pub(crate) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(path) = &self.config {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The address of the first URL in a line.
fn address_in(line: &str) -> Option<SocketAddr> {
    let rest = line.split("://").nth(1)?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    rest.get(..end.unwrap_or(rest.len()))?.parse().ok()
}
