//! Nodes of a mesh in this process, with an authority of their own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::clock::{self, Now};
use crate::config::{CertificateFiles, LinkLimits, Membership, Mesh, MeshNode, Seed};
use crate::mesh::{Authority, Heard, LinkIdentity, Links, PeerState, PeerView};
use crate::replication::{Identity, Incarnation, Message, Name, Record, Scope, Source};
use crate::telemetry::{LinkClosed, Metrics, test_config};
use crate::tickets::{KeyPaces, Tickets};

/// Longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes with their files.
pub(super) struct Meshwork {
    folder: PathBuf,
    pub(super) authorities: [Authority; 2],
    pub(super) nodes: Vec<MeshNode>,
    running: BTreeMap<String, Running>,
    reserved: BTreeMap<String, SocketAddr>,
    pub(super) limits: LinkLimits,
}

struct Running {
    links: Arc<Links>,
    heard: mpsc::Receiver<Heard>,
    metrics: Arc<Metrics>,
}

impl Meshwork {
    /// A roster of these names, all in one PoP; no node runs yet.
    pub(super) fn new(names: &[&str]) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("atoll-links-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let node = |name: &&str| MeshNode {
            name: (*name).to_owned(),
            pop: "pop".to_owned(),
            issues: true,
        };
        let authorities = [(); 2].map(|()| Authority::new(clock::now()).unwrap());
        let limits = LinkLimits {
            redial_least: Duration::from_millis(20),
            redial_most: Duration::from_millis(500),
            ..LinkLimits::default()
        };
        let mesh = Self {
            folder,
            authorities,
            nodes: names.iter().map(node).collect(),
            running: BTreeMap::new(),
            reserved: BTreeMap::new(),
            limits,
        };
        for name in names {
            mesh.write_authorities(name, &[0]);
            mesh.write_certificate(name, 0);
        }
        mesh
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write_authorities(&self, node: &str, which: &[usize]) {
        let all: String = which.iter().map(|at| self.authorities[*at].certificate()).collect();
        fs::write(self.file(&format!("{node}-ca.pem")), all).unwrap();
    }

    fn write_certificate(&self, node: &str, by: usize) {
        let issued = self.authorities[by].issue(node, "pop", 1, clock::now()).unwrap();
        fs::write(self.file(&format!("{node}.key")), issued.key).unwrap();
        fs::write(self.file(&format!("{node}.pem")), issued.certificate).unwrap();
    }

    /// A certificate that is good for no longer than this.
    pub(super) fn write_ending(&self, node: &str, after: Duration) {
        let now = clock::now();
        let wall = now.wall - Duration::from_secs(86_400) + after;
        let issued = self.authorities[0].issue(node, "pop", 1, Now { wall, ..now }).unwrap();
        fs::write(self.file(&format!("{node}.key")), issued.key).unwrap();
        fs::write(self.file(&format!("{node}.pem")), issued.certificate).unwrap();
    }

    /// One step from the first authority to the second.
    pub(super) fn rotate(&self, node: &str, step: usize) {
        match step {
            0 => self.write_authorities(node, &[0, 1]),
            1 => self.write_certificate(node, 1),
            _ => self.write_authorities(node, &[1]),
        }
    }

    pub(super) fn break_certificate(&self, node: &str) {
        fs::write(self.file(&format!("{node}.pem")), "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    }

    fn config(&self, name: &str, listen: SocketAddr, seeds: &[&str]) -> Mesh {
        let file = |ending: &str| self.file(&format!("{name}{ending}"));
        let identity = CertificateFiles { chain: file(".pem"), key: file(".key") };
        let nodes = self.nodes.clone();
        let seeds = seeds.iter().map(|seed| Seed::from(self.address(seed))).collect();
        Mesh {
            seeds,
            links: self.limits.clone(),
            membership: Membership {
                probe: Duration::from_millis(300),
                probe_answer: Duration::from_millis(100),
                suspect: Duration::from_millis(600),
            },
            ..Mesh::new(listen, identity, vec![file("-ca.pem")], nodes, vec![name.to_owned()])
        }
    }

    pub(super) async fn open(&mut self, name: &str, seeds: &[&str]) {
        self.open_at(name, SocketAddr::from(([127, 0, 0, 1], 0)), seeds).await;
    }

    pub(super) async fn open_at(&mut self, name: &str, listen: SocketAddr, seeds: &[&str]) {
        let running = start(self.config(name, listen, seeds), name.into(), 1024).await;
        self.running.insert(name.to_owned(), running);
    }

    /// One whose messages nobody takes.
    pub(super) async fn open_deaf(&mut self, name: &str, seeds: &[&str]) {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let running = start(self.config(name, listen, seeds), name.into(), 1).await;
        self.running.insert(name.to_owned(), running);
    }

    /// One on a runtime of its own, which can be made to vanish.
    pub(super) fn open_apart(&mut self, name: &str, seeds: &[&str]) -> Runtime {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let start = start(self.config(name, listen, seeds), name.into(), 1024);
        let running = std::thread::scope(|scope| {
            scope.spawn(|| runtime.block_on(start)).join().expect("a node")
        });
        // Its handle outlives it here, so that nothing is closed in order.
        std::mem::forget(Arc::clone(&running.links));
        self.running.insert(name.to_owned(), running);
        runtime
    }

    /// Finds an address that is free.
    pub(super) fn reserve(&mut self, name: &str) {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        self.reserved.insert(name.to_owned(), socket.local_addr().unwrap());
    }

    pub(super) async fn open_reserved(&mut self, name: &str, seeds: &[&str]) {
        self.open_at(name, self.reserved[name], seeds).await;
    }

    /// One whose only seed is at this address.
    pub(super) async fn open_with_seed(&mut self, name: &str, seed: SocketAddr) {
        self.reserved.insert("seed".to_owned(), seed);
        self.open(name, &["seed"]).await;
    }

    pub(super) async fn close(&mut self, name: &str) {
        let running = self.running.remove(name).expect("a node that runs");
        running.links.close();
        until("all links are down", || {
            running.links.peers().iter().all(|peer| peer.state == PeerState::Down)
        })
        .await;
    }

    pub(super) fn links(&self, name: &str) -> &Links {
        &self.running[name].links
    }

    pub(super) fn metrics(&self, name: &str) -> &Metrics {
        &self.running[name].metrics
    }

    pub(super) fn address(&self, name: &str) -> SocketAddr {
        let running = self.running.get(name).map(|running| running.links.local_address());
        running.unwrap_or_else(|| self.reserved[name])
    }

    pub(super) fn peer(&self, of: &str, name: &str) -> PeerView {
        let peers = self.links(of).peers();
        peers.into_iter().find(|peer| peer.name.as_str() == name).expect("in the roster")
    }

    pub(super) fn closed(&self, of: &str, why: LinkClosed) -> u64 {
        let line = format!("atoll_mesh_links_closed_total{{reason=\"{}\"}}", why.label());
        number(&self.metrics(of).render(), &line)
    }

    /// Waits until each of these has a link to each other.
    pub(super) async fn linked(&self, names: &[&str]) {
        for from in names {
            for to in names.iter().filter(|to| *to != from) {
                self.linked_one(from, to).await;
            }
        }
    }

    pub(super) async fn linked_one(&self, from: &str, to: &str) {
        until(&format!("{from} is linked to {to}"), || self.peer(from, to).state == PeerState::Up)
            .await;
    }

    /// The next message that a node hears: from whom, and its number.
    pub(super) async fn hears(&mut self, name: &str) -> (Name, u64) {
        let heard = &mut self.running.get_mut(name).expect("a node that runs").heard;
        let heard = timeout(PATIENCE, heard.recv()).await;
        let Heard { from, message } = heard.expect("a message in time").expect("open links");
        match message {
            Message::Record { record, .. } => (from, record.identity.sequence),
            Message::Records(records) => (from, records.len() as u64),
            other => panic!("nobody said {other:?}"),
        }
    }
}

impl Drop for Meshwork {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn start(config: Mesh, name: Name, room: usize) -> Running {
    let (sender, heard) = mpsc::channel(room);
    let metrics = Metrics::new(&test_config());
    let tickets = Tickets::new(KeyPaces::new(Duration::from_secs(3_600)), Arc::clone(&metrics));
    let node = LinkIdentity { name, pop: "pop".into(), seed: 7, tickets };
    let links = Links::open(&config, node, sender, Arc::clone(&metrics)).await.unwrap();
    Running { links, heard, metrics }
}

fn record(sequence: u64, bytes: usize) -> Arc<Record> {
    let source = Source { incarnation: Incarnation(1), node: "x".into() };
    let payload = vec![7; bytes].into();
    let identity = Identity { source, sequence };
    Arc::new(Record { identity, before: 0, scope: Scope::All, receipt: false, payload })
}

/// A message with a number, of about this size.
pub(super) fn message(number: u64, bytes: usize) -> Message {
    Message::Record { record: record(number, bytes), pass_on: false }
}

/// Records that somebody has missed.
pub(super) fn batch(count: u64, bytes: usize) -> Message {
    Message::Records((1..=count).map(|number| record(number, bytes)).collect())
}

/// Waits for a condition.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
}

/// The value of a metric, labels included in its name.
pub(super) fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.expect(name).trim().parse().expect(name)
}
