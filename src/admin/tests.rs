mod document;
mod roles;

use std::collections::HashMap;
use std::sync::Mutex;

use http::HeaderMap;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::audit::Audit;
use crate::health::Order;
use crate::mesh::{Busy, Issued, MeshView, ReceiptView, Until};
use crate::message::{Refusal, RequestHead};
use crate::origin::{OriginStatus, UnknownEndpoint};
use crate::purge::{Secret, Selector, Strength};
use crate::replication::Identity as PurgeId;
use crate::semantics::{Explanation, Facts};
use crate::store::{Author, Events, Past, Purges, Tried};
use crate::telemetry::{Hot, Load, Weight, test_config};

/// A node that remembers what it was told.
pub(super) struct Played {
    pub(super) purges: Mutex<Vec<(Vec<Selector>, Strength)>>,
    /// Requests that were explained: method, scheme, target, authority and fields.
    pub(super) explained: Mutex<Vec<String>>,
    /// Remembers the purges.
    table: Purges,
    told: Mutex<Vec<&'static str>>,
    draining: Mutex<bool>,
    events: Arc<Events>,
    audit: Audit,
    /// How every purge stands in the played mesh; `None`: nothing is remembered of any.
    pub(super) standing: watch::Sender<Option<ReceiptView>>,
    /// Why purges are not taken, where they are not.
    pub(super) refuses: Mutex<Option<Busy>>,
}

/// The incarnation of the played node.
pub(super) const LIFE: &str = "00000000000000ff";

impl Default for Played {
    fn default() -> Self {
        Self {
            purges: Mutex::default(),
            explained: Mutex::default(),
            table: Purges::new(Secret(1, 2), 100),
            told: Mutex::default(),
            draining: Mutex::default(),
            events: Events::new(16),
            audit: Audit::off(),
            standing: watch::Sender::new(Some(receipt_alone(&played(1), "p1"))),
            refuses: Mutex::default(),
        }
    }
}

/// Name of a purge of the played node.
pub(super) fn played(sequence: u64) -> PurgeId {
    PurgeId::parse(&format!("n1/{LIFE}/{sequence}")).unwrap()
}

impl Control for Played {
    fn purge(
        &self,
        by: Author,
        selectors: &[Selector],
        strength: Strength,
        now: Now,
    ) -> Result<Issued, Busy> {
        if let Some(why) = *self.refuses.lock().unwrap() {
            return Err(why);
        }
        self.purges.lock().unwrap().push((selectors.to_vec(), strength));
        let applied = self.table.apply_for(by, selectors, strength, now);
        Ok(Issued { identity: played(applied.sequence), applied })
    }

    fn receipt(&self, id: &PurgeId, _now: Now) -> Option<ReceiptView> {
        let own = *id == played(id.sequence) && id.sequence <= self.table.epoch();
        self.standing.borrow().clone().filter(|_| own)
    }

    fn wait(&self, id: &PurgeId, until: Until, most: Duration) -> Waiting {
        let (mut standing, id) = (self.standing.subscribe(), id.clone());
        Box::pin(async move {
            assert_eq!(id, played(id.sequence));
            let far = |receipt: &Option<ReceiptView>| {
                receipt.as_ref().is_none_or(|receipt| match until {
                    Until::Acknowledged => receipt.acknowledged_ms.is_some(),
                    Until::Everywhere => receipt.everywhere,
                })
            };
            let _ = tokio::time::timeout(most, standing.wait_for(far)).await;
        })
    }

    fn mesh(&self, _now: Now) -> MeshView {
        mesh_alone(&played(7), "p1", 7)
    }

    fn try_purge(&self, selectors: &[Selector], _hottest: usize, _now: Now) -> Tried {
        self.told.lock().unwrap().push("try");
        let matched = selectors.len() as u64;
        Tried { stored: 100, matched, bytes: 4096, per_second: 1.5, hottest: Vec::new() }
    }

    fn past(&self, most: usize, pass: &dyn Fn(&Past) -> bool) -> Vec<Past> {
        self.table.past(most, pass)
    }

    fn past_one(&self, sequence: u64) -> Option<Past> {
        self.table.past_one(sequence)
    }

    fn past_of(&self, id: &PurgeId) -> Option<Past> {
        self.table.past_one(id.sequence).filter(|_| *id == played(id.sequence))
    }

    fn reset(&self, _now: Now) -> u64 {
        self.told.lock().unwrap().push("reset");
        77
    }

    fn reload(&self, by: &str) -> Reloading {
        self.told.lock().unwrap().push("reload");
        let config = format!("asked by {by}");
        let done = Reloaded { config, changes: vec![], warnings: vec![], took_ms: 1.0 };
        Box::pin(std::future::ready(Ok(done)))
    }

    fn upgrade(&self, by: &str) -> Upgrading {
        self.told.lock().unwrap().push("upgrade");
        let done = Upgraded { pid: 77, program: format!("asked by {by}"), took_ms: 1.0 };
        Box::pin(std::future::ready(Ok(done)))
    }

    fn drain(&self, _now: Now) {
        self.told.lock().unwrap().push("drain");
        *self.draining.lock().unwrap() = true;
    }

    fn readiness(&self) -> Readiness {
        let draining = *self.draining.lock().unwrap();
        Readiness { listening: true, caught_up: true, draining, stuck: false }
    }

    fn status(&self) -> NodeStatus {
        let store = vec![StoreClass { size_class: 0, entries: 3, bytes: 4096 }];
        NodeStatus { epoch: 41, store, ..NodeStatus::default() }
    }

    fn origins(&self) -> Vec<OriginStatus> {
        let origin = |name: &str, healthy| OriginStatus {
            name: name.to_owned(),
            in_flight: 0,
            places: 256,
            queued: 0,
            healthy,
            panic: false,
            circuit: "closed",
            servers: Vec::new(),
            endpoints: Vec::new(),
            absent: Vec::new(),
        };
        vec![origin("back", false), origin("other", true)]
    }

    fn order(
        &self,
        origin: &str,
        _: SocketAddr,
        order: Order,
    ) -> Result<OriginStatus, UnknownEndpoint> {
        let known = self.origins().into_iter().find(|known| known.name == origin);
        self.told.lock().unwrap().push(order.label());
        known.ok_or(UnknownEndpoint::Origin)
    }

    fn site_of(&self, host: &str) -> Option<Arc<str>> {
        let (name, domain) = host.split_once('.')?;
        (domain == "example" && matches!(name, "shop" | "blog")).then(|| Arc::from(name))
    }

    fn explain(&self, head: RequestHead, _now: Now) -> Explanation {
        let mut text = format!("{} {} {}", head.method, head.scheme.as_str(), head.target);
        text.extend(head.authority.map(|authority| format!(" {authority}")));
        for (name, value) in &head.headers {
            text += &format!(" {name}={}", value.to_str().unwrap());
        }
        self.explained.lock().unwrap().push(text);
        let mut told = Explanation::default();
        let facts = Facts::new().with("decision", "hit").with("reason", "fresh");
        told.add("decision", facts.with("text", "from memory").with("outcome", "hit"));
        told
    }

    fn events(&self) -> Arc<Events> {
        Arc::clone(&self.events)
    }

    fn audit(&self) -> &Audit {
        &self.audit
    }

    fn entry(&self, head: RequestHead, now: Now) -> Result<Explanation, Refusal> {
        let _ = self.explain(head, now);
        let mut told = Explanation::default();
        told.add("site", Facts::new().with("name", "shop"));
        told.add("key", Facts::new().with("scheme", "https"));
        told.add_all("stored", Vec::new());
        told.add_all("parts", Vec::new());
        Ok(told)
    }

    fn fetch(&self, _head: RequestHead, _keep_bytes: usize) -> Fetch {
        Box::pin(std::future::ready(Fetched { status: 200, error: None, ..Fetched::failed("") }))
    }

    fn hottest(&self, _: Weight, most: usize, pass: &dyn Fn(&str) -> bool, _: Now) -> Vec<Hot> {
        let load = Load { requests: 3.0, bytes: 70.0, forwarded: 1.0 };
        let url = |at: usize| format!("https://{at}.example/").into();
        let hot = |(at, site): (usize, &str)| Hot { site: site.into(), name: url(at), load };
        let sites = ["shop", "blog", "gone"].into_iter().enumerate();
        sites.filter(|(_, site)| pass(site)).map(hot).take(most).collect()
    }

    fn hottest_tags(
        &self,
        _: Weight,
        most: usize,
        pass: &dyn Fn(&str) -> bool,
        _: Now,
    ) -> Vec<Hot> {
        let load = Load { requests: 2.0, bytes: 50.0, forwarded: 1.0 };
        let hot = |site: &str| Hot { site: site.into(), name: "news".into(), load };
        ["shop", "blog", "gone"].into_iter().filter(|site| pass(site)).map(hot).take(most).collect()
    }

    fn loads(&self, _now: Now) -> HashMap<Arc<str>, Load> {
        let load = |requests| Load { requests, bytes: 10.0, forwarded: 0.5 };
        [("shop", 1.0), ("blog", 5.0)].map(|(site, requests)| (site.into(), load(requests))).into()
    }

    fn observe(&self) {
        self.told.lock().unwrap().push("observe");
    }
}

pub(super) struct Bench {
    pub(super) control: Arc<Played>,
    pub(super) admin: Arc<Admin>,
}

pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Scopes by their names; a token of the same name has each, and `all` has all.
const SCOPES: [(&str, Scope); 6] = [
    ("read", Scope::Read),
    ("purge", Scope::Purge),
    ("purge-all", Scope::PurgeAll),
    ("warm", Scope::Warm),
    ("config", Scope::Config),
    ("drain", Scope::Drain),
];

fn token(name: &str, scopes: &[Scope], sites: &[&str]) -> Token {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    Token {
        name: name.to_owned(),
        hash: digest.as_ref().try_into().unwrap(),
        scopes: scopes.to_vec(),
        sites: sites.iter().map(ToString::to_string).collect(),
    }
}

/// A node with the sites `shop` and `blog`, whose tokens are called as their secrets.
pub(super) fn bench() -> Bench {
    bench_of(test_config())
}

/// The same with other limits.
pub(super) fn bench_of(mut config: Config) -> Bench {
    let all = SCOPES.map(|(_, scope)| scope);
    config.admin.tokens = SCOPES.iter().map(|(name, scope)| token(name, &[*scope], &[])).collect();
    config.admin.tokens.push(token("all", &all, &[]));
    config.admin.tokens.push(token("blogger", &all, &["blog"]));
    config.admin.tokens.push(token("stranger", &all, &["gone"]));
    bench_of_tokens(&config)
}

/// The same with the tokens of the configuration.
fn bench_of_tokens(config: &Config) -> Bench {
    let control = Arc::new(Played::default());
    let identity = Identity { name: "n1".into(), pop: "p1".into(), incarnation: LIFE.into() };
    let metrics = Metrics::new(config);
    let admin = Admin::new(config, identity, Arc::clone(&control) as _, metrics, clock::now());
    Bench { control, admin }
}

impl Bench {
    pub(super) async fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        self.ask_on(Surface::Full, method, path, token, &[], body).await
    }

    /// The same with further fields.
    pub(super) async fn ask_with(
        &self,
        method: &str,
        path: &str,
        token: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.ask_on(Surface::Full, method, path, token, fields, body).await
    }

    async fn ask_on(
        &self,
        surface: Surface,
        method: &str,
        path: &str,
        token: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        let client = SocketAddr::from(([127, 0, 0, 1], 1));
        let (head, body) = self.admin.answer(request, client, surface).await.into_parts();
        // A stream has no end to wait for.
        let streams = matches!(body, ReplyBody::Pieces(_));
        let body = if streams { Bytes::new() } else { body.collect().await.unwrap().to_bytes() };
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }
}

/// An operator's word about an endpoint.
const ORDER: &str = r#"{"state":"drain"}"#;

/// A warm-up of one URL.
const WARM: &str = r#"{"urls":["https://shop.example/"]}"#;

#[tokio::test]
async fn the_hottest_of_other_sites_are_not_told() {
    for (token, query, rows, origins) in [
        ("read", "", 2, 1),
        ("read", "?limit=1", 1, 1),
        ("blogger", "?by=bytes", 1, 1),
        ("stranger", "", 0, 0),
    ] {
        let ask = |of: &str| match query {
            "" => format!("/v1/cache/top?of={of}"),
            more => format!("/v1/cache/top{more}&of={of}"),
        };
        let keys = bench().ask("GET", &ask("keys"), token, "").await.json();
        assert_eq!(keys["keys"].as_array().unwrap().len(), rows, "{token} {keys}");
        let tags = bench().ask("GET", &ask("tags"), token, "").await.json();
        assert_eq!(tags["tags"].as_array().unwrap().len(), rows, "{token} {tags}");
        let told = bench().ask("GET", &ask("origins"), token, "").await.json();
        assert_eq!(told["origins"].as_array().unwrap().len(), origins, "{token} {told}");
    }
    for query in ["of=urls", "by=age", "limit=0", "limit=1001", "limit=x", "site=a"] {
        let answer = bench().ask("GET", &format!("/v1/cache/top?{query}"), "read", "").await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &serde_json::json!("query")));
    }
}

#[tokio::test]
async fn every_scope_opens_its_routes_and_no_other() {
    for route in &ROUTES {
        let Some(needed) = route.access.scope() else { continue };
        for (name, scope) in SCOPES {
            let bench = bench();
            let body = match route.path {
                "/v1/purge" => r#"{"tags":["a"]}"#,
                "/v1/explain" => r#"{"url":"https://shop.example/"}"#,
                "/v1/warm" => WARM,
                "/v1/origins/{origin}/endpoints/{address}" => ORDER,
                _ => "",
            };
            let mut path = route.path.to_owned();
            if path == "/v1/cache/entry" {
                path += "?url=https://shop.example/";
            }
            if route.path == "/v1/warm/{id}" {
                bench.ask("POST", "/v1/warm", "warm", WARM).await;
                path = "/v1/warm/n1.00000000000000ff.w1".to_owned();
            } else if let Some(folder) = route.path.strip_suffix("{id}") {
                bench.ask("POST", "/v1/purge", "purge", r#"{"tags":["a"]}"#).await;
                path = format!("{folder}n1.00000000000000ff.1");
            }
            let path = path.replace("{origin}", "back").replace("{address}", "[::1]:80");
            let answer = bench.ask(route.method.as_str(), &path, name, body).await;
            let may = scope == needed || (scope == Scope::PurgeAll && needed == Scope::Purge);
            assert_eq!(answer.status == 403, !may, "{name} {}", route.path);
            assert_eq!(answer.status < 300, may, "{name} {}: {}", route.path, answer.body);
        }
    }
}

#[tokio::test]
async fn without_a_token_everything_under_v1_looks_the_same() {
    for path in ["/v1/purge", "/v1/status", "/v1/nothing", "/v1/"] {
        for method in ["GET", "POST", "PATCH"] {
            for token in ["", "wrong"] {
                let answer = bench().ask(method, path, token, "{").await;
                assert_eq!(answer.status, 401, "{method} {path}");
                assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"atoll\"");
                assert_eq!(answer.json()["code"], "token");
            }
        }
    }
}

#[tokio::test]
async fn errors_are_problem_details() {
    let rows = [
        ("GET", "/", "", 404, "path", None),
        ("GET", "/v1/nothing", "read", 404, "path", None),
        ("GET", "/v1/purge", "purge", 405, "method", Some("POST")),
        ("DELETE", "/metrics", "", 405, "method", Some("GET")),
        ("POST", "/v1/reset", "read", 403, "scope", None),
        ("POST", "/v1/reset", "blogger", 403, "site", None),
        ("POST", "/v1/drain", "blogger", 403, "site", None),
    ];
    for (method, path, token, status, code, allow) in rows {
        let answer = bench().ask(method, path, token, "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let body = answer.json();
        assert_eq!((&body["status"], &body["code"]), (&status.into(), &code.into()));
        assert!(body["title"].is_string() && body["detail"].is_string());
        assert_eq!(answer.headers.get("allow").map(|v| v.to_str().unwrap()), allow);
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let body = format!(r#"{{"tags":["{}"]}}"#, "x".repeat(2000));
    let answer = bench().ask("POST", "/v1/purge", "purge", &body).await;
    assert_eq!((answer.status, &answer.json()["code"]), (413, &"body-too-large".into()));
}

#[tokio::test]
async fn probes_and_metrics_need_no_token_and_tell_of_draining() {
    let bench = bench();
    let alive = bench.ask("GET", "/healthz", "", "").await;
    assert_eq!((alive.status, &*alive.body), (200, "{\"alive\":true}\n"));
    let ready = bench.ask("HEAD", "/readyz?x", "", "").await;
    assert_eq!(ready.status, 200);
    let body = ready.json();
    assert_eq!((&body["ready"], &body["listening"]), (&true.into(), &true.into()));
    assert_eq!((&body["caught_up"], &body["draining"]), (&true.into(), &false.into()));
    assert_eq!(body["origins"][0]["healthy"], false);
    assert_eq!(bench.ask("POST", "/v1/drain", "drain", "").await.status, 202);
    let ready = bench.ask("GET", "/readyz", "", "").await;
    assert_eq!((ready.status, &ready.json()["draining"]), (503, &true.into()));
    assert_eq!(bench.ask("GET", "/healthz", "", "").await.status, 200);
    let metrics = bench.ask("GET", "/metrics", "", "").await;
    assert!(
        metrics.body.contains("\natoll_draining 1\n") && metrics.body.contains("\natoll_ready 0\n")
    );
    assert_eq!(*bench.control.told.lock().unwrap(), ["drain", "observe"]);
}

#[tokio::test]
async fn watch_surface_shows_only_the_open_routes() {
    for route in &ROUTES {
        let answer = bench()
            .ask_on(Surface::Watch, route.method.as_str(), route.path, "all", &[], "{}")
            .await;
        let open = matches!(route.access, Access::Open(_));
        assert_eq!(answer.status, if open { 200 } else { 404 }, "{}", route.path);
    }
}

#[tokio::test]
async fn reset_and_drain_take_no_body_and_report() {
    let bench = bench();
    let answer = bench.ask("POST", "/v1/reset", "config", "").await;
    assert_eq!((answer.status, &answer.json()["epoch"]), (200, &77.into()));
    assert_eq!(bench.ask("POST", "/v1/drain", "drain", " {} ").await.status, 202);
    assert_eq!(bench.ask("POST", "/v1/reset", "config", "{\"site\":\"a\"}").await.status, 400);
    assert_eq!(*bench.control.told.lock().unwrap(), ["reset", "drain"]);
}

#[tokio::test]
async fn status_tells_what_the_token_may_know() {
    let bench = bench();
    let body = bench.ask("GET", "/v1/status", "read", "").await.json();
    assert_eq!(body["node"]["name"], "n1");
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&body["ready"], &body["epoch"]), (&true.into(), &41.into()));
    assert_eq!(body["store"][0]["bytes"], 4096);
    assert_eq!(body["sites"], serde_json::json!(["shop", "blog"]));
    assert_eq!(body["origins"].as_array().unwrap().len(), 2);
    let body = bench.ask("GET", "/v1/status", "blogger", "").await.json();
    assert_eq!(body["sites"], serde_json::json!(["blog"]));
    let body = bench.ask("GET", "/v1/origins", "blogger", "").await.json();
    assert_eq!(body["origins"].as_array().unwrap().len(), 1);
    assert_eq!(body["origins"][0]["name"], "back");
    let body = bench.ask("GET", "/v1/origins", "stranger", "").await.json();
    assert_eq!(body["origins"], serde_json::json!([]));
}

/// One exchange over a socket; reads to the end of the connection.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn listener_answers_over_a_socket_and_stops() {
    let bench = bench();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let desk = Arc::new(arc_swap::ArcSwap::new(Arc::clone(&bench.admin)));
    let server = tokio::spawn(serve(Arc::new(listener), None, desk, Surface::Full, stopped));
    let text = exchange(
        address,
        "POST /v1/purge HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer purge\r\n\
         Connection: close\r\nContent-Length: 14\r\n\r\n{\"tags\":[\"A\"]}",
    )
    .await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("\"id\":\"n1.00000000000000ff.1\""), "{text}");
    assert_eq!(bench.control.purges.lock().unwrap().len(), 1);
    let head = exchange(address, "HEAD /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(head.await.ends_with("\r\n\r\n"));
    let mut idle = TcpStream::connect(address).await.unwrap();
    stop.send(true).unwrap();
    server.await.unwrap();
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(address).await.is_err());
}
