//! Another process takes over from the program, and nobody notices; or it fails, and nothing changed.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tokio::net::UnixDatagram;

use crate::support::certificate::Folder;
use crate::support::edge::{HOST, Plan};
use crate::support::program::{Program, send};
use crate::support::traffic::{self, Traffic};
use crate::support::{Connection, Edge, Origin, Reply, Response, until, within};

fn origin() -> Origin {
    Origin::start(|seen| match seen.target.as_str() {
        "/counted" => Reply::fresh(format!("{}", seen.nth)),
        _ => Reply::fresh("hello"),
    })
}

/// A plan in a file of its own.
fn written(plan: &Plan) -> (Folder, PathBuf) {
    let folder = Folder::new();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, plan.toml()).unwrap();
    (folder, file)
}

fn json_of(answer: &Response) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

async fn incarnation(program: &Program) -> String {
    let answer = program.manage("GET", "/v1/status", None).await;
    json_of(&answer)["node"]["incarnation"].as_str().unwrap().to_owned()
}

fn gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

/// Listening sockets at an address.
fn listening(address: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{:04X} 00000000:0000 0A", address.port());
    table.lines().filter(|line| line.contains(&local)).count()
}

/// Two versions of the program, and the name that one of them has at a time.
struct Versions {
    folder: Folder,
}

impl Versions {
    fn new() -> Self {
        let versions = Self { folder: Folder::new() };
        for version in ["one", "two"] {
            std::fs::copy(env!("CARGO_BIN_EXE_atoll"), versions.path(version)).unwrap();
        }
        versions.install("one");
        versions
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn install(&self, version: &str) {
        let _ = std::fs::remove_file(self.path("new"));
        std::os::unix::fs::symlink(self.path(version), self.path("new")).unwrap();
        std::fs::rename(self.path("new"), self.path("atoll")).unwrap();
    }

    fn run(&self, file: &Path) -> Program {
        let mut command = Command::new(self.path("atoll"));
        command.args(["run", "--config"]).arg(file).stdin(Stdio::null());
        Program::of(command)
    }
}

/// Which program a process runs.
fn version_of(pid: u32) -> String {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// From one version to the other and back, under load.
async fn back_and_forth(times: usize, rate: u32) {
    let origin = traffic::origin();
    let plan = Edge::before(&origin).tls(&[&[HOST]]).drain_notice("200ms");
    let (_folder, file) = written(&plan);
    let versions = Versions::new();
    let mut program = versions.run(&file);
    let (plain, tls) = (program.plain, program.tls.unwrap());
    assert_eq!((listening(plain), listening(tls), listening(program.admin)), (2, 2, 1));
    let traffic = Traffic::start(plain, program.tls, rate);
    let mut known = vec![incarnation(&program).await];
    let first = program.pid();
    let mut before = first;
    for turn in 0..times {
        traffic.flows().await;
        let version = if turn % 2 == 0 { "two" } else { "one" };
        versions.install(version);
        let pid = program.upgrade().await;
        assert_ne!(pid, before);
        assert_eq!(version_of(pid), version);
        let now = incarnation(&program).await;
        assert!(!known.contains(&now), "the new process answers");
        known.push(now);
        // The first one is a child of this story, the others are adopted.
        until("the old process to leave", || {
            let left = if before == first { program.left() } else { gone(before) };
            async move { left }
        })
        .await;
        assert_eq!((listening(plain), listening(tls), listening(program.admin)), (2, 2, 1));
        before = pid;
    }
    traffic.stop(&format!("{times} upgrades")).await;
}

#[tokio::test]
async fn twice_under_load_no_request_fails_and_no_socket_is_left_over() {
    back_and_forth(2, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute at a rate for release builds: run by .ci/long"]
async fn no_request_fails_by_upgrades_at_two_thousand_a_second() {
    back_and_forth(10, 2000).await;
}

/// Starts the program on a socket that the service manager has opened.
fn on(socket: &TcpListener, file: &Path) -> Program {
    let script =
        "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" run --config \"$1\" 3<&0 </dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_atoll")]).arg(file);
    command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    Program::of(command)
}

/// Ended by SIGTERM and started anew, as a service manager does that keeps the socket: those who come in
/// between wait. (Without one they would be refused, for nobody listens.)
async fn restarted(times: usize, rate: u32) {
    let origin = traffic::origin();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let plan = Edge::before(&origin).listener(&address, "http2 = true").drain_notice("300ms");
    let (_folder, file) = written(&plan);
    let mut program = on(&socket, &file);
    let traffic = Traffic::start(program.plain, None, rate);
    for _ in 0..times {
        traffic.flows().await;
        program.signal(Signal::TERM);
        until("the process to leave", || {
            let left = program.left();
            async move { left }
        })
        .await;
        let (socket, file) = (socket.try_clone().unwrap(), file.clone());
        // It waits for the process to say where it is, and clients wait for it, too.
        program = tokio::task::spawn_blocking(move || on(&socket, &file)).await.unwrap();
    }
    traffic.stop(&format!("SIGTERM, {times} times")).await;
}

#[tokio::test]
async fn no_request_fails_while_the_service_is_restarted() {
    restarted(2, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute at a rate for release builds: run by .ci/long"]
async fn no_request_fails_by_sigterm_at_two_thousand_a_second() {
    restarted(10, 2000).await;
}

#[tokio::test]
async fn a_new_process_that_fails_leaves_the_old_one_untouched_and_says_why() {
    let origin = origin();
    let plan = Edge::before(&origin);
    let (_folder, file) = written(&plan);
    let mut program = Program::of_file(&file, &[]);
    let mut kept = Connection::open(program.plain).await;
    kept.get(HOST, "/counted", &[]).await;
    let before = incarnation(&program).await;
    std::fs::write(&file, plan.toml().replace("workers = 2", "workers = \"two\"")).unwrap();
    let answer = program.manage("POST", "/v1/upgrade", None).await;
    assert_eq!(answer.status(), 502, "{answer:?}");
    let told = json_of(&answer);
    assert_eq!(told["code"], "ended");
    assert!(told["detail"].as_str().unwrap().contains("exit status: 2"), "{told}");
    let said: Vec<&str> =
        told["said"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(said.iter().any(|line| line.contains("node.workers")), "{said:?}");
    assert_eq!(incarnation(&program).await, before);
    kept.get(HOST, "/counted", &[]).await.expect(200, "1", "hit");
    // The next one does as well as if there had been none.
    std::fs::write(&file, plan.toml()).unwrap();
    program.upgrade().await;
    assert_ne!(incarnation(&program).await, before);
}

#[tokio::test]
async fn a_new_process_that_says_nothing_in_its_time_is_ended_and_the_old_one_goes_on() {
    let origin = origin();
    let (_folder, file) = written(&Edge::before(&origin).limits("upgrade = \"1s\""));
    let versions = Versions::new();
    let program = versions.run(&file);
    let before = incarnation(&program).await;
    std::fs::write(versions.path("silent"), "#!/bin/sh\necho $$ >\"$0.pid\"\nexec sleep 60\n")
        .unwrap();
    let may_run = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(versions.path("silent"), may_run).unwrap();
    versions.install("silent");
    let answer = program.manage("POST", "/v1/upgrade", None).await;
    assert_eq!(json_of(&answer)["code"], "silent", "{answer:?}");
    let pid = std::fs::read_to_string(versions.path("atoll.pid")).unwrap();
    assert!(gone(pid.trim().parse().unwrap()), "it is left over");
    assert_eq!(incarnation(&program).await, before);
}

#[tokio::test]
async fn what_is_purged_at_the_new_process_is_gone_at_the_old_one() {
    let origin = origin();
    // The old process goes on answering whoever is connected for a while.
    let (_folder, file) = written(&Edge::before(&origin).drain_notice("3s"));
    let mut program = Program::of_file(&file, &[]);
    let mut kept = Connection::open(program.plain).await;
    for _ in 0..2 {
        assert_eq!(kept.get(HOST, "/counted", &[]).await.text(), "1");
    }
    program.upgrade().await;
    let purge = Some(r#"{"site":"main","all":true}"#);
    let answer = program.manage("POST", "/v1/purge", purge).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let answer = kept.get(HOST, "/counted", &[]).await;
    assert_eq!(answer.head.field("connection"), Some("close"), "it is the old one");
    assert_eq!(answer.text(), "2");
}

/// Waits until the service manager has been told something, and gives all that came until then.
async fn told(manager: &UnixDatagram, what: &str) -> String {
    let mut all = String::new();
    let mut record = vec![0; 4096];
    while !all.contains(what) {
        let length = within(what, manager.recv(&mut record)).await.unwrap();
        all += &String::from_utf8_lossy(&record[..length]);
        all += "\n";
    }
    all
}

#[tokio::test]
async fn the_service_manager_is_told_and_a_signal_upgrades() {
    let origin = origin();
    let (folder, file) = written(&Edge::before(&origin));
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let path = path.display().to_string();
    let watched = [("NOTIFY_SOCKET", &*path), ("WATCHDOG_USEC", "400000")];
    let mut program = Program::of_file(&file, &watched);
    told(&manager, "READY=1").await;
    told(&manager, "WATCHDOG=1").await;
    program.signal(Signal::HUP);
    let reloading = told(&manager, "RELOADING=1").await + &told(&manager, "READY=1").await;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    program.signal(Signal::USR2);
    let upgraded = told(&manager, "MAINPID=").await;
    assert!(upgraded.contains("READY=1"), "the new process answers first: {upgraded}");
    let pid = upgraded.split("MAINPID=").nth(1).unwrap().lines().next().unwrap();
    let pid: u32 = pid.parse().unwrap();
    program.succeeded_by(pid);
    until("the old process to leave", || {
        let left = program.left();
        async move { left }
    })
    .await;
    send(pid, Signal::TERM);
    let end = told(&manager, "STOPPING=1").await;
    assert_eq!(end.matches("STOPPING=1").count(), 1, "only the one that ends the service: {end}");
    until("the new process to leave", || async { gone(pid) }).await;
}

#[tokio::test]
async fn a_socket_that_the_service_manager_opened_is_taken_up() {
    let origin = origin();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (_folder, file) = written(&Edge::before(&origin).listener(&address.to_string(), ""));
    let mut program = on(&socket, &file);
    assert_eq!(program.plain, address);
    // One socket for two workers, which nobody could bind a second time.
    assert_eq!(listening(address), 1);
    for _ in 0..2 {
        for _ in 0..20 {
            let mut client = Connection::open(address).await;
            assert_eq!(client.get(HOST, "/a", &[]).await.text(), "hello");
        }
        program.upgrade().await;
        assert_eq!(listening(address), 1);
    }
}
