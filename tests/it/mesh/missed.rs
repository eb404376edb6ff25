//! A node that was stopped while a million purges went by: it catches up while it goes on answering.
//!
//! The node is the program, as a process that can be stopped. Its peer is no edge, only a node of the mesh in
//! this process, so that a million purges are issued in seconds. Hits are counted by the time that the
//! workers of the node compute: that the mesh and the clients want the same cores is not theirs to pay.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use atoll::clock;
use atoll::config::{self, Config};
use atoll::mesh::{AUTHORITY_FILE, Authority, LinkState, Local, Mesh, Surroundings};
use atoll::purge::{Secret, Selector, Strength};
use atoll::store::{Author, Events, Purges};
use atoll::telemetry::Metrics;
use atoll::tickets::{KeyPaces, Tickets};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::support::binary::Binary;
use crate::support::certificate::Folder;
use crate::support::edge::{HOST, TOKEN};
use crate::support::{Connection, Origin, Reply, until};

/// URLs that are purged again and again; those that are asked for are others.
const PURGED: u64 = 1_000;

/// URLs that are asked for.
const ASKED: u64 = 64;

/// Clients that ask, each for one after the other, with a pause.
const CLIENTS: u64 = 4;
const PAUSE: Duration = Duration::from_micros(500);

/// A node of the mesh and nothing else.
struct Peer {
    mesh: Arc<Mesh>,
    links: Option<Runtime>,
}

impl Peer {
    fn start(config: &Config) -> Self {
        let links = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let metrics = Metrics::new(config);
        let mesh = config.mesh.as_ref().expect("a mesh");
        let around = Surroundings {
            purges: Arc::new(Purges::new(Secret(1, 2), 100_000)),
            events: Events::new(100),
            tickets: Tickets::new(KeyPaces::new(mesh.ticket_keys), Arc::clone(&metrics)),
            metrics,
            localise: Arc::new(|selector| Local { selectors: vec![selector], unknown: None }),
        };
        let socket = TcpListener::bind(mesh.listen).unwrap();
        socket.set_nonblocking(true).unwrap();
        let seat = (socket, links.handle().clone());
        let mesh = Mesh::prepare(mesh, &config.node, around, seat).unwrap();
        // It may block on that runtime, which a thread with another one must not.
        std::thread::scope(|scope| scope.spawn(|| mesh.take_part()).join().unwrap()).unwrap();
        Self { mesh, links: Some(links) }
    }

    /// Whether the link to the node is up.
    fn is_linked(&self) -> bool {
        let nodes = self.mesh.view(clock::now()).nodes;
        nodes.iter().any(|node| node.name == "b" && node.link == LinkState::Up)
    }

    /// Purges so many times.
    fn purge(&self, count: u64) {
        let token = "all".into();
        let by = Author { token, address: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        for number in 0..count {
            let target = format!("/purged/{}", number % PURGED);
            let url = Selector::Url { site: "main".into(), host: HOST.to_owned(), target };
            self.mesh.purge(&by, &[url], Strength::Hard, clock::now()).unwrap();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        std::thread::scope(|scope| drop(scope.spawn(|| self.mesh.close()).join()));
        if let Some(links) = self.links.take() {
            links.shutdown_background();
        }
    }
}

fn file(folder: &Path, name: &str, origin: &Origin, seeds: &[String]) -> String {
    let path = |file: String| folder.join(file).display().to_string();
    let hash = config::format_hash(&config::hash_token(TOKEN));
    let mut text = format!(
        "[node]\nname = \"{name}\"\npop = \"fra\"\nworkers = 1\nseed = 7\n\
         [memory]\nbudget = \"2GiB\"\n[log]\naccess = \"none\"\nlevel = \"error\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n\
         [[admin.token]]\nname = \"all\"\nhash = \"{hash}\"\nscopes = [\"read\"]\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[origin]]\nname = \"main\"\nservers = [\"http://{}\"]\n\
         [[site]]\nname = \"main\"\nhosts = [\"*\"]\norigin = \"main\"\n\
         lifetime = \"1h\"\nwithout_lease = \"serve\"\n\
         [mesh]\nlisten = \"127.0.0.1:0\"\ncertificate = {:?}\nkey = {:?}\nca = [{:?}]\n\
         seeds = {seeds:?}\nwitnesses = [\"a\"]\nidle = \"1s\"\nqueue_frames = 256\n\
         log_records = 1_100_000\nlog_bytes = \"1GiB\"\n\
         purge_rate = 1_000_000\npurge_burst = 10_000_000\n",
        origin.address,
        path(format!("{name}.pem")),
        path(format!("{name}.key")),
        path(AUTHORITY_FILE.to_owned()),
    );
    for node in ["a", "b"] {
        let _ = writeln!(text, "[[mesh.node]]\nname = \"{node}\"\npop = \"fra\"");
    }
    text
}

async fn view(node: &Binary) -> Value {
    serde_json::from_slice(&node.manage("/v1/mesh").await.body).unwrap()
}

/// Clients that go on asking until they are told to stop; counts their hits.
struct Load {
    hits: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(node: &Binary) -> Self {
        let mut load = Self { hits: Arc::default(), over: Arc::default(), clients: JoinSet::new() };
        for client in 0..CLIENTS {
            let (address, hits, over) =
                (node.plain, Arc::clone(&load.hits), Arc::clone(&load.over));
            load.clients.spawn(async move {
                let mut connection = Connection::open(address).await;
                let mut next = client;
                while !over.load(Ordering::Relaxed) {
                    if next % (CLIENTS * 500) == client {
                        // A node lets a connection go after so many requests.
                        connection = Connection::open(address).await;
                    }
                    let target = format!("/asked/{}", next % ASKED);
                    let answer = connection.get(HOST, &target, &[]).await;
                    hits.fetch_add(u64::from(answer.cache().contains("hit")), Ordering::Relaxed);
                    next += CLIENTS;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        load
    }

    async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
    }
}

/// Hits for each second that the workers computed, from one moment to another.
struct Meter<'a> {
    node: &'a Binary,
    load: &'a Load,
    hits: u64,
    computed: Duration,
    began: clock::Now,
}

impl<'a> Meter<'a> {
    fn start(node: &'a Binary, load: &'a Load) -> Self {
        let (hits, computed) = (load.hits.load(Ordering::Relaxed), node.computed_by("worker-"));
        Self { node, load, hits, computed, began: clock::now() }
    }

    fn read(&self) -> (f64, u64) {
        let hits = self.load.hits.load(Ordering::Relaxed) - self.hits;
        let computed = self.node.computed_by("worker-") - self.computed;
        (hits as f64 / computed.as_secs_f64(), hits)
    }

    fn seconds(&self) -> f64 {
        clock::now().since(self.began).as_secs_f64()
    }
}

/// What a story came to.
#[derive(Debug)]
struct Told {
    seconds: f64,
    share: f64,
    epochs: u64,
    more_bytes: u64,
}

async fn story(count: u64) -> Told {
    let origin = Origin::serving(Reply::fresh("body"));
    let folder = Folder::new();
    let authority = Authority::new(clock::now()).unwrap();
    authority.save(folder.path()).unwrap();
    for name in ["a", "b"] {
        authority.issue(name, "fra", 1, clock::now()).unwrap().save(folder.path(), name).unwrap();
    }
    let text = file(folder.path(), "a", &origin, &[]);
    let config = config::load(&text, Path::new("a.toml")).map_err(|e| e.to_string()).unwrap();
    let peer = Arc::new(Peer::start(&config));
    let address = peer.mesh.links().expect("links").local_address().to_string();
    let text = file(folder.path(), "b", &origin, &[address]);
    let node = Binary::of_file(&text, folder, "");
    until("a lease", || async { view(&node).await["lease"]["held"] == true }).await;
    // One purge on both, and what is asked for is stored: from here on the two are equals.
    peer.purge(1);
    until("the first purge", || async { applied(&view(&node).await) == 1 }).await;
    for number in 0..ASKED {
        node.get(HOST, &format!("/asked/{number}")).await;
    }
    let epoch = view(&node).await["epoch"].as_u64().unwrap();
    node.signal("STOP");
    // Else thousands of them would wait for the node in its sockets, and come one by one, as those do
    // that wait for a link.
    until("the link to be given up", || async { !peer.is_linked() }).await;
    let issuer = Arc::clone(&peer);
    tokio::task::spawn_blocking(move || issuer.purge(count)).await.unwrap();
    let (resident, load) = (node.resident(), Load::start(&node));
    node.signal("CONT");
    let during = Meter::start(&node, &load);
    let mut most = resident;
    loop {
        most = most.max(node.resident());
        let seen = view(&node).await;
        if applied(&seen) == count + 1 {
            break;
        }
        assert!(during.seconds() < 60.0, "{seen}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seconds = during.seconds();
    let (busy, hits) = during.read();
    let epochs = view(&node).await["epoch"].as_u64().unwrap() - epoch;
    let after = Meter::start(&node, &load);
    while after.read().1 < hits.max(1_000) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (quiet, _) = after.read();
    load.end().await;
    let told = Told { seconds, share: busy / quiet, epochs, more_bytes: most - resident };
    println!("{count} missed purges, {hits} hits meanwhile: {told:?}");
    told
}

fn applied(view: &Value) -> u64 {
    let sources = view["vector"].as_array().unwrap();
    let of = sources.iter().filter(|source| source["node"] == "a");
    of.filter_map(|source| source["sequence"].as_u64()).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_is_caught_up_in_few_epochs() {
    let told = story(20_000).await;
    assert!(told.epochs <= 2_000, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "its figures are those of a release build; .ci/long runs it"]
async fn a_million_missed_purges_are_caught_up_in_five_seconds_while_hits_go_on() {
    let told = story(1_000_000).await;
    assert!(told.seconds < 5.0, "{told:?}");
    assert!(told.share > 0.7, "{told:?}");
    assert!(told.more_bytes < 768 << 20, "{told:?}");
}
