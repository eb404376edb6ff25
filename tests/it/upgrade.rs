//! Another process takes over from the program, and nobody notices; or it fails, and nothing changed.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::net::UnixDatagram;

use crate::support::certificate::Folder;
use crate::support::edge::{HOST, Plan};
use crate::support::program::{Program, send};
use crate::support::{
    Connection, Edge, Ended, H2, Origin, Piece, Reply, Response, pattern, until, within,
};

/// Length of a long download, in bytes.
const LONG: usize = 64 * 1024;

/// An origin with something to store, and downloads of about two seconds.
fn origin() -> Origin {
    Origin::start(|seen| match seen.target.as_str() {
        "/long" => {
            let whole = pattern(LONG);
            let pieces = whole
                .chunks(LONG / 16)
                .flat_map(|part| [Piece::data(part), Piece::Pause(Duration::from_millis(120))]);
            Reply::new(200).field("Cache-Control", "no-store").sized(LONG, pieces.collect())
        }
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

#[derive(Clone, Default)]
struct Visit {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Visit {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    fn check(&self, target: &str, body: &[u8]) {
        match target {
            "/long" => assert_eq!(body, pattern(LONG), "a long download"),
            _ => assert_eq!(body, b"hello"),
        }
        self.answered.fetch_add(1, Ordering::SeqCst);
    }

    /// Request after request over one connection, and over another where the edge says so.
    async fn http1(self, edge: SocketAddr, target: &'static str) {
        let mut client = Connection::open(edge).await;
        while self.goes_on() {
            client.ask(HOST, target, &[]).await;
            let head = client.head("GET").await;
            assert_eq!(head.status, 200, "{target}");
            let (body, ended) = client.rest().await;
            assert_eq!(ended, Ended::Clean, "{target}");
            self.check(target, &body);
            if head.field("connection") == Some("close") {
                client = Connection::open(edge).await;
            }
        }
    }

    /// A connection for each request.
    async fn short(self, edge: SocketAddr) {
        while self.goes_on() {
            let mut client = Connection::open(edge).await;
            client.ask(HOST, "/short", &[("Connection", "close")]).await;
            let answer = client.response("GET").await;
            assert_eq!(answer.status(), 200);
            self.check("/short", &answer.body);
        }
    }

    /// HTTP/2 over TLS; a stream that the edge never took may be asked for again.
    async fn http2(self, edge: SocketAddr, target: &'static str) {
        let mut client = H2::tls(edge, HOST).await;
        while self.goes_on() {
            let request = client.head("GET", target, &[]);
            let ready = within("room for a stream", client.sender().ready()).await;
            let sent = ready.and_then(|mut ready| ready.send_request(request, true));
            let Ok((response, _)) = sent else {
                client = H2::tls(edge, HOST).await;
                continue;
            };
            let answer = within("an answer", response).await;
            let mut body = match answer {
                Ok(answer) => {
                    assert_eq!(answer.status(), 200);
                    answer.into_body()
                }
                Err(error) if error.is_go_away() => {
                    client = H2::tls(edge, HOST).await;
                    continue;
                }
                Err(error) => panic!("{target}: {error}"),
            };
            let mut whole = Vec::new();
            while let Some(data) = within("a body", body.data()).await {
                let data = data.unwrap_or_else(|error| panic!("{target}: {error}"));
                let _ = body.flow_control().release_capacity(data.len());
                whole.extend_from_slice(&data);
            }
            self.check(target, &whole);
        }
    }
}

#[tokio::test]
async fn twice_under_load_no_request_fails_and_no_socket_is_left_over() {
    let origin = origin();
    let plan = Edge::before(&origin).tls(&[&[HOST]]).drain_notice("200ms");
    let (_folder, file) = written(&plan);
    let mut program = Program::of_file(&file, &[]);
    let (plain, tls) = (program.plain, program.tls.unwrap());
    assert_eq!((listening(plain), listening(tls), listening(program.admin)), (2, 2, 1));
    let visit = Visit::default();
    let mut visitors = Vec::new();
    for _ in 0..2 {
        for target in ["/kept", "/long"] {
            visitors.push(tokio::spawn(visit.clone().http1(plain, target)));
            visitors.push(tokio::spawn(visit.clone().http2(tls, target)));
        }
        visitors.push(tokio::spawn(visit.clone().short(plain)));
    }
    let mut known = vec![incarnation(&program).await];
    let first = program.pid();
    let mut before = first;
    for _ in 0..2 {
        let answered = visit.answered.load(Ordering::SeqCst);
        let more = || async { visit.answered.load(Ordering::SeqCst) > answered + 40 };
        until("load", more).await;
        let pid = program.upgrade().await;
        assert_ne!(pid, before);
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
    visit.over.store(true, Ordering::SeqCst);
    for visitor in visitors {
        visitor.await.unwrap();
    }
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
    let script =
        "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" run --config \"$1\" 3<&0 </dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_atoll")]).arg(&file);
    command.stdin(Stdio::from(OwnedFd::from(socket)));
    let mut program = Program::of(command);
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
