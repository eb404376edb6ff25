//! Three nodes in three PoPs, each a whole edge, over real links: what is purged on one is purged on
//! all, and whoever cannot know that asks the origin.

mod missed;
mod rotation;
mod upgrade;
mod witnesses;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use atoll::clock;
use atoll::config;
use atoll::mesh::{AUTHORITY_FILE, Authority};
use serde_json::{Value, json};

use crate::support::certificate::Folder;
use crate::support::edge::{HOST, TOKEN};
use crate::support::{Edge, Origin, Reply, until};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The nodes of a story, and what they are made of.
pub(crate) struct Reef {
    pub(crate) folder: Folder,
    pub(crate) origin: Origin,
    pub(crate) nodes: Vec<Option<Edge>>,
    /// Where each can be reached, once it was started.
    addresses: Vec<Option<SocketAddr>>,
}

impl Reef {
    /// All three, once each holds a lease.
    pub(crate) async fn start() -> Self {
        let mut reef = Self::before();
        for node in 0..NAMES.len() {
            reef.begin(node);
        }
        reef.all_hold().await;
        reef
    }

    pub(crate) fn before() -> Self {
        let folder = Folder::new();
        let authority = Authority::new(clock::now()).unwrap();
        authority.save(folder.path()).unwrap();
        for (name, pop) in NAMES.iter().zip(POPS) {
            let issued = authority.issue(name, pop, 1, clock::now()).unwrap();
            issued.save(folder.path(), name).unwrap();
        }
        let origin = Origin::start(|seen| {
            Reply::fresh(format!("v{}", seen.nth)).field("ETag", &format!("\"{}\"", seen.nth))
        });
        Self { folder, origin, nodes: vec![None, None, None], addresses: vec![None; 3] }
    }

    /// Starts a node, where it was before if it was.
    pub(crate) fn begin(&mut self, node: usize) {
        self.begin_as(node, |file| file);
    }

    /// The same, with another file.
    pub(crate) fn begin_as(&mut self, node: usize, written: impl Fn(String) -> String) {
        let edge = Edge::from_file(&written(self.file(node)), Folder::new());
        self.addresses[node] = Some(edge.mesh());
        self.nodes[node] = Some(edge);
    }

    fn file(&self, node: usize) -> String {
        let (name, folder) = (NAMES[node], self.folder.path());
        let path = |file: String| folder.join(file).display().to_string();
        let hash = config::format_hash(&config::hash_token(TOKEN));
        let listen = self.addresses[node].map_or("127.0.0.1:0".to_owned(), |at| at.to_string());
        let others = self.addresses.iter().enumerate().filter(|(other, _)| *other != node);
        let seeds: Vec<String> = others.filter_map(|(_, at)| at.map(|at| at.to_string())).collect();
        let mut text = format!(
            "[node]\nname = \"{name}\"\npop = \"{}\"\nworkers = 1\nseed = 7\n\
             [memory]\nbudget = \"2GiB\"\n[log]\naccess = \"none\"\nlevel = \"error\"\n\
             [limits]\ndrain_notice = \"0s\"\n\
             [admin]\naddress = \"127.0.0.1:0\"\n\
             [[admin.token]]\nname = \"all\"\nhash = \"{hash}\"\n\
             scopes = [\"read\", \"purge\", \"purge-all\", \"config\", \"drain\"]\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[origin]]\nname = \"main\"\nservers = [\"http://{}\"]\n\
             [[site]]\nname = \"main\"\nhosts = [\"*\"]\norigin = \"main\"\n\
             jitter = \"0%\"\nearly_refresh = 0.0\n\
             [mesh]\nlisten = \"{listen}\"\ncertificate = {:?}\nkey = {:?}\nca = [{:?}]\n\
             seeds = {seeds:?}\nwitnesses = {NAMES:?}\ndirectory = {:?}\n",
            POPS[node],
            self.origin.address,
            path(format!("{name}.pem")),
            path(format!("{name}.key")),
            path(AUTHORITY_FILE.to_owned()),
            path(format!("log-{name}")),
        );
        for (name, pop) in NAMES.iter().zip(POPS) {
            let issues = *name != "c";
            let _ = writeln!(
                text,
                "[[mesh.node]]\nname = \"{name}\"\npop = \"{pop}\"\nissues = {issues}"
            );
        }
        text
    }

    pub(crate) fn node(&self, node: usize) -> &Edge {
        self.nodes[node].as_ref().expect("a node that runs")
    }

    /// Ends a node without a farewell to its clients.
    pub(crate) async fn end(&mut self, node: usize) {
        self.nodes[node].take().expect("a node that runs").ends().await;
    }

    pub(crate) async fn view(&self, node: usize) -> Value {
        view(self.node(node)).await
    }

    pub(crate) async fn all_hold(&self) {
        for edge in self.nodes.iter().flatten() {
            holds(edge, true).await;
        }
    }
}

const POPS: [&str; 3] = ["fra", "nyc", "sin"];

async fn view(edge: &Edge) -> Value {
    let answer = edge.manage("GET", "/v1/mesh", None).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

pub(crate) async fn holds(edge: &Edge, held: bool) {
    let what = if held { "the lease to be held" } else { "the lease to be lost" };
    until(what, || async { view(edge).await["lease"]["held"] == held }).await;
}

/// A purge of a path with what the caller would wait for.
pub(crate) fn purge(path: &str, wait: &str) -> Value {
    json!({ "urls": [format!("http://{HOST}{path}")], "wait": wait, "timeout": "3s" })
}

pub(crate) fn sequence(view: &Value, node: &str) -> u64 {
    let sources = view["vector"].as_array().unwrap();
    let of = sources.iter().filter(|source| source["node"] == node);
    of.filter_map(|source| source["sequence"].as_u64()).max().unwrap_or(0)
}

#[tokio::test]
async fn a_purge_on_one_node_is_in_force_on_all_and_each_says_so() {
    let reef = Reef::start().await;
    for edge in reef.nodes.iter().flatten() {
        edge.fill("/a").await;
        assert!(edge.get("/a").await.cache().contains("hit"));
    }
    let receipt = reef.node(0).purge(purge("/a", "everywhere")).await;
    assert_eq!(
        (&receipt["state"], &receipt["nodes"][2]["state"]),
        (&"everywhere".into(), &"applied".into()),
        "{receipt}"
    );
    for edge in reef.nodes.iter().flatten() {
        let answer = edge.get("/a").await;
        assert!(answer.cache().contains("fwd="), "{answer:?}");
    }
    let views = [reef.view(0).await, reef.view(1).await, reef.view(2).await];
    assert_eq!(views.each_ref().map(|view| sequence(view, "a")), [1, 1, 1]);
    assert_eq!(views[0]["digest"], views[2]["digest"]);
    let told = reef.node(2).metric("atoll_mesh_records_applied_total{pop=\"fra\"}").await;
    assert!((told - 1.0).abs() < 0.1, "{told}");
}

#[tokio::test]
async fn a_purge_means_on_each_node_what_its_own_file_makes_of_it() {
    let mut reef = Reef::before();
    // In the middle of a rollout that renames the site and drops parameters from its keys.
    reef.begin_as(0, |file| {
        let keys = "jitter = \"0%\"\nkey_query = { without = [\"utm_*\"] }";
        file.replace("jitter = \"0%\"", keys)
            .replace("[[site]]\nname = \"main\"", "[[site]]\nname = \"shop\"")
    });
    reef.begin_as(1, |file| {
        file.replace("jitter = \"0%\"", "jitter = \"0%\"\nkey_query = \"all\"")
    });
    reef.begin(2);
    reef.all_hold().await;
    let target = "/a?utm_source=x";
    for edge in reef.nodes.iter().flatten() {
        edge.fill(target).await;
        assert!(edge.get(target).await.cache().contains("hit"));
    }
    reef.node(0).purge(purge(target, "everywhere")).await;
    for edge in reef.nodes.iter().flatten() {
        let answer = edge.fill(target).await;
        assert!(answer.cache().contains("fwd="), "{answer:?}");
    }
    let tagged = json!({ "tags": ["t"], "wait": "everywhere", "timeout": "3s" });
    reef.node(0).purge(tagged).await;
    let asked = reef.origin.count(target);
    assert!(reef.node(0).get(target).await.cache().contains("hit"));
    let answer = reef.node(1).get(target).await;
    assert!(
        answer.cache().contains("fwd="),
        "what may be of the renamed site is checked: {answer:?}"
    );
    assert_eq!(reef.origin.count(target), asked + 1);
    let told = reef.node(1).metric("atoll_mesh_records_unknown_site_total").await;
    assert!((told - 1.0).abs() < 0.1, "{told}");
}

#[tokio::test]
async fn a_long_purge_is_in_force_on_all_as_a_whole() {
    let reef = Reef::start().await;
    let last = format!("/{}/{}", 199, "x".repeat(1_500));
    reef.node(1).fill(&last).await;
    let urls: Vec<String> =
        (0..200).map(|at| format!("http://{HOST}/{at}/{}", "x".repeat(1_500))).collect();
    let receipt = reef.node(0).purge(json!({ "urls": urls, "wait": "everywhere" })).await;
    assert_eq!(receipt["state"], "everywhere", "{receipt}");
    assert!(sequence(&reef.view(1).await, "a") > 1, "it takes several records");
    let answer = reef.node(1).get(&last).await;
    assert!(answer.cache().contains("fwd="), "{answer:?}");
}

#[tokio::test]
async fn one_witness_less_changes_nothing_and_without_two_nothing_is_proved_or_served_unasked() {
    let mut reef = Reef::start().await;
    reef.node(0).fill("/kept").await;
    reef.end(2).await;
    let receipt = reef.node(0).purge(purge("/a", "acknowledged")).await;
    assert_eq!(receipt["state"], "acknowledged", "{receipt}");
    assert!(reef.node(0).get("/kept").await.cache().contains("hit"));
    // The other one is gone, too: nobody can know what was purged.
    reef.end(1).await;
    // What it said before may still be on its way to a slow reader, and is worth a lease from then.
    let gone = clock::now();
    until("the last answer is worth nothing", || async {
        clock::now().since(gone) > Duration::from_secs(2)
    })
    .await;
    holds(reef.node(0), false).await;
    let asked = reef.origin.count("/kept");
    reef.node(0).get("/kept").await;
    assert_eq!(reef.origin.count("/kept"), asked + 1, "the origin has the last word");
    let answer =
        reef.node(0).manage("POST", "/v1/purge", Some(purge("/kept", "acknowledged"))).await;
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status(), &told["code"]), (503, &"not-acknowledged".into()), "{told}");
    let lost = reef.node(0).metric("atoll_mesh_lease_lost_total").await;
    assert!(lost > 0.5, "{lost}");
}

#[tokio::test]
async fn a_node_that_comes_back_knows_what_it_missed_before_it_holds_a_lease() {
    let mut reef = Reef::start().await;
    reef.node(0).purge(purge("/before", "everywhere")).await;
    reef.end(2).await;
    for path in ["/a", "/b", "/c"] {
        reef.node(0).purge(purge(path, "acknowledged")).await;
    }
    reef.begin(2);
    let back = reef.node(2);
    until("a lease, and what was missed before it", || async {
        let view = view(back).await;
        let held = view["lease"]["held"] == true;
        assert!(!held || sequence(&view, "a") == 4, "{view}");
        held
    })
    .await;
    let ready = back.manage_as(None, "GET", "/readyz", None).await;
    assert_eq!(ready.status(), 200);
    assert_eq!(view(back).await["witnesses"]["serving"], true, "its log had told it");
}

#[tokio::test]
async fn a_node_alone_is_not_ready_and_one_that_may_not_issue_says_so() {
    let mut reef = Reef::before();
    reef.begin(2);
    let alone = reef.node(2);
    let ready = alone.manage_as(None, "GET", "/readyz", None).await;
    let told: Value = serde_json::from_slice(&ready.body).unwrap();
    assert_eq!((ready.status(), &told["caught_up"]), (503, &false.into()), "{told}");
    alone.fill("/a").await;
    let asked = reef.origin.count("/a");
    alone.get("/a").await;
    assert_eq!(reef.origin.count("/a"), asked + 1);
    let answer = alone.manage("POST", "/v1/purge", Some(purge("/a", "local"))).await;
    assert_eq!(answer.status(), 403, "{answer:?}");
    assert!(Path::new(&reef.folder.path().join("log-c").join("witness.log")).exists());
}
