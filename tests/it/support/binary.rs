//! The program itself as a process of its own, from a plan: for what is about a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::certificate::Folder;
use super::client::request;
use super::edge::{Plan, TOKEN};
use super::{Connection, Response, until};

/// A running program; killed when dropped.
pub(crate) struct Binary {
    child: Child,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    said: Arc<Mutex<String>>,
    _folder: Folder,
}

impl Binary {
    /// Starts it from a plan. `shell` is run before it in the same process: `ulimit -n 64;`.
    pub(crate) fn start(mut plan: Plan, shell: &str) -> Self {
        let folder = plan.folder.take().unwrap_or_else(Folder::new);
        Self::of_file(&plan.toml(), folder, shell)
    }

    /// Starts it from a whole file, which is written into a folder.
    pub(crate) fn of_file(text: &str, folder: Folder, shell: &str) -> Self {
        let file = folder.path().join("atoll.toml");
        std::fs::write(&file, text).unwrap();
        let mut child = command(shell)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let (mut plain, mut tls, mut admin) = (None, None, None);
        for line in lines.by_ref().map_while(Result::ok) {
            said.lock().unwrap().push_str(&(line.clone() + "\n"));
            let mut words = line.split_whitespace();
            let (first, url) = (words.next(), words.next().unwrap_or_default());
            let address = url.split_once("://").and_then(|(_, address)| address.parse().ok());
            match first {
                Some("plain") => plain = plain.or(address),
                Some("TLS") => tls = tls.or(address),
                Some("admin") => {
                    admin = address;
                    break;
                }
                _ => {}
            }
        }
        let heard = Arc::clone(&said);
        // Somebody must go on reading, or the process log would wait.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let words = said.lock().unwrap().clone();
        let plain = plain.unwrap_or_else(|| panic!("it says where it listens: {words}"));
        Self { child, plain, tls, admin, said, _folder: folder }
    }

    /// What it has said on its standard error.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the program to end", || {
            status = self.child.try_wait().unwrap();
            std::future::ready(status.is_some())
        })
        .await;
        status.unwrap()
    }

    /// GET over a new connection.
    pub(crate) async fn get(&self, host: &str, target: &str) -> Response {
        Connection::open(self.plain).await.get(host, target, &[]).await
    }

    /// GET from the admin listener.
    pub(crate) async fn manage(&self, target: &str) -> Response {
        let bearer = format!("Bearer {TOKEN}");
        let fields = [("Connection", "close"), ("Authorization", bearer.as_str())];
        let mut client = Connection::open(self.admin.expect("an admin listener")).await;
        client.send(request("GET", "admin.test", target, &fields)).await;
        client.response("GET").await
    }

    /// The value of a metric, labels as they are printed.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = self.manage("/metrics").await;
        let line =
            answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
    }

    /// Waits until a metric is within bounds.
    pub(crate) async fn metric_within(&self, name: &str, bounds: std::ops::RangeInclusive<f64>) {
        let what = format!("{name} to be in {bounds:?}");
        until(&what, || async { bounds.contains(&self.metric(name).await) }).await;
    }

    /// Time of the processor that it has had.
    pub(crate) fn computed(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// Time of the processor that its threads of this name have had.
    pub(crate) fn computed_by(&self, name: &str) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of = |task: std::fs::DirEntry| {
            let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
            let nanos = read("schedstat")?.split_whitespace().next()?.parse().ok()?;
            read("comm")?.starts_with(name).then(|| Duration::from_nanos(nanos))
        };
        tasks.flatten().filter_map(of).sum()
    }

    /// Bytes of memory that it has now.
    pub(crate) fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        let pages: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64
    }
}

/// `atoll run --config`, after the words of a shell; the file comes as its argument.
fn command(shell: &str) -> Command {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_atoll");
    command.args(["-c", &format!("{shell} exec {program} run --config \"$0\"")]);
    command
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
