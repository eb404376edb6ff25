//! Servers by name: what DNS says, takes back, gets wrong, and what requests notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::certificate::{Certificate, Folder};
use crate::support::dns::{RecordType, ResponseCode, Said, a, local, says, srv};
use crate::support::edge::{HOST, Plan};
use crate::support::{Dns, Edge, Gate, Origin, Reply, until};

/// The name in most stories.
const APP: &str = "app.test";

/// Names are asked for as often as the configuration allows.
const QUICK: &str = "dns_ttl_least = \"1s\"\ndns_ttl_most = \"1s\"\norigin_dns = \"500ms\"";

/// An edge whose only origin is these servers, by names that `dns` knows.
pub(crate) fn named(dns: &Dns, servers: &[String]) -> Plan {
    Plan::before(&[]).no_origins().origin_keys(&dns.keys(servers)).limits(QUICK)
}

/// The first origin as the admin API shows it.
async fn origin_of(edge: &Edge) -> Value {
    let answer = edge.manage("GET", "/v1/origins", None).await;
    let all: Value = serde_json::from_slice(&answer.body).unwrap();
    all["origins"][0].clone()
}

/// Last numbers of the addresses in use, in order.
pub(crate) async fn addresses(edge: &Edge) -> Vec<u8> {
    let origin = origin_of(edge).await;
    let last = |endpoint: &Value| {
        let (host, _port) = endpoint["address"].as_str().unwrap().rsplit_once(':').unwrap();
        host.rsplit('.').next().unwrap().parse().unwrap()
    };
    let mut all: Vec<u8> = origin["endpoints"].as_array().unwrap().iter().map(last).collect();
    all.sort_unstable();
    all
}

/// Waits until these addresses are in use.
pub(crate) async fn uses(edge: &Edge, expected: &[u8]) {
    let what = format!("{expected:?} to be in use");
    until(&what, || async { addresses(edge).await == expected }).await;
}

/// Metric of failed lookups of one kind.
fn failures(kind: &str) -> String {
    format!("atoll_origin_dns_failures_total{{kind=\"{kind}\",origin=\"main\"}}")
}

/// Waits until a lookup has failed so once more than it had.
async fn fails_once_more(edge: &Edge, kind: &str, before: f64) {
    let what = format!("a lookup that fails: {kind}");
    until(&what, || async { count(edge, &failures(kind)).await > before }).await;
}

/// A metric, or nothing where it has not been counted yet.
async fn count(edge: &Edge, name: &str) -> f64 {
    let answer = edge.manage_as(None, "GET", "/metrics", None).await;
    let line = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Answers with its number, whatever is asked for; fast, and counts.
struct Pier {
    last: u8,
    port: u16,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Pier {
    async fn at(last: u8, port: u16) -> Self {
        let listener = TcpListener::bind((local(last), port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, now) = (Arc::clone(&accepted), Arc::clone(&open));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                now.fetch_add(1, Ordering::SeqCst);
                let now = Arc::clone(&now);
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let mut head = Vec::new();
                    while stream.read_buf(&mut head).await.is_ok_and(|count| count > 0) {
                        if head.ends_with(b"\r\n\r\n") {
                            head.clear();
                            let answer = format!(
                                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\
                                 Cache-Control: no-store\r\n\r\n{last}"
                            );
                            if stream.write_all(answer.as_bytes()).await.is_err() {
                                break;
                            }
                        }
                    }
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { last, port, accepted, open, task }
    }

    /// Switches it off: its port is free after this.
    async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Pier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Clients that ask as fast as they can until they are told to stop. Every answer must be a 200.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<usize>>,
}

impl Load {
    fn start(edge: &Arc<Edge>, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |number: usize| {
            let (edge, stop) = (Arc::clone(edge), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut connection = edge.connect().await;
                let mut asked = 0;
                while !stop.load(Ordering::SeqCst) {
                    let target = format!("/{number}/{asked}");
                    let answer = connection.get(HOST, &target, &[]).await;
                    assert_eq!(answer.status(), 200, "{target}: {answer:?}");
                    asked += 1;
                }
                asked
            })
        };
        Self { clients: (0..clients).map(client).collect(), stop }
    }

    /// Requests that were answered, all of them well.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let mut asked = 0;
        for client in self.clients {
            asked += client.await.expect("every answer is a 200");
        }
        asked
    }
}

/// What DNS says at one hour, and which addresses are in use then. Where it names a failure, the
/// hour ends when one has been counted.
type Hour = (Said, &'static [u8], Option<&'static str>);

fn hours() -> Vec<Hour> {
    let says = |last: &[u8]| Said::addresses(APP, last, 0);
    vec![
        (says(&[1, 2]), &[1, 2], None),
        (says(&[2, 3]), &[2, 3], None),
        (Said::Code(ResponseCode::ServFail), &[2, 3], Some("refused")),
        (says(&[4]), &[4], None),
        (Said::Code(ResponseCode::NXDomain), &[4], Some("no_name")),
        (says(&[1, 4]), &[1, 4], None),
        (Said::Records(Vec::new()), &[1, 4], Some("no_records")),
        (says(&[1, 2, 3]), &[1, 2, 3], None),
        (Said::Silence, &[1, 2, 3], Some("timeout")),
    ]
}

/// Lives through days of rotating, vanishing, failing and returning addresses for `time`. Servers
/// whose addresses are gone are switched off once they are drained.
async fn dns_days(time: Duration) {
    let mut piers: Vec<Option<Pier>> = vec![Some(Pier::at(1, 0).await)];
    let port = piers[0].as_ref().unwrap().port;
    for last in 2..=4 {
        piers.push(Some(Pier::at(last, port).await));
    }
    let dns = Dns::of(APP, &[1]).await;
    let edge = Arc::new(named(&dns, &[format!("http://{APP}:{port}")]).start());
    assert_eq!(edge.get("/first").await.text(), "1");
    let load = Load::start(&edge, 4);
    let begun = Instant::now();
    while begun.elapsed() < time {
        for (said, expected, failure) in hours() {
            // Who comes back is there before its address is.
            for last in expected {
                let pier = &mut piers[usize::from(*last) - 1];
                if pier.is_none() {
                    *pier = Some(Pier::at(*last, port).await);
                }
            }
            let before = match failure {
                Some(kind) => count(&edge, &failures(kind)).await,
                None => 0.0,
            };
            dns.say(says(APP, said));
            if let Some(kind) = failure {
                fails_once_more(&edge, kind, before).await;
            }
            uses(&edge, expected).await;
            for pier in &mut piers {
                let gone = pier.take_if(|pier| !expected.contains(&pier.last));
                let Some(gone) = gone else { continue };
                let drained = || async { gone.open.load(Ordering::SeqCst) == 0 };
                until("connections to a retired address to be closed", drained).await;
                let accepted = gone.accepted();
                let sent = || count(&edge, "atoll_origin_requests_total{origin=\"main\"}");
                let before = sent().await;
                until("a hundred requests", || async { sent().await >= before + 100.0 }).await;
                assert_eq!(gone.accepted(), accepted, "nothing new goes to 127.0.0.{}", gone.last);
                gone.stop().await;
            }
        }
    }
    let asked = load.end().await;
    let origin = |name: &str| format!("atoll_origin_{name}_total{{origin=\"main\"}}");
    let sent = count(&edge, &origin("requests")).await;
    let opened = count(&edge, &origin("connections")).await;
    let again = count(&edge, &origin("retries")).await;
    println!("{asked} answers, {sent} requests sent, {again} of them again, {opened} connections");
    assert!(opened / sent < 0.01, "{opened} connections for {sent} requests: reuse below 99 %");
    assert!(asked > 1000, "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_dns_in_ten_seconds() {
    dns_days(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute; the long run has it"]
async fn a_dns_day_in_a_minute() {
    dns_days(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn the_age_of_what_is_kept_can_be_watched() {
    let origins = Origin::row(1, |last, _| Reply::ok(last.to_string()));
    let dns = Dns::of(APP, &[1]).await;
    let port = origins[0].address.port();
    let edge = named(&dns, &[format!("http://{APP}:{port}")]).start();
    assert_eq!(edge.get("/").await.text(), "1");
    dns.say(|_, _| Said::Code(ResponseCode::ServFail));
    let age = "atoll_origin_dns_age_seconds{origin=\"main\"}";
    until("the answer in use to grow old", || async { edge.metric(age).await >= 3.0 }).await;
    let server = origin_of(&edge).await["servers"][0].clone();
    assert!(server["resolved_seconds_ago"].as_f64().unwrap() >= 2.0, "{server}");
    let why = server["dns_error"].as_str().unwrap();
    assert!(why.contains("the name server answers: Server Failure"), "{why}");
    assert_eq!(edge.get("/still").await.text(), "1");
    dns.say(says(APP, Said::addresses(APP, &[1], 0)));
    until("a new answer", || async { edge.metric(age).await < 2.0 }).await;
}

#[tokio::test]
async fn what_is_kept_is_not_kept_for_ever() {
    let origins = Origin::row(1, |last, _| Reply::ok(last.to_string()));
    let dns = Dns::of(APP, &[1]).await;
    let port = origins[0].address.port();
    let edge = named(&dns, &[format!("http://{APP}:{port}")]).limits("dns_keep = \"2s\"").start();
    assert_eq!(edge.get("/").await.text(), "1");
    dns.say(|_, _| Said::Code(ResponseCode::NXDomain));
    uses(&edge, &[]).await;
    assert_eq!(edge.get("/later").await.status(), 502);
    dns.say(says(APP, Said::addresses(APP, &[1], 0)));
    uses(&edge, &[1]).await;
    assert_eq!(edge.get("/again").await.text(), "1");
}

/// Name of SRV records in these stories.
const SERVICE: &str = "_http._tcp.app.test";

#[tokio::test]
async fn srv_records_bring_hosts_ports_weights_and_backups() {
    let first = Origin::serving(Reply::ok("first"));
    let heavy = Origin::serving(Reply::ok("heavy"));
    let backup = Origin::serving(Reply::ok("backup"));
    let ports = [&first, &heavy, &backup].map(|origin| origin.address.port());
    let dns = Dns::start(move |name, kind| match (name, kind) {
        (SERVICE, RecordType::SRV) => Said::Records(vec![
            srv(SERVICE, (10, 1, ports[0]), "a.test"),
            srv(SERVICE, (10, 3, ports[1]), "a.test"),
            srv(SERVICE, (20, 9, ports[2]), "b.test"),
        ]),
        ("a.test", _) => Said::addresses("a.test", &[1], 60),
        ("b.test", _) => Said::addresses("b.test", &[1], 60),
        _ => Said::Code(ResponseCode::NXDomain),
    })
    .await;
    let edge = named(&dns, &[format!("srv+http://{SERVICE}")])
        .origin_too("balance = \"round-robin\"")
        .limits("eject_failures = 2\neject_at_most_percent = 100")
        .start();
    for number in 0..40 {
        assert_eq!(edge.get(&format!("/{number}")).await.status(), 200);
    }
    assert_eq!(backup.requests(), 0, "a backup has nothing to do");
    // Exactly one and three of four where every answer comes in time; a late one is tried again elsewhere.
    let told = (first.requests(), heavy.requests());
    assert!(
        told.0.abs_diff(10) <= 3 && told.1.abs_diff(30) <= 3,
        "of four three are the heavy one's: {told:?}"
    );
    let origin = origin_of(&edge).await;
    assert_eq!(origin["servers"][0]["url"], format!("srv+http://{SERVICE}"));
    assert_eq!(origin["endpoints"].as_array().unwrap().len(), 3);
    first.stop().await;
    heavy.stop().await;
    until("the backup to step in", || async { edge.get("/late").await.text() == "backup" }).await;
}

#[tokio::test]
async fn srv_records_move_without_a_gap() {
    let origins =
        Origin::row(2, |last, _| Reply::ok(last.to_string()).field("Cache-Control", "no-store"));
    let port = origins[0].address.port();
    let moved = Arc::new(AtomicUsize::new(0));
    let step = Arc::clone(&moved);
    let dns = Dns::start(move |name, kind| {
        let step = step.load(Ordering::SeqCst);
        match (name, kind) {
            (SERVICE, RecordType::SRV) => match step {
                0 => Said::Records(vec![srv(SERVICE, (0, 0, port), "one.test")]),
                1 | 2 => Said::Records(vec![srv(SERVICE, (0, 0, port), "two.test")]),
                _ => Said::Code(ResponseCode::ServFail),
            },
            ("one.test", _) => Said::addresses("one.test", &[1], 0),
            ("two.test", _) if step >= 2 => Said::addresses("two.test", &[2], 0),
            _ => Said::Code(ResponseCode::NXDomain),
        }
    })
    .await;
    let edge = named(&dns, &[format!("srv+http://{SERVICE}")]).start();
    assert_eq!(edge.get("/").await.text(), "1");
    moved.store(1, Ordering::SeqCst);
    until("the new host to be asked for", || async { dns.asked("two.test", RecordType::A) >= 2 })
        .await;
    assert_eq!(edge.get("/").await.text(), "1", "a host without addresses takes nothing away");
    moved.store(2, Ordering::SeqCst);
    uses(&edge, &[2]).await;
    assert_eq!(edge.get("/").await.text(), "2");
    moved.store(3, Ordering::SeqCst);
    fails_once_more(&edge, "refused", 0.0).await;
    assert_eq!(edge.get("/").await.text(), "2", "the last good records are kept");
}

#[tokio::test]
async fn servers_of_srv_records_bear_the_domain_of_the_records() {
    let folder = Folder::new();
    let good = Certificate::new(&folder, &["app.test"]);
    let target = Certificate::new(&folder, &["host.test"]);
    for (certificate, expected) in [(&good, 200), (&target, 502)] {
        let origin = Origin::start_tls(certificate, |_| Reply::ok("ok"));
        let port = origin.address.port();
        let service = "_https._tcp.app.test";
        let dns = Dns::start(move |name, kind| match (name, kind) {
            (_, RecordType::SRV) => Said::Records(vec![srv(service, (0, 0, port), "host.test")]),
            ("host.test", _) => Said::addresses("host.test", &[1], 60),
            _ => Said::Code(ResponseCode::NXDomain),
        })
        .await;
        let ca = format!("\nca = {:?}", certificate.chain.display().to_string());
        let keys = dns.keys(&[format!("srv+https://{service}")]) + &ca;
        let edge = Plan::before(&[]).no_origins().origin_keys(&keys).limits(QUICK).start();
        assert_eq!(edge.get("/").await.status(), expected, "{certificate:?}");
    }
}

#[tokio::test]
async fn a_request_under_way_outlives_its_address() {
    let gate = Gate::new();
    let held = gate.clone();
    let origins = Origin::row(2, move |last, seen| match &*seen.target {
        "/slow" => Reply::ok(last.to_string()).gate(&held),
        _ => Reply::ok(last.to_string()),
    });
    let port = origins[0].address.port();
    let dns = Dns::of(APP, &[1]).await;
    let edge = Arc::new(named(&dns, &[format!("http://{APP}:{port}")]).start());
    let slow = tokio::spawn({
        let edge = Arc::clone(&edge);
        async move { edge.get("/slow").await.text().to_owned() }
    });
    gate.reached(1).await;
    dns.say(says(APP, Said::addresses(APP, &[2], 0)));
    uses(&edge, &[2]).await;
    assert_eq!(edge.get("/new").await.text(), "2");
    gate.open();
    assert_eq!(slow.await.unwrap(), "1", "drained, not cut off");
    edge.metric_becomes("atoll_origin_connections_open{origin=\"main\"}", 1.0).await;
}

#[tokio::test]
async fn a_silent_family_holds_nobody_up() {
    let origins = Origin::row(1, |last, _| Reply::ok(last.to_string()));
    let port = origins[0].address.port();
    let dns = Dns::start(|name, kind| match kind {
        RecordType::A => Said::Records(vec![a(name, local(1), 60)]),
        _ => Said::Silence,
    })
    .await;
    let edge = Plan::before(&[])
        .no_origins()
        .origin_keys(&dns.keys(&[format!("http://{APP}:{port}")]))
        .limits("origin_dns = \"7s\"")
        .start();
    let begun = Instant::now();
    assert_eq!(edge.get("/").await.text(), "1");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn of_several_addresses_the_dead_ones_cost_no_request() {
    let origins = Origin::row(1, |last, _| Reply::ok(last.to_string()));
    let port = origins[0].address.port();
    let dns = Dns::of(APP, &[7, 8, 9, 1]).await;
    let edge = named(&dns, &[format!("http://{APP}:{port}")])
        .limits("retries = 0\neject_failures = 1000\neject_share_percent = 100")
        .start();
    for number in 0..20 {
        assert_eq!(edge.post(&format!("/{number}"), "x").await.text(), "1");
    }
}
