//! An edge in this process, from a few lines of configuration.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atoll::app::{Listening, Running, Source};
use atoll::clock;
use atoll::config;
use atoll::replication::{Lease, Mutation, Stamp};
use atoll::store::Purges;
use serde_json::{Value, json};

use super::certificate::{Certificate, Folder};
use super::client::{Connection, Response, request};
use super::{Origin, until};

/// Host of the one site of most stories.
pub(crate) const HOST: &str = "site.test";

/// Token that may do everything.
pub(crate) const TOKEN: &str = "a-token-that-may-do-everything";

/// What an edge is made of. Keys are lines of TOML.
pub(crate) struct Plan {
    budget: &'static str,
    limits: String,
    drain_notice: &'static str,
    admin: String,
    /// Keys of `[admin]`.
    admin_keys: String,
    /// Tables of their own.
    tables: String,
    listeners: String,
    certificates: String,
    origins: String,
    sites: String,
    /// Keys of the first site.
    site: String,
    rules: String,
    log: String,
    /// Keys that make the first site's lifetimes exact.
    exact: &'static str,
    pub(super) folder: Option<Folder>,
}

/// Keys that make lifetimes exact.
const EXACT: &str = "jitter = \"0%\"\nearly_refresh = 0.0\n";

impl Plan {
    /// One site for every host, before servers at these addresses.
    pub(crate) fn before(servers: &[SocketAddr]) -> Self {
        let mut plan = Self {
            budget: "1GiB",
            limits: String::new(),
            drain_notice: "0s",
            admin: String::new(),
            admin_keys: String::new(),
            tables: String::new(),
            listeners: "[[listener]]\naddress = \"127.0.0.1:0\"\n".to_owned(),
            certificates: String::new(),
            origins: String::new(),
            sites: String::new(),
            site: "name = \"main\"\nhosts = [\"*\"]\norigin = \"main\"\n".to_owned(),
            rules: String::new(),
            log: "access = \"none\"".to_owned(),
            exact: EXACT,
            folder: None,
        };
        plan = plan.origin("main", servers);
        plan
    }

    /// A further origin.
    pub(crate) fn origin(self, name: &str, servers: &[SocketAddr]) -> Self {
        let urls: Vec<String> = servers.iter().map(|server| format!("http://{server}")).collect();
        self.origin_keys(&format!("name = \"{name}\"\nservers = {urls:?}"))
    }

    /// A further origin, in its own words.
    pub(crate) fn origin_keys(mut self, keys: &str) -> Self {
        let _ = writeln!(self.origins, "[[origin]]\n{keys}");
        self
    }

    /// Adds keys to the only origin.
    pub(crate) fn origin_too(mut self, keys: &str) -> Self {
        let _ = writeln!(self.origins, "{keys}");
        self
    }

    /// Takes the origins away, for others to come.
    pub(crate) fn no_origins(mut self) -> Self {
        self.origins.clear();
        self
    }

    /// Writes the access log to a file in this form, and gives its path.
    pub(crate) fn access_log(mut self, format: &'static str) -> (Self, PathBuf) {
        let folder = self.folder.get_or_insert_with(Folder::new);
        let path = folder.path().join("access.log");
        self.log = format!("access = \"{format}\"\naccess_file = {:?}", path.display().to_string());
        (self, path)
    }

    /// A plain listener with nothing but metrics and probes.
    pub(crate) fn watched(mut self) -> Self {
        self.listeners.push_str("[watch]\naddress = \"127.0.0.1:0\"\n");
        self
    }

    /// Replaces all that is said of the first site, names and hosts included.
    pub(crate) fn first_site(mut self, keys: &str) -> Self {
        self.site = keys.to_owned() + "\n";
        self
    }

    /// Adds policy keys to the first site.
    pub(crate) fn site(mut self, keys: &str) -> Self {
        let _ = writeln!(self.site, "{keys}");
        self
    }

    /// Leaves jitter and early refresh of the first site to its keys.
    pub(crate) fn inexact(mut self) -> Self {
        self.exact = "";
        self
    }

    /// Adds a rule to the first site.
    pub(crate) fn rule(mut self, path: &str, keys: &str) -> Self {
        let _ = writeln!(self.rules, "[[site.rule]]\npath = \"{path}\"\n{keys}");
        self
    }

    /// A further site.
    pub(crate) fn another_site(mut self, keys: &str) -> Self {
        let _ = writeln!(self.sites, "[[site]]\n{EXACT}{keys}");
        self
    }

    /// Memory of the process.
    pub(crate) fn budget(mut self, size: &'static str) -> Self {
        self.budget = size;
        self
    }

    pub(crate) fn limits(mut self, keys: &str) -> Self {
        let _ = writeln!(self.limits, "{keys}");
        self
    }

    /// Time between readiness going false and the end of accepting; none otherwise.
    pub(crate) fn drain_notice(mut self, time: &'static str) -> Self {
        self.drain_notice = time;
        self
    }

    /// Purges in the wire formats of other caches, in their own words.
    pub(crate) fn facades(mut self, text: &str) -> Self {
        let _ = writeln!(self.sites, "{text}");
        self
    }

    /// Adds keys to `[admin]`.
    pub(crate) fn admin_keys(mut self, keys: &str) -> Self {
        let _ = writeln!(self.admin_keys, "{keys}");
        self
    }

    /// A further admin token.
    pub(crate) fn token(mut self, token: &str, scopes: &[&str], sites: &[&str]) -> Self {
        let hash = config::format_hash(&config::hash_token(token));
        let _ = writeln!(
            self.admin,
            "[[admin.token]]\nname = \"t{}\"\nhash = \"{hash}\"\nscopes = {scopes:?}\nsites = {sites:?}",
            self.admin.len()
        );
        self
    }

    /// Keys of the admin listener.
    pub(crate) fn admin(mut self, keys: &str) -> Self {
        let _ = writeln!(self.admin_keys, "{keys}");
        self
    }

    /// Further tables, such as hooks.
    pub(crate) fn tables(mut self, toml: &str) -> Self {
        let _ = writeln!(self.tables, "{toml}");
        self
    }

    /// An audit log in this file.
    pub(crate) fn audit_log(mut self, path: &Path) -> Self {
        let _ = writeln!(self.admin_keys, "audit_log = {:?}", path.display().to_string());
        self
    }

    /// One listener with these keys instead of the plain one.
    pub(crate) fn listener(mut self, address: &str, keys: &str) -> Self {
        self.listeners = format!("[[listener]]\naddress = \"{address}\"\n{keys}\n");
        self
    }

    /// A plain listener that takes HTTP/2 by prior knowledge, too.
    pub(crate) fn plain_h2(self) -> Self {
        self.listener("127.0.0.1:0", "http2 = true")
    }

    /// A further certificate.
    pub(crate) fn certificate(mut self, certificate: &Certificate) -> Self {
        self.certificates.push_str(&certificate.toml());
        self
    }

    /// A TLS listener beside the plain one, with a certificate for each set of names.
    pub(crate) fn tls(mut self, names: &[&[&str]]) -> Self {
        self.listeners.push_str("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = true\n");
        let folder = self.folder.take().unwrap_or_else(Folder::new);
        for names in names {
            self.certificates.push_str(&Certificate::new(&folder, names).toml());
        }
        self.folder = Some(folder);
        self
    }

    /// All of it as a file.
    pub(crate) fn toml(&self) -> String {
        let hash = config::format_hash(&config::hash_token(TOKEN));
        format!(
            "[node]\nname = \"edge\"\nworkers = 2\nseed = 7\n\
             [memory]\nbudget = \"{}\"\n\
             [log]\n{}\nlevel = \"error\"\n\
             [limits]\ndrain_notice = \"{}\"\n{}\n\
             [admin]\naddress = \"127.0.0.1:0\"\n{}\n\
             [[admin.token]]\nname = \"all\"\nhash = \"{hash}\"\n\
             scopes = [\"read\", \"purge\", \"purge-all\", \"config\", \"drain\"]\n{}\n\
             {}\n{}\n{}\n[[site]]\n{}{}\n{}\n{}\n{}\n",
            self.budget,
            self.log,
            self.drain_notice,
            self.limits,
            self.admin_keys,
            self.admin,
            self.listeners,
            self.certificates,
            self.origins,
            self.exact,
            self.site,
            self.rules,
            self.sites,
            self.tables,
        )
    }

    /// Starts it.
    pub(crate) fn start(mut self) -> Edge {
        Edge::run(&self.toml(), self.folder.take())
    }

    /// Starts it from a file, which [`Edge::rewrite`] can write anew.
    pub(crate) fn start_from_file(mut self) -> Edge {
        let folder = self.folder.take().unwrap_or_else(Folder::new);
        Edge::from_file(&self.toml(), folder)
    }
}

/// A running edge. It is told to stop when the story ends.
pub(crate) struct Edge {
    addresses: Listening,
    running: Mutex<Option<Running>>,
    folder: Option<Folder>,
}

impl Edge {
    /// An edge from a whole file.
    pub(crate) fn of_file(text: &str) -> Self {
        Self::run(text, None)
    }

    /// An edge from a whole file in this folder, which [`Edge::rewrite`] can write anew.
    pub(crate) fn from_file(text: &str, folder: Folder) -> Self {
        let path = folder.path().join("edge.toml");
        std::fs::write(&path, text).unwrap();
        let read = move || config::read(&path, &config::Flags::default());
        let loaded = read().unwrap_or_else(|problems| panic!("{problems}"));
        let config::Loaded { config, written, .. } = loaded;
        Self::of(
            Source { config, written, reread: Some(Arc::new(read)), program: None },
            Some(folder),
        )
    }

    fn run(text: &str, folder: Option<Folder>) -> Self {
        let config = config::load(text, Path::new("edge.toml"))
            .unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        Self::of(Source::from(config), folder)
    }

    fn of(source: Source, folder: Option<Folder>) -> Self {
        // It blocks on a runtime of its own, which a thread with another one may not.
        let started = std::thread::spawn(move || Running::start(source)).join().unwrap();
        let running = started.unwrap_or_else(|error| panic!("{error}"));
        let addresses = running.addresses().clone();
        let running = Mutex::new(Some(running));
        Self { addresses, running, folder }
    }

    /// Writes another configuration into its file, for the next reload.
    pub(crate) fn rewrite(&self, text: &str) {
        std::fs::write(self.home().join("edge.toml"), text).unwrap();
    }

    /// The folder of its files.
    pub(crate) fn home(&self) -> &Path {
        self.folder.as_ref().expect("a folder").path()
    }

    /// Has it read its configuration anew.
    pub(crate) async fn reload(&self) -> Response {
        self.manage("POST", "/v1/reload", None).await
    }

    /// Puts another configuration in force, and tells what changed.
    pub(crate) async fn becomes(&self, plan: &Plan) -> Value {
        self.rewrite(&plan.toml());
        let answer = self.reload().await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// An edge with one site for every host, with nothing special.
    pub(crate) fn start(origin: &Origin) -> Self {
        Self::before(origin).start()
    }

    /// The plan of one before servers of the story's own.
    pub(crate) fn before_servers(servers: &[SocketAddr]) -> Plan {
        Plan::before(servers)
    }

    /// The plan of one, to be refined.
    pub(crate) fn before(origin: &Origin) -> Plan {
        Plan::before(&[origin.address])
    }

    /// The plain listener.
    pub(crate) fn plain(&self) -> SocketAddr {
        self.addresses.plain[0]
    }

    /// The TLS listener.
    pub(crate) fn tls(&self) -> SocketAddr {
        self.addresses.tls[0]
    }

    /// The admin listener.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.addresses.admin.expect("an admin listener")
    }

    /// The watch listener.
    pub(crate) fn watch(&self) -> SocketAddr {
        self.addresses.watch.expect("a watch listener")
    }

    /// Where nodes fetch the canary's object.
    pub(crate) fn canary(&self) -> SocketAddr {
        self.addresses.canary.expect("a canary")
    }

    /// GET over a new connection.
    pub(crate) async fn get(&self, target: &str) -> Response {
        self.ask("GET", HOST, target, &[]).await
    }

    /// GET with fields.
    pub(crate) async fn get_with(&self, target: &str, fields: &[(&str, &str)]) -> Response {
        self.ask("GET", HOST, target, fields).await
    }

    /// A request without a body over a new connection.
    pub(crate) async fn ask(
        &self,
        method: &str,
        host: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Response {
        self.raw(request(method, host, target, fields), method).await
    }

    /// A POST with a body.
    pub(crate) async fn post(&self, target: &str, body: &str) -> Response {
        let length = body.len().to_string();
        let head = request("POST", HOST, target, &[("Content-Length", &length)]);
        self.raw(head + body, "POST").await
    }

    /// Sends bytes over a new connection and reads one answer.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>, method: &str) -> Response {
        let mut connection = self.connect().await;
        connection.send(bytes).await;
        connection.response(method).await
    }

    /// A new plain connection.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.plain()).await
    }

    /// A request to the admin listener with the token that may do everything.
    pub(crate) async fn manage(&self, method: &str, target: &str, body: Option<Value>) -> Response {
        self.manage_as(Some(TOKEN), method, target, body).await
    }

    /// The same with another token, or none.
    pub(crate) async fn manage_as(
        &self,
        token: Option<&str>,
        method: &str,
        target: &str,
        body: Option<Value>,
    ) -> Response {
        self.manage_with(token, method, target, &[], body).await
    }

    /// The same with further fields.
    pub(crate) async fn manage_with(
        &self,
        token: Option<&str>,
        method: &str,
        target: &str,
        more: &[(&str, &str)],
        body: Option<Value>,
    ) -> Response {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let text = body.map(|body| body.to_string());
        let length = text.as_ref().map(|text| text.len().to_string());
        let mut fields = vec![("Connection", "close")];
        fields.extend(more);
        if let Some(bearer) = &bearer {
            fields.push(("Authorization", bearer));
        }
        if let Some(length) = &length {
            fields.push(("Content-Type", "application/json"));
            fields.push(("Content-Length", length));
        }
        let mut connection = Connection::open(self.admin()).await;
        let head = request(method, "admin.test", target, &fields);
        connection.send(head + text.as_deref().unwrap_or_default()).await;
        connection.response(method).await
    }

    /// Purges, and returns the receipt.
    pub(crate) async fn purge(&self, body: Value) -> Value {
        let answer = self.manage("POST", "/v1/purge", Some(body)).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Purges by tag, hard.
    pub(crate) async fn purge_tag(&self, tag: &str) -> Value {
        self.purge(json!({ "tags": [tag] })).await
    }

    /// Purges a path of the usual host, hard.
    pub(crate) async fn purge_path(&self, path: &str) -> Value {
        self.purge(json!({ "urls": [format!("http://{HOST}{path}")] })).await
    }

    /// The value of a metric, labels as they are printed: `name{label="value"}`.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = self.manage_as(None, "GET", "/metrics", None).await;
        assert_eq!(answer.status(), 200);
        let line =
            answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name} in\n{}", answer.text())).parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub(crate) async fn metric_becomes(&self, name: &str, value: f64) {
        let what = format!("{name} to become {value}");
        until(&what, || async { (self.metric(name).await - value).abs() < 0.5 }).await;
    }

    /// Waits until no fill is under way: what is to be stored is stored.
    pub(crate) async fn settled(&self) {
        self.metric_becomes("atoll_fills_open", 0.0).await;
    }

    /// GET, and waits until what came of it is stored.
    pub(crate) async fn fill(&self, target: &str) -> Response {
        self.fill_with(target, &[]).await
    }

    /// GET with fields, and waits until what came of it is stored.
    pub(crate) async fn fill_with(&self, target: &str, fields: &[(&str, &str)]) -> Response {
        let answer = self.get_with(target, fields).await;
        self.settled().await;
        answer
    }

    /// The purges in force, for stories that play the mesh.
    pub(crate) fn purges(&self) -> Arc<Purges> {
        Arc::clone(self.running.lock().unwrap().as_ref().expect("a running edge").purges())
    }

    /// Gives it a lease from now on, for as long as this.
    pub(crate) fn lease_for(&self, time: Duration) {
        let lease = Lease::new(Stamp::of(clock::now()), time, Mutation::None);
        self.purges().publish_lease(Some(lease.into()));
    }

    /// Gives it a lease for the rest of the story.
    pub(crate) fn lease(&self) {
        self.lease_for(Duration::from_secs(3600));
    }

    /// Takes its lease.
    pub(crate) fn no_lease(&self) {
        self.purges().publish_lease(None);
    }

    /// Where the other nodes of its mesh connect.
    pub(crate) fn mesh(&self) -> SocketAddr {
        self.addresses.mesh.expect("a node of a mesh")
    }

    /// Cuts everything off, and waits until its threads are gone.
    pub(crate) async fn ends(&self) {
        let running = self.running.lock().unwrap().take().expect("a running edge");
        let end = tokio::task::spawn_blocking(move || drop(running));
        super::within("the edge to be gone", end).await.unwrap();
    }

    /// Begins to drain.
    pub(crate) fn drain(&self) {
        self.running.lock().unwrap().as_ref().expect("a running edge").drain();
    }

    /// Waits until it is drained.
    pub(crate) async fn drained(&self) {
        let running = self.running.lock().unwrap().take().expect("a running edge");
        let wait = tokio::task::spawn_blocking(move || {
            let _ = running.wait();
        });
        super::within("the edge to be drained", wait).await.unwrap();
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Ok(Some(running)) = self.running.get_mut().map(Option::take) {
            // It blocks until its threads are gone, and a story is asynchronous.
            std::thread::spawn(move || drop(running));
        }
    }
}
