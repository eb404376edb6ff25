//! The program itself as a process of its own, with its defaults.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::client::request;
use super::edge::TOKEN;
use super::{Connection, Response};

/// A running program; killed when dropped, and who took over from it.
pub(crate) struct Program {
    child: Child,
    pub(crate) plain: SocketAddr,
    /// TLS, where the configuration has it.
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    successors: Vec<u32>,
}

impl Program {
    /// Starts it before one origin.
    pub(crate) fn start(origin: SocketAddr) -> Self {
        Self::start_with(origin, &[])
    }

    /// The same with more flags.
    pub(crate) fn start_with(origin: SocketAddr, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command
            .args(["run", "--origin", &format!("http://{origin}")])
            .args(["--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0"])
            .args(flags)
            .stdin(Stdio::null());
        Self::of(command)
    }

    /// Starts it from a file.
    pub(crate) fn of_file(file: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command.args(["run", "--config"]).arg(file).stdin(Stdio::null());
        command.envs(environment.iter().copied());
        Self::of(command)
    }

    /// Starts it by a command that becomes it.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut plain, mut tls, mut admin, mut said) = (None, None, None, String::new());
        for line in lines.by_ref().map_while(Result::ok) {
            let address = || line.split_once("://")?.1.split_whitespace().next()?.parse().ok();
            match line.split_whitespace().next() {
                Some("plain") => plain = address(),
                Some("TLS") => tls = address(),
                Some("admin") => admin = address(),
                _ => {}
            }
            said += &(line + "\n");
            if admin.is_some() {
                break;
            }
        }
        // Somebody must go on reading, or the process log would wait.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let plain = plain.unwrap_or_else(|| panic!("it says where it listens: {said}"));
        let admin = admin.expect("an admin listener");
        Self { child, plain, tls, admin, successors: Vec::new() }
    }

    /// Number of the process that was started first.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A request to its admin listener, with the token of stories.
    pub(crate) async fn manage(&self, method: &str, target: &str, body: Option<&str>) -> Response {
        let bearer = format!("Bearer {TOKEN}");
        let length = body.map(|body| body.len().to_string());
        let mut fields = vec![("Connection", "close"), ("Authorization", &*bearer)];
        if let Some(length) = &length {
            fields.extend([("Content-Type", "application/json"), ("Content-Length", &**length)]);
        }
        let mut connection = Connection::open(self.admin).await;
        let head = request(method, "admin.test", target, &fields);
        connection.send(head + body.unwrap_or_default()).await;
        connection.response(method).await
    }

    /// The value of a metric, labels as they are printed.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = self.manage("GET", "/metrics", None).await;
        let value =
            answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
    }

    /// Has a new process take over; panics where there is none.
    pub(crate) async fn upgrade(&mut self) -> u32 {
        let answer = self.manage("POST", "/v1/upgrade", None).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        let pid = u32::try_from(told["pid"].as_u64().unwrap()).unwrap();
        self.succeeded_by(pid);
        pid
    }

    /// Sends the process that was started first a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Another process has taken over.
    pub(crate) fn succeeded_by(&mut self, pid: u32) {
        self.successors.push(pid);
    }

    /// Whether the process that was started first has ended in order.
    pub(crate) fn left(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some_and(|status| status.success())
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
        for pid in &self.successors {
            send(*pid, Signal::KILL);
        }
    }
}

/// Sends a process a signal, if it is still there.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = pid.map(|pid| kill_process(pid, signal));
}
