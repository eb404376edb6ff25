//! The program as a process of its own with its defaults, and what the system tells of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use crate::origin::Origin;
use crate::wire::{Answer, PATIENCE, Wire};

/// The memory that it may have, in bytes.
pub(crate) const BUDGET: u64 = 512 << 20;

/// Token of the operator.
pub(crate) const OPERATOR: &str = "the-operator-may-do-everything";
/// Token of a customer who purges without end.
pub(crate) const CUSTOMER: &str = "a-customer-who-purges-too-much";

/// A running edge; killed when dropped.
pub(crate) struct Edge {
    child: Child,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) admin: SocketAddr,
    said: Arc<Mutex<String>>,
    config: PathBuf,
}

impl Edge {
    /// Its memory is given, and strangers on this machine are held to what strangers are held to; nothing
    /// else is said but who the origins are and who may purge.
    pub(crate) fn start(origin: &Origin) -> Self {
        let name = format!("atoll-abuse-{}.toml", std::process::id());
        let config = std::env::temp_dir().join(name);
        std::fs::write(&config, words(origin)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_atoll"))
            .args(["run", "--config"])
            .arg(&config)
            .args(["--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0"])
            .env("ATOLL_ADMIN_TOKEN", OPERATOR)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let mut listening = |word: &str| {
            let found = lines.by_ref().map_while(Result::ok).find(|line| {
                said.lock().unwrap().push_str(&format!("{line}\n"));
                line.trim_start().starts_with(word)
            });
            let words = || said.lock().unwrap().clone();
            let line = found.unwrap_or_else(|| panic!("it says where it listens: {}", words()));
            address_in(&line).unwrap()
        };
        let (plain, tls, admin) = (listening("plain"), listening("TLS"), listening("admin"));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut heard = heard.lock().unwrap();
                // Refusals are told at a bounded rate; of ten minutes the beginning will do.
                if heard.len() < 1 << 20 || line.contains("panic") {
                    heard.push_str(&(line + "\n"));
                }
            }
        });
        Self { child, plain, tls, admin, said, config }
    }

    /// What it has said on its standard error.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Whether the process is still there.
    pub(crate) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Where the system tells of it.
    pub(crate) fn place(&self) -> Place {
        Place(format!("/proc/{}", self.child.id()))
    }

    /// A request to its admin listener.
    pub(crate) fn manage(&self, method: &str, target: &str, body: &str) -> Option<Answer> {
        let mut wire = Wire::plain(self.admin).ok()?;
        wire.send(managing(method, target, OPERATOR, body).as_bytes()).ok()?;
        wire.answer(method, PATIENCE).ok()
    }

    /// The numbers of all metrics.
    pub(crate) fn metrics(&self) -> Metrics {
        let answer = self.manage("GET", "/metrics", "").expect("metrics");
        let text = String::from_utf8(answer.body).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let read = |line: &str| {
            let (name, number) = line.rsplit_once(' ')?;
            Some((name.to_owned(), number.parse().ok()?))
        };
        Metrics(lines.filter_map(read).collect())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

/// A request for the admin listener.
pub(crate) fn managing(method: &str, target: &str, token: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn words(origin: &Origin) -> String {
    let hash = digest(&SHA256, CUSTOMER.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "[memory]\nbudget = \"{BUDGET}B\"\n\
         [limits]\nexempt_networks = []\n\
         [[admin.token]]\nname = \"customer\"\nhash = \"sha256:{hash}\"\n\
         scopes = [\"purge\"]\nsites = [\"main\"]\n\
         [[origin]]\nname = \"well\"\nservers = [\"http://{}\"]\n\
         [[origin]]\nname = \"broken\"\nservers = [\"http://{}\"]\n\
         [[site]]\nname = \"main\"\nhosts = [\"*\"]\norigin = \"well\"\n\
         [[site.rule]]\npath = \"/broken\"\norigin = \"broken\"\n",
        origin.well, origin.broken
    )
}

/// Numbers by the names and labels that they are printed with.
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Those of one name, all labels together.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let own = |line: &str| line.split('{').next() == Some(name);
        self.0.iter().filter(|(line, _)| own(line)).map(|(_, number)| number).sum()
    }
}

/// What the system tells of a process.
#[derive(Clone)]
pub(crate) struct Place(String);

impl Place {
    /// Bytes of memory that it has now.
    pub(crate) fn resident(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("{}/statm", self.0)).ok()?;
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    }

    /// Bytes of memory that it ever had at once, as the system remembers.
    pub(crate) fn most_resident(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("{}/status", self.0)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("{}/fd", self.0)).map_or(0, Iterator::count)
    }

    /// Time of the processor that it has had.
    pub(crate) fn computed(&self) -> Duration {
        let text = std::fs::read_to_string(format!("{}/stat", self.0)).unwrap_or_default();
        let fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks: u64 = fields.skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }
}

/// The address of the first URL in a line.
fn address_in(line: &str) -> Option<SocketAddr> {
    let rest = line.split("://").nth(1)?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    rest.get(..end.unwrap_or(rest.len()))?.parse().ok()
}
