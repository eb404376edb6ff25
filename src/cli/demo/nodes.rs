//! The nodes of `atoll demo --pops`: their names, ports and configurations, and their processes.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cli::client::{Base, call};
use crate::clock;

/// Names of the PoPs.
const POPS: [&str; 5] = ["ams", "fra", "zrh", "nyc", "sin"];

/// Nodes of each.
const NODES: usize = 2;

/// Time for all nodes to become ready.
const STARTING: Duration = Duration::from_secs(60);

/// Time for one question.
const EXCHANGE: Duration = Duration::from_secs(2);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Time that the nodes have to end.
const ENDING: Duration = Duration::from_secs(5);

/// A node before it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) pop: &'static str,
    pub(super) listen: SocketAddr,
    pub(super) listen_tls: SocketAddr,
    pub(super) admin: SocketAddr,
    mesh: SocketAddr,
}

/// A folder that is removed with all that is in it.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// A new one that others cannot look into.
    pub(super) fn new() -> Result<Self, String> {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_none| "no random bytes".to_owned())?;
        let name = format!("atoll-demo-{:016x}", u64::from_le_bytes(bytes));
        let path = std::env::temp_dir().join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The nodes of so many PoPs, on ports that are free now.
pub(super) fn plan(pops: usize) -> Result<Vec<Node>, String> {
    let names = POPS.iter().take(pops).flat_map(|pop| (1..=NODES).map(move |at| (*pop, at)));
    let names: Vec<(&'static str, usize)> = names.collect();
    // All are held until the last is found, so that none comes twice.
    let mut held = Vec::new();
    let mut free = || -> Result<SocketAddr, String> {
        let door =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
        let address = door.local_addr().map_err(|error| error.to_string())?;
        held.push(door);
        Ok(address)
    };
    let node = |(pop, at): (&'static str, usize)| {
        let (listen, listen_tls, admin, mesh) = (free()?, free()?, free()?, free()?);
        Ok(Node { name: format!("{pop}-{at}"), pop, listen, listen_tls, admin, mesh })
    };
    names.into_iter().map(node).collect()
}

/// One witness in each PoP, an odd number of them.
fn witnesses(nodes: &[Node]) -> Vec<&str> {
    let most = match nodes.len() / NODES {
        0 | 1 => 1,
        2..=4 => 3,
        _ => 5,
    };
    let firsts = nodes.iter().filter(|node| node.name.ends_with("-1"));
    let others = nodes.iter().filter(|node| !node.name.ends_with("-1"));
    firsts.chain(others).take(most).map(|node| node.name.as_str()).collect()
}

/// The configuration of one of the nodes.
pub(super) fn configuration(node: &Node, nodes: &[Node], origin: SocketAddr) -> String {
    let seeds: Vec<String> = nodes
        .iter()
        .filter(|other| other.name != node.name)
        .map(|other| other.mesh.to_string())
        .collect();
    let Node { name, pop, listen, listen_tls, admin, mesh } = node;
    let roster: String = nodes
        .iter()
        .map(|node| format!("\n[[mesh.node]]\nname = {:?}\npop = {:?}\n", node.name, node.pop))
        .collect();
    let witnesses = witnesses(nodes);
    format!(
        "[node]\nname = {name:?}\npop = {pop:?}\nworkers = 1\n\n\
         [memory]\nbudget = \"64MiB\"\n\n\
         [log]\naccess = \"none\"\nlevel = \"warn\"\n\n\
         [admin]\naddress = \"{admin}\"\n\n\
         [limits]\ndrain = \"1s\"\ndrain_notice = \"0s\"\n\n\
         [[listener]]\naddress = \"{listen}\"\n\n\
         [[listener]]\naddress = \"{listen_tls}\"\ntls = true\nhttp2 = true\n\n\
         [[origin]]\nname = \"main\"\nservers = [\"http://{origin}\"]\n\n\
         [[site]]\nname = \"main\"\nhosts = [\"*\"]\norigin = \"main\"\n\n\
         [mesh]\nlisten = \"{mesh}\"\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\"\n\
         ca = [\"mesh-ca.pem\"]\nseeds = {seeds:?}\nwitnesses = {witnesses:?}\n\
         directory = \"{name}.witness\"\n{roster}"
    )
}

/// Runs this program to its end.
pub(super) fn program(arguments: &[&str]) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.map_err(|error| error.to_string())?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(format!("atoll {}: {}", arguments.join(" "), said.trim()))
}

/// The processes of the nodes. They end with this value.
pub(super) struct Processes {
    running: Vec<(Node, Child)>,
    folder: PathBuf,
}

impl Processes {
    /// Starts all nodes, each after the file of its name in `folder`.
    pub(super) fn start(nodes: Vec<Node>, folder: &Path, token: &str) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut processes = Self { running: Vec::new(), folder: folder.to_owned() };
        for node in nodes {
            let log = File::create(folder.join(format!("{}.log", node.name)));
            let log = log.map_err(|error| error.to_string())?;
            let child = Command::new(&program)
                .arg("run")
                .arg("--config")
                .arg(folder.join(format!("{}.toml", node.name)))
                // Even a demo that is killed leaves no node behind.
                .args(["--end-with", &std::process::id().to_string()])
                .env("ATOLL_ADMIN_TOKEN", token)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                // A Ctrl-C is for the demo, which ends its nodes itself.
                .process_group(0)
                .spawn()
                .map_err(|error| format!("{}: {error}", node.name))?;
            processes.running.push((node, child));
        }
        Ok(processes)
    }

    /// Waits until every node is ready.
    pub(super) fn ready(&mut self, stop: &dyn Fn() -> bool) -> Result<(), String> {
        let deadline = clock::now().boot + STARTING;
        let mut at = 0;
        while let Some((node, child)) = self.running.get_mut(at) {
            let ended = child.try_wait().map_err(|error| error.to_string())?;
            if let Some(status) = ended {
                let name = node.name.clone();
                return Err(format!("{name} {}: {}", how(status), self.said(&name)));
            }
            if is_ready(node) {
                at += 1;
            } else if stop() {
                return Err("told to stop before all nodes were ready".to_owned());
            } else if clock::now().boot >= deadline {
                let name = node.name.clone();
                return Err(format!("{name} is not ready in time: {}", self.said(&name)));
            } else {
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Which nodes have ended since the last look, and how.
    pub(super) fn gone(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        self.running.retain_mut(|(node, child)| match child.try_wait() {
            Ok(Some(status)) => {
                gone.push(format!("{} {}", node.name, how(status)));
                false
            }
            Ok(None) | Err(_) => true,
        });
        gone
    }

    /// Whether any node runs.
    pub(super) fn any(&self) -> bool {
        !self.running.is_empty()
    }

    /// Each node with the number of its process.
    pub(super) fn pids(&self) -> impl Iterator<Item = (&Node, u32)> {
        self.running.iter().map(|(node, child)| (node, child.id()))
    }

    /// What a node said last.
    fn said(&self, node: &str) -> String {
        let log = fs::read_to_string(self.folder.join(format!("{node}.log"))).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (_, child) in &self.running {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // One that is stopped has to go on to take it.
                let _ = kill_process(pid, Signal::TERM);
                let _ = kill_process(pid, Signal::CONT);
            }
        }
        let deadline = clock::now().boot + ENDING;
        while !self.running.is_empty() && clock::now().boot < deadline {
            let _ = self.gone();
            thread::sleep(PAUSE);
        }
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether a node takes traffic.
fn is_ready(node: &Node) -> bool {
    let Ok(base) = Base::parse(&format!("http://{}", node.admin)) else { return false };
    let answer = call(&base, &Method::GET, "/readyz", None, None, EXCHANGE);
    answer.is_ok_and(|answer| {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        answer.status.is_success() && body.is_object()
    })
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_names_and_ports_of_their_own() {
        let nodes = plan(3).expect("ports");
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["ams-1", "ams-2", "fra-1", "fra-2", "zrh-1", "zrh-2"]);
        let mut ports: Vec<u16> = nodes
            .iter()
            .flat_map(|node| [node.listen, node.listen_tls, node.admin, node.mesh])
            .map(|address| address.port())
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 24);
        for (pops, expected) in [(1, 1), (2, 3), (3, 3), (4, 3), (5, 5)] {
            let planned = plan(pops).expect("ports");
            assert_eq!(witnesses(&planned).len(), expected, "{pops}");
        }
        assert_eq!(witnesses(&nodes), ["ams-1", "fra-1", "zrh-1"]);
    }

    #[test]
    fn a_configuration_is_toml_that_names_all_nodes() {
        let nodes = plan(2).expect("ports");
        let origin = SocketAddr::from(([127, 0, 0, 1], 3000));
        let text = configuration(&nodes[1], &nodes, origin);
        let table: toml::Table = text.parse().expect("TOML");
        assert_eq!(table["node"]["name"].as_str(), Some("ams-2"));
        assert_eq!(table["mesh"]["seeds"].as_array().map(Vec::len), Some(3));
        assert_eq!(table["mesh"]["node"].as_array().map(Vec::len), Some(4));
        assert_eq!(table["origin"][0]["servers"][0].as_str(), Some("http://127.0.0.1:3000"));
    }

    #[test]
    fn a_folder_goes_with_what_is_in_it() {
        let folder = Folder::new().expect("a folder");
        let path = folder.path().to_owned();
        fs::write(path.join("a"), "b").expect("a file");
        drop(folder);
        assert!(!path.exists());
    }
}
